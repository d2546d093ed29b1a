//! The gradients of attend: weights are computed again from the logarithms of their sums, so that no `[T, T]` is kept.
//!
//! With `P = e^(scale Q K^T - lse)`, `D = rowsum(dO O)` and `dS = scale P (dO V^T - D)`:
//! `dV = P^T dO`, `dQ = dS K`, `dK = dS^T Q`. A query's own entry is one more key that it alone sees. Every query head is
//! one task with gradients of entries for itself; those of a group are added up afterwards, always in the same order.
//!
//! # Source
//! FlashAttention-2 (Dao, 2023), section 3.1.2.

use rayon::prelude::*;

use super::{Attend, Entries, KEYS, QUERIES, STRIP, strips_of};
use crate::element::Element;
use crate::error::{Mismatch, at_least, product};
use crate::level::{Level, for_each_level};
use crate::places::Places;
use crate::rows::Rows;
use crate::scratch::{Scratch, whole};
use crate::simd::Simd;
use crate::tile::{Columns, Matrix, multiply, scores};

/// What the gradients are computed from.
#[derive(Debug, Clone, Copy)]
pub struct Backward<'a, E> {
    /// The operands, of which either the closed entries or the own ones are given.
    pub input: Attend<'a, E>,
    /// What [`attend`](super::attend()) returned, `[B, T, H, Dv]`.
    pub out: &'a [E],
    /// Its logarithms, `[B, H, T]`.
    pub lse: &'a [f32],
    /// Gradient of the output, `[B, H, T, Dv]`.
    pub grad: Rows<'a, E>,
}

/// Where the gradients go.
#[derive(Debug)]
pub struct Gradients<'a, E> {
    /// `[B, T, H, Dk]`.
    pub q: &'a mut [E],
    /// Of the entries.
    pub entries: EntryGradients<'a, E>,
}

/// Where the gradients of entries go, token by token. M is the number of entries that were given: N closed, or T own.
#[derive(Debug)]
pub enum EntryGradients<'a, E> {
    /// Of entries whose heads share nothing.
    Apart {
        /// `[B, M, Hkv, Dk]`.
        k: &'a mut [E],
        /// `[B, M, Hkv, Dv]`.
        v: &'a mut [E],
    },
    /// Of keys and values side by side, with Ds columns of keys that all heads share.
    Joint {
        /// `[B, M, Hkv, Dk - Ds + Dv]`.
        kv: &'a mut [E],
        /// `[B, M, Ds]`.
        shared: &'a mut [E],
    },
}

/// Gradients of [`attend`](super::attend()).
///
/// # Errors
/// [`Mismatch`] where a slice is too short for what the sizes say, or entries of both kinds are given.
pub fn attend_backward<E: Element>(
    backward: &Backward<'_, E>,
    level: Level,
    gradients: &mut Gradients<'_, E>,
) -> Result<(), Mismatch> {
    E::attend_backward(backward, level, gradients)
}

