//! `cuda/streams.cuh` in Rust, lane by lane: the same ring, the same fragments from the same places of shared memory,
//! the same order of sums. Names are the kernel's.

use attn_kernels::cuda::{HEAD_TILE, Tiles, range_of, swizzled};
use attn_kernels::{Decode, Element, Rows};

use super::combine::{Partial, combine, total_of};
use super::warp::{Lanes, butterfly, fmax, load_matrices, load_transposed, multiply, rounded, shrink};

/// A launch: the operands, and what the plan says.
pub struct Streams<'a, E> {
    pub input: &'a Decode<'a, E>,
    pub tiles: Tiles,
    pub splits: usize,
}

/// Accumulators of a warp: 16 x 8 values each, and the running maxima and sums of rows g and g + 8.
struct Warp {
    o: Vec<Lanes<[f32; 4]>>,
    m: [Lanes<f32>; 2],
    l: [Lanes<f32>; 2],
}

impl<E: Element> Streams<'_, E> {
    /// `[B, H, Dv]`.
    pub fn run(&self) -> Vec<E> {
        let Decode {
            n_heads,
            n_kv_heads,
            value_dim,
            slots,
            ..
        } = *self.input;
        let group = n_heads / n_kv_heads;
        let rows = HEAD_TILE * self.tiles.head_tiles;
        let mut out = Vec::new();
        for sequence_head in 0..slots.len() * n_kv_heads {
            for first_head in (0..group).step_by(rows) {
                let slots = slots[sequence_head / n_kv_heads];
                let (_, active) = range_of(slots, 0, self.splits, self.tiles.entries);
                let blocks: Vec<Partial> = (0..active)
                    .map(|split| self.block(sequence_head, first_head, split))
                    .collect();
                out.extend(combine::<E>(&blocks, value_dim, self.factor()));
            }
        }
        out
    }

    fn factor(&self) -> f32 {
        self.input.scale * std::f32::consts::LOG2_E
    }

    fn in_chunk(&self) -> usize {
        16 / size_of::<E>()
    }

    /// `copy_rows`: every thread's pieces, in elements.
    fn copy_rows(
        &self,
        to: &mut [f32],
        from: impl Fn(usize) -> Vec<f32>,
        n: usize,
        dim: usize,
        rows: usize,
        count: usize,
    ) {
        let width = dim.next_multiple_of(16);
        let chunks = width / self.in_chunk();
        let in_piece = self.tiles.copy_bytes / size_of::<E>();
        let (pieces, real) = (width / in_piece, dim / in_piece);
        assert_eq!(dim % in_piece, 0);
        for thread in 0..count {
            let (mut row, mut piece) = (thread / pieces, thread % pieces);
            for _ in (thread..n * pieces).step_by(count) {
                let element = piece * in_piece;
                let at = swizzled(chunks, row, element / self.in_chunk()) * self.in_chunk()
                    + element % self.in_chunk();
                let exists = row < rows && piece < real;
                let source = if exists { from(row) } else { vec![0.0; width] };
                to[at..at + in_piece].copy_from_slice(&source[element..element + in_piece]);
                row += count / pieces;
                piece += count % pieces;
                if piece >= pieces {
                    piece -= pieces;
                    row += 1;
                }
            }
        }
    }

    /// One block of the grid.
    fn block(&self, sequence_head: usize, first_head: usize, split: usize) -> Partial {
        let input = self.input;
        let Tiles {
            head_tiles,
            column_groups,
            teams,
            entries: tile_entries,
            stages,
            ..
        } = self.tiles;
        let group = input.n_heads / input.n_kv_heads;
        let rows = HEAD_TILE * head_tiles;
        let (sequence, kv_head) = (sequence_head / input.n_kv_heads, sequence_head % input.n_kv_heads);
        let (range, active) = range_of(input.slots[sequence], split, self.splits, tile_entries);
        assert!(split < active);
        let tiles = range.len().div_ceil(tile_entries);
        let wide = |from: &[E]| from.iter().map(|x| x.to_f32()).collect::<Vec<f32>>();
        let row_of = |rows: &Rows<'_, E>, dim: usize, entry: usize| {
            let first = sequence * rows.batch_stride + kv_head * rows.head_stride;
            wide(&rows.data[first + (range.start + entry) * rows.row_stride..][..dim])
        };

        let team_warps = head_tiles * column_groups;
        let (key_width, value_width) = (
            input.key_dim.next_multiple_of(16),
            input.value_dim.next_multiple_of(16),
        );
        // Shared memory that nobody has written is NaN.
        let mut queries = vec![f32::NAN; rows * key_width];
        let query = |row: usize| {
            let head = sequence_head * group + first_head + row;
            wide(&input.q[head * input.key_dim..][..input.key_dim])
        };
        self.copy_rows(
            &mut queries,
            query,
            rows,
            input.key_dim,
            group - first_head.min(group),
            32 * teams * team_warps,
        );
        let mut sums = vec![vec![[0.0; 2]; rows]; teams];
        let mut warps = Vec::new();
        for (team, sums) in sums.iter_mut().enumerate() {
            let key_tile = tile_entries * key_width;
            let apart = input.values.as_ref();
            let stage_elements = key_tile + apart.map_or(0, |_| tile_entries * value_width);
            let mut ring = vec![f32::NAN; stages * stage_elements];
            let copy_tile = |ring: &mut [f32], tile: usize, stage: usize| {
                let (first, count) = (tile * tile_entries, 32 * team_warps);
                let left = range.len() - first;
                let (keys, values) = ring[stage * stage_elements..][..stage_elements].split_at_mut(key_tile);
                let key = |row| row_of(&input.keys, input.key_dim, first + row);
                self.copy_rows(keys, key, tile_entries, input.key_dim, left, count);
                if let Some(rows) = apart {
                    let value = |row| row_of(rows, input.value_dim, first + row);
                    self.copy_rows(values, value, tile_entries, input.value_dim, left, count);
                }
            };
            for stage in 0..stages - 1 {
                let tile = team + stage * teams;
                if tile < tiles {
                    copy_tile(&mut ring, tile, stage);
                }
            }
            let own_tiles = (value_width / 16).div_ceil(column_groups);
            let mut members: Vec<Warp> = (0..team_warps)
                .map(|_| Warp {
                    o: vec![[[0.0; 4]; 32]; 2 * own_tiles],
                    m: [[f32::NEG_INFINITY; 32]; 2],
                    l: [[0.0; 32]; 2],
                })
                .collect();
            let mut stage = 0;
            for tile in (team..tiles).step_by(teams) {
                let next = tile + (stages - 1) * teams;
                if next < tiles {
                    copy_tile(&mut ring, next, if stage == 0 { stages - 1 } else { stage - 1 });
                }
                let (keys, values) = ring[stage * stage_elements..][..stage_elements].split_at(key_tile);
                let values = if apart.is_some() { values } else { keys };
                stage = if stage == stages - 1 { 0 } else { stage + 1 };
                let left = range.len() - tile * tile_entries;
                let parts: Vec<_> = (0..team_warps)
                    .map(|member| {
                        let own = &queries[member / column_groups * HEAD_TILE * key_width..];
                        self.scores(own, keys, member % column_groups)
                    })
                    .collect();
                for (member, warp) in members.iter_mut().enumerate() {
                    let first = member / column_groups * column_groups;
                    let mut s = vec![[[0.0; 4]; 32]; tile_entries / 8];
                    for part in &parts[first..first + column_groups] {
                        for (s, part) in s
                            .iter_mut()
                            .flatten()
                            .flatten()
                            .zip(part.iter().flatten().flatten())
                        {
                            *s += part;
                        }
                    }
                    self.weigh(warp, s, values, left, member % column_groups);
                }
            }
            for (member, warp) in members.iter_mut().enumerate() {
                for r in 0..2 {
                    butterfly(&mut warp.l[r], 4, |a, b| a + b);
                    if member % column_groups == 0 {
                        for g in 0..8 {
                            let row = member / column_groups * 16 + g + 8 * r;
                            sums[row] = [warp.m[r][4 * g], warp.l[r][4 * g]];
                        }
                    }
                }
            }
            warps.push(members);
        }

        let there = rows.min(group - first_head);
        let mut parts = vec![vec![vec![f32::NAN; value_width]; there]; teams];
        for (team, members) in warps.iter().enumerate() {
            for (member, warp) in members.iter().enumerate() {
                let (head_tile, column_group) = (member / column_groups, member % column_groups);
                for lane in 0..32 {
                    let (g, t) = (lane / 4, lane % 4);
                    for r in 0..2 {
                        let row = head_tile * 16 + g + 8 * r;
                        if row >= there {
                            continue;
                        }
                        let by = shrink(
                            warp.m[r][lane],
                            total_of(&sums, row, self.factor())[0],
                            self.factor(),
                        );
                        for (i, o) in warp.o.iter().enumerate() {
                            let column = 8 * column_group * warp.o.len() + 8 * i + 2 * t;
                            if column >= value_width {
                                continue;
                            }
                            parts[team][row][column] = by * o[lane][2 * r];
                            parts[team][row][column + 1] = by * o[lane][2 * r + 1];
                        }
                    }
                }
            }
        }
        let values = (0..there)
            .map(|row| {
                (0..value_width)
                    .map(|column| parts.iter().fold(0.0, |sum, part| sum + part[row][column]))
                    .collect()
            })
            .collect();
        Partial {
            sums: (0..there)
                .map(|row| total_of(&sums, row, self.factor()))
                .collect(),
            values,
        }
    }

    /// `add_scores` for the steps of a column group.
    fn scores(&self, queries: &[f32], keys: &[f32], column_group: usize) -> Vec<Lanes<[f32; 4]>> {
        let steps = self.input.key_dim.div_ceil(16);
        let chunks = steps * 16 / self.in_chunk();
        let at = |row: usize, chunk: usize| swizzled(chunks, row, chunk) * self.in_chunk();
        let mut s = vec![[[0.0; 4]; 32]; self.tiles.entries / 8];
        for step in (column_group..steps).step_by(self.tiles.column_groups) {
            if size_of::<E>() == 2 {
                let a = load_matrices(queries, |lane| {
                    let (matrix, row) = (lane / 8, lane % 8);
                    at(matrix % 2 * 8 + row, 2 * step + matrix / 2)
                });
                let b = load_matrices(keys, |lane| {
                    let (matrix, row) = (lane / 8, lane % 8);
                    at(matrix / 2 * 8 + row, 2 * step + matrix % 2)
                });
                multiply(&mut s[0], &a, &b, 0);
                multiply(&mut s[1], &a, &b, 2);
                continue;
            }
            for chunk in 4 * step..4 * step + 4 {
                for (lane, s) in s[0].iter_mut().enumerate() {
                    let (g, t) = (lane / 4, lane % 4);
                    for (i, s) in s.iter_mut().enumerate() {
                        let q = &queries[at(g + i / 2 * 8, chunk)..];
                        let k = &keys[at(2 * t + i % 2, chunk)..];
                        (0..4).for_each(|d| *s = q[d].mul_add(k[d], *s));
                    }
                }
            }
        }
        s
    }

    /// The softmax of a tile's scores, and `add_values` for the columns of a column group.
    fn weigh(
        &self,
        warp: &mut Warp,
        mut s: Vec<Lanes<[f32; 4]>>,
        values: &[f32],
        left: usize,
        column_group: usize,
    ) {
        let factor = self.factor();
        for (n, s) in s.iter_mut().enumerate() {
            for (lane, s) in s.iter_mut().enumerate() {
                for (i, s) in s.iter_mut().enumerate() {
                    if 8 * n + lane % 4 * 2 + i % 2 >= left {
                        *s = f32::NEG_INFINITY;
                    }
                }
            }
        }
        let mut top = warp.m;
        for r in 0..2 {
            for lane in 0..32 {
                for s in &s {
                    top[r][lane] = fmax(fmax(top[r][lane], s[lane][2 * r]), s[lane][2 * r + 1]);
                }
            }
            butterfly(&mut top[r], 4, fmax);
        }
        if top != warp.m {
            for lane in 0..32 {
                let by = [0, 1].map(|r| shrink(warp.m[r][lane], top[r][lane], factor));
                (0..2).for_each(|r| warp.l[r][lane] *= by[r]);
                for o in &mut warp.o {
                    (0..4).for_each(|i| o[lane][i] *= by[i / 2]);
                }
            }
            warp.m = top;
        }
        for s in &mut s {
            for (lane, s) in s.iter_mut().enumerate() {
                for (i, s) in s.iter_mut().enumerate() {
                    let max = warp.m[i / 2][lane];
                    let base = factor * if max == f32::NEG_INFINITY { 0.0 } else { max };
                    *s = s.mul_add(factor, -base).exp2();
                    warp.l[i / 2][lane] += *s;
                }
            }
        }
        let width = if self.input.values.is_some() {
            self.input.value_dim.next_multiple_of(16)
        } else {
            self.input.key_dim.next_multiple_of(16)
        };
        let chunks = width / self.in_chunk();
        let at = |row: usize, chunk: usize| swizzled(chunks, row, chunk) * self.in_chunk();
        let own = warp.o.len() / 2;
        for i in 0..own {
            let tile = column_group * own + i;
            if tile >= self.input.value_dim.div_ceil(16) {
                continue;
            }
            if size_of::<E>() == 2 {
                let p =
                    |n: usize, lane: usize, i: usize| [s[n][lane][i], s[n][lane][i + 1]].map(rounded::<E>);
                let a =
                    std::array::from_fn(|lane| [p(0, lane, 0), p(0, lane, 2), p(1, lane, 0), p(1, lane, 2)]);
                let b = load_transposed(values, |lane| {
                    let (matrix, row) = (lane / 8, lane % 8);
                    at(matrix % 2 * 8 + row, 2 * tile + matrix / 2)
                });
                multiply(&mut warp.o[2 * i], &a, &b, 0);
                multiply(&mut warp.o[2 * i + 1], &a, &b, 2);
                continue;
            }
            for entry in 0..self.tiles.entries {
                for lane in 0..32 {
                    let t = lane % 4;
                    let from = lane / 4 * 4 + entry / 2;
                    let weights = [s[0][from][entry % 2], s[0][from][2 + entry % 2]];
                    for half in 0..2 {
                        let v = &values[at(entry, 4 * tile + 2 * half + t / 2) + t % 2 * 2..];
                        let o = &mut warp.o[2 * i + half][lane];
                        (0..4).for_each(|i| o[i] = weights[i / 2].mul_add(v[i % 2], o[i]));
                    }
                }
            }
        }
    }
}
