//! Attend in bf16 by AMX: both products in tiles, the softmax between them in vectors of AVX-512.

#![allow(
    clippy::needless_range_loop,
    reason = "closures are not compiled for the instructions"
)]

use std::arch::x86_64::*;

use half::bf16;
use rayon::prelude::*;

use super::{Attend, Block, Entries, KEYS, for_each_block};
use crate::amx::{
    SIDE, STEP, TERMS, Tiles, columns_to_panels, half_of, is_available, product_2_2, rows_to_panel,
};
use crate::places::Places;
use crate::scratch::Scratch;
use crate::simd::{Avx512, Simd, exp2};
use crate::softmax::rescale;

/// Rows and columns of a product.
const PAIR: usize = 2 * SIDE;

/// As [`super::attend`], for operands that were checked. False, and nothing done, where tiles do not fit them, or there is a window: the
/// tiles multiply hidden values with zero, which must not be NaN or infinite.
pub(super) fn attend(
    input: &Attend<'_, bf16>,
    closed: &Entries<'_, bf16>,
    out: &Places<'_, bf16>,
    lse: Option<&Places<'_, f32>>,
) -> bool {
    // A window's lower end is not in its masks.
    if !is_available() || input.window != usize::MAX {
        return false;
    }
    let Some(panels) = Panels::lay_out(input, closed) else {
        return false;
    };
    for_each_block(input, |block| {
        let work = Work {
            input,
            panels: &panels,
            block,
            out,
            lse,
        };
        // SAFETY: the processor has tiles, and what they come with.
        unsafe { go_through(work) };
    });
    true
}

/// Keys and values as panels. The memory is that of f32, which has the alignment.
struct Panels {
    /// For each KV head, panels of 16 keys.
    keys: Scratch,
    /// bf16 of a panel of keys, and of a head.
    key_panel: usize,
    key_head: usize,
    /// For each KV head and block of KEYS keys, panels of 16 columns.
    values: Scratch,
    /// Columns, a multiple of PAIR.
    width: usize,
    value_head: usize,
}

impl Panels {
    /// `None` where a value is not finite.
    fn lay_out(input: &Attend<'_, bf16>, closed: &Entries<'_, bf16>) -> Option<Self> {
        let (heads, h_kv) = (input.batch * input.n_kv_heads, input.n_kv_heads);
        let (n, dim, value_dim) = (input.n_keys, input.key_dim, input.value_dim);
        let blocks = n.div_ceil(KEYS);
        let key_panel = dim.next_multiple_of(TERMS) * SIDE;
        let key_head = blocks * KEYS / SIDE * key_panel;
        let mut keys = Scratch::zeros(heads * key_head / 2);
        let width = value_dim.next_multiple_of(PAIR);
        let value_head = blocks * KEYS * width;
        let mut values = Scratch::zeros(heads * value_head / 2);
        if n == 0 {
            return Some(Self {
                keys,
                key_panel,
                key_head,
                values,
                width,
                value_head,
            });
        }
        let panels = keys
            .as_mut_slice()
            .par_chunks_exact_mut(key_panel / 2)
            .enumerate();
        panels.for_each_init(
            || vec![bf16::ZERO; SIDE * dim],
            |rows, (at, panel)| {
                let in_head = blocks * KEYS / SIDE;
                let (head, first) = (at / in_head, at % in_head * SIDE);
                let there = SIDE.min(n.saturating_sub(first));
                for (row, key) in rows.chunks_exact_mut(dim).enumerate().take(there) {
                    closed.key([head / h_kv, head % h_kv, first + row], input.shared_dim, key);
                }
                // SAFETY: as many rows are there, and the panel is for `dim` terms.
                unsafe { rows_to_panel(rows.as_ptr(), dim, there, dim, panel.as_mut_ptr().cast()) };
            },
        );
        let of_block = values.as_mut_slice().par_chunks_exact_mut(KEYS * width / 2);
        let are_finite = of_block.enumerate().map(|(at, block)| {
            let (head, first) = (at / blocks, at % blocks * KEYS);
            let there = KEYS.min(n - first);
            let row = |row: usize| closed.v.from(head / h_kv, head % h_kv, first + row);
            let is_finite = |x: &bf16| x.to_bits() & 0x7f80 != 0x7f80;
            if !(0..there).all(|at| row(at)[..value_dim].iter().all(is_finite)) {
                return false;
            }
            for column in (0..value_dim).step_by(PAIR) {
                let columns = PAIR.min(value_dim - column);
                for (step, first) in (0..there).step_by(TERMS).enumerate() {
                    let from = row(first)[column..].as_ptr();
                    let of_panel = KEYS / TERMS * STEP;
                    let n = TERMS.min(there - first);
                    // SAFETY: as many rows of as many columns are there, and the block has room for its panels.
                    unsafe {
                        let to = block.as_mut_ptr().cast::<bf16>();
                        let to = to.add(column / SIDE * of_panel + step * STEP);
                        columns_to_panels(from, closed.v.row_stride, n, columns, [to, to.add(of_panel)]);
                    }
                }
            }
            true
        });
        are_finite.reduce(|| true, |a, b| a & b).then_some(Self {
            keys,
            key_panel,
            key_head,
            values,
            width,
            value_head,
        })
    }
}

