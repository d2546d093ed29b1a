//! Decode over keys and values that are sums of outer products: the products of a slot are rows that are scored and
//! weighed as entries are, between two small sums over them. Scores and weights lie with the heads side by side, as the
//! factors of heads do in the cache: nothing is turned, and sums and the softmax are those of whole vectors.
//!
//! With keys `k_t[h] = sum_r a_tr[h] b_tr` the score of head h is `sum_r a_tr[h] (q_h . b_tr)`, and of values
//! `sum_r c_tr[h] d_tr` the weighed sum is `sum_tr (p_t c_tr[h]) d_tr`: neither a key nor a value is formed.
//!
//! # Source
//! TPA, arXiv 2501.06425, section 3.3 and appendix A (FlashTPA).
#![allow(
    clippy::needless_range_loop,
    reason = "closures are not compiled for the instructions"
)]

use super::ahead::Ahead;
use super::blocks::{calls, score_block, weigh_block};
use super::{BLOCK, Decode, Factors, Piece, Work};
use crate::element::Element;
use crate::error::{Mismatch, at_least};
use crate::rows::Rows;
use crate::scratch::whole;
use crate::simd::Simd;
use crate::softmax::rescale;
use crate::tile::{Columns, Matrix};

impl<'a, E: Element> Decode<'a, E> {
    /// What the cache must hold with factors: rows, heads and the width of a slot; nothing where there are none.
    pub(super) fn factored(&self, op: &'static str) -> Result<Vec<(Rows<'a, E>, usize, usize)>, Mismatch> {
        let Some(factors) = self.factors else {
            return Ok(Vec::new());
        };
        let wrong = |what, expected, got| Mismatch {
            op,
            what,
            expected,
            got,
        };
        let Some(values) = self.values else {
            return Err(wrong("the number of tensors of factors", 2, 1));
        };
        if self.n_kv_heads != 1 || self.tail.is_some() {
            return Err(wrong("the number of KV heads with factors", 1, self.n_kv_heads));
        }
        at_least(op, "the number of heads with factors", factors.heads, 1)?;
        let sides = [
            (self.keys, factors.keys, self.key_dim),
            (values, factors.values, self.value_dim),
        ];
        let sides = sides.map(|(rows, n, dim)| {
            if !(1..=Factors::MOST).contains(&n) {
                return Err(wrong("the number of products", Factors::MOST, n));
            }
            let width = n * (dim + factors.heads);
            if rows.row_stride != width {
                return Err(wrong(
                    "the distance between slots of factors",
                    width,
                    rows.row_stride,
                ));
            }
            Ok((rows, 1, width))
        });
        sides.into_iter().collect()
    }
}

/// Products of a block, of its keys or of its values.
const PRODUCTS: usize = 2 * BLOCK;

/// f32 of room for a piece: maxima and sums of all heads, and scores and weights of a block's products and slots.
pub(super) fn scratch(group: usize) -> usize {
    (2 + 2 * PRODUCTS) * whole(group)
}

