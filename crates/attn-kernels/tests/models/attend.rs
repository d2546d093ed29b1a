//! `cuda/attend.cu` in Rust, lane by lane: the same tiles, masks and order of sums. Names are the kernel's.

use attn_kernels::cuda::AttendTiles;
use attn_kernels::{Attend, Element};

use super::tiles::{Sums, Tile, add_products, add_weighed, dot, row_of, zeros};
use super::warp::{Lanes, butterfly, fmax, shrink};

/// A launch: the operands, and what the plan says.
pub struct Model<'a, E> {
    pub input: &'a Attend<'a, E>,
    pub tiles: AttendTiles,
}

/// Of a warp: sums, and for rows g and g + 8 of its tiles the running maxima and the sums of each lane's columns.
struct Warp {
    o: Sums,
    m: Vec<[Lanes<f32>; 2]>,
    l: Vec<[Lanes<f32>; 2]>,
}

/// The key of a closed entry, or of an own one, both parts of it; and its value.
pub fn entry<E: Element>(
    input: &Attend<'_, E>,
    sequence: usize,
    kv_head: usize,
    at: usize,
    is_own: bool,
) -> (Vec<f32>, Vec<f32>) {
    // Closed entries may be rows of the own ones.
    let (entries, at) = match (is_own, &input.closed, &input.own) {
        (false, Some(closed), _) => (closed, at),
        (false, None, Some(own)) => (own, (at + 1) * input.stride - 1),
        (true, _, Some(own)) => (own, at),
        _ => panic!("no entries"),
    };
    let mut key = row_of(
        &entries.k,
        [sequence, kv_head, at],
        input.key_dim - input.shared_dim,
    );
    if let Some(shared) = &entries.shared {
        key.extend(row_of(shared, [sequence, 0, at], input.shared_dim));
    }
    (key, row_of(&entries.v, [sequence, kv_head, at], input.value_dim))
}

/// `seen_from`.
pub fn seen_from<E>(input: &Attend<'_, E>, position: usize) -> usize {
    match input.own {
        Some(_) => position / input.stride,
        None => position + 1,
    }
}

