//! Latents: the cache entries of MLA and MTLA from what the down-projection wrote, in one pass: norm, gate, partial
//! sums of blocks, and the rope key turned.
//!
//! # Source
//! MTLA, arXiv 2505.13544, section 4.1; that the gate is `sigmoid(c . u[j] + b[j])` with constants of the block j, and
//! the merge a sum inside each block, follows from its equations.

use rayon::prelude::*;

use crate::element::Element;
use crate::error::{Mismatch, at_least, product};
use crate::level::{Level, for_each_level};
use crate::places::Places;
use crate::project::Grouped;
use crate::scratch::{Scratch, whole};
use crate::simd::Simd;

/// Tokens of a task, about: few enough that a decode step is one task.
const TOKENS: usize = 128;

/// LayerNorm, or RMSNorm where there is no bias, of r elements.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a, E> {
    /// `[r]`.
    pub weight: &'a [E],
    /// `[r]`; only LayerNorm has one.
    pub bias: Option<&'a [E]>,
    /// What is added to the variance.
    pub eps: f32,
}

/// The rotary embedding's table.
#[derive(Debug, Clone, Copy)]
pub struct Turn<'a> {
    /// `[positions, Dr / 2]`.
    pub cos: &'a [f32],
    /// `[positions, Dr / 2]`.
    pub sin: &'a [f32],
    /// Whether pairs are `(i, i + Dr / 2)`, and not `(2 i, 2 i + 1)`.
    pub halves: bool,
}

/// MTLA's hyper-network: a token's weight is `sigmoid(c . u[j] + b[j])`, j its block.
#[derive(Debug, Clone, Copy)]
pub struct Gate<'a> {
    /// `[blocks, r]`.
    pub u: &'a [f32],
    /// `[blocks]`.
    pub b: &'a [f32],
    /// Tokens s of a block.
    pub stride: usize,
    /// Sums of the blocks that the sequences are in, `[B, r]`; read where a sequence begins inside one.
    pub open: Option<&'a [f32]>,
}

/// Operands of [`latents`](latents()).
#[derive(Debug, Clone, Copy)]
pub struct Latents<'a, E> {
    /// `[B, T, r + Dr]`: latents before their norm, and rope keys before they are turned.
    pub x: Grouped<'a, E>,
    /// Of the latents.
    pub norm: Norm<'a, E>,
    /// Of the rope keys.
    pub turn: Turn<'a>,
    /// Without it latents are not merged.
    pub gate: Option<Gate<'a>>,
    /// Position of the first token of each of the B sequences.
    pub starts: &'a [usize],
    /// Tokens T.
    pub tokens: usize,
    /// r.
    pub rank: usize,
    /// Dr.
    pub rope_dim: usize,
}

/// Where rows go: the first of each sequence, and the distance from a token to the next.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Elements before the first row of each sequence.
    pub first: &'a [usize],
    /// From one token to the next.
    pub row_stride: usize,
}

/// Results of [`latents`](latents()).
#[derive(Debug)]
pub struct LatentsOut<'a, E> {
    /// Latents and keys, together as the entries of a cache or apart.
    pub data: &'a mut [E],
    /// Of the latents, merged where there is a gate: r elements each.
    pub c: Place<'a>,
    /// Of the rope keys: Dr elements each.
    pub k_r: Place<'a>,
    /// With a gate: the sums of the blocks of the last tokens before they are rounded, `[B, r]`.
    pub last: Option<&'a mut [f32]>,
}

/// Some tokens of a sequence.
#[derive(Debug, Clone, Copy)]
struct Run {
    sequence: usize,
    from: usize,
    to: usize,
}

/// Entries of T tokens of every sequence.
///
/// # Errors
/// [`Mismatch`] where a slice is too short for what the sizes say, or rows would lie on each other.
pub fn latents<E: Element>(
    input: &Latents<'_, E>,
    level: Level,
    out: &mut LatentsOut<'_, E>,
) -> Result<(), Mismatch> {
    E::latents(input, level, out)
}

