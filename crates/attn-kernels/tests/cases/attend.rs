//! Operands of attend.

use attn_kernels::cuda::AttendShape;
use attn_kernels::{Attend, Element, Entries, Rows};

use super::dtype;
use crate::common::random;

/// Sizes of attend.
#[derive(Debug, Clone, Copy)]
pub struct Sequences {
    pub batch: usize,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub tokens: usize,
    pub start: usize,
    pub key_dim: usize,
    pub shared_dim: usize,
    pub value_dim: usize,
    /// With own entries.
    pub stride: Option<usize>,
    /// Closed entries are those of the own ones.
    pub ends: bool,
    /// Keys without shared columns and values side by side, as one projection writes them.
    pub joint: bool,
    /// Entries that a query sees at most.
    pub window: usize,
}

/// `[B, n, heads, D]` with a gap of a chunk behind each token's heads.
pub fn token_major<E: Element>(data: &[E], heads: usize, n: usize, dim: usize) -> Rows<'_, E> {
    let row_stride = heads * dim + 8;
    Rows {
        data,
        batch_stride: n * row_stride,
        head_stride: dim,
        row_stride,
    }
}

/// So many elements for it, of which nothing but the rows of each sequence's first `numbers` tokens is a number.
pub fn random_rows<E: Element>([batch, heads, n, dim]: [usize; 4], numbers: usize, seed: u64) -> Vec<E> {
    let width = heads * dim + 8;
    let mut data: Vec<E> = random(batch * n * width, seed);
    for (at, row) in data.chunks_exact_mut(width).enumerate() {
        let used = if at % n < numbers { heads * dim } else { 0 };
        row[used..].fill(E::from_f32(f32::NAN));
    }
    data
}

/// Keys, shared columns of keys, and values; with the keys, where both lie side by side.
struct EntryData<E>([Vec<E>; 3]);

impl<E: Element> EntryData<E> {
    fn new(sizes: Sequences, n: usize, numbers: usize, seed: u64) -> Self {
        let Sequences {
            batch,
            n_kv_heads,
            shared_dim,
            value_dim,
            ..
        } = sizes;
        let of_head = sizes.key_dim - shared_dim;
        let columns = match sizes.joint {
            true => [(n_kv_heads, of_head + value_dim), (1, shared_dim), (0, 0)],
            false => [(n_kv_heads, of_head), (1, shared_dim), (n_kv_heads, value_dim)],
        };
        let mut seed = seed;
        Self(columns.map(|(heads, dim)| {
            seed += 1;
            random_rows([batch, heads, n, dim], numbers, seed)
        }))
    }

    fn view(&self, sizes: Sequences, n: usize) -> Entries<'_, E> {
        let [k, shared, v] = &self.0;
        let (h_kv, ds) = (sizes.n_kv_heads, sizes.shared_dim);
        let (of_head, dv) = (sizes.key_dim - ds, sizes.value_dim);
        let both = token_major(k, h_kv, n, of_head + dv);
        let (k, v) = if sizes.joint {
            let data = &k[of_head.min(k.len())..];
            (both, Rows { data, ..both })
        } else {
            (token_major(k, h_kv, n, of_head), token_major(v, h_kv, n, dv))
        };
        Entries {
            k,
            shared: (ds > 0).then(|| token_major(shared, 1, n, ds)),
            v,
        }
    }
}

/// Calls `check` with operands of which nothing but the entries that are seen is a number.
pub fn with_sequences<E: Element>(sizes: Sequences, check: impl FnOnce(&Attend<'_, E>, AttendShape)) {
    let Sequences {
        batch,
        n_heads,
        n_kv_heads,
        tokens,
        start,
        key_dim,
        shared_dim,
        value_dim,
        stride,
        ends,
        window,
        ..
    } = sizes;
    let seen = stride.map_or(start + tokens, |stride| (start + tokens - 1) / stride);
    // An open block may have been closed by the last token, which no query sees.
    let n_keys = stride.map_or(seen, |stride| (start + tokens) / stride);
    let q = random_rows([batch, n_heads, tokens, key_dim], tokens, 1);
    let closed = EntryData::new(sizes, n_keys, seen, 1000);
    let own = EntryData::new(sizes, tokens, tokens, 2000);
    let input = Attend {
        q: token_major(&q, n_heads, tokens, key_dim),
        closed: (!ends).then(|| closed.view(sizes, n_keys)),
        own: stride.map(|_| own.view(sizes, tokens)),
        shared_dim,
        batch,
        n_heads,
        n_kv_heads,
        tokens,
        n_keys,
        key_dim,
        value_dim,
        start,
        stride: stride.unwrap_or(1),
        window,
        // Scores that differ enough for maxima to move.
        scale: 3.0 * (key_dim as f32).powf(-0.5),
    };
    let shape = AttendShape {
        dtype: dtype::<E>(),
        n_heads,
        n_kv_heads,
        key_dim,
        shared_dim,
        value_dim,
        stride,
    };
    check(&input, shape);
}

/// Plain causal attention of one sequence.
pub fn causal(n_heads: usize, n_kv_heads: usize, tokens: usize, dim: usize) -> Sequences {
    Sequences {
        batch: 1,
        n_heads,
        n_kv_heads,
        tokens,
        start: 0,
        key_dim: dim,
        shared_dim: 0,
        value_dim: dim,
        stride: None,
        ends: false,
        joint: false,
        window: usize::MAX,
    }
}

/// MTLA's.
pub fn strided(tokens: usize, stride: usize) -> Sequences {
    Sequences {
        key_dim: 24,
        shared_dim: 8,
        stride: Some(stride),
        ends: true,
        ..causal(1, 1, tokens, 16)
    }
}

/// Sequences whose heads are of every kind of size.
pub fn heads_of_every_size() -> impl Iterator<Item = Sequences> {
    let sizes = [
        (64, 0, 64),
        (96, 32, 64),
        (128, 0, 128),
        (192, 64, 128),
        (256, 0, 256),
        (40, 8, 24),
        (8, 0, 8),
        (80, 0, 112),
        (64, 64, 200),
    ];
    sizes
        .into_iter()
        .map(|(key_dim, shared_dim, value_dim)| Sequences {
            key_dim,
            shared_dim,
            value_dim,
            ..strided(70, 2)
        })
}
