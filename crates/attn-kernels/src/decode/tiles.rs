//! Decode of bf16 caches by AMX, where many query heads share a KV head: 128 entries at a time, scores of 16 heads side
//! by side, so that the softmax of all heads is one of whole vectors. The tiles are fast enough that memory would wait
//! for the softmax and for the values: the next block is asked for while they are computed.

#![allow(
    clippy::needless_range_loop,
    reason = "closures are not compiled for the instructions"
)]

use std::arch::x86_64::*;

use half::bf16;

use super::ahead::Ahead;
use super::{Decode, Piece};
use crate::amx::{
    SIDE, STEP, TERMS, Tiles, half_of, in_turns, is_available, product_2_2, product_4_1, rows_to_panel,
    transposed, weigh_1_4, weigh_2_2,
};
use crate::simd::exp2;

/// Entries of a block.
const BLOCK: usize = 128;

/// Blocks are whole multiples of so many entries; fewer are copied, and zeros with them.
const REST: usize = 64;

/// Columns of the values that are weighed together.
const COLUMNS: usize = 4 * SIDE;

/// Two tiles side by side.
const PAIR: usize = 2 * SIDE;

/// bf16 of the weights of 16 heads and a block: of even columns and of odd ones for every 16 entries.
const WEIGHTS: usize = BLOCK / SIDE * 2 * STEP;

/// Heads below which the tiles would mostly multiply zeros.
const FEWEST_HEADS: usize = 8;

/// How a piece is laid out in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// Heads in whole tiles.
    pub(super) rows: usize,
    /// From one row of the values to the next: not a power of two, or 16 rows would share few sets of the first cache.
    pub(super) width: usize,
    key_dim: usize,
    value_dim: usize,
}

impl Layout {
    /// The layout for these operands; `None` where tiles do not fit them, or the processor has none.
    pub(super) fn of<E>(input: &Decode<'_, E>) -> Option<Self> {
        let group = input.n_heads / input.n_kv_heads;
        let whole = input.key_dim % TERMS == 0 && input.value_dim % COLUMNS == 0;
        let fits = group >= FEWEST_HEADS && whole;
        (fits && is_available()).then(|| Self {
            rows: group.next_multiple_of(SIDE),
            width: input.value_dim + SIDE,
            key_dim: input.key_dim,
            value_dim: input.value_dim,
        })
    }

    /// Steps of a block of so many entries, of the softmax and of both products: how often the next block can be asked
    /// for.
    fn calls(&self, entries: usize) -> usize {
        let tiles = self.rows / SIDE;
        let (pairs, single) = (tiles / 2, tiles % 2);
        let score = entries / REST * (self.key_dim / TERMS) * (2 * pairs + single);
        let weigh = entries / SIDE * (self.value_dim / PAIR * pairs + self.value_dim / COLUMNS * single);
        score + tiles * entries / SIDE + weigh
    }