pub(crate) fn run<E: Element>(
    input: &Latents<'_, E>,
    level: Level,
    out: &mut LatentsOut<'_, E>,
) -> Result<(), Mismatch> {
    input.check(out)?;
    let (c, k_r) = (out.c, out.k_r);
    let width = whole(input.rank);
    let mut norm = Scratch::zeros(2 * width);
    let (weight, bias) = norm.as_mut_slice().split_at_mut(width);
    let widen = |to: &mut [f32], from: &[E]| to.iter_mut().zip(from).for_each(|(to, x)| *to = x.to_f32());
    widen(weight, &input.norm.weight[..input.rank]);
    widen(bias, input.norm.bias.map_or(&[], |bias| &bias[..input.rank]));
    let last = out.last.as_mut().map(|last| Places::new(last));
    let data = Places::new(out.data);
    let runs = input.runs();
    let go = |run: &Run| {
        let work = Work {
            input,
            run: *run,
            norm: norm.as_slice(),
            data: &data,
            places: [c, k_r],
            last: last.as_ref(),
        };
        run_tokens(level, work);
    };
    match runs.iter().map(|run| run.to - run.from).sum::<usize>() {
        ..=TOKENS => runs.iter().for_each(go),
        _ => runs.par_iter().for_each(go),
    }
    Ok(())
}

impl<E: Element> Latents<'_, E> {
    fn check(&self, out: &LatentsOut<'_, E>) -> Result<(), Mismatch> {
        let op = "latents";
        let Self {
            x,
            starts,
            tokens,
            rank,
            rope_dim,
            ..
        } = *self;
        let batch = starts.len();
        let even = |what, got: usize| match got % 2 {
            0 => Ok(()),
            _ => Err(Mismatch {
                op,
                what,
                expected: got + 1,
                got,
            }),
        };
        even("the size of rope keys", rope_dim)?;
        at_least(op, "the rank", rank, 1)?;
        if batch == 0 || tokens == 0 {
            return Ok(());
        }
        let end = product(&[batch - 1, x.group_stride])
            .saturating_add(product(&[tokens - 1, x.row_stride]))
            .saturating_add(rank.saturating_add(rope_dim));
        at_least(op, "the length of x", x.data.len(), end)?;
        at_least(op, "the norm's weight", self.norm.weight.len(), rank)?;
        if let Some(bias) = self.norm.bias {
            at_least(op, "the norm's bias", bias.len(), rank)?;
        }
        let positions = starts
            .iter()
            .max()
            .map_or(0, |start| start.saturating_add(tokens));
        let table = product(&[positions, rope_dim / 2]);
        at_least(op, "the table of cosines", self.turn.cos.len(), table)?;
        at_least(op, "the table of sines", self.turn.sin.len(), table)?;
        let sums = product(&[batch, rank]);
        if let Some(gate) = &self.gate {
            at_least(op, "the stride", gate.stride, 1)?;
            let blocks = positions.div_ceil(gate.stride);
            at_least(op, "the gate's table", gate.u.len(), product(&[blocks, rank]))?;
            at_least(op, "the gate's biases", gate.b.len(), blocks)?;
            let begins_inside = starts.iter().any(|start| start % gate.stride != 0);
            if begins_inside {
                let open = gate.open.map_or(0, <[f32]>::len);
                at_least(op, "the sums of open blocks", open, sums)?;
            }
        }
        if let Some(last) = &out.last {
            at_least(op, "the sums of last blocks", last.len(), sums)?;
        }
        let mut spans = Vec::with_capacity(2 * batch);
        for (place, dim) in [(&out.c, rank), (&out.k_r, rope_dim)] {
            at_least(op, "the number of places", place.first.len(), batch)?;
            if tokens > 1 {
                at_least(op, "the distance of rows", place.row_stride, dim)?;
            }
        }
        // No row may lie on another: tasks write them side by side. Latents and keys of a sequence are apart, or in
        // turns at one distance; sequences are apart.
        let span = |first: usize, row_stride: usize, dim: usize| {
            (
                first,
                first
                    .saturating_add(product(&[tokens - 1, row_stride]))
                    .saturating_add(dim),
            )
        };
        for sequence in 0..batch {
            let (c, k_r) = (out.c.first[sequence], out.k_r.first[sequence]);
            let (before, after) = if c <= k_r {
                ((c, rank), k_r)
            } else {
                ((k_r, rope_dim), c)
            };
            at_least(op, "the begin of a row", after, before.0.saturating_add(before.1))?;
            let of_c = span(c, out.c.row_stride, rank);
            let of_k = span(k_r, out.k_r.row_stride, rope_dim);
            let both = (of_c.0.min(of_k.0), of_c.1.max(of_k.1));
            if of_c.1 <= of_k.0 || of_k.1 <= of_c.0 {
                spans.extend([of_c, of_k]);
                continue;
            }
            at_least(
                op,
                "the distance of latents",
                out.c.row_stride,
                out.k_r.row_stride,
            )?;
            at_least(op, "the distance of keys", out.k_r.row_stride, out.c.row_stride)?;
            let row = both.1 - both.0 - (tokens - 1) * out.c.row_stride;
            at_least(op, "the distance of entries", out.c.row_stride, row)?;
            spans.push(both);
        }
        spans.sort_unstable();
        for pair in spans.windows(2) {
            at_least(op, "the begin of a row", pair[1].0, pair[0].1)?;
        }
        let end = spans.last().map_or(0, |span| span.1);
        at_least(op, "the length of the output", out.data.len(), end)
    }

    /// Runs of tokens that begin with a block, or with the sequence.
    fn runs(&self) -> Vec<Run> {
        let stride = self.gate.map_or(1, |gate| gate.stride);
        let mut runs = Vec::with_capacity(self.starts.len() * self.tokens.div_ceil(TOKENS));
        for (sequence, start) in self.starts.iter().enumerate() {
            let mut from = 0;
            while from < self.tokens {
                let end = (start + from + TOKENS).next_multiple_of(stride) - start;
                let to = end.min(self.tokens);
                runs.push(Run { sequence, from, to });
                from = to;
            }
        }
        runs
    }
}