/// A block of queries of one head, and where its results go.
struct Work<'a> {
    input: &'a Attend<'a, bf16>,
    panels: &'a Panels,
    block: Block,
    out: &'a Places<'a, bf16>,
    lse: Option<&'a Places<'a, f32>>,
}

/// The online softmax of a block of queries.
///
/// # Safety
/// The processor has AMX and AVX-512, and the operands were checked.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma,f16c")]
unsafe fn go_through(work: Work<'_>) {
    let Work {
        input,
        panels,
        block,
        out,
        lse,
    } = work;
    let Block {
        sequence,
        head,
        first,
        rows,
    } = block;
    let padded = rows.next_multiple_of(PAIR);
    let (dim, width) = (input.key_dim, panels.width);
    let (q_width, steps) = (dim.next_multiple_of(TERMS), dim.div_ceil(TERMS));
    let kv_head = input.kv_head(head);

    let mut scratch = Scratch::zeros(padded * (q_width / 2 + KEYS + KEYS / 2 + width + 2) + q_width / 2);
    let (q, rest) = scratch.as_mut_slice().split_at_mut(padded * q_width / 2);
    let (scores, rest) = rest.split_at_mut(padded * KEYS);
    let (weights, rest) = rest.split_at_mut(padded * KEYS / 2);
    let (acc, rest) = rest.split_at_mut(padded * width);
    let (maxima, rest) = rest.split_at_mut(padded);
    let (totals, own_key) = rest.split_at_mut(padded);
    let (q, weights): (*mut bf16, *mut bf16) = (q.as_mut_ptr().cast(), weights.as_mut_ptr().cast());
    for row in 0..rows {
        let from = &input.q.from(sequence, head, first + row)[..dim];
        // SAFETY: `q` has `padded` rows of `q_width`.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), q.add(row * q_width), dim) };
    }
    maxima.fill(f32::NEG_INFINITY);
    if let Some(own) = input.own {
        // SAFETY: as many bf16, and every bit pattern is one.
        let own_key = unsafe { std::slice::from_raw_parts_mut(own_key.as_mut_ptr().cast::<bf16>(), dim) };
        for row in 0..rows {
            own.key([sequence, kv_head, first + row], input.shared_dim, own_key);
            let v = &own.v.from(sequence, kv_head, first + row)[..input.value_dim];
            // SAFETY: both have `dim` elements.
            let score = unsafe { dot(q.add(row * q_width), own_key.as_ptr(), dim) };
            maxima[row] = input.scale * std::f32::consts::LOG2_E * score;
            totals[row] = 1.0;
            for (to, from) in acc[row * width..].iter_mut().zip(v) {
                *to = from.to_f32();
            }
        }
    }
    let keys = panels.keys.as_slice().as_ptr().cast::<bf16>();
    let values = panels.values.as_slice().as_ptr().cast::<bf16>();
    let last = input.seen(first + rows - 1);
    let kv = sequence * input.n_kv_heads + kv_head;
    // SAFETY: panels are there for all keys up to a multiple of KEYS, scratch for `padded` rows.
    unsafe {
        let (keys, values) = (keys.add(kv * panels.key_head), values.add(kv * panels.value_head));
        let _tiles = Tiles::configure();
        for block in (0..last).step_by(KEYS) {
            let n = KEYS.min(last - block);
            for top in (0..padded).step_by(PAIR) {
                let bottom = (top + PAIR).min(rows);
                // The last row of these sees most.
                let seen = input.seen(first + bottom - 1).saturating_sub(block).min(n);
                if seen == 0 {
                    continue;
                }
                for column in (0..seen).step_by(PAIR) {
                    let panel = keys.add((block + column) / SIDE * panels.key_panel);
                    product_2_2::<false>(
                        q.add(top * q_width),
                        2 * q_width,
                        [panel, panel.add(panels.key_panel)],
                        steps,
                        scores.as_mut_ptr().add(top * KEYS + column),
                        4 * KEYS,
                        || (),
                    );
                }
                let terms = seen.next_multiple_of(TERMS);
                for row in top..bottom {
                    let seen = input.seen(first + row).saturating_sub(block).min(n);
                    let scale = soften(
                        scores.as_ptr().add(row * KEYS),
                        [seen, terms],
                        input.scale,
                        &mut maxima[row],
                        &mut totals[row],
                        weights.add(row * KEYS),
                    );
                    if scale != 1.0 {
                        rescale::<Avx512>(&mut acc[row * width..][..width], scale);
                    }
                }
                for column in (0..width).step_by(PAIR) {
                    let of_panel = KEYS / TERMS * STEP;
                    let panel = values.add(block * width + column / SIDE * of_panel);
                    product_2_2::<true>(
                        weights.add(top * KEYS),
                        2 * KEYS,
                        [panel, panel.add(of_panel)],
                        terms / TERMS,
                        acc.as_mut_ptr().add(top * width + column),
                        4 * width,
                        || (),
                    );
                }
            }
        }
    }
    for row in 0..rows {
        // SAFETY: no other task has this head's queries.
        let out = unsafe { out.part(input.place(&block, row), input.value_dim) };
        let inverse = 1.0 / totals[row];
        for (out, value) in out.iter_mut().zip(&acc[row * width..]) {
            *out = bf16::from_f32(value * inverse);
        }
        if let Some(lse) = lse {
            let at = (sequence * input.n_heads + head) * input.tokens + first + row;
            // SAFETY: the same.
            let to = unsafe { lse.part(at, 1) };
            to[0] = maxima[row] * std::f32::consts::LN_2 + totals[row].ln();
        }
    }
}

