//! `cuda/attend_backward.cu` in Rust, lane by lane: the same passes, tiles, masks and order of sums. Names are the
//! kernel's.

use attn_kernels::cuda::{AttendBackwardPlan, GradientTiles, Pass};
use attn_kernels::{Attend, Element, Rows};

use super::attend::{entry, every_row, seen_from};
use super::tiles::{Sums, Tile, add_products, add_weighed, dot, row_of, zeros};

/// The launches: the operands, and what the plan says.
pub struct Model<'a, E> {
    pub input: &'a Attend<'a, E>,
    pub plan: &'a AttendBackwardPlan,
    /// `[B, T, H, Dv]`.
    pub out: &'a [E],
    /// `[B, H, T]`.
    pub lse: &'a [f32],
    /// `[B, H, T, Dv]`.
    pub grad: Rows<'a, E>,
}

/// Gradients, and what stands between the launches.
pub struct Gradients<E> {
    /// `[B, T, H, Dk]`.
    pub q: Vec<E>,
    /// `[B, M, Hkv, Dk - Ds]`.
    pub k: Vec<E>,
    /// `[B, M, Hkv, Dv]`.
    pub v: Vec<E>,
    /// `[B, M, Ds]`.
    pub shared: Vec<E>,
    rows: Vec<[f32; 2]>,
    own_weights: Vec<[f32; 2]>,
    shared_parts: Vec<f32>,
}

