//! Decode: one query per sequence against its cached entries.
//!
//! The cache is cut into pieces along its entries, several for each thread, and every piece is an online softmax of
//! its own over blocks of 32 entries; pieces of one head are joined at the end, always in the same order. All query
//! heads of a KV head share one pass: a block is read from memory once, for its scores, and is still in the first
//! cache when its values are weighed. Where values are the first columns of the keys (MLA, MTLA) there is only one
//! stream to read. Columns of keys that all KV heads have in common ([`Tail`]: the rope keys of GTA and GLA) are stored
//! once, and keys and values that are sums of outer products ([`Factors`]: TPA) are never formed.
//!
//! # Source
//! Split along the entries: Flash-Decoding (Dao et al., 2023). Online softmax: Milakov and Gimelshein, 2018.

mod ahead;
mod blocks;
mod factored;
#[cfg(target_arch = "x86_64")]
mod tiles;
#[cfg(not(target_arch = "x86_64"))]
mod tiles {
    /// Nothing has it.
    #[derive(Clone, Copy)]
    pub(super) struct Layout {
        pub(super) rows: usize,
        pub(super) width: usize,
    }

    impl Layout {
        pub(super) fn scratch(&self) -> usize {
            0
        }
    }
}

use rayon::prelude::*;

use self::ahead::Ahead;
use self::blocks::{calls, score_block, weigh_block};
use crate::element::Element;
use crate::error::{Mismatch, at_least, product};
use crate::level::{Level, for_each_level};
use crate::rows::Rows;
use crate::scratch::{Scratch, whole};
use crate::simd::Simd;
use crate::softmax::{rescale, soften};
use crate::tile::{Columns, Matrix};

/// Entries of a block: its keys and values stay in the first cache.
const BLOCK: usize = 32;

/// Entries below which a piece is not worth a task of its own.
const SMALLEST_PIECE: usize = 128;

/// Values of pieces up to which joining them takes less time than waking a thread for it.
const SMALLEST_JOIN: usize = 1 << 16;

/// Pieces a thread gets at least, where there is work for them: threads are not equally fast.
const PIECES_A_THREAD: usize = 4;

/// The last columns of keys, where all KV heads have them in common.
#[derive(Debug, Clone, Copy)]
pub struct Tail<'a, E> {
    /// `[B, 1, C, dim]`.
    pub rows: Rows<'a, E>,
    /// How many of the Dk columns they are.
    pub dim: usize,
}

/// Keys and values as sums of outer products: that of query head h is `sum_r a_r[h] b_r`. What is cached is, for each r
/// in turn, `b_r` (Dk or Dv wide) and then `a_r` (one for each head).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Factors {
    /// Heads that factors are for, A; query head h has that of `h mod A`.
    pub heads: usize,
    /// Products of a key, 1 to [`Factors::MOST`].
    pub keys: usize,
    /// Products of a value, 1 to [`Factors::MOST`].
    pub values: usize,
}

impl Factors {
    /// The most products of a key or a value.
    pub const MOST: usize = BLOCK;
}

/// Operands of [`decode`](decode()).
#[derive(Debug, Clone, Copy)]
pub struct Decode<'a, E> {
    /// `[B, H, Dk]`, without gaps.
    pub q: &'a [E],
    /// `[B, Hkv, C, Dk]`, without the columns of the tail, or with the values' where these are more; with factors
    /// `[B, 1, C, R (Dk + A)]`.
    pub keys: Rows<'a, E>,
    /// `[B, Hkv, C, Dv]`, or `[B, 1, C, R (Dv + A)]`; `None` where values are the first columns of the keys.
    pub values: Option<Rows<'a, E>>,
    /// The last columns of the keys, where they are apart.
    pub tail: Option<Tail<'a, E>>,
    /// What keys and values are made of, where they are not stored themselves.
    pub factors: Option<Factors>,
    /// Query heads H.
    pub n_heads: usize,
    /// KV heads Hkv, which H is a multiple of.
    pub n_kv_heads: usize,
    /// Dk.
    pub key_dim: usize,
    /// Dv.
    pub value_dim: usize,
    /// Entries in use of each sequence, at least one; what lies beyond is never read.
    pub slots: &'a [usize],
    /// Factor of the scores, above 0.
    pub scale: f32,
}