/// Turns the scores of a row into weights; those from `seen` to `terms` are zeros. Returns what earlier weights are to
/// be multiplied with.
///
/// # Safety
/// `scores` and `weights` have `terms` elements, a multiple of 32.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma,f16c")]
#[inline]
unsafe fn soften(
    scores: *const f32,
    [seen, terms]: [usize; 2],
    scale: f32,
    maximum: &mut f32,
    total: &mut f32,
    weights: *mut bf16,
) -> f32 {
    // SAFETY: the caller's.
    unsafe {
        // Everything in powers of two: the scale takes the logarithm along.
        let factor = _mm512_set1_ps(scale * std::f32::consts::LOG2_E);
        let least = _mm512_set1_ps(f32::NEG_INFINITY);
        let mut most = least;
        for i in (0..seen).step_by(SIDE) {
            let score = _mm512_loadu_ps(scores.add(i));
            most = _mm512_max_ps(most, _mm512_mask_blend_ps(mask(seen - i), least, score));
        }
        let most = _mm512_max_ps(_mm512_set1_ps(*maximum), _mm512_mul_ps(factor, most));
        let max = Avx512::largest(most);
        let base = if max == f32::NEG_INFINITY { 0.0 } else { max };
        let shift = _mm512_set1_ps(base);
        let mut sum = _mm512_setzero_ps();
        for i in (0..terms).step_by(SIDE) {
            let mut weight = _mm512_setzero_ps();
            if i < seen {
                let score = _mm512_fmsub_ps(factor, _mm512_loadu_ps(scores.add(i)), shift);
                weight = _mm512_maskz_mov_ps(mask(seen - i), exp2(score));
                sum = _mm512_add_ps(sum, weight);
            }
            _mm256_storeu_si256(weights.add(i).cast(), half_of(weight));
        }
        let shrink = if *maximum == max {
            1.0
        } else {
            (*maximum - base).exp2()
        };
        *total = *total * shrink + Avx512::sum(sum);
        *maximum = max;
        shrink
    }
}

/// The first `n` of 16 lanes.
#[inline]
fn mask(n: usize) -> __mmask16 {
    if n >= SIDE { u16::MAX } else { (1 << n) - 1 }
}

/// `a . b`.
///
/// # Safety
/// Both have `dim` elements.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
#[inline]
unsafe fn dot(a: *const bf16, b: *const bf16, dim: usize) -> f32 {
    let mut sum = _mm512_setzero_ps();
    let whole = dim / SIDE * SIDE;
    // SAFETY: the caller's.
    unsafe {
        for d in (0..whole).step_by(SIDE) {
            sum = _mm512_fmadd_ps(Avx512::load_bf16(a.add(d)), Avx512::load_bf16(b.add(d)), sum);
        }
        let mut rest = Avx512::sum(sum);
        for d in whole..dim {
            rest += (*a.add(d)).to_f32() * (*b.add(d)).to_f32();
        }
        rest
    }
}