pub(crate) fn run<E: Element>(
    backward: &Backward<'_, E>,
    level: Level,
    gradients: &mut Gradients<'_, E>,
) -> Result<(), Mismatch> {
    let input = &backward.input;
    let (closed, given) = backward.check(gradients)?;
    let Attend {
        batch,
        n_heads: h,
        n_kv_heads: h_kv,
        n_keys: n,
        key_dim,
        value_dim,
        tokens,
        ..
    } = *input;
    if batch * tokens == 0 {
        return Ok(());
    }
    let (k_width, v_width) = (whole(key_dim), whole(value_dim));
    let at = |at: [usize; 2]| [at[0] / h_kv, at[0] % h_kv, at[1]];
    let keys = strips_of(batch * h_kv, n, key_dim, |place, row: &mut [E]| {
        closed.key(at(place), input.shared_dim, row);
    });
    let values = strips_of(batch * h_kv, n, value_dim, |place, row: &mut [E]| {
        let [sequence, head, entry] = at(place);
        row.copy_from_slice(&closed.v.from(sequence, head, entry)[..value_dim]);
    });
    let mut key_rows = Scratch::unwritten(batch * h_kv * n * k_width);
    let rows = key_rows.as_mut_slice().par_chunks_exact_mut(k_width).enumerate();
    rows.with_min_len(64)
        .for_each(|(row, to)| closed.widened_key(at([row / n, row % n]), input.shared_dim, key_dim, to));
    let laid_out = LaidOut {
        keys: &keys,
        values: &values,
        key_rows: &key_rows,
    };
    // Gradients of the entries by each query head: `[B, H, M, k_width + v_width]`.
    let of_head = given * (k_width + v_width);
    let mut partial = Scratch::zeros(batch * h * of_head);
    let q = Places::new(gradients.q);
    let tasks = partial.as_mut_slice().par_chunks_exact_mut(of_head).enumerate();
    tasks.with_max_len(1).for_each(|(head, partial)| {
        let work = Work {
            backward,
            laid_out: &laid_out,
            sequence: head / h,
            head: head % h,
            q: &q,
            partial,
        };
        run_head(level, work);
    });
    let partial = Partial {
        all: partial.as_slice(),
        of_head,
        group: h / h_kv,
        n_kv_heads: h_kv,
        widths: [k_width, v_width],
        given,
    };
    match &mut gradients.entries {
        EntryGradients::Apart { k, v } => {
            let rows = k.par_chunks_exact_mut(h_kv * key_dim);
            let rows = rows.zip(v.par_chunks_exact_mut(h_kv * value_dim));
            rows.with_min_len(16).enumerate().for_each(|(row, (k, v))| {
                let at = [row / given, row % given];
                for (head, (k, v)) in k
                    .chunks_exact_mut(key_dim)
                    .zip(v.chunks_exact_mut(value_dim))
                    .enumerate()
                {
                    partial.add_up(k, at, [head, 1], Side::Keys, 0);
                    partial.add_up(v, at, [head, 1], Side::Values, 0);
                }
            });
        }
        EntryGradients::Joint { kv, shared } => {
            let (of_head, ds) = (key_dim - input.shared_dim, input.shared_dim);
            let width = of_head + value_dim;
            let sum = |row: usize, kv: &mut [E]| {
                let at = [row / given, row % given];
                for (head, kv) in kv.chunks_exact_mut(width).enumerate() {
                    let (k, v) = kv.split_at_mut(of_head);
                    partial.add_up(k, at, [head, 1], Side::Keys, 0);
                    partial.add_up(v, at, [head, 1], Side::Values, 0);
                }
            };
            let rows = kv.par_chunks_exact_mut(h_kv * width).with_min_len(16).enumerate();
            if ds == 0 {
                rows.for_each(|(row, kv)| sum(row, kv));
            } else {
                rows.zip(shared.par_chunks_exact_mut(ds))
                    .for_each(|((row, kv), shared)| {
                        sum(row, kv);
                        partial.add_up(shared, [row / given, row % given], [0, h_kv], Side::Keys, of_head);
                    });
            }
        }
    }
    Ok(())
}

impl<'a, E: Element> Backward<'a, E> {
    /// The closed entries, and the number of those that were given.
    fn check(&self, gradients: &Gradients<'_, E>) -> Result<(Entries<'a, E>, usize), Mismatch> {
        let op = "attend_backward";
        let Attend {
            batch,
            n_heads: h,
            n_kv_heads: h_kv,
            tokens: t,
            n_keys,
            key_dim,
            value_dim,
            ..
        } = self.input;
        let closed = self.input.check(self.out.len(), Some(self.lse.len()))?;
        let given = match (&self.input.closed, &self.input.own) {
            (Some(_), None) => n_keys,
            (None, Some(_)) => t,
            _ => {
                return Err(Mismatch {
                    op,
                    what: "the number of kinds of entries",
                    expected: 1,
                    got: 2,
                });
            }
        };
        // As many own entries close a block as there are closed ones.
        at_least(op, "the number of own entries", given, n_keys * self.input.stride)?;
        self.grad
            .check(op, "the length of the gradient", [batch, h, t, value_dim])?;
        let shared_dim = self.input.shared_dim;
        let of_entries = match &gradients.entries {
            EntryGradients::Apart { k, v } => {
                at_least(op, "the number of shared columns", 0, shared_dim)?;
                [
                    ("the length of k's gradient", k.len(), [h_kv, key_dim]),
                    ("the length of v's gradient", v.len(), [h_kv, value_dim]),
                ]
            }
            EntryGradients::Joint { kv, shared } => [
                (
                    "the length of the gradient of keys and values",
                    kv.len(),
                    [h_kv, key_dim - shared_dim + value_dim],
                ),
                (
                    "the length of shared keys' gradient",
                    shared.len(),
                    [1, shared_dim],
                ),
            ],
        };
        let of_entries = of_entries.map(|(what, got, [heads, dim])| (what, got, [batch, given, heads, dim]));
        let of_q = (
            "the length of q's gradient",
            gradients.q.len(),
            [batch, t, h, key_dim],
        );
        for (what, got, expected) in [of_q].into_iter().chain(of_entries) {
            let expected = product(&expected);
            if got != expected {
                return Err(Mismatch {
                    op,
                    what,
                    expected,
                    got,
                });
            }
        }
        Ok((closed, given))
    }