/// The online softmax of a piece.
#[inline(always)]
pub(super) fn go_through<S: Simd, E: Element, const FINE: bool>(work: Work<'_, E>, factors: Factors) {
    let Work {
        input,
        piece: Piece {
            head: sequence,
            from,
            to,
        },
        q,
        key_width,
        value_width,
        sums,
        values: acc,
        weights,
    } = work;
    let Some(values) = &input.values else {
        return; // `check` refused it
    };
    let (group, keys) = (input.n_heads, &input.keys);
    let (keys_from, values_from) = (keys.from(sequence, 0, from), values.from(sequence, 0, from));
    let (key_row, value_row) = (input.key_dim + factors.heads, input.value_dim + factors.heads);
    let width = group.next_multiple_of(S::LANES);
    let (maxima, rest) = weights.split_at_mut(width);
    let (totals, rest) = rest.split_at_mut(width);
    maxima.fill(f32::NEG_INFINITY);
    totals.fill(0.0);
    let (products, slots) = rest.split_at_mut(PRODUCTS * width);
    // Lanes beyond the heads are computed with, and not used.
    products.fill(0.0);
    let each = PRODUCTS / factors.keys.max(factors.values);
    // Slots that may be read: those of the piece, and what follows it in the sequence.
    let in_use = input.slots[sequence] - from;
    for first in (0..to - from).step_by(each) {
        let n = each.min(to - from - first);
        let key_rows = &keys_from[first * keys.row_stride..in_use * keys.row_stride];
        let value_rows = &values_from[first * values.row_stride..in_use * values.row_stride];
        let mut ahead = Ahead::none();
        let next = first + each;
        if next < to - from {
            let n = each.min(to - from - next);
            let rows = [each * factors.keys, each * factors.values];
            let calls = calls::<S, FINE>(group, rows, [input.key_dim, input.value_dim]);
            ahead = Ahead::new(n, calls, (&keys_from[next * keys.row_stride..], keys));
            ahead.and(n, calls, (&values_from[next * values.row_stride..], values));
        }
        let columns = Columns {
            q: Matrix::of(q, key_width),
            keys: Matrix::of(key_rows, key_row),
            dim: input.key_dim,
        };
        // SAFETY: `check` found the cache long enough for all entries in use and their products side by side; `products`
        // and `slots` have PRODUCTS rows of `width`, at least as many as there are products in `each` slots; `q` and
        // `acc` have rows of whole vectors. The processor has the instructions since `run_piece` chose `S`.
        unsafe {
            let scores = Matrix::of_mut(products, width);
            score_block::<S, E, FINE, 1, true>([columns], [group, n * factors.keys], scores, &mut ahead);
            for h in (0..width).step_by(S::LANES) {
                let heads = [h, group, factors.heads];
                let (products, slots) = (products.as_mut_ptr().add(h), slots.as_mut_ptr().add(h));
                let (maximum, total) = (maxima.as_mut_ptr().add(h), totals.as_mut_ptr().add(h));
                let mut largest = S::load(maximum);
                let mut r = 0;
                for slot in 0..n {
                    let mut score = S::splat(0.0);
                    for _ in 0..factors.keys {
                        let factor = head_factors::<S, E>(key_rows, r * key_row + input.key_dim, heads);
                        score = S::mul_add(S::load(products.add(r * width)), factor, score);
                        r += 1;
                    }
                    S::store(slots.add(slot * width), score);
                    largest = S::max(largest, score);
                }
                let (mut old, mut base, mut shrink) = ([0.0; 16], [0.0; 16], [1.0; 16]);
                S::store(old.as_mut_ptr(), S::load(maximum));
                S::store(base.as_mut_ptr(), largest);
                S::store(maximum, largest);
                for lane in 0..S::LANES.min(group - h) {
                    if base[lane] != old[lane] {
                        shrink[lane] = (old[lane] - base[lane]).exp();
                        rescale::<S>(&mut acc[(h + lane) * value_width..][..value_width], shrink[lane]);
                    } else if base[lane] == f32::NEG_INFINITY {
                        // Any finite number gives the weights they deserve.
                        base[lane] = 0.0;
                    }
                }
                let base = S::load(base.as_ptr());
                let mut sum = S::mul(S::load(total), S::load(shrink.as_ptr()));
                let mut r = 0;
                for slot in 0..n {
                    let weight = S::exp(S::sub(S::load(slots.add(slot * width)), base));
                    sum = S::add(sum, weight);
                    for _ in 0..factors.values {
                        let factor = head_factors::<S, E>(value_rows, r * value_row + input.value_dim, heads);
                        S::store(products.add(r * width), S::mul(weight, factor));
                        r += 1;
                    }
                }
                S::store(total, sum);
            }
            weigh_block::<S, E, FINE, true>(
                Matrix::of(products, width),
                Matrix::of(value_rows, value_row),
                [group, n * factors.values, input.value_dim],
                Matrix::of_mut(acc, value_width),
                &mut ahead,
            );
        }
    }
    let (to_maxima, to_totals) = sums.split_at_mut(group);
    to_maxima.copy_from_slice(&maxima[..group]);
    to_totals[..group].copy_from_slice(&totals[..group]);
}

/// Factors of a product for a vector of the `group` query heads, from head h on; those of the `heads` begin at `at`.
///
/// # Safety
/// `rows` has those of all heads there, and the processor has the instructions of `S`.
#[inline(always)]
unsafe fn head_factors<S: Simd, E: Element>(rows: &[E], at: usize, [h, group, heads]: [usize; 3]) -> S::V {
    // SAFETY: a vector is read where it lies within `rows`, and else single factors, which the caller vouches for.
    unsafe {
        // What a vector holds beyond the heads belongs to the next product.
        if group <= heads && at + h + S::LANES <= rows.len() {
            return E::load::<S>(rows.as_ptr().add(at + h));
        }
        let mut few = [E::default(); 16];
        let mut column = h % heads;
        for lane in 0..S::LANES.min(group - h) {
            few[lane] = *rows.as_ptr().add(at + column);
            column += 1;
            if column == heads {
                column = 0;
            }
        }
        E::load::<S>(few.as_ptr())
    }
}
