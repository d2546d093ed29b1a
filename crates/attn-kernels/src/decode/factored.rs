//! Decode over keys and values that are sums of outer products: the products of a slot are rows that are scored and
//! weighed as entries are, between two small sums over them.
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
use super::{BLOCK, Decode, Factors, Piece, Work, calls, score_block, weigh_block};
use crate::element::Element;
use crate::error::{Mismatch, at_least};
use crate::rows::Rows;
use crate::simd::Simd;
use crate::softmax::{rescale, soften};
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

/// The online softmax of a piece.
#[inline(always)]
pub(super) fn go_through<S: Simd, E: Element>(work: Work<'_, E>, factors: Factors) {
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
    let (maxima, totals) = sums.split_at_mut(group);
    maxima.fill(f32::NEG_INFINITY);
    // Of the products of a block, `[group, BLOCK]`, and of its slots.
    let (products, slots) = weights.split_at_mut(group * BLOCK);
    let each = BLOCK / factors.keys.max(factors.values);
    for first in (0..to - from).step_by(each) {
        let n = each.min(to - from - first);
        let key_rows = &keys_from[first * keys.row_stride..];
        let value_rows = &values_from[first * values.row_stride..];
        let mut ahead = Ahead::none();
        let next = first + each;
        if next < to - from {
            let n = each.min(to - from - next);
            let calls = calls::<S, false>(group, BLOCK, [input.key_dim, input.value_dim]);
            ahead = Ahead::new(n, calls, (&keys_from[next * keys.row_stride..], keys));
            ahead.and(n, calls, (&values_from[next * values.row_stride..], values));
        }
        let columns = Columns {
            q: Matrix::of(q, key_width),
            keys: Matrix::of(key_rows, key_row),
            dim: input.key_dim,
        };
        // SAFETY: `check` found the cache long enough for all entries in use and their products side by side; `products`
        // and `slots` have `group` rows of BLOCK, as many as there are products in `each` slots; `q` and `acc` have rows
        // of whole vectors. The processor has the instructions since `run_piece` chose `S`.
        unsafe {
            score_block::<S, E, false, 1>([columns], [group, n * factors.keys], products, &mut ahead);
            for h in 0..group {
                let column = h % factors.heads;
                for slot in 0..n {
                    let mut score = 0.0;
                    for r in slot * factors.keys..(slot + 1) * factors.keys {
                        score +=
                            products[h * BLOCK + r] * key_rows[r * key_row + input.key_dim + column].to_f32();
                    }
                    slots[h * BLOCK + slot] = score;
                }
                let scale = soften::<S>(&mut slots[h * BLOCK..][..n], &mut maxima[h], &mut totals[h]);
                if scale != 1.0 {
                    rescale::<S>(&mut acc[h * value_width..][..value_width], scale);
                }
                for slot in 0..n {
                    let weight = slots[h * BLOCK + slot];
                    for r in slot * factors.values..(slot + 1) * factors.values {
                        products[h * BLOCK + r] =
                            weight * value_rows[r * value_row + input.value_dim + column].to_f32();
                    }
                }
            }
            weigh_block::<S, E, false>(
                products,
                Matrix::of(value_rows, value_row),
                [group, n * factors.values, input.value_dim],
                Matrix::of_mut(acc, value_width),
                &mut ahead,
            );
        }
    }
}
