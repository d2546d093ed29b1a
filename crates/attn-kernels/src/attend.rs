//! Attend: causal attention of whole sequences, block-strided with a diagonal.
//!
//! Keys are laid out once per KV head so that a product's columns are keys; then every task takes the queries of one
//! head in a block of [`QUERIES`] tokens through blocks of [`KEYS`] keys with an online softmax. Scores live in a
//! block of scratch, there is no `[T, T]`, and what the causal mask hides is not computed but for the rest of a tile.
//! The diagonal, a query's own entry, initialises the softmax: `m = q_i . k_i, l = 1, o = v_i`.
//!
//! # Source
//! FlashAttention-2 (Dao, 2023) for the order of the loops; MTLA, arXiv 2505.13544, section 4.3, for the mask.

pub(crate) mod backward;
#[cfg(target_arch = "x86_64")]
mod tiles;

use rayon::prelude::*;

pub use self::backward::{Backward, EntryGradients, Gradients, attend_backward};

use crate::element::Element;
use crate::error::{Mismatch, at_least, product};
use crate::level::{Level, for_each_level};
use crate::places::Places;
use crate::rows::Rows;
use crate::scratch::{Scratch, whole};
use crate::simd::Simd;
use crate::softmax::{rescale, soften};
use crate::tile::{Columns, Matrix, multiply, scores};

/// Tokens of a task: a multiple of every level's rows of a tile.
const QUERIES: usize = 96;

/// Keys of a block: with the scores of all queries of a task they stay in the second cache.
const KEYS: usize = 128;

/// Keys that lie side by side: two vectors of the widest level, which a tile of a product takes.
const STRIP: usize = 32;

/// Keys and values, one of each for every entry.
#[derive(Debug, Clone, Copy)]
pub struct Entries<'a, E> {
    /// The columns of keys that each head has for itself, `[B, Hkv, N, Dk - Ds]`.
    pub k: Rows<'a, E>,
    /// The last columns of keys, `[B, 1, N, Ds]`, where all heads share them: MLA's rope key.
    pub shared: Option<Rows<'a, E>>,
    /// `[B, Hkv, N, Dv]`.
    pub v: Rows<'a, E>,
}

/// Operands of [`attend`](attend()).
#[derive(Debug, Clone, Copy)]
pub struct Attend<'a, E> {
    /// `[B, H, T, Dk]`, the tokens at `start..start + T`.
    pub q: Rows<'a, E>,
    /// N entries: one per token, or per block of `stride` tokens, from the sequence's beginning. `None` where they are
    /// those of `own` that close a block, the first token being the sequence's first.
    pub closed: Option<Entries<'a, E>>,
    /// The diagonal: T entries, each seen by its query alone. Without it a query's own token is among the closed
    /// entries, and the stride is 1.
    pub own: Option<Entries<'a, E>>,
    /// Columns Ds of the keys that all heads share.
    pub shared_dim: usize,
    /// Sequences B.
    pub batch: usize,
    /// Query heads H.
    pub n_heads: usize,
    /// KV heads Hkv, which H is a multiple of.
    pub n_kv_heads: usize,
    /// Tokens T.
    pub tokens: usize,
    /// Closed entries N of each sequence and head.
    pub n_keys: usize,
    /// Dk, shared columns among them.
    pub key_dim: usize,
    /// Dv.
    pub value_dim: usize,
    /// Position of the first query.
    pub start: usize,
    /// Temporal stride s.
    pub stride: usize,
    /// Entries that a query sees at most, the last ones, its own token's among them; `usize::MAX` where it sees all, as
    /// with own entries it must.
    pub window: usize,
    /// Factor of the scores, above 0.
    pub scale: f32,
}

/// `[B, T, H, Dv]`, as the output projection reads it: query i sees entry j iff `j < floor(i / s)`, and its own;
/// without own entries it sees `i - window < j <= i`. With `lse`, `[B, H, T]`, also the logarithm of each row's sum of
/// `e^(scale q k)`, which the backward pass starts from.
///
/// # Errors
/// [`Mismatch`] where a slice is too short for what the sizes say, or keys are missing.
pub fn attend<E: Element>(
    input: &Attend<'_, E>,
    level: Level,
    out: &mut [E],
    lse: Option<&mut [f32]>,
) -> Result<(), Mismatch> {
    E::attend(input, level, out, lse)
}