    /// f32 of scratch for a piece, beside its maxima, sums and values.
    pub(super) fn scratch(&self) -> usize {
        let halves = [
            self.rows * self.key_dim,
            self.rows / SIDE * WEIGHTS,
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
    /// `[rows, width]`.
    pub(super) values: &'a mut [f32],
    pub(super) scratch: &'a mut [f32],
}

/// Scratch of a piece.
struct Room {
    /// Scores, then weights, of a block: `[BLOCK, rows]`.
    scores: *mut f32,
    /// Queries as panels of 16 heads.
    queries: *mut bf16,
    /// Weights of every 16 heads.
    weights: *mut bf16,
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
        width,
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
        let rest = weights.add(rows / SIDE * WEIGHTS);
        Room {
            scores,
            queries,
            weights,
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
            let mut ahead = Ahead::none();
            if first < to - from {
                let n = BLOCK.min(to - from - first);
                let calls = layout.calls(block.whole);
                ahead = Ahead::new(n, calls, (&key_rows[first * keys.row_stride..], keys));
                if let Some(values) = &input.values {
                    ahead.and(n, calls, (&value_rows[first * values.row_stride..], values));
                }
            }
            score(&block, layout, &room, &mut ahead);
            for tile in (0..rows).step_by(SIDE) {
                let sums = [&mut *maxima, &mut *totals];
                let scale = soften(&block, tile, rows, input.scale, sums, &room, &mut ahead);
                rescale(scale, &mut acc[tile * width..][..SIDE * width], width);
            }
            weigh(&block, layout, acc, &room, &mut ahead);
        }
        acc.chunks_exact_mut(width)
            .for_each(|row| in_turns(&mut row[..value_dim]));
        maxima.iter_mut().for_each(|max| *max *= std::f32::consts::LN_2);
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
unsafe fn score(block: &Block, layout: Layout, room: &Room, ahead: &mut Ahead) {
    let Layout { rows, key_dim, .. } = layout;
    let (steps, stride) = (key_dim / TERMS, 2 * block.key_stride);
    // SAFETY: the caller's.
    unsafe {
        for entry in (0..block.whole).step_by(REST) {
            let keys = block.keys.add(entry * block.key_stride);
            let mut tile = 0;
            while tile + PAIR <= rows {
                let queries = room.queries.add(tile * key_dim).cast_const();
                for half in [0, PAIR] {
                    product_2_2::<false>(
                        keys.add(half * block.key_stride),
                        stride,
                        [queries, queries.add(SIDE * key_dim)],
                        steps,
                        room.scores.add((entry + half) * rows + tile),
                        4 * rows,
                        || ahead.some(),
                    );
                }
                tile += PAIR;
            }
            if tile < rows {
                let queries = room.queries.add(tile * key_dim);
                let to = room.scores.add(entry * rows + tile);
                product_4_1(keys, stride, queries, steps, to, 4 * rows, || ahead.some());
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
    [maxima, totals]: [&mut [f32]; 2],
    room: &Room,
    ahead: &mut Ahead,
) -> Option<[f32; SIDE]> {
    // SAFETY: the caller's.
    unsafe {
        // Everything in powers of two: the scale takes the logarithm along.
        let factor = _mm512_set1_ps(scale * std::f32::consts::LOG2_E);
        let old = _mm512_loadu_ps(maxima[tile..].as_ptr());
        // What does not count weighs nothing, and no loop need ask for it.
        let nothing = _mm512_set1_ps(f32::NEG_INFINITY);
        for entry in block.n..block.whole {
            _mm512_storeu_ps(room.scores.add(entry * rows + tile), nothing);
        }
        let mut most = [_mm512_set1_ps(f32::NEG_INFINITY); 4];
        for first in (0..block.whole).step_by(4) {
            for i in 0..4 {
                let score = _mm512_loadu_ps(room.scores.add((first + i) * rows + tile));
                most[i] = _mm512_max_ps(most[i], score);
            }
        }
        let most = _mm512_max_ps(_mm512_max_ps(most[0], most[1]), _mm512_max_ps(most[2], most[3]));
        let max = _mm512_max_ps(old, _mm512_mul_ps(factor, most));
        // Where there is nothing but -infinity any finite number gives the weights they deserve.
        let base = _mm512_mask_blend_ps(_mm512_cmpeq_ps_mask(max, nothing), max, _mm512_setzero_ps());
        let mut sums = [_mm512_setzero_ps(); 2];
        for (step, first) in (0..block.whole).step_by(SIDE).enumerate() {
            ahead.some();
            let mut words = [_mm512_setzero_si512(); SIDE];
            for i in 0..SIDE {
                let score = _mm512_loadu_ps(room.scores.add((first + i) * rows + tile));
                let weight = exp2(_mm512_fmsub_ps(factor, score, base));
                sums[i % 2] = _mm512_add_ps(sums[i % 2], weight);
                words[i] = _mm512_cvtepu16_epi32(half_of(weight));
            }
            // Words of entries become words of heads.
            let words = transposed(words);
            let to = room.weights.add(tile / SIDE * WEIGHTS + 2 * step * STEP);
            for head in 0..SIDE {
                let at = to.add(head * TERMS);
                _mm512_storeu_si512(at.cast(), words[head]);
                _mm512_storeu_si512(at.add(STEP).cast(), _mm512_slli_epi32::<16>(words[head]));
            }
        }
        let sum = _mm512_add_ps(sums[0], sums[1]);
        let grew = _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(old, max);
        let shrink = exp2(_mm512_sub_ps(old, base));
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
fn rescale(scale: Option<[f32; SIDE]>, acc: &mut [f32], width: usize) {
    let Some(scale) = scale else { return };
    for (row, scale) in acc.chunks_exact_mut(width).zip(scale) {
        row.iter_mut().for_each(|value| *value *= scale);
    }
}

/// Adds the weighed values.
///
/// # Safety
/// Tiles are configured, and everything is of the layout's size.
#[inline]
unsafe fn weigh(block: &Block, layout: Layout, acc: &mut [f32], room: &Room, ahead: &mut Ahead) {
    let Layout {
        rows,
        width,
        value_dim,
        ..
    } = layout;
    let (steps, stride) = (block.whole / SIDE, 2 * block.value_stride);
    let mut tile = 0;
    // SAFETY: the caller's.
    unsafe {
        while tile + PAIR <= rows {
            let weights = room.weights.add(tile / SIDE * WEIGHTS).cast_const();
            for column in (0..value_dim).step_by(PAIR) {
                let both = [weights, weights.add(WEIGHTS)];
                let to = acc.as_mut_ptr().add(tile * width + column);
                weigh_2_2(
                    both,
                    block.values.add(column),
                    stride,
                    steps,
                    to,
                    4 * width,
                    || ahead.some(),
                );
            }
            tile += PAIR;
        }
        if tile < rows {
            let weights = room.weights.add(tile / SIDE * WEIGHTS);
            for column in (0..value_dim).step_by(COLUMNS) {
                let to = acc.as_mut_ptr().add(tile * width + column);
                weigh_1_4(
                    weights,
                    block.values.add(column),
                    stride,
                    steps,
                    to,
                    4 * width,
                    || ahead.some(),
                );
            }
        }
    }
}
