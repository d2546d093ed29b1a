//! Decode of bf16 caches by AMX, where many query heads share a KV head: 64 entries at a time, scores of 16 heads side
//! by side, so that the softmax of all heads is one of whole vectors.

#![allow(
    clippy::needless_range_loop,
    reason = "closures are not compiled for the instructions"
)]

use std::arch::x86_64::*;

use half::bf16;

use super::{Decode, Piece};
use crate::amx::{
    SIDE, STEP, TERMS, Tiles, columns_to_panel, half_of, is_available, product_1_1, rows_to_panel, transposed,
};
use crate::simd::{Avx512, Simd};

/// Entries of a block.
const BLOCK: usize = 64;

/// Entries of a block that is copied because fewer are left.
const REST: usize = 32;

/// Heads below which the tiles would mostly multiply zeros.
const FEWEST_HEADS: usize = 8;

/// How a piece is laid out in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// Heads in whole tiles.
    pub(super) rows: usize,
    key_dim: usize,
    value_dim: usize,
}

impl Layout {
    /// The layout for these operands; `None` where tiles do not fit them, or the processor has none.
    pub(super) fn of<E>(input: &Decode<'_, E>) -> Option<Self> {
        let group = input.n_heads / input.n_kv_heads;
        let fits = group >= FEWEST_HEADS && input.key_dim % TERMS == 0 && input.value_dim % SIDE == 0;
        (fits && is_available()).then(|| Self {
            rows: group.next_multiple_of(SIDE),
            key_dim: input.key_dim,
            value_dim: input.value_dim,
        })
    }

    /// f32 of scratch for a piece, beside its maxima, sums and values.
    pub(super) fn scratch(&self) -> usize {
        let halves = [
            self.rows * self.key_dim,
            self.rows * BLOCK,
            BLOCK / TERMS * STEP,
            REST * (self.key_dim + self.value_dim),
        ];
        BLOCK * self.rows + halves.iter().sum::<usize>() / 2
    }
}

/// A piece and where its results go.
pub(super) struct Work<'a> {
    pub(super) input: &'a Decode<'a, bf16>,
    pub(super) piece: Piece,
    pub(super) layout: Layout,
    /// Maxima, then sums, of every row.
    pub(super) sums: &'a mut [f32],
    /// `[rows, Dv]`.
    pub(super) values: &'a mut [f32],
    pub(super) scratch: &'a mut [f32],
}

/// Scratch of a piece.
struct Room {
    /// Scores, then weights, of a block: `[BLOCK, rows]`.
    scores: *mut f32,
    /// Queries as panels of 16 heads.
    queries: *mut bf16,
    /// Weights as rows of a product: `[rows, BLOCK]`.
    weights: *mut bf16,
    /// 16 columns of the values of a block as a panel.
    panel: *mut bf16,
    /// Entries that are too few for a block, and zeros.
    rest: [*mut bf16; 2],
}

