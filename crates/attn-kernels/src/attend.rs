//! Attend: causal attention of whole sequences, block-strided with a diagonal.
//!
//! Keys are laid out once per KV head so that a product's columns are keys; then every task takes the queries of one
//! head in a block of [`QUERIES`] tokens through blocks of [`KEYS`] keys with an online softmax. Scores live in a
//! block of scratch, there is no `[T, T]`, and blocks that the causal mask hides are not visited. The diagonal, a
//! query's own entry, initialises the softmax: `m = q_i . k_i, l = 1, o = v_i`.
//!
//! # Source
//! FlashAttention-2 (Dao, 2023) for the order of the loops; MTLA, arXiv 2505.13544, section 4.3, for the mask.

#[cfg(target_arch = "x86_64")]
mod tiles;

use std::ops::Range;

use rayon::prelude::*;

use crate::element::Element;
use crate::error::{Mismatch, at_least, product};
use crate::level::{Level, for_each_level};
use crate::scratch::{Scratch, whole};
use crate::simd::Simd;
use crate::softmax::{rescale, soften};
use crate::tile::{Matrix, multiply, scores};

/// Tokens of a task: a multiple of every level's rows of a tile.
const QUERIES: usize = 96;

/// Keys of a block: with the scores of all queries of a task they stay in the second cache.
const KEYS: usize = 128;

/// A query's own key and value, seen by that query alone.
#[derive(Debug, Clone, Copy)]
pub struct Own<'a, E> {
    /// `[B, Hkv, T, Dk]`, without gaps.
    pub k: &'a [E],
    /// `[B, Hkv, T, Dv]`, without gaps.
    pub v: &'a [E],
}

/// Operands of [`attend`](attend()). All are without gaps.
#[derive(Debug, Clone, Copy)]
pub struct Attend<'a, E> {
    /// `[B, H, T, Dk]`, the tokens at `start..start + T`.
    pub q: &'a [E],
    /// `[B, Hkv, N, Dk]`: a key per token, or per block of `stride` tokens, from the sequence's beginning.
    pub k: &'a [E],
    /// `[B, Hkv, N, Dv]`.
    pub v: &'a [E],
    /// The diagonal. Without it a query's own token is among the keys, and the stride is 1.
    pub own: Option<Own<'a, E>>,
    /// Sequences B.
    pub batch: usize,
    /// Query heads H.
    pub n_heads: usize,
    /// KV heads Hkv, which H is a multiple of.
    pub n_kv_heads: usize,
    /// Tokens T.
    pub tokens: usize,
    /// Keys N of each sequence and head.
    pub n_keys: usize,
    /// Dk.
    pub key_dim: usize,
    /// Dv.
    pub value_dim: usize,
    /// Position of the first query.
    pub start: usize,
    /// Temporal stride s.
    pub stride: usize,
    /// Factor of the scores.
    pub scale: f32,
}

/// `[B, H, T, Dv]`: query i sees key j iff `j < floor(i / s)`, and its own entry; without own entries it sees
/// `j <= i`.
///
/// # Errors
/// [`Mismatch`] where a slice is too short for what the sizes say, or keys are missing.
pub fn attend<E: Element>(input: &Attend<'_, E>, level: Level, out: &mut [E]) -> Result<(), Mismatch> {
    input.check(out.len())?;
    if out.is_empty() {
        return Ok(());
    }
    #[cfg(target_arch = "x86_64")]
    if E::IS_BF16 && level == Level::Amx {
        // SAFETY: the element is bf16, so that both are the same types.
        let (input, out) = unsafe {
            let out = std::slice::from_raw_parts_mut(out.as_mut_ptr().cast(), out.len());
            (&*std::ptr::from_ref(input).cast::<Attend<'_, half::bf16>>(), out)
        };
        if tiles::attend(input, out) {
            return Ok(());
        }
    }
    let keys = Keys::lay_out(input);
    for_each_block(input, out, |head, first, out| {
        let work = Work {
            input,
            keys: &keys,
            head,
            first,
            out,
        };
        run_block(level, work);
    });
    Ok(())
}

/// Runs `work` on every block of queries: the head, the token of its first query, and its part of the output. Of a
/// head the longest rows come first, so that what is left at the end is short.
fn for_each_block<E: Element>(
    input: &Attend<'_, E>,
    out: &mut [E],
    work: impl Fn(usize, usize, &mut [E]) + Sync,
) {
    out.par_chunks_mut(input.tokens * input.value_dim)
        .enumerate()
        .flat_map_iter(|(head, out)| {
            let blocks = out.chunks_mut(QUERIES * input.value_dim).enumerate();
            blocks.rev().map(move |(block, out)| (head, block * QUERIES, out))
        })
        .for_each(|(head, first, out)| work(head, first, out));
}

impl<E: Element> Attend<'_, E> {
    /// Keys that the query at this place sees.
    fn seen(&self, token: usize) -> usize {
        let position = self.start.saturating_add(token);
        if self.own.is_some() {
            position / self.stride
        } else {
            position.saturating_add(1)
        }
    }

    fn check(&self, out: usize) -> Result<(), Mismatch> {
        let op = "attend";
        let wrong = |what, expected, got| {
            Err(Mismatch {
                op,
                what,
                expected,
                got,
            })
        };
        if self.n_kv_heads == 0 || self.n_heads == 0 || self.n_heads % self.n_kv_heads != 0 {
            return wrong("the number of heads", self.n_kv_heads.max(1), self.n_heads);
        }
        if self.key_dim == 0 || self.value_dim == 0 {
            return wrong("the size of a head", 1, 0);
        }
        if self.stride == 0 || (self.own.is_none() && self.stride != 1) {
            return wrong("the stride without own entries", 1, self.stride);
        }
        let Self {
            batch,
            n_heads,
            n_kv_heads,
            tokens,
            n_keys,
            key_dim,
            value_dim,
            ..
        } = *self;
        let length = |what, got: &[E], heads, rows, dim| {
            at_least(op, what, got.len(), product(&[batch, heads, rows, dim]))
        };
        length("the length of q", self.q, n_heads, tokens, key_dim)?;
        length("the length of k", self.k, n_kv_heads, n_keys, key_dim)?;
        length("the length of v", self.v, n_kv_heads, n_keys, value_dim)?;
        if let Some(own) = self.own {
            length("the length of own k", own.k, n_kv_heads, tokens, key_dim)?;
            length("the length of own v", own.v, n_kv_heads, tokens, value_dim)?;
        }
        if self.tokens > 0 {
            at_least(op, "the number of keys", self.n_keys, self.seen(self.tokens - 1))?;
        }
        let expected = product(&[batch, n_heads, tokens, value_dim]);
        if out != expected {
            return wrong("the length of the output", expected, out);
        }
        Ok(())
    }
}