/// Entries of one sequence and KV head that one task goes through.
#[derive(Debug, Clone, Copy)]
struct Piece {
    /// Sequence times KV heads plus KV head.
    head: usize,
    from: usize,
    to: usize,
}

/// `out = softmax(scale q K^T) V`, `[B, H, Dv]`, over each sequence's entries in use.
///
/// # Errors
/// [`Mismatch`] where a slice is too short for what the sizes say.
pub fn decode<E: Element>(input: &Decode<'_, E>, level: Level, out: &mut [E]) -> Result<(), Mismatch> {
    E::decode(input, level, out)
}

/// The same over a part of a sequence's entries, to be joined with other parts: `out` in f32, and in `logs` `[B, H]`
/// the logarithm of the sum of exponentials of the part's scores. Parts o_i with logarithms l_i are the whole
/// `sum_i o_i exp(l_i) / sum_i exp(l_i)`.
///
/// # Errors
/// [`Mismatch`] where a slice is too short for what the sizes say.
pub fn decode_part<E: Element>(
    input: &Decode<'_, E>,
    level: Level,
    out: &mut [f32],
    logs: &mut [f32],
) -> Result<(), Mismatch> {
    E::decode_part(input, level, out, logs)
}

pub(crate) fn run_part<E: Element>(
    input: &Decode<'_, E>,
    level: Level,
    out: &mut [f32],
    logs: &mut [f32],
) -> Result<(), Mismatch> {
    let expected = product(&[input.slots.len(), input.n_heads]);
    if logs.len() != expected {
        return Err(Mismatch {
            op: "decode",
            what: "the length of the logarithms",
            expected,
            got: logs.len(),
        });
    }
    run(input, level, out, Some(logs))
}

pub(crate) fn run<E: Element, O: Element>(
    input: &Decode<'_, E>,
    level: Level,
    out: &mut [O],
    mut logs: Option<&mut [f32]>,
) -> Result<(), Mismatch> {
    input.check(out.len())?;
    let group = input.n_heads / input.n_kv_heads;
    let tiled = tiled(input, level);
    let rows = tiled.map_or(group, |layout| layout.rows);
    let key_width = whole(input.own_dim()) + whole(input.tail_dim());
    let value_width = tiled.map_or(whole(input.value_dim), |layout| layout.width);
    let q = match tiled {
        Some(_) => Scratch::default(),
        None => scaled(input, key_width),
    };
    let (pieces, first) = pieces(input);
    // A piece's maxima and sums of its heads, then their values, then room for a block.
    let heads = whole(2 * rows);
    let room = match (tiled, input.factors) {
        (Some(layout), _) => layout.scratch(),
        (None, Some(_)) => factored::scratch(group),
        (None, None) => group * BLOCK,
    };
    let state = whole(heads + rows * value_width + room);
    let mut states = Scratch::unwritten(pieces.len() * state);
    let run = |(piece, state): (&Piece, &mut [f32])| {
        let (sums, rest) = state.split_at_mut(heads);
        let (values, room) = rest.split_at_mut(rows * value_width);
        sums.fill(0.0);
        values.fill(0.0);
        #[cfg(target_arch = "x86_64")]
        if let Some(layout) = tiled {
            let work = tiles::Work {
                // SAFETY: there is a layout for bf16 alone, so that both are the same type.
                input: unsafe { &*std::ptr::from_ref(input).cast::<Decode<'_, half::bf16>>() },
                piece: *piece,
                layout,
                sums,
                values,
                scratch: room,
            };
            // SAFETY: the layout is that of the operands, which were checked, and so are the lengths.
            return unsafe { tiles::go_through(work) };
        }
        let work = Work {
            input,
            piece: *piece,
            q: &q.as_slice()[piece.head * group * key_width..][..group * key_width],
            key_width,
            value_width,
            sums,
            values,
            weights: room,
        };
        run_piece(level, work);
    };
    let states_of = states.as_mut_slice().par_chunks_exact_mut(state);
    pieces.par_iter().zip(states_of).for_each(run);

    for head in 0..first.len() - 1 {
        let own = &mut states.as_mut_slice()[first[head] * state..first[head + 1] * state];
        for h in 0..group {
            let log = maxima_to_weights(own, state, h, rows);
            if let Some(logs) = &mut logs {
                logs[head * group + h] = log;
            }
        }
    }
    let states = states.as_slice();
    let join_head = |(head, out): (usize, &mut [O])| {
        let own = &states[first[head] * state..first[head + 1] * state];
        for (h, out) in out.chunks_exact_mut(input.value_dim).enumerate() {
            join(own, state, h, heads + h * value_width, out);
        }
    };
    let each = group * input.value_dim;
    if pieces.len() * each <= SMALLEST_JOIN {
        out.chunks_exact_mut(each).enumerate().for_each(join_head);
    } else {
        out.par_chunks_exact_mut(each).enumerate().for_each(join_head);
    }
    Ok(())
}

/// The layout for tiles, where these are used.
#[cfg(target_arch = "x86_64")]
fn tiled<E: Element>(input: &Decode<'_, E>, level: Level) -> Option<tiles::Layout> {
    (E::IS_BF16 && level == Level::Amx && input.tail.is_none() && input.factors.is_none())
        .then(|| tiles::Layout::of(input))
        .flatten()
}

/// No tiles here.
#[cfg(not(target_arch = "x86_64"))]
fn tiled<E: Element>(_: &Decode<'_, E>, _: Level) -> Option<tiles::Layout> {
    None
}

impl<E> Decode<'_, E> {
    /// Columns of the keys that all heads have in common.
    fn tail_dim(&self) -> usize {
        self.tail.as_ref().map_or(0, |tail| tail.dim)
    }

    /// Columns of the keys that each head has for itself.
    fn own_dim(&self) -> usize {
        self.key_dim - self.tail_dim()
    }
}

