//! Tokens that enter caches one after another, and what is to be in the caches then.

use attn_kernels::cuda::{CacheUpdateShape, GroupedUpdateShape};
use attn_kernels::{Element, Gate, Grouped, Latents, LatentsOut, Level, Norm, Place, Turn, latents};

use crate::common::{assert_close, random};

/// Tokens of the cache update, and the entries that the CPU kernel makes of all of them at once.
pub struct Tokens<E> {
    pub shape: CacheUpdateShape,
    pub starts: Vec<usize>,
    /// Of each sequence.
    pub tokens: usize,
    /// C.
    pub capacity: usize,
    /// Rows of the tables.
    pub n_positions: usize,
    pub x: Vec<E>,
    pub weight: Vec<E>,
    pub bias: Vec<E>,
    pub cos: Vec<f32>,
    pub sin: Vec<f32>,
    pub u: Vec<f32>,
    pub b: Vec<f32>,
    /// Sums of open blocks before the first token.
    pub open: Vec<f32>,
    /// `[B, T, r + Dr]`: the entry of a token's block after it.
    entries: Vec<E>,
    /// Sums of open blocks behind the last token.
    last: Vec<f32>,
}

impl<E: Element> Tokens<E> {
    pub const EPS: f32 = 1e-5;

    pub fn new(shape: CacheUpdateShape, starts: &[usize], tokens: usize) -> Self {
        let CacheUpdateShape { rank, rope_dim, .. } = shape;
        let (b, width) = (starts.len(), rank + rope_dim);
        let n_positions = starts.iter().max().unwrap() + tokens;
        let capacity = n_positions.div_ceil(shape.stride.unwrap_or(1));
        let mut all = Self {
            shape,
            starts: starts.to_vec(),
            tokens,
            capacity,
            n_positions,
            x: random(b * tokens * width, 1),
            weight: random(rank, 2),
            bias: random(rank, 3),
            cos: random(n_positions * rope_dim / 2, 4),
            sin: random(n_positions * rope_dim / 2, 5),
            u: random(capacity * rank, 6),
            b: random(capacity, 7),
            open: random(b * rank, 8),
            entries: Vec::new(),
            last: Vec::new(),
        };
        let first: Vec<usize> = (0..b).map(|sequence| sequence * tokens * width).collect();
        let keys: Vec<usize> = first.iter().map(|first| first + rank).collect();
        let place = |first| Place {
            first,
            row_stride: width,
        };
        let (mut entries, mut last) = (vec![E::default(); b * tokens * width], vec![0.0; b * rank]);
        let mut out = LatentsOut {
            data: &mut entries,
            c: place(&first),
            k_r: place(&keys),
            last: shape.stride.is_some().then_some(last.as_mut_slice()),
        };
        latents(&all.input(), Level::Portable, &mut out).unwrap();
        (all.entries, all.last) = (entries, last);
        all
    }

    pub fn width(&self) -> usize {
        self.shape.rank + self.shape.rope_dim
    }

    /// All tokens.
    pub fn input(&self) -> Latents<'_, E> {
        let CacheUpdateShape { rank, rope_dim, .. } = self.shape;
        Latents {
            x: Grouped {
                data: &self.x,
                group_stride: self.tokens * self.width(),
                row_stride: self.width(),
            },
            norm: Norm {
                weight: &self.weight,
                bias: self.shape.layer_norm.then_some(self.bias.as_slice()),
                eps: Self::EPS,
            },
            turn: Turn {
                cos: &self.cos,
                sin: &self.sin,
                halves: self.shape.halves,
            },
            gate: self.shape.stride.map(|stride| Gate {
                u: &self.u,
                b: &self.b,
                stride,
                open: Some(&self.open),
            }),
            starts: &self.starts,
            tokens: self.tokens,
            rank,
            rope_dim,
        }
    }

    /// Where token `token` of every sequence stands.
    pub fn positions(&self, token: usize) -> Vec<usize> {
        self.starts.iter().map(|start| start + token).collect()
    }

    /// The cache, `[B, C, r + Dr]`, after token `token` of every sequence.
    #[track_caller]
    pub fn check(&self, token: usize, cache: &[E], tolerance: f64) {
        let width = self.width();
        for (sequence, position) in self.positions(token).into_iter().enumerate() {
            let slot = position / self.shape.stride.unwrap_or(1);
            let got = &cache[(sequence * self.capacity + slot) * width..][..width];
            let expected = &self.entries[(sequence * self.tokens + token) * width..][..width];
            let expected: Vec<f64> = expected.iter().map(|x| f64::from(x.to_f32())).collect();
            assert_close(got, &expected, tolerance);
        }
    }

    /// Sums of open blocks after the last token.
    #[track_caller]
    pub fn check_open(&self, open: &[f32], tolerance: f64) {
        if self.shape.stride.is_some() {
            let last: Vec<f64> = self.last.iter().map(|x| f64::from(*x)).collect();
            assert_close(open, &last, tolerance);
        }
    }
}