impl<E: Element> Model<'_, E> {
    /// `[B, T, H, Dv]`, and the logarithms `[B, H, T]`.
    pub fn run(&self) -> (Vec<E>, Vec<f32>) {
        let Attend {
            batch,
            n_heads: h,
            tokens,
            value_dim,
            ..
        } = *self.input;
        let mut out = vec![E::from_f32(f32::NAN); batch * tokens * h * value_dim];
        let mut lse = vec![f32::NAN; batch * h * tokens];
        for sequence in 0..batch {
            for head in 0..h {
                for first in (0..tokens).step_by(self.tiles.rows()) {
                    self.block(sequence, head, first, &mut out, &mut lse);
                }
            }
        }
        (out, lse)
    }

    fn block(&self, sequence: usize, head: usize, first: usize, out: &mut [E], lse: &mut [f32]) {
        let input = self.input;
        let AttendTiles {
            warps,
            row_tiles,
            keys: n_keys,
            ..
        } = self.tiles;
        let Attend {
            n_heads: h,
            tokens,
            key_dim,
            value_dim,
            scale,
            ..
        } = *input;
        let factor = scale * std::f32::consts::LOG2_E;
        let kv_head = head / (h / input.n_kv_heads);
        let rows = self.tiles.rows().min(tokens - first);
        let seen_by = |row: usize| seen_from(input, input.start + first + row);
        let seen = seen_by(rows - 1);
        let query = |row: usize| row_of(&input.q, [sequence, head, first + row], key_dim);
        let queries = Tile::<E>::copy(self.tiles.rows(), key_dim, rows, query);
        let warp_rows = 16 * row_tiles;
        let column_tiles = value_dim.next_multiple_of(16) / 8;
        let row_at =
            |warp: usize, i: usize, r: usize, lane: usize| warp * warp_rows + 16 * i + 8 * r + lane / 4;

        let mut all: Vec<Warp> = (0..warps)
            .map(|_| Warp {
                o: zeros(row_tiles, column_tiles),
                m: vec![[[f32::NEG_INFINITY; 32]; 2]; row_tiles],
                l: vec![[[0.0; 32]; 2]; row_tiles],
            })
            .collect();
        if input.own.is_some() {
            for (at, warp) in all.iter_mut().enumerate() {
                for (i, r, lane) in every_row(row_tiles) {
                    let (g, t) = (lane / 4, lane % 4);
                    let row = row_at(at, i, r, lane);
                    let token = first + row.min(rows - 1);
                    let (key, value) = entry(input, sequence, kv_head, token, true);
                    let chunks = 0..key_dim / (16 / size_of::<E>());
                    let q: Vec<f32> = chunks
                        .flat_map(|chunk| queries.chunk(at * warp_rows, 16 * i + 8 * r + g, chunk).to_vec())
                        .collect();
                    warp.m[i][r][lane] = dot::<E>(4, &q, &key);
                    warp.l[i][r][lane] = if t == 0 { 1.0 } else { 0.0 };
                    for n in 0..value_dim / 8 {
                        for e in 0..2 {
                            warp.o[i][n][lane][2 * r + e] = value[8 * n + 2 * t + e];
                        }
                    }
                }
            }
        }

        for tile in 0..seen.div_ceil(n_keys) {
            let from = tile * n_keys;
            let closed = |row: usize| entry(input, sequence, kv_head, from + row, false);
            let key_tile = Tile::<E>::copy(n_keys, key_dim, seen - from, |row| closed(row).0);
            let value_tile = Tile::<E>::copy(n_keys, value_dim, seen - from, |row| closed(row).1);
            for (at, warp) in all.iter_mut().enumerate() {
                let warp_first = at * warp_rows;
                let left = warp_rows.min(rows.saturating_sub(warp_first));
                let warp_seen = if left > 0 {
                    seen_by(warp_first + left - 1)
                } else {
                    0
                };
                if from >= warp_seen {
                    continue;
                }
                let mut s = zeros(row_tiles, n_keys / 8);
                add_products(&mut s, &queries, warp_first, &key_tile);
                if from + n_keys > seen_by(warp_first) {
                    for (i, r, lane) in every_row(row_tiles) {
                        let left = seen_by(row_at(at, i, r, lane)).saturating_sub(from);
                        for (n, s) in s[i].iter_mut().enumerate() {
                            for e in 0..2 {
                                if 8 * n + 2 * (lane % 4) + e >= left {
                                    s[lane][2 * r + e] = f32::NEG_INFINITY;
                                }
                            }
                        }
                    }
                }
                warp.weigh(&mut s, factor);
                add_weighed(&mut warp.o, &s, &value_tile);
            }
        }

        for (at, warp) in all.iter_mut().enumerate() {
            for l in warp.l.iter_mut().flatten() {
                butterfly(l, 4, |a, b| a + b);
            }
            for (i, r, lane) in every_row(row_tiles) {
                let row = row_at(at, i, r, lane);
                if row >= rows {
                    continue;
                }
                let (token, sum, t) = (first + row, warp.l[i][r][lane], lane % 4);
                let inverse = 1.0 / sum;
                for n in 0..value_dim / 8 {
                    for e in 0..2 {
                        let to = ((sequence * tokens + token) * h + head) * value_dim + 8 * n + 2 * t + e;
                        out[to] = E::from_f32(warp.o[i][n][lane][2 * r + e] * inverse);
                    }
                }
                lse[(sequence * h + head) * tokens + token] = scale * warp.m[i][r][lane] + sum.ln();
            }
        }
    }
}

/// Row tile, half of it, and lane.
pub fn every_row(row_tiles: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..row_tiles).flat_map(|i| (0..2).flat_map(move |r| (0..32).map(move |lane| (i, r, lane))))
}

impl Warp {
    /// Scores to weights.
    fn weigh(&mut self, s: &mut Sums, factor: f32) {
        let mut top = self.m.clone();
        for (top, s) in top.iter_mut().zip(&*s) {
            for (r, top) in top.iter_mut().enumerate() {
                for (lane, top) in top.iter_mut().enumerate() {
                    for s in s {
                        *top = fmax(*top, fmax(s[lane][2 * r], s[lane][2 * r + 1]));
                    }
                }
                butterfly(top, 4, fmax);
            }
        }
        if top != self.m {
            for (i, r, lane) in every_row(top.len()) {
                let by = shrink(self.m[i][r][lane], top[i][r][lane], factor);
                self.l[i][r][lane] *= by;
                for o in &mut self.o[i] {
                    (0..2).for_each(|e| o[lane][2 * r + e] *= by);
                }
            }
            self.m = top;
        }
        for (i, r, lane) in every_row(s.len()) {
            let max = self.m[i][r][lane];
            let base = factor * if max == f32::NEG_INFINITY { 0.0 } else { max };
            for s in &mut s[i] {
                for s in &mut s[lane][2 * r..2 * r + 2] {
                    *s = s.mul_add(factor, -base).exp2();
                    self.l[i][r][lane] += *s;
                }
            }
        }
    }
}