/// Some tokens, and where their entries go.
struct Work<'a, E> {
    input: &'a Latents<'a, E>,
    run: Run,
    /// Weight, then bias, in f32 and whole vectors.
    norm: &'a [f32],
    data: &'a Places<'a, E>,
    /// Of latents and of keys.
    places: [Place<'a>; 2],
    last: Option<&'a Places<'a, f32>>,
}

for_each_level! {
    /// The entries of a run.
    fn run_tokens(level, Work<E>) = go_through
}

#[inline(always)]
fn go_through<S: Simd, E: Element>(work: Work<'_, E>) {
    let Work {
        input,
        run: Run { sequence, from, to },
        norm,
        data,
        places,
        last,
    } = work;
    let Latents {
        x,
        rank,
        rope_dim,
        turn,
        ..
    } = *input;
    let (width, half) = (whole(rank), rope_dim / 2);
    let (weight, bias) = norm.split_at(width);
    let mut scratch = Scratch::zeros(2 * width);
    let (row, sums) = scratch.as_mut_slice().split_at_mut(width);
    let start = input.starts[sequence];
    if let Some(gate) = &input.gate
        && (start + from) % gate.stride != 0
        && let Some(open) = gate.open
    {
        sums[..rank].copy_from_slice(&open[sequence * rank..][..rank]);
    }
    for token in from..to {
        let position = start + token;
        let x = &x.data[sequence * x.group_stride + token * x.row_stride..][..rank + rope_dim];
        for d in 0..rank {
            row[d] = x[d].to_f32();
        }
        // SAFETY: rows are of whole vectors, zeros beyond the rank; the processor has the instructions since
        // `run_tokens` chose `S`.
        unsafe { normalise::<S, E>(row, rank, input.norm.bias.is_some(), input.norm.eps, weight, bias) };
        let [c, k_r] = places.map(|place| place.first[sequence] + token * place.row_stride);
        // SAFETY: `check` found that no row lies on another; no other task has these tokens.
        let (c, k_r) = unsafe { (data.part(c, rank), data.part(k_r, rope_dim)) };
        match &input.gate {
            None => (0..rank).for_each(|d| c[d] = E::from_f32(row[d])),
            Some(gate) => {
                let block = position / gate.stride;
                if position % gate.stride == 0 {
                    sums.fill(0.0);
                }
                let u = &gate.u[block * rank..][..rank];
                // SAFETY: `u` is as long as the rank, and rows are of whole vectors.
                unsafe { add_gated::<S>(row, u, gate.b[block], sums) };
                for d in 0..rank {
                    c[d] = E::from_f32(sums[d]);
                }
            }
        }
        let (cos, sin) = (
            &turn.cos[position * half..][..half],
            &turn.sin[position * half..][..half],
        );
        for i in 0..half {
            let (a, b) = if turn.halves {
                (i, half + i)
            } else {
                (2 * i, 2 * i + 1)
            };
            let (first, second) = (x[rank + a].to_f32(), x[rank + b].to_f32());
            k_r[a] = E::from_f32(first * cos[i] - second * sin[i]);
            k_r[b] = E::from_f32(first * sin[i] + second * cos[i]);
        }
    }
    if let Some(last) = last
        && to == input.tokens
    {
        // SAFETY: no other task has this sequence's last token.
        let to = unsafe { last.part(sequence * rank, rank) };
        to.copy_from_slice(&sums[..rank]);
    }
}