pub(crate) fn run<E: Element>(
    input: &Attend<'_, E>,
    level: Level,
    out: &mut [E],
    lse: Option<&mut [f32]>,
) -> Result<(), Mismatch> {
    let closed = input.check(out.len(), lse.as_ref().map(|lse| lse.len()))?;
    if out.is_empty() {
        return Ok(());
    }
    let lse = lse.map(Places::new);
    #[cfg(target_arch = "x86_64")]
    if E::IS_BF16 && level == Level::Amx {
        // SAFETY: the element is bf16, so that both are the same types.
        let (input, closed, out) = unsafe {
            let out = std::slice::from_raw_parts_mut(out.as_mut_ptr().cast(), out.len());
            let closed = &*std::ptr::from_ref(&closed).cast::<Entries<'_, half::bf16>>();
            let input = &*std::ptr::from_ref(input).cast::<Attend<'_, half::bf16>>();
            (input, closed, out)
        };
        if tiles::attend(input, closed, &Places::new(out), lse.as_ref()) {
            return Ok(());
        }
    }
    let keys = Keys::lay_out(input, &closed);
    let out = Places::new(out);
    for_each_block(input, |block| {
        let work = Work {
            input,
            keys: &keys,
            block,
            out: &out,
            lse: lse.as_ref(),
        };
        run_block(level, work);
    });
    Ok(())
}

/// Queries of one head that a task takes.
#[derive(Debug, Clone, Copy)]
struct Block {
    sequence: usize,
    head: usize,
    /// Token of the first query.
    first: usize,
    rows: usize,
}

/// Runs `work` on every block of queries. The longest rows come first, so that what is left at the end is short.
fn for_each_block<E: Element>(input: &Attend<'_, E>, work: impl Fn(Block) + Sync + Send) {
    let blocks = input.tokens.div_ceil(QUERIES);
    let heads = input.batch * input.n_heads;
    let tasks = (0..blocks * heads).into_par_iter().with_max_len(1);
    tasks.for_each(|at| {
        let (block, head) = (blocks - 1 - at / heads, at % heads);
        let first = block * QUERIES;
        work(Block {
            sequence: head / input.n_heads,
            head: head % input.n_heads,
            first,
            rows: QUERIES.min(input.tokens - first),
        });
    });
}

impl<'a, E: Element> Entries<'a, E> {
    /// The key of an entry, both parts of it.
    fn key(&self, [sequence, head, row]: [usize; 3], shared_dim: usize, to: &mut [E]) {
        let (own, shared) = to.split_at_mut(to.len() - shared_dim);
        own.copy_from_slice(&self.k.from(sequence, head, row)[..own.len()]);
        if let Some(rows) = &self.shared {
            shared.copy_from_slice(&rows.from(sequence, 0, row)[..shared_dim]);
        }
    }

    /// The same in f32, with zeros beyond it.
    #[inline(always)]
    fn widened_key(
        &self,
        [sequence, head, row]: [usize; 3],
        shared_dim: usize,
        key_dim: usize,
        to: &mut [f32],
    ) {
        let (own, rest) = to.split_at_mut(key_dim - shared_dim);
        let (shared, rest) = rest.split_at_mut(shared_dim);
        let from = self.k.from(sequence, head, row);
        own.iter_mut()
            .zip(from)
            .for_each(|(to, from)| *to = from.to_f32());
        if let Some(rows) = &self.shared {
            let from = rows.from(sequence, 0, row);
            shared
                .iter_mut()
                .zip(from)
                .for_each(|(to, from)| *to = from.to_f32());
        }
        rest.fill(0.0);
    }

    fn every(&self, stride: usize) -> Self {
        Self {
            k: self.k.every(stride),
            shared: self.shared.map(|shared| shared.every(stride)),
            v: self.v.every(stride),
        }
    }
}

impl<'a, E: Element> Attend<'a, E> {
    /// Keys that the query at this place sees.
    fn seen(&self, token: usize) -> usize {
        let position = self.start.saturating_add(token);
        if self.own.is_some() {
            position / self.stride
        } else {
            position.saturating_add(1)
        }
    }

    /// Keys before the first that the query at this place sees.
    fn passed(&self, token: usize) -> usize {
        self.seen(token).saturating_sub(self.window)
    }

    /// The first block of keys that queries from this place on see any of.
    fn first_block(&self, token: usize) -> usize {
        self.passed(token) / KEYS * KEYS
    }

    /// Where the query of a token lies in the output.
    fn place(&self, block: &Block, row: usize) -> usize {
        ((block.sequence * self.tokens + block.first + row) * self.n_heads + block.head) * self.value_dim
    }