/// The online softmax of a piece.
///
/// # Safety
/// `layout` is that of `input`, which was checked; `sums`, `values` and `scratch` are as long as it says.
pub(super) unsafe fn go_through(work: Work<'_>) {
    let Work {
        input,
        piece: Piece { head, from, to },
        layout,
        sums,
        values: acc,
        scratch,
    } = work;
    let Layout {
        rows,
        key_dim,
        value_dim,
    } = layout;
    let group = input.n_heads / input.n_kv_heads;
    let (maxima, totals) = sums.split_at_mut(rows);
    maxima.fill(f32::NEG_INFINITY);
    let keys = &input.keys;
    let values = input.values.as_ref().unwrap_or(keys);
    // SAFETY: the parts are those that `scratch` counts, one after the other.
    let room = unsafe {
        let scores = scratch.as_mut_ptr();
        let queries: *mut bf16 = scores.add(BLOCK * rows).cast();
        let weights = queries.add(rows * key_dim);
        let panel = weights.add(rows * BLOCK);
        let rest = panel.add(BLOCK / TERMS * STEP);
        Room {
            scores,
            queries,
            weights,
            panel,
            rest: [rest, rest.add(REST * key_dim)],
        }
    };
    let q = &input.q[head * group * key_dim..][..group * key_dim];
    for (panel, heads) in q.chunks(SIDE * key_dim).enumerate() {
        // SAFETY: there are as many panels as chunks of 16 heads, and the processor has AVX-512.
        unsafe {
            let panel = room.queries.add(panel * SIDE * key_dim);
            rows_to_panel(heads.as_ptr(), key_dim, heads.len() / key_dim, key_dim, panel);
        }
    }
    let (sequence, kv_head) = (head / input.n_kv_heads, head % input.n_kv_heads);
    let (key_rows, value_rows) = (
        keys.from(sequence, kv_head, from),
        values.from(sequence, kv_head, from),
    );
    // SAFETY: the processor has tiles; `check` found the cache long enough for the entries in use, and blocks that
    // would go beyond them are copied.
    unsafe {
        let _tiles = Tiles::configure();
        let mut first = 0;
        while first < to - from {
            let n = BLOCK.min(to - from - first);
            let mut block = Block {
                keys: key_rows[first * keys.row_stride..].as_ptr(),
                key_stride: keys.row_stride,
                values: value_rows[first * values.row_stride..].as_ptr(),
                value_stride: values.row_stride,
                n,
                whole: n / REST * REST,
            };
            if block.whole == 0 {
                copy_rows(block.keys, block.key_stride, n, key_dim, room.rest[0]);
                copy_rows(block.values, block.value_stride, n, value_dim, room.rest[1]);
                block = Block {
                    keys: room.rest[0],
                    key_stride: key_dim,
                    values: room.rest[1],
                    value_stride: value_dim,
                    whole: REST,
                    ..block
                };
            }
            block.n = block.n.min(block.whole);
            first += block.n;
            score(&block, layout, &room);
            for tile in (0..rows).step_by(SIDE) {
                let scale = soften(&block, tile, rows, input.scale, maxima, totals, &room);
                rescale(scale, &mut acc[tile * value_dim..][..SIDE * value_dim], value_dim);
            }
            weigh(&block, layout, acc, &room);
        }
    }
}

/// Entries that are gone through together.
#[derive(Clone, Copy)]
struct Block {
    keys: *const bf16,
    key_stride: usize,
    values: *const bf16,
    value_stride: usize,
    /// Entries that count.
    n: usize,
    /// Entries that can be read, a multiple of REST.
    whole: usize,
}

/// Copies `n` rows of `width`, and zeros to make REST of them.
///
/// # Safety
/// `from` has the rows, `to` room for REST.
unsafe fn copy_rows(from: *const bf16, stride: usize, n: usize, width: usize, to: *mut bf16) {
    // SAFETY: the caller's; zeros are a bf16.
    unsafe {
        for row in 0..n {
            std::ptr::copy_nonoverlapping(from.add(row * stride), to.add(row * width), width);
        }
        std::ptr::write_bytes(to.add(n * width), 0, (REST - n) * width);
    }
}

/// `[whole, rows]` scores, not scaled.
///
/// # Safety
/// Tiles are configured, and everything is of the layout's size.
#[inline]
unsafe fn score(block: &Block, layout: Layout, room: &Room) {
    let Layout { rows, key_dim, .. } = layout;
    // SAFETY: the caller's.
    unsafe {
        for entry in (0..block.whole).step_by(SIDE) {
            for tile in (0..rows).step_by(SIDE) {
                product_1_1::<false>(
                    block.keys.add(entry * block.key_stride),
                    2 * block.key_stride,
                    room.queries.add(tile * key_dim),
                    key_dim / TERMS,
                    room.scores.add(entry * rows + tile),
                    4 * rows,
                );
            }
        }
    }
}