/// LayerNorm or RMSNorm of a row, rounded to the element type as a tensor would be.
///
/// # Safety
/// 1. All are of whole vectors, zeros beyond the rank.
/// 2. The processor has the instructions of `S`.
#[inline(always)]
unsafe fn normalise<S: Simd, E: Element>(
    row: &mut [f32],
    rank: usize,
    is_layer: bool,
    eps: f32,
    weight: &[f32],
    bias: &[f32],
) {
    let width = row.len();
    // SAFETY: the caller's.
    unsafe {
        if is_layer {
            let mut sum = S::splat(0.0);
            for d in (0..width).step_by(S::LANES) {
                sum = S::add(sum, S::load(row.as_ptr().add(d)));
            }
            let mean = S::splat(S::sum(sum) / rank as f32);
            for d in (0..width).step_by(S::LANES) {
                let at = row.as_mut_ptr().add(d);
                S::store(at, S::sub(S::load(at), mean));
            }
            row[rank..].fill(0.0);
        }
        let mut squares = S::splat(0.0);
        for d in (0..width).step_by(S::LANES) {
            let v = S::load(row.as_ptr().add(d));
            squares = S::mul_add(v, v, squares);
        }
        let scale = S::splat(1.0 / (S::sum(squares) / rank as f32 + eps).sqrt());
        for d in (0..width).step_by(S::LANES) {
            let at = row.as_mut_ptr().add(d);
            let v = S::mul(S::load(at), scale);
            let v = S::mul_add(v, S::load(weight.as_ptr().add(d)), S::load(bias.as_ptr().add(d)));
            S::store(at, v);
        }
    }
    if !E::IS_F32 {
        for x in row.iter_mut() {
            *x = E::from_f32(*x).to_f32();
        }
    }
}

/// `sums += sigmoid(row . u + b) row`.
///
/// # Safety
/// 1. `row` and `sums` are of whole vectors, zeros beyond the length of `u`.
/// 2. The processor has the instructions of `S`.
#[inline(always)]
unsafe fn add_gated<S: Simd>(row: &[f32], u: &[f32], b: f32, sums: &mut [f32]) {
    let all = u.len() / S::LANES * S::LANES;
    // SAFETY: the caller's.
    unsafe {
        let mut dot = S::splat(0.0);
        for d in (0..all).step_by(S::LANES) {
            dot = S::mul_add(S::load(row.as_ptr().add(d)), S::load(u.as_ptr().add(d)), dot);
        }
        let mut logit = S::sum(dot) + b;
        for d in all..u.len() {
            logit += row[d] * u[d];
        }
        let weight = S::splat(1.0 / (1.0 + (-logit).exp()));
        for d in (0..row.len()).step_by(S::LANES) {
            let at = sums.as_mut_ptr().add(d);
            S::store(at, S::mul_add(weight, S::load(row.as_ptr().add(d)), S::load(at)));
        }
    }
}