    fn kv_head(&self, head: usize) -> usize {
        head / (self.n_heads / self.n_kv_heads)
    }

    /// The closed entries, wherever they are.
    fn check(&self, out: usize, lse: Option<usize>) -> Result<Entries<'a, E>, Mismatch> {
        let op = "attend";
        let wrong = |what, expected, got| Mismatch {
            op,
            what,
            expected,
            got,
        };
        if self.n_kv_heads == 0 || self.n_heads == 0 || self.n_heads % self.n_kv_heads != 0 {
            return Err(wrong("the number of heads", self.n_kv_heads.max(1), self.n_heads));
        }
        if self.key_dim == 0 || self.value_dim == 0 {
            return Err(wrong("the size of a head", 1, 0));
        }
        if self.stride == 0 || (self.own.is_none() && self.stride != 1) {
            return Err(wrong("the stride without own entries", 1, self.stride));
        }
        let is_windowed = self.window != usize::MAX;
        if self.window == 0 || (is_windowed && self.own.is_some()) {
            return Err(wrong("the window with own entries", usize::MAX, self.window));
        }
        at_least(op, "the size of a key", self.key_dim, self.shared_dim)?;
        let Self {
            batch,
            n_heads: h,
            n_kv_heads: h_kv,
            tokens: t,
            n_keys,
            key_dim,
            value_dim,
            shared_dim,
            ..
        } = *self;
        self.q.check(op, "the length of q", [batch, h, t, key_dim])?;
        let check = |entries: &Entries<'a, E>, n: usize| {
            let of_head = key_dim - shared_dim;
            entries
                .k
                .check(op, "the length of k", [batch, h_kv, n, of_head])?;
            entries
                .v
                .check(op, "the length of v", [batch, h_kv, n, value_dim])?;
            match &entries.shared {
                Some(shared) => shared.check(op, "the length of shared keys", [batch, 1, n, shared_dim]),
                None if shared_dim > 0 => Err(wrong("the size of shared keys", 0, shared_dim)),
                None => Ok(()),
            }
        };
        if let Some(own) = &self.own {
            check(own, t)?;
        }
        let closed = match (self.closed, self.own) {
            (Some(closed), _) => closed,
            (None, Some(own)) if self.start == 0 => own.every(self.stride),
            (None, _) => return Err(wrong("the number of closed entries", n_keys, 0)),
        };
        check(&closed, n_keys)?;
        if t > 0 {
            at_least(op, "the number of keys", n_keys, self.seen(t - 1))?;
        }
        let rows = product(&[batch, h, t]);
        if lse.is_some_and(|lse| lse != rows) {
            return Err(wrong(
                "the length of the logarithms",
                rows,
                lse.unwrap_or_default(),
            ));
        }
        let expected = product(&[rows, value_dim]);
        if out != expected {
            return Err(wrong("the length of the output", expected, out));
        }
        Ok(closed)
    }
}

/// Keys and values as the products want them.
struct Keys {
    /// For each KV head, strips of STRIP keys, `[Dk, STRIP]` each: zeros where there is no key.
    keys: Scratch,
    head_keys: usize,
    /// `[N, value_width]` for each KV head.
    values: Scratch,
    value_width: usize,
    /// Whether a value that weighs nothing adds nothing: neither NaN nor infinity is among them.
    are_finite: bool,
}

impl Keys {
    fn lay_out<E: Element>(input: &Attend<'_, E>, closed: &Entries<'_, E>) -> Self {
        let (heads, h_kv) = (input.batch * input.n_kv_heads, input.n_kv_heads);
        let (n, dim) = (input.n_keys, input.key_dim);
        let head_keys = n.div_ceil(KEYS) * KEYS * dim;
        let value_width = whole(input.value_dim);
        let keys = strips_of(heads, n, dim, |at, key: &mut [E]| {
            closed.key([at[0] / h_kv, at[0] % h_kv, at[1]], input.shared_dim, key);
        });
        let mut values = Scratch::unwritten(heads * n * value_width);
        if n == 0 {
            return Self {
                keys,
                head_keys,
                values,
                value_width,
                are_finite: true,
            };
        }
        // A head's rows in runs: a row is too little for a task.
        let run = 64.min(n);
        let runs = values
            .as_mut_slice()
            .par_chunks_exact_mut(n * value_width)
            .enumerate();
        let are_finite = runs.flat_map(|(head, values)| {
            let runs = values.par_chunks_mut(run * value_width).enumerate();
            runs.map(move |(at, rows)| {
                let mut is_finite = true;
                for (row, to) in rows.chunks_exact_mut(value_width).enumerate() {
                    let from = closed.v.from(head / h_kv, head % h_kv, at * run + row);
                    let (to, rest) = to.split_at_mut(input.value_dim);
                    for (to, from) in to.iter_mut().zip(from) {
                        *to = from.to_f32();
                        is_finite &= to.is_finite();
                    }
                    rest.fill(0.0);
                }
                is_finite
            })
        });
        let are_finite = are_finite.reduce(|| true, |a, b| a & b);
        Self {
            keys,
            head_keys,
            values,
            value_width,
            are_finite,
        }
    }
}