impl<E: Element> Model<'_, E> {
    /// Every launch in order.
    pub fn run(&self) -> Gradients<E> {
        let Attend {
            batch,
            n_heads: h,
            n_kv_heads: h_kv,
            tokens,
            key_dim,
            shared_dim,
            value_dim,
            ..
        } = *self.input;
        let given = self.n_entries();
        let none = |n: usize| vec![E::from_f32(f32::NAN); n];
        let mut gradients = Gradients {
            q: none(batch * tokens * h * key_dim),
            k: none(batch * given * h_kv * (key_dim - shared_dim)),
            v: none(batch * given * h_kv * value_dim),
            shared: none(batch * given * shared_dim),
            rows: vec![[f32::NAN; 2]; self.plan.workspace.rows],
            own_weights: vec![[f32::NAN; 2]; self.plan.workspace.own_weights],
            shared_parts: vec![f32::NAN; self.plan.workspace.shared_parts],
        };
        for pass in &self.plan.passes {
            match (pass.pass, pass.tiles) {
                (Pass::Rows, _) => self.rows(&mut gradients),
                (Pass::OwnEntries, _) => self.own_entries(&mut gradients),
                (Pass::Shared, _) => self.shared(&mut gradients),
                (of, Some(tiles)) => {
                    let [heads, blocks, sequences] = pass.planned.launch.grid;
                    assert_eq!(sequences, batch);
                    for at in 0..heads * blocks * sequences {
                        let (head, block) = (at % heads, at / heads % blocks);
                        let place = [at / heads / blocks, head, block * tiles.rows()];
                        self.block(of, tiles, place, &mut gradients);
                    }
                }
                (of, None) => panic!("{of:?} has tiles"),
            }
        }
        gradients
    }

    fn group(&self) -> usize {
        self.input.n_heads / self.input.n_kv_heads
    }

    fn factor(&self) -> f32 {
        self.input.scale * std::f32::consts::LOG2_E
    }

    fn place_of(&self, sequence: usize, head: usize, token: usize) -> usize {
        (sequence * self.input.n_heads + head) * self.input.tokens + token
    }

    fn n_entries(&self) -> usize {
        match self.input.own {
            Some(_) => self.input.tokens,
            None => self.input.n_keys,
        }
    }

    fn entry_of(&self, j: usize) -> usize {
        match self.input.own {
            Some(_) => (j + 1) * self.input.stride - 1,
            None => j,
        }
    }

    fn q(&self, sequence: usize, head: usize, token: usize) -> Vec<f32> {
        row_of(&self.input.q, [sequence, head, token], self.input.key_dim)
    }

    fn grad(&self, sequence: usize, head: usize, token: usize) -> Vec<f32> {
        row_of(&self.grad, [sequence, head, token], self.input.value_dim)
    }

    fn rows(&self, to: &mut Gradients<E>) {
        let input = self.input;
        for row in 0..input.batch * input.tokens * input.n_heads {
            let (head, token) = (row % input.n_heads, row / input.n_heads % input.tokens);
            let sequence = row / input.n_heads / input.tokens;
            let out = &self.out[row * input.value_dim..][..input.value_dim];
            let out: Vec<f32> = out.iter().map(|x| x.to_f32()).collect();
            let grad = self.grad(sequence, head, token);
            let d = dot::<E>(8, &grad, &out);
            let place = self.place_of(sequence, head, token);
            let lse = self.lse[place] * std::f32::consts::LOG2_E;
            to.rows[place] = [lse, d];
            if input.own.is_some() {
                let (key, value) = entry(input, sequence, head / self.group(), token, true);
                let score = dot::<E>(8, &self.q(sequence, head, token), &key);
                let weight = score.mul_add(self.factor(), -lse).exp2();
                to.own_weights[place] = [weight, weight * (dot::<E>(8, &grad, &value) - d)];
            }
        }
    }

    fn own_entries(&self, to: &mut Gradients<E>) {
        let input = self.input;
        let (h_kv, stride) = (input.n_kv_heads, input.stride);
        for row in 0..input.batch * input.tokens * h_kv {
            let (kv_head, token) = (row % h_kv, row / h_kv % input.tokens);
            let sequence = row / h_kv / input.tokens;
            if token % stride == stride - 1 && token / stride < input.n_keys {
                continue;
            }
            let (mut key, mut value) = (vec![0.0_f32; input.key_dim], vec![0.0_f32; input.value_dim]);
            for head in kv_head * self.group()..(kv_head + 1) * self.group() {
                let [weight, ds] = to.own_weights[self.place_of(sequence, head, token)];
                let q = self.q(sequence, head, token);
                key.iter_mut()
                    .zip(&q)
                    .for_each(|(to, q)| *to = ds.mul_add(*q, *to));
                let grad = self.grad(sequence, head, token);
                value
                    .iter_mut()
                    .zip(&grad)
                    .for_each(|(to, grad)| *to = weight.mul_add(*grad, *to));
            }
            for (d, key) in key.iter().enumerate() {
                self.store_key(to, [sequence, kv_head, token], d, key * input.scale);
            }
            for (d, value) in value.iter().enumerate() {
                to.v[row * input.value_dim + d] = E::from_f32(*value);
            }
        }
    }

    /// A column of dK, to its place or to that of a KV head's part of shared ones.
    fn store_key(
        &self,
        to: &mut Gradients<E>,
        [sequence, kv_head, entry]: [usize; 3],
        column: usize,
        x: f32,
    ) {
        let (h_kv, ds) = (self.input.n_kv_heads, self.input.shared_dim);
        let apart = self.input.key_dim - ds;
        if column < apart {
            let row = (sequence * self.n_entries() + entry) * h_kv + kv_head;
            to.k[row * apart + column] = E::from_f32(x);
        } else {
            let part = (sequence * h_kv + kv_head) * self.n_entries() + entry;
            to.shared_parts[part * ds + column - apart] = x;
        }
    }

    fn shared(&self, to: &mut Gradients<E>) {
        let (h_kv, ds, n) = (self.input.n_kv_heads, self.input.shared_dim, self.n_entries());
        for row in 0..self.input.batch * n {
            for column in 0..ds {
                let part = |kv_head: usize| {
                    to.shared_parts[((row / n * h_kv + kv_head) * n + row % n) * ds + column]
                };
                let sum = (0..h_kv).fold(0.0, |sum, kv_head| sum + part(kv_head));
                to.shared[row * ds + column] = E::from_f32(sum);
            }
        }
    }

    fn block(
        &self,
        pass: Pass,
        tiles: GradientTiles,
        [sequence, block_head, first]: [usize; 3],
        to: &mut Gradients<E>,
    ) {
        let input = self.input;
        let GradientTiles {
            warps,
            row_tiles,
            columns,
            ..
        } = tiles;
        let Attend {
            tokens,
            n_keys,
            key_dim,
            value_dim,
            start,
            ..
        } = *input;
        let of_queries = pass == Pass::Queries;
        let has_keys = pass != Pass::Values;
        let has_values = matches!(pass, Pass::Entries | Pass::Values);
        let group = self.group();
        let kv_head = if of_queries {
            block_head / group
        } else {
            block_head
        };
        let first_head = if of_queries { block_head } else { kv_head * group };
        let all_rows = if of_queries { tokens } else { n_keys };
        let rows = tiles.rows().min(all_rows - first);
        let seen_by = |token: usize| seen_from(input, start + token);

        let seen = seen_by(first + rows - 1);
        let from_position = if input.own.is_some() {
            (first + 1) * input.stride
        } else {
            first
        };
        let first_token = from_position.saturating_sub(start);
        let first_tile = if of_queries { 0 } else { first_token / columns };
        let last_column = if of_queries { seen } else { tokens };
        let head_tiles = last_column.div_ceil(columns).saturating_sub(first_tile);
        let all_tiles = if of_queries {
            head_tiles
        } else {
            group * head_tiles
        };

        let copy_entries = |count: usize, from: usize, left: usize| {
            let one = |row: usize| entry(input, sequence, kv_head, from + row, false);
            (
                Tile::<E>::copy(count, key_dim, left, |row| one(row).0),
                Tile::<E>::copy(count, value_dim, left, |row| one(row).1),
            )
        };
        let copy_queries = |count: usize, head: usize, from: usize, left: usize| {
            (
                Tile::<E>::copy(count, key_dim, left, |row| self.q(sequence, head, from + row)),
                Tile::<E>::copy(count, value_dim, left, |row| {
                    self.grad(sequence, head, from + row)
                }),
            )
        };
        let (first_rows, second_rows) = if of_queries {
            copy_queries(tiles.rows(), first_head, first, rows)
        } else {
            copy_entries(tiles.rows(), first, rows)
        };

        let warp_rows = 16 * row_tiles;
        for warp in 0..warps {
            let warp_first = warp * warp_rows;
            let row_at = |i: usize, r: usize, lane: usize| first + warp_first + 16 * i + 8 * r + lane / 4;
            let mut keys = zeros(row_tiles, key_dim.next_multiple_of(16) / 8);
            let mut values = zeros(row_tiles, value_dim.next_multiple_of(16) / 8);
            let add_row = |c: &mut Sums, [i, r, lane]: [usize; 3], weight: f32, from: &[f32]| {
                for n in 0..from.len() / 8 {
                    for e in 0..2 {
                        let to = &mut c[i][n][lane][2 * r + e];
                        *to = weight.mul_add(from[8 * n + 2 * (lane % 4) + e], *to);
                    }
                }
            };
            if input.own.is_some() {
                for (i, r, lane) in every_row(row_tiles) {
                    let row = row_at(i, r, lane).min(all_rows - 1);
                    if of_queries {
                        let weight = to.own_weights[self.place_of(sequence, first_head, row)][1];
                        let key = entry(input, sequence, kv_head, row, true).0;
                        add_row(&mut keys, [i, r, lane], weight, &key);
                        continue;
                    }
                    let token = self.entry_of(row);
                    for head in first_head..first_head + group {
                        let [weight, ds] = to.own_weights[self.place_of(sequence, head, token)];
                        if has_keys {
                            add_row(&mut keys, [i, r, lane], ds, &self.q(sequence, head, token));
                        }
                        if has_values {
                            add_row(
                                &mut values,
                                [i, r, lane],
                                weight,
                                &self.grad(sequence, head, token),
                            );
                        }
                    }
                }
            }

            let left = warp_rows.min(rows.saturating_sub(warp_first));
            for tile in 0..all_tiles {
                let head = first_head + tile / head_tiles;
                let from = columns
                    * if of_queries {
                        tile
                    } else {
                        first_tile + tile % head_tiles
                    };
                if left == 0 {
                    continue;
                }
                let last = (from + columns).min(last_column) - 1;
                let (first_row, last_row) = (first + warp_first, first + warp_first + left - 1);
                let most = seen_by(if of_queries { last_row } else { last });
                let least = seen_by(if of_queries { first_row } else { from });
                let (first_entry, last_entry) = if of_queries {
                    (from, from + columns - 1)
                } else {
                    (first_row, last_row)
                };
                if most <= first_entry {
                    continue;
                }
                let (first_tile_rows, second_tile_rows) = if of_queries {
                    copy_entries(columns, from, seen - from)
                } else {
                    copy_queries(columns, head, from, tokens - from)
                };
                let mut s = zeros(row_tiles, columns / 8);
                let mut ds = zeros(row_tiles, columns / 8);
                add_products(&mut s, &first_rows, warp_first, &first_tile_rows);
                if has_keys {
                    add_products(&mut ds, &second_rows, warp_first, &second_tile_rows);
                }
                for (i, r, lane) in every_row(row_tiles) {
                    for n in 0..columns / 8 {
                        for e in 0..2 {
                            let (row, column) = (row_at(i, r, lane), from + 8 * n + 2 * (lane % 4) + e);
                            let [lse, d] = match (of_queries, row < tokens, column < tokens) {
                                (true, is_there, _) => {
                                    let row = if is_there { row } else { tokens - 1 };
                                    to.rows[self.place_of(sequence, head, row)]
                                }
                                (false, _, true) => to.rows[self.place_of(sequence, head, column)],
                                (false, _, false) => [0.0; 2],
                            };
                            let s = &mut s[i][n][lane][2 * r + e];
                            let ds = &mut ds[i][n][lane][2 * r + e];
                            *s = s.mul_add(self.factor(), -lse).exp2();
                            *ds = *s * (*ds - d);
                            let is_hidden = if of_queries {
                                column >= seen_by(row)
                            } else {
                                row >= seen_by(column)
                            };
                            if least <= last_entry && is_hidden {
                                (*s, *ds) = (0.0, 0.0);
                            }
                        }
                    }
                }
                if has_values {
                    add_weighed(&mut values, &s, &second_tile_rows);
                }
                if has_keys {
                    add_weighed(&mut keys, &ds, &first_tile_rows);
                }
            }

            for (i, r, lane) in every_row(row_tiles) {
                let row = row_at(i, r, lane);
                if row >= all_rows {
                    continue;
                }
                let of = |c: &Sums, d: usize| c[i][d / 8][lane][2 * r + d % 2];
                let own = |dim: usize| (0..dim).filter(move |d| d % 8 / 2 == lane % 4);
                if of_queries {
                    let at = ((sequence * tokens + row) * input.n_heads + first_head) * key_dim;
                    own(key_dim).for_each(|d| to.q[at + d] = E::from_f32(of(&keys, d) * input.scale));
                    continue;
                }
                let at = [sequence, kv_head, self.entry_of(row)];
                if has_keys {
                    own(key_dim).for_each(|d| self.store_key(to, at, d, of(&keys, d) * input.scale));
                }
                if has_values {
                    let row = (sequence * self.n_entries() + at[2]) * input.n_kv_heads + kv_head;
                    own(value_dim).for_each(|d| to.v[row * value_dim + d] = E::from_f32(of(&values, d)));
                }
            }
        }
    }
}