impl<E: Element> Decode<'_, E> {
    fn check(&self, out: usize) -> Result<(), Mismatch> {
        let op = "decode";
        let wrong = |what, expected, got| {
            Err(Mismatch {
                op,
                what,
                expected,
                got,
            })
        };
        let (b, h, h_kv) = (self.slots.len(), self.n_heads, self.n_kv_heads);
        if h_kv == 0 || h == 0 || h % h_kv != 0 {
            return wrong("the number of heads", h_kv.max(1), h);
        }
        if self.key_dim == 0 || self.value_dim == 0 {
            return wrong("the size of a head", 1, 0);
        }
        at_least(
            op,
            "the length of q",
            self.q.len(),
            product(&[b, h, self.key_dim]),
        )?;
        let expected = product(&[b, h, self.value_dim]);
        if out != expected {
            return wrong("the length of the output", expected, out);
        }
        let mut all = self.factored(op)?;
        if all.is_empty() {
            at_least(op, "the size of a key", self.key_dim, self.tail_dim() + 1)?;
            // Values among the keys lie within their rows, whatever of these is multiplied with queries.
            let prefix = if self.values.is_none() { self.value_dim } else { 0 };
            all.push((self.keys, h_kv, self.own_dim().max(prefix)));
            if self.tail.is_none() {
                at_least(op, "the width of keys that hold values", self.key_dim, prefix)?;
            }
            all.extend(self.values.map(|values| (values, h_kv, self.value_dim)));
            all.extend(self.tail.map(|tail| (tail.rows, 1, tail.dim)));
        }
        for (rows, heads, dim) in all {
            for (sequence, &slots) in self.slots.iter().enumerate() {
                if slots == 0 {
                    return wrong("the number of entries in use", 1, 0);
                }
                let end = product(&[sequence, rows.batch_stride]);
                let data = rows.data.get(end.min(rows.data.len())..).unwrap_or_default();
                Rows { data, ..rows }.check(op, "the length of the cache", [1, heads, slots, dim])?;
            }
        }
        Ok(())
    }
}