/// For each head, blocks of KEYS entries in strips of STRIP, `[dim, STRIP]` each: zeros where there is no entry. `row`
/// writes the row of a head and entry.
fn strips_of<E: Element>(
    heads: usize,
    n: usize,
    dim: usize,
    row: impl Fn([usize; 2], &mut [E]) + Sync + Send,
) -> Scratch {
    let strips = n.div_ceil(KEYS) * KEYS / STRIP;
    let mut all = Scratch::unwritten(heads * strips * STRIP * dim);
    if n == 0 {
        return all;
    }
    let of_strip = all.as_mut_slice().par_chunks_exact_mut(dim * STRIP).enumerate();
    of_strip.for_each_init(
        || vec![E::default(); dim],
        |from, (at, to)| {
            let (head, first) = (at / strips, at % strips * STRIP);
            for j in 0..STRIP {
                if first + j >= n {
                    (0..dim).for_each(|d| to[d * STRIP + j] = 0.0);
                    continue;
                }
                row([head, first + j], from);
                for (d, element) in from.iter().enumerate() {
                    to[d * STRIP + j] = element.to_f32();
                }
            }
        },
    );
    all
}

/// A block of queries of one head, and where its results go.
struct Work<'a, E> {
    input: &'a Attend<'a, E>,
    keys: &'a Keys,
    block: Block,
    out: &'a Places<'a, E>,
    lse: Option<&'a Places<'a, f32>>,
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
    let (dim, width) = (input.key_dim, keys.value_width);
    let kv_head = input.kv_head(head);
    let q_width = whole(dim);
    let mut scratch = Scratch::zeros(rows * (q_width + KEYS + width + 2) + whole(dim));
    let (q, rest) = scratch.as_mut_slice().split_at_mut(rows * q_width);
    let (weights, rest) = rest.split_at_mut(rows * KEYS);
    let (acc, rest) = rest.split_at_mut(rows * width);
    let (maxima, rest) = rest.split_at_mut(rows);
    let (totals, own_key) = rest.split_at_mut(rows);
    for (row, to) in q.chunks_exact_mut(q_width).enumerate() {
        let from = &input.q.from(sequence, head, first + row)[..dim];
        for (to, from) in to.iter_mut().zip(from) {
            *to = from.to_f32() * input.scale;
        }
    }
    maxima.fill(f32::NEG_INFINITY);
    if let Some(own) = input.own {
        for row in 0..rows {
            own.widened_key([sequence, kv_head, first + row], input.shared_dim, dim, own_key);
            let v = &own.v.from(sequence, kv_head, first + row)[..input.value_dim];
            // SAFETY: one row of `dim`, and the query is one of whole vectors with zeros beyond.
            unsafe {
                let columns = Columns {
                    q: Matrix::of(&q[row * q_width..], q_width),
                    keys: Matrix::of(own_key, dim),
                    dim,
                };
                scores::<S, f32, 1, 1, 1, false>([columns], Matrix::of_mut(&mut maxima[row..], 1), || ());
            }
            totals[row] = 1.0;
            for (to, from) in acc[row * width..].iter_mut().zip(v) {
                *to = from.to_f32();
            }
        }
    }

    let kv = sequence * input.n_kv_heads + kv_head;
    let all_keys = &keys.keys.as_slice()[kv * keys.head_keys..];
    let values = &keys.values.as_slice()[kv * input.n_keys * width..];
    let last = input.seen(first + rows - 1);
    for from in (input.first_block(first)..last).step_by(KEYS) {
        let n = KEYS.min(last - from);
        let seen = |row: usize| input.seen(first + row).saturating_sub(from).min(n);
        // Keys of the block that the window has left behind.
        let passed = |row: usize| input.passed(first + row).saturating_sub(from).min(n);
        // Rows before this one see no key of the block; rows from `whole_from` on see all of it, and rows from `rows` on
        // none any more.
        let skipped = (0..rows).find(|&row| seen(row) > 0).unwrap_or(rows);
        let rows = (skipped..rows).find(|&row| passed(row) == n).unwrap_or(rows);
        let has_passed = skipped < rows && passed(rows - 1) > 0;
        let whole_from = (skipped..rows).find(|&row| seen(row) == n).unwrap_or(rows);
        let values = &values[from * width..];
        // SAFETY: `q` has `rows` rows of whole vectors; the strips of a block are there, whatever there is of keys;
        // `weights` has a row of KEYS for each query, `acc` one of `width`, a multiple of the lanes, and so have the
        // values; `n` of them are there. The processor has the instructions since `run_block` chose `S`.
        unsafe {
            let mut top = skipped;
            while top < rows {
                // On the diagonal a few rows at a time, so that little of what is hidden is computed.
                let bottom = if top < whole_from {
                    (top + S::ROWS).min(whole_from)
                } else {
                    rows
                };
                let columns = seen(bottom - 1);
                for strip in (0..columns).step_by(STRIP) {
                    multiply::<S, false>(
                        Matrix::of(&q[top * q_width..], q_width),
                        Matrix::of(&all_keys[(from + strip) * dim..], STRIP),
                        [bottom - top, dim, whole(columns - strip).min(STRIP)],
                        Matrix::of_mut(&mut weights[top * KEYS + strip..], KEYS),
                        false,
                    );
                }
                for row in top..bottom {
                    let (weights, hidden) = weights[row * KEYS..][..columns].split_at_mut(seen(row));
                    let (behind, weights) = weights.split_at_mut(passed(row));
                    let scale = soften::<S>(weights, &mut maxima[row], &mut totals[row]);
                    if scale != 1.0 {
                        rescale::<S>(&mut acc[row * width..][..width], scale);
                    }
                    behind.fill(0.0);
                    hidden.fill(0.0);
                }
                if keys.are_finite || (top >= whole_from && !has_passed) {
                    weigh::<S>(weights, values, acc, width, [top, bottom], columns);
                } else {
                    // A row must not touch what it does not see: 0 times NaN is NaN.
                    for row in top..bottom {
                        weigh_from::<S>(weights, values, acc, width, row, [passed(row), seen(row)]);
                    }
                }
                top = bottom;
            }
        }
    }
    for row in 0..rows {
        // SAFETY: no other task has this head's queries.
        let out = unsafe { out.part(input.place(&block, row), input.value_dim) };
        let inverse = 1.0 / totals[row];
        for (out, value) in out.iter_mut().zip(&acc[row * width..]) {
            *out = E::from_f32(value * inverse);
        }
        if let Some(lse) = lse {
            let at = (sequence * input.n_heads + head) * input.tokens + first + row;
            // SAFETY: the same.
            let to = unsafe { lse.part(at, 1) };
            to[0] = maxima[row] + totals[row].ln();
        }
    }
}