/// Turns the scores of 16 heads into weights, as rows for the next product. Returns what earlier weights are to be
/// multiplied with, `None` where no maximum grew.
///
/// # Safety
/// Everything is of the layout's size, and the processor has AVX-512.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma,f16c")]
unsafe fn soften(
    block: &Block,
    tile: usize,
    rows: usize,
    scale: f32,
    maxima: &mut [f32],
    totals: &mut [f32],
    room: &Room,
) -> Option<[f32; SIDE]> {
    // SAFETY: the caller's.
    unsafe {
        let factor = _mm512_set1_ps(scale);
        let old = _mm512_loadu_ps(maxima[tile..].as_ptr());
        let mut max = old;
        for entry in 0..block.n {
            let score = _mm512_loadu_ps(room.scores.add(entry * rows + tile));
            max = _mm512_max_ps(max, _mm512_mul_ps(factor, score));
        }
        // Where there is nothing but -infinity any finite number gives the weights they deserve.
        let nothing = _mm512_cmpeq_ps_mask(max, _mm512_set1_ps(f32::NEG_INFINITY));
        let base = _mm512_mask_blend_ps(nothing, max, _mm512_setzero_ps());
        let mut sum = _mm512_setzero_ps();
        for first in (0..block.whole).step_by(TERMS) {
            // Two entries of a head in one word, then words of entries become words of heads.
            let mut pairs = [_mm512_setzero_si512(); SIDE];
            for i in 0..SIDE {
                let mut halves = [_mm512_setzero_si512(); 2];
                for j in 0..2 {
                    let entry = first + 2 * i + j;
                    if entry < block.n {
                        let at = room.scores.add(entry * rows + tile);
                        let score = _mm512_mul_ps(factor, _mm512_loadu_ps(at));
                        let weight = Avx512::exp(_mm512_sub_ps(score, base));
                        sum = _mm512_add_ps(sum, weight);
                        halves[j] = _mm512_cvtepu16_epi32(half_of(weight));
                    }
                }
                pairs[i] = _mm512_or_si512(halves[0], _mm512_slli_epi32::<16>(halves[1]));
            }
            let words = transposed(pairs);
            for head in 0..SIDE {
                let to = room.weights.add((tile + head) * BLOCK + first);
                _mm512_storeu_si512(to.cast(), words[head]);
            }
        }
        let grew = _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(old, max);
        let shrink = Avx512::exp(_mm512_sub_ps(old, base));
        let shrink = _mm512_mask_blend_ps(grew, _mm512_set1_ps(1.0), shrink);
        let total = totals[tile..].as_mut_ptr();
        _mm512_storeu_ps(total, _mm512_fmadd_ps(_mm512_loadu_ps(total), shrink, sum));
        _mm512_storeu_ps(maxima[tile..].as_mut_ptr(), max);
        if grew == 0 {
            return None;
        }
        let mut scale = [0.0; SIDE];
        _mm512_storeu_ps(scale.as_mut_ptr(), shrink);
        Some(scale)
    }
}

/// Multiplies the values of 16 heads.
fn rescale(scale: Option<[f32; SIDE]>, acc: &mut [f32], value_dim: usize) {
    let Some(scale) = scale else { return };
    for (row, scale) in acc.chunks_exact_mut(value_dim).zip(scale) {
        row.iter_mut().for_each(|value| *value *= scale);
    }
}

/// Adds the weighed values.
///
/// # Safety
/// Tiles are configured, and everything is of the layout's size.
#[inline]
unsafe fn weigh(block: &Block, layout: Layout, acc: &mut [f32], room: &Room) {
    let Layout { rows, value_dim, .. } = layout;
    // SAFETY: the caller's.
    unsafe {
        for column in (0..value_dim).step_by(SIDE) {
            for (step, first) in (0..block.whole).step_by(TERMS).enumerate() {
                let from = block.values.add(first * block.value_stride + column);
                columns_to_panel(from, block.value_stride, TERMS, room.panel.add(step * STEP));
            }
            for tile in (0..rows).step_by(SIDE) {
                product_1_1::<true>(
                    room.weights.add(tile * BLOCK),
                    2 * BLOCK,
                    room.panel,
                    block.whole / TERMS,
                    acc.as_mut_ptr().add(tile * value_dim + column),
                    4 * value_dim,
                );
            }
        }
    }
}