    /// Where the gradients of a closed entry go among those of the entries that were given.
    fn place(&self, entry: usize) -> usize {
        match self.input.own {
            Some(_) => (entry + 1) * self.input.stride - 1,
            None => entry,
        }
    }
}

/// Which columns of the entries' gradients.
#[derive(Clone, Copy)]
enum Side {
    Keys,
    Values,
}

/// Gradients of the entries by each query head: `[B, H, M, k_width]` with `[M, v_width]` behind each head's.
struct Partial<'a> {
    all: &'a [f32],
    of_head: usize,
    /// Query heads of a KV head.
    group: usize,
    n_kv_heads: usize,
    widths: [usize; 2],
    given: usize,
}

impl Partial<'_> {
    /// Adds up the columns from `column` on of an entry over the query heads of so many KV heads from `first` on.
    fn add_up<E: Element>(
        &self,
        to: &mut [E],
        [sequence, entry]: [usize; 2],
        [first, kv_heads]: [usize; 2],
        side: Side,
        column: usize,
    ) {
        let [k_width, v_width] = self.widths;
        let at = match side {
            Side::Keys => entry * k_width,
            Side::Values => self.given * k_width + entry * v_width,
        };
        let heads = (sequence * self.n_kv_heads + first) * self.group;
        let width = to.len();
        let of = |head: usize| &self.all[(heads + head) * self.of_head + at + column..][..width];
        let heads = self.group * kv_heads;
        if heads == 1 {
            to.iter_mut()
                .zip(of(0))
                .for_each(|(to, from)| *to = E::from_f32(*from));
            return;
        }
        // A few columns at a time: sums are f32 whatever the elements.
        let mut sums = [0.0; STRIP];
        for from in (0..to.len()).step_by(STRIP) {
            let n = STRIP.min(to.len() - from);
            sums.fill(0.0);
            for head in 0..heads {
                sums.iter_mut()
                    .zip(&of(head)[from..][..n])
                    .for_each(|(sum, add)| *sum += add);
            }
            to[from..][..n]
                .iter_mut()
                .zip(&sums)
                .for_each(|(to, sum)| *to = E::from_f32(*sum));
        }
    }
}

/// Entries as the products want them.
struct LaidOut<'a> {
    /// Strips of keys and of values, as [`strips_of`] lays them out.
    keys: &'a Scratch,
    values: &'a Scratch,
    /// `[B, Hkv, N, k_width]`.
    key_rows: &'a Scratch,
}

/// A query head, and where its gradients go.
struct Work<'a, E> {
    backward: &'a Backward<'a, E>,
    laid_out: &'a LaidOut<'a>,
    sequence: usize,
    head: usize,
    q: &'a Places<'a, E>,
    /// Of the entries: `[M, k_width]`, then `[M, v_width]`.
    partial: &'a mut [f32],
}

for_each_level! {
    /// The gradients of a query head.
    fn run_head(level, Work<E>) = go_through
}

/// What of a block of queries the products read and write, rows of whole vectors.
struct Block<'a> {
    q: &'a mut [f32],
    grad: &'a mut [f32],
    /// Gradient of the queries.
    dq: &'a mut [f32],
    /// Weights, `[rows, KEYS]`.
    p: &'a mut [f32],
    /// Their gradients, `[rows, KEYS]`.
    ds: &'a mut [f32],
    /// `rowsum(dO O)`.
    d: &'a mut [f32],
}