/// Adds the weighed values of some keys of a block for one row.
///
/// # Safety
/// As of [`weigh`]; there are so many keys.
#[inline(always)]
unsafe fn weigh_from<S: Simd>(
    weights: &[f32],
    values: &[f32],
    acc: &mut [f32],
    width: usize,
    row: usize,
    [from, to]: [usize; 2],
) {
    // SAFETY: the caller's.
    unsafe {
        multiply::<S, false>(
            Matrix::of(&weights[row * KEYS + from..], KEYS),
            Matrix::of(&values[from * width..], width),
            [1, to - from, width],
            Matrix::of_mut(&mut acc[row * width..], width),
            true,
        );
    }
}

/// Adds the first `n` weighed values of a block for some rows.
///
/// # Safety
/// 1. `weights` has rows of KEYS, `acc` of `width`, for all rows; `values` has `n` rows of `width`.
/// 2. The processor has the instructions of `S`.
#[inline(always)]
unsafe fn weigh<S: Simd>(
    weights: &[f32],
    values: &[f32],
    acc: &mut [f32],
    width: usize,
    [top, bottom]: [usize; 2],
    n: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        multiply::<S, false>(
            Matrix::of(&weights[top * KEYS..], KEYS),
            Matrix::of(values, width),
            [bottom - top, n, width],
            Matrix::of_mut(&mut acc[top * width..], width),
            true,
        );
    }
}