/// One token of every sequence for the grouped update.
pub struct GroupedToken<E> {
    pub shape: GroupedUpdateShape,
    /// Those that are negative, or beyond the tables, are not entered.
    pub positions: Vec<i32>,
    /// C.
    pub capacity: usize,
    /// Rows of the tables.
    pub n_positions: usize,
    /// As one projection writes them: queries, keys and values of a sequence side by side.
    pub qkv: Vec<E>,
    pub cos: Vec<f32>,
    pub sin: Vec<f32>,
}

/// Caches `[B, Hkv, C, D]` and turned queries `[B, H, Dk]`.
pub struct GroupedCaches<E> {
    pub turned: Vec<E>,
    pub keys: Vec<E>,
    pub values: Vec<E>,
}

impl<E: Element> GroupedToken<E> {
    pub fn new(shape: GroupedUpdateShape, positions: &[i32]) -> Self {
        // A position may be beyond the tables and not the cache, or beyond both.
        let (capacity, n_positions) = (9, 8);
        let mut token = Self {
            shape,
            positions: positions.to_vec(),
            capacity,
            n_positions,
            qkv: Vec::new(),
            cos: random(n_positions * shape.key_dim / 2, 2),
            sin: random(n_positions * shape.key_dim / 2, 3),
        };
        token.qkv = random(positions.len() * token.width(), 1);
        token
    }

    /// Elements of queries, keys and values of a sequence.
    pub fn widths(&self) -> [usize; 3] {
        let shape = &self.shape;
        [
            shape.n_heads * shape.key_dim,
            shape.n_kv_heads * shape.key_dim,
            shape.n_kv_heads * shape.value_dim,
        ]
    }

    /// Of all three.
    pub fn width(&self) -> usize {
        self.widths().iter().sum()
    }

    /// What caches hold before: a number that nothing makes.
    pub fn untouched(&self) -> GroupedCaches<E> {
        let b = self.positions.len();
        let [q, k, v] = self.widths();
        let fill = |n| vec![E::from_f32(7.0); n];
        GroupedCaches {
            turned: fill(b * q),
            keys: fill(b * k * self.capacity),
            values: fill(b * v * self.capacity),
        }
    }

    fn turn(&self, from: &[E], position: usize) -> Vec<f64> {
        let half = self.shape.key_dim / 2;
        let wide: Vec<f64> = from.iter().map(|x| f64::from(x.to_f32())).collect();
        let mut to = vec![0.0; 2 * half];
        for i in 0..half {
            let (first, second) = if self.shape.halves {
                (i, half + i)
            } else {
                (2 * i, 2 * i + 1)
            };
            let [cos, sin] = [&self.cos, &self.sin].map(|table| f64::from(table[position * half + i]));
            to[first] = wide[first] * cos - wide[second] * sin;
            to[second] = wide[first] * sin + wide[second] * cos;
        }
        to
    }

    /// What is to be in the caches; what belongs to others is left as it was.
    #[track_caller]
    pub fn check(&self, got: &GroupedCaches<E>, tolerance: f64) {
        let GroupedUpdateShape {
            n_kv_heads,
            key_dim,
            value_dim,
            ..
        } = self.shape;
        let wide = |x: &[E]| -> Vec<f64> { x.iter().map(|x| f64::from(x.to_f32())).collect() };
        let before = self.untouched();
        let [mut turned, mut keys, mut values] =
            [&before.turned, &before.keys, &before.values].map(|elements| wide(elements));
        let [q_width, k_width, _] = self.widths();
        for (sequence, position) in self.positions.iter().enumerate() {
            let Some(position) = usize::try_from(*position)
                .ok()
                .filter(|at| *at < self.n_positions)
            else {
                continue;
            };
            let own = &self.qkv[sequence * self.width()..][..self.width()];
            let (q, rest) = own.split_at(q_width);
            let (k, v) = rest.split_at(k_width);
            for (head, q) in q.chunks_exact(key_dim).enumerate() {
                turned[sequence * q_width + head * key_dim..][..key_dim]
                    .copy_from_slice(&self.turn(q, position));
            }
            for head in 0..n_kv_heads {
                let slot = (sequence * n_kv_heads + head) * self.capacity + position;
                keys[slot * key_dim..][..key_dim]
                    .copy_from_slice(&self.turn(&k[head * key_dim..][..key_dim], position));
                values[slot * value_dim..][..value_dim]
                    .copy_from_slice(&wide(&v[head * value_dim..][..value_dim]));
            }
        }
        assert_close(&got.turned, &turned, tolerance);
        assert_close(&got.keys, &keys, tolerance);
        assert_close(&got.values, &values, tolerance);
    }
}