/// The queries in f32, scaled: columns of heads' own keys in whole vectors, then those of the tail.
fn scaled<E: Element>(input: &Decode<'_, E>, width: usize) -> Scratch {
    let rows = input.slots.len() * input.n_heads;
    let mut q = Scratch::unwritten(rows * width);
    let from = input.q.chunks_exact(input.key_dim);
    for (to, from) in q.as_mut_slice().chunks_exact_mut(width).zip(from) {
        let (own, tail) = from.split_at(input.own_dim());
        let (to_own, to_tail) = to.split_at_mut(whole(own.len()));
        for (to, from) in [(to_own, own), (to_tail, tail)] {
            let (to, rest) = to.split_at_mut(from.len());
            for (to, from) in to.iter_mut().zip(from) {
                *to = from.to_f32() * input.scale;
            }
            rest.fill(0.0);
        }
    }
    q
}

/// The pieces, those of one head side by side, and the place of every head's first.
fn pieces<E>(input: &Decode<'_, E>) -> (Vec<Piece>, Vec<usize>) {
    let total: usize = input.slots.iter().sum::<usize>() * input.n_kv_heads;
    let most = total.div_ceil(PIECES_A_THREAD * rayon::current_num_threads());
    let most = most.max(SMALLEST_PIECE);
    let mut pieces = Vec::with_capacity(total.div_ceil(most) + input.slots.len() * input.n_kv_heads);
    let mut first = Vec::with_capacity(input.slots.len() * input.n_kv_heads + 1);
    for head in 0..input.slots.len() * input.n_kv_heads {
        first.push(pieces.len());
        let slots = input.slots[head / input.n_kv_heads];
        let each = slots.div_ceil(slots.div_ceil(most)).next_multiple_of(BLOCK);
        for from in (0..slots).step_by(each) {
            let to = (from + each).min(slots);
            pieces.push(Piece { head, from, to });
        }
    }
    first.push(pieces.len());
    (pieces, first)
}

/// Puts in place of the maxima of head h, one in each piece, what the values of the piece are to be multiplied with.
/// The sums lie `sums` behind the maxima. Returns the logarithm of the sum of all exponentials.
fn maxima_to_weights(states: &mut [f32], state: usize, h: usize, sums: usize) -> f32 {
    let max = states
        .chunks_exact(state)
        .map(|state| state[h])
        .fold(f32::NEG_INFINITY, |a, b| if b > a || b.is_nan() { b } else { a });
    let mut total = 0.0;
    for state in states.chunks_exact_mut(state) {
        state[h] = (state[h] - max).exp();
        total += state[h] * state[sums + h];
    }
    for state in states.chunks_exact_mut(state) {
        state[h] /= total;
    }
    max + total.ln()
}

/// The values of head h, which begin at `values` in each piece, added up by the weights of the pieces.
fn join<E: Element>(states: &[f32], state: usize, h: usize, values: usize, out: &mut [E]) {
    for (at, out) in out.chunks_mut(16).enumerate() {
        let mut sums = [0.0; 16];
        for state in states.chunks_exact(state) {
            let values = &state[values + 16 * at..][..out.len()];
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum += state[h] * value;
            }
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = E::from_f32(sum);
        }
    }
}

/// A piece and where its results go.
struct Work<'a, E> {
    input: &'a Decode<'a, E>,
    piece: Piece,
    /// `[group, key_width]`.
    q: &'a [f32],
    key_width: usize,
    value_width: usize,
    /// Maxima, then sums, of every head.
    sums: &'a mut [f32],
    /// `[group, value_width]`.
    values: &'a mut [f32],
    /// `[group, BLOCK]`, or what [`factored::scratch`] says.
    weights: &'a mut [f32],
}

for_each_level! {
    /// The online softmax of a piece.
    fn run_piece(level, Work<E>) = go_through
}