/// Keys and values as the products want them.
struct Keys {
    /// For each KV head, blocks of KEYS keys, `[Dk, KEYS]` each: zeros where there is no key.
    keys: Scratch,
    head_keys: usize,
    /// `[N, value_width]` for each KV head; none where the values can be used as they are.
    values: Option<Scratch>,
    value_width: usize,
}

impl Keys {
    fn lay_out<E: Element>(input: &Attend<'_, E>) -> Self {
        let heads = input.batch * input.n_kv_heads;
        let (n, dim) = (input.n_keys, input.key_dim);
        let head_keys = n.div_ceil(KEYS) * KEYS * dim;
        let mut keys = Scratch::zeros(heads * head_keys);
        let block = dim * KEYS;
        if n > 0 {
            keys.as_mut_slice()
                .par_chunks_exact_mut(block)
                .enumerate()
                .for_each(|(at, to)| {
                    let (head, first) = (at / n.div_ceil(KEYS), at % n.div_ceil(KEYS) * KEYS);
                    let rows = &input.k[(head * n + first) * dim..];
                    let rows = rows.chunks_exact(dim).take(KEYS.min(n - first));
                    for (j, row) in rows.enumerate() {
                        for (d, element) in row.iter().enumerate() {
                            to[d * KEYS + j] = element.to_f32();
                        }
                    }
                });
        }
        let value_width = whole(input.value_dim);
        let as_they_are = E::IS_F32 && value_width == input.value_dim;
        let values = (!as_they_are).then(|| {
            let mut values = Scratch::zeros(heads * n * value_width);
            let rows = values.as_mut_slice().par_chunks_exact_mut(value_width);
            rows.zip(input.v.par_chunks_exact(input.value_dim))
                .for_each(|(to, from)| {
                    for (to, from) in to.iter_mut().zip(from) {
                        *to = from.to_f32();
                    }
                });
            values
        });
        Self {
            keys,
            head_keys,
            values,
            value_width,
        }
    }

    /// The values of a KV head.
    fn values<E: Element>(&self, input: &Attend<'_, E>, head: usize) -> *const f32 {
        match &self.values {
            Some(values) => values.as_slice()[head * input.n_keys * self.value_width..].as_ptr(),
            // They are f32 where there is no copy.
            None => input.v[head * input.n_keys * self.value_width..].as_ptr().cast(),
        }
    }
}

/// A block of queries of one head.
struct Work<'a, E> {
    input: &'a Attend<'a, E>,
    keys: &'a Keys,
    /// Sequence times heads plus head.
    head: usize,
    /// Token of the first query.
    first: usize,
    /// `[queries, Dv]`.
    out: &'a mut [E],
}

for_each_level! {
    /// The online softmax of a block of queries.
    fn run_block(level, Work<E>) = go_through
}