#[inline(always)]
fn go_through<S: Simd, E: Element>(work: Work<'_, E>) {
    let Work {
        backward,
        laid_out,
        sequence,
        head,
        q: q_gradient,
        partial,
    } = work;
    let input = &backward.input;
    let Attend {
        n_heads: h,
        tokens,
        n_keys,
        key_dim,
        value_dim,
        scale,
        ..
    } = *input;
    let (k_width, v_width) = (whole(key_dim), whole(value_dim));
    let kv_head = input.kv_head(head);
    let kv = sequence * input.n_kv_heads + kv_head;
    let head_strips = |dim: usize| n_keys.div_ceil(KEYS) * KEYS * dim;
    let keys = &laid_out.keys.as_slice()[kv * head_strips(key_dim)..];
    let values = &laid_out.values.as_slice()[kv * head_strips(value_dim)..];
    let key_rows = &laid_out.key_rows.as_slice()[kv * n_keys * k_width..];
    let lse = &backward.lse[(sequence * h + head) * tokens..][..tokens];
    let given = partial.len() / (k_width + v_width);
    let (dk, dv) = partial.split_at_mut(given * k_width);

    let mut scratch = Scratch::zeros(
        QUERIES * (2 * k_width + v_width + 2 * KEYS + 1) + KEYS * (k_width + v_width) + k_width + v_width,
    );
    let (q, rest) = scratch.as_mut_slice().split_at_mut(QUERIES * k_width);
    let (dq, rest) = rest.split_at_mut(QUERIES * k_width);
    let (grad, rest) = rest.split_at_mut(QUERIES * v_width);
    let (p, rest) = rest.split_at_mut(QUERIES * KEYS);
    let (ds, rest) = rest.split_at_mut(QUERIES * KEYS);
    let (d, rest) = rest.split_at_mut(QUERIES);
    let (dk_block, rest) = rest.split_at_mut(KEYS * k_width);
    let (dv_block, rest) = rest.split_at_mut(KEYS * v_width);
    let (own_k, own_v) = rest.split_at_mut(k_width);
    let block = Block {
        q,
        grad,
        dq,
        p,
        ds,
        d,
    };
    for first in (0..tokens).step_by(QUERIES) {
        let rows = QUERIES.min(tokens - first);
        block.dq.fill(0.0);
        for row in 0..rows {
            let token = first + row;
            let from = &input.q.from(sequence, head, token)[..key_dim];
            for (to, from) in block.q[row * k_width..].iter_mut().zip(from) {
                *to = from.to_f32();
            }
            let out = &backward.out[((sequence * tokens + token) * h + head) * value_dim..][..value_dim];
            let from = &backward.grad.from(sequence, head, token)[..value_dim];
            let mut sum = 0.0;
            for ((to, from), out) in block.grad[row * v_width..].iter_mut().zip(from).zip(out) {
                *to = from.to_f32();
                sum += *to * out.to_f32();
            }
            block.d[row] = sum;
        }
        if let Some(own) = &input.own {
            for row in 0..rows {
                let token = first + row;
                own.widened_key([sequence, kv_head, token], input.shared_dim, key_dim, own_k);
                let from = &own.v.from(sequence, kv_head, token)[..value_dim];
                own_v
                    .iter_mut()
                    .zip(from)
                    .for_each(|(to, from)| *to = from.to_f32());
                let q = &block.q[row * k_width..][..k_width];
                let grad = &block.grad[row * v_width..][..v_width];
                let (mut score, mut dp) = ([0.0], [0.0]);
                // SAFETY: rows are of whole vectors with zeros beyond their sizes; the processor has the instructions
                // since `run_head` chose `S`.
                unsafe {
                    let of_key = Columns {
                        q: Matrix::of(q, k_width),
                        keys: Matrix::of(own_k, k_width),
                        dim: key_dim,
                    };
                    scores::<S, f32, 1, 1, 1, false>([of_key], Matrix::of_mut(&mut score, 1), || ());
                    let of_value = Columns {
                        q: Matrix::of(grad, v_width),
                        keys: Matrix::of(own_v, v_width),
                        dim: value_dim,
                    };
                    scores::<S, f32, 1, 1, 1, false>([of_value], Matrix::of_mut(&mut dp, 1), || ());
                }
                let p = (scale * score[0] - lse[token]).exp();
                let ds = scale * p * (dp[0] - block.d[row]);
                let (dk, dv) = (
                    &mut dk[token * k_width..][..k_width],
                    &mut dv[token * v_width..][..v_width],
                );
                dk.iter_mut().zip(q).for_each(|(to, q)| *to += ds * q);
                dv.iter_mut().zip(grad).for_each(|(to, grad)| *to += p * grad);
                let dq = &mut block.dq[row * k_width..][..k_width];
                dq.iter_mut().zip(&*own_k).for_each(|(to, k)| *to += ds * k);
            }
        }
        let last = input.seen(first + rows - 1);
        for from in (input.first_block(first)..last).step_by(KEYS) {
            let n = KEYS.min(last - from);
            let seen = |row: usize| input.seen(first + row).saturating_sub(from).min(n);
            let passed = |row: usize| input.passed(first + row).saturating_sub(from).min(n);
            let skipped = (0..rows).find(|&row| seen(row) > 0).unwrap_or(rows);
            let rows = (skipped..rows).find(|&row| passed(row) == n).unwrap_or(rows);
            let left = rows - skipped;
            // SAFETY: all rows are of whole vectors, `left` of queries and `n` of keys; strips are there for a whole block.
            // The processor has the instructions since `run_head` chose `S`.
            unsafe {
                for strip in (0..n).step_by(STRIP) {
                    let columns = whole(n - strip).min(STRIP);
                    multiply::<S, false>(
                        Matrix::of(&block.q[skipped * k_width..], k_width),
                        Matrix::of(&keys[(from + strip) * key_dim..], STRIP),
                        [left, key_dim, columns],
                        Matrix::of_mut(&mut block.p[skipped * KEYS + strip..], KEYS),
                        false,
                    );
                    multiply::<S, false>(
                        Matrix::of(&block.grad[skipped * v_width..], v_width),
                        Matrix::of(&values[(from + strip) * value_dim..], STRIP),
                        [left, value_dim, columns],
                        Matrix::of_mut(&mut block.ds[skipped * KEYS + strip..], KEYS),
                        false,
                    );
                }
                for row in skipped..rows {
                    let (seen, passed) = (seen(row), passed(row));
                    let (p, hidden_p) = block.p[row * KEYS..][..whole(n)].split_at_mut(whole(seen));
                    let (ds, hidden_ds) = block.ds[row * KEYS..][..whole(n)].split_at_mut(whole(seen));
                    soften::<S>(p, ds, scale, lse[first + row], block.d[row]);
                    for row in [p, ds] {
                        row[..passed].fill(0.0);
                        row[seen..].fill(0.0);
                    }
                    hidden_p.fill(0.0);
                    hidden_ds.fill(0.0);
                }
                multiply::<S, false>(
                    Matrix::of(&block.ds[skipped * KEYS..], KEYS),
                    Matrix::of(&key_rows[from * k_width..], k_width),
                    [left, n, k_width],
                    Matrix::of_mut(&mut block.dq[skipped * k_width..], k_width),
                    true,
                );
                multiply::<S, true>(
                    Matrix::of(&block.ds[skipped * KEYS..], KEYS),
                    Matrix::of(&block.q[skipped * k_width..], k_width),
                    [n, left, k_width],
                    Matrix::of_mut(dk_block, k_width),
                    false,
                );
                multiply::<S, true>(
                    Matrix::of(&block.p[skipped * KEYS..], KEYS),
                    Matrix::of(&block.grad[skipped * v_width..], v_width),
                    [n, left, v_width],
                    Matrix::of_mut(dv_block, v_width),
                    false,
                );
            }
            for entry in 0..n {
                let place = backward.place(from + entry);
                let add = |to: &mut [f32], block: &[f32], width: usize| {
                    let block = &block[entry * width..][..width];
                    let to = to[place * width..][..width].iter_mut();
                    to.zip(block).for_each(|(to, add)| *to += add);
                };
                add(dk, dk_block, k_width);
                add(dv, dv_block, v_width);
            }
        }
        for row in 0..rows {
            let at = ((sequence * tokens + first + row) * h + head) * key_dim;
            // SAFETY: no other task has this head's queries.
            let to = unsafe { q_gradient.part(at, key_dim) };
            for (to, from) in to.iter_mut().zip(&block.dq[row * k_width..]) {
                *to = E::from_f32(*from);
            }
        }
    }
}

/// Turns scores into weights, and gradients of weights into gradients of scores.
///
/// # Safety
/// Both are of whole vectors of one length; the processor has the instructions of `S`.
#[inline(always)]
unsafe fn soften<S: Simd>(p: &mut [f32], ds: &mut [f32], scale: f32, lse: f32, d: f32) {
    let (p, ds, n) = (p.as_mut_ptr(), ds.as_mut_ptr(), p.len());
    // SAFETY: the caller's.
    unsafe {
        let (scale, lse, d) = (S::splat(scale), S::splat(lse), S::splat(d));
        for i in (0..n).step_by(S::LANES) {
            let weight = S::exp(S::sub(S::mul(S::load(p.add(i)), scale), lse));
            S::store(p.add(i), weight);
            let gradient = S::mul(S::mul(scale, weight), S::sub(S::load(ds.add(i)), d));
            S::store(ds.add(i), gradient);
        }
    }
}