#[inline(always)]
fn go_through<S: Simd, E: Element>(work: Work<'_, E>) {
    let group = work.input.n_heads / work.input.n_kv_heads;
    // Where a tile computes little, memory is asked at every step of it; where it computes much, that would cost more
    // than it brings.
    let is_fine = group <= 8 && work.input.key_dim <= 128;
    if let Some(factors) = work.input.factors {
        return if is_fine {
            factored::go_through::<S, E, true>(work, factors)
        } else {
            factored::go_through::<S, E, false>(work, factors)
        };
    }
    match (is_fine, work.input.tail) {
        (true, None) => go_through_by::<S, E, true, 1>(work),
        (false, None) => go_through_by::<S, E, false, 1>(work),
        (true, Some(_)) => go_through_by::<S, E, true, 2>(work),
        (false, Some(_)) => go_through_by::<S, E, false, 2>(work),
    }
}

/// The online softmax of a piece, keys being in P parts: what each head has for itself and, where there are two, the
/// tail.
#[inline(always)]
fn go_through_by<S: Simd, E: Element, const FINE: bool, const P: usize>(work: Work<'_, E>) {
    let Work {
        input,
        piece: Piece { head, from, to },
        q,
        key_width,
        value_width,
        sums,
        values: acc,
        weights,
    } = work;
    let group = input.n_heads / input.n_kv_heads;
    let keys = &input.keys;
    let values = input.values.as_ref().unwrap_or(keys);
    let (sequence, head) = (head / input.n_kv_heads, head % input.n_kv_heads);
    let (keys_from, values_from) = (keys.from(sequence, head, from), values.from(sequence, head, from));
    // Where there is none the keys stand in, and are not read as such.
    let tail = input.tail.map_or(*keys, |tail| tail.rows);
    let tail_from = input.tail.map_or(keys_from, |_| tail.from(sequence, 0, from));
    let (maxima, totals) = sums.split_at_mut(group);
    maxima.fill(f32::NEG_INFINITY);
    for first in (0..to - from).step_by(BLOCK) {
        let n = BLOCK.min(to - from - first);
        let own = Columns {
            q: Matrix::of(q, key_width),
            keys: Matrix::of(&keys_from[first * keys.row_stride..], keys.row_stride),
            dim: input.own_dim(),
        };
        let mut parts = [own; P];
        if P > 1 {
            parts[1] = Columns {
                q: Matrix::of(&q[whole(input.own_dim())..], key_width),
                keys: Matrix::of(&tail_from[first * tail.row_stride..], tail.row_stride),
                dim: input.tail_dim(),
            };
        }
        let value_rows = Matrix::of(&values_from[first * values.row_stride..], values.row_stride);
        let mut ahead = Ahead::none();
        let next = first + BLOCK;
        if next < to - from {
            let n = BLOCK.min(to - from - next);
            let calls = calls::<S, FINE>(group, [BLOCK; 2], [input.key_dim, input.value_dim]);
            ahead = Ahead::new(n, calls, (&keys_from[next * keys.row_stride..], keys));
            if let Some(values) = &input.values {
                ahead.and(n, calls, (&values_from[next * values.row_stride..], values));
            }
            if P > 1 {
                ahead.and(n, calls, (&tail_from[next * tail.row_stride..], &tail));
            }
        }
        // SAFETY: `check` found the cache long enough for all entries in use, `q` has rows of whole vectors with zeros
        // beyond the columns of each part, `weights` has `group` rows of BLOCK, `acc` as many of whole vectors; the
        // processor has the instructions since `run_piece` chose `S`.
        unsafe {
            score_block::<S, E, FINE, P, false>(
                parts,
                [group, n],
                Matrix::of_mut(weights, BLOCK),
                &mut ahead,
            );
            for h in 0..group {
                let scale = soften::<S>(&mut weights[h * BLOCK..][..n], &mut maxima[h], &mut totals[h]);
                if scale != 1.0 {
                    rescale::<S>(&mut acc[h * value_width..][..value_width], scale);
                }
            }
            weigh_block::<S, E, FINE, false>(
                Matrix::of(weights, BLOCK),
                value_rows,
                [group, n, input.value_dim],
                Matrix::of_mut(acc, value_width),
                &mut ahead,
            );
        }
    }
}