#[inline(always)]
fn go_through<S: Simd, E: Element>(work: Work<'_, E>) {
    let Work {
        input,
        keys,
        head,
        first,
        out,
    } = work;
    let rows = out.len() / input.value_dim;
    let (dim, width) = (input.key_dim, keys.value_width);
    let group = input.n_heads / input.n_kv_heads;
    let kv_head = head / input.n_heads * input.n_kv_heads + head % input.n_heads / group;

    let q_width = whole(dim);
    let mut scratch = Scratch::zeros(rows * (q_width + KEYS + width + 2));
    let (q, rest) = scratch.as_mut_slice().split_at_mut(rows * q_width);
    let (weights, rest) = rest.split_at_mut(rows * KEYS);
    let (acc, rest) = rest.split_at_mut(rows * width);
    let (maxima, totals) = rest.split_at_mut(rows);
    let from = &input.q[(head * input.tokens + first) * dim..];
    for (to, from) in q.chunks_exact_mut(q_width).zip(from.chunks_exact(dim)) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = from.to_f32() * input.scale;
        }
    }
    maxima.fill(f32::NEG_INFINITY);
    if let Some(own) = input.own {
        let at = kv_head * input.tokens + first;
        for row in 0..rows {
            let k = &own.k[(at + row) * dim..][..dim];
            let v = &own.v[(at + row) * input.value_dim..][..input.value_dim];
            // SAFETY: one row of `dim`, and the query is one of whole vectors with zeros beyond.
            unsafe {
                scores::<S, E, 1, 1>(
                    Matrix {
                        at: q[row * q_width..].as_ptr(),
                        stride: q_width,
                    },
                    Matrix {
                        at: k.as_ptr(),
                        stride: dim,
                    },
                    dim,
                    Matrix {
                        at: &raw mut maxima[row],
                        stride: 1,
                    },
                );
            }
            totals[row] = 1.0;
            for (to, from) in acc[row * width..].iter_mut().zip(v) {
                *to = from.to_f32();
            }
        }
    }

    let all_keys = &keys.keys.as_slice()[kv_head * keys.head_keys..];
    let values = keys.values(input, kv_head);
    let last = input.seen(first + rows - 1);
    for from in (0..last).step_by(KEYS) {
        let n = KEYS.min(last - from);
        let columns = whole(n);
        // Rows before this one see no key of the block.
        let skipped = (0..rows)
            .find(|row| input.seen(first + row) > from)
            .unwrap_or(rows);
        let left = rows - skipped;
        let weights = &mut weights[skipped * KEYS..];
        let key_block = &all_keys[from * dim..][..KEYS * dim];
        // SAFETY: `q` has `rows` rows of whole vectors, the block of keys `dim` rows of KEYS, `weights` a row of KEYS for each
        // query, `acc` one of `width`, a multiple of the lanes, and so have the values; `n` of them are there. The
        // processor has the instructions since `run_block` chose `S`.
        unsafe {
            multiply::<S>(
                Matrix {
                    at: q.as_ptr().add(skipped * q_width),
                    stride: q_width,
                },
                Matrix {
                    at: key_block.as_ptr(),
                    stride: KEYS,
                },
                [left, dim, columns],
                Matrix {
                    at: weights.as_mut_ptr(),
                    stride: KEYS,
                },
                false,
            );
            for row in 0..left {
                let query = skipped + row;
                let seen = (input.seen(first + query) - from).min(n);
                let weights = &mut weights[row * KEYS..][..seen];
                let scale = soften::<S>(weights, &mut maxima[query], &mut totals[query]);
                if scale != 1.0 {
                    rescale::<S>(&mut acc[query * width..][..width], scale);
                }
            }
            let values = values.add(from * width);
            let acc = &mut acc[skipped * width..];
            let seen = |row: usize| (input.seen(first + skipped + row) - from).min(n);
            if seen(0) == n {
                weigh::<S>(weights, values, acc, width, 0..left, 0..n);
                continue;
            }
            // On the diagonal a row must not touch what it does not see: 0 times NaN is NaN.
            for top in (0..left).step_by(S::ROWS) {
                let bottom = (top + S::ROWS).min(left);
                let common = seen(top);
                weigh::<S>(weights, values, acc, width, top..bottom, 0..common);
                for row in top..bottom {
                    weigh::<S>(weights, values, acc, width, row..row + 1, common..seen(row));
                }
            }
        }
    }
    for (row, out) in out.chunks_exact_mut(input.value_dim).enumerate() {
        let total = totals[row];
        for (out, value) in out.iter_mut().zip(&acc[row * width..]) {
            *out = E::from_f32(value / total);
        }
    }
}

/// Adds the weighed values of some entries for some rows.
///
/// # Safety
/// 1. `weights` has rows of KEYS, `acc` of `width`, for all rows; `values` has rows of `width` for all entries.
/// 2. The processor has the instructions of `S`.
#[inline(always)]
unsafe fn weigh<S: Simd>(
    weights: &[f32],
    values: *const f32,
    acc: &mut [f32],
    width: usize,
    rows: Range<usize>,
    entries: Range<usize>,
) {
    // SAFETY: the caller's.
    unsafe {
        multiply::<S>(
            Matrix {
                at: weights.as_ptr().add(rows.start * KEYS + entries.start),
                stride: KEYS,
            },
            Matrix {
                at: values.add(entries.start * width),
                stride: width,
            },
            [rows.len(), entries.len(), width],
            Matrix {
                at: acc.as_mut_ptr().add(rows.start * width),
                stride: width,
            },
            true,
        );
    }
}
