//! `cuda/few_heads_decode.cu` in Rust: the same entries in the same lanes, the same order of sums.

use attn_kernels::cuda::{Lanes, range_of};
use attn_kernels::{Decode, Element, Rows};

use super::combine::{Partial, combine, total_of};
use super::warp::{fmax, shrink};

/// A launch: the operands, and what the plan says.
pub struct FewHeads<'a, E> {
    pub input: &'a Decode<'a, E>,
    pub lanes: Lanes,
    pub splits: usize,
}

/// What a set of lanes keeps: a maximum and a sum for each head, and all columns of its values.
#[derive(Clone)]
struct Set {
    m: Vec<f32>,
    l: Vec<f32>,
    /// `[g, Dv]`; a lane has the elements of its vectors.
    o: Vec<Vec<f32>>,
}

impl<E: Element> FewHeads<'_, E> {
    /// `[B, H, Dv]`.
    pub fn run(&self) -> Vec<E> {
        let input = self.input;
        let mut out = Vec::new();
        for sequence_head in 0..input.slots.len() * input.n_kv_heads {
            let slots = input.slots[sequence_head / input.n_kv_heads];
            let (_, active) = range_of(slots, 0, self.splits, self.step());
            let blocks: Vec<Partial> = (0..active)
                .map(|split| self.block(sequence_head, split))
                .collect();
            out.extend(combine::<E>(&blocks, input.value_dim, self.factor()));
        }
        out
    }

    fn factor(&self) -> f32 {
        self.input.scale * std::f32::consts::LOG2_E
    }

    fn sets(&self) -> usize {
        32 / self.lanes.of_entry
    }

    fn step(&self) -> usize {
        self.sets() * self.lanes.keys
    }

    /// The score of a head and an entry: what each lane has, then the butterfly.
    fn score(&self, q: &[f32], k: &[f32]) -> f32 {
        let in_vector = self.lanes.vector_bytes / size_of::<E>();
        let lanes = self.lanes.of_entry;
        let mut sums: Vec<f32> = (0..lanes)
            .map(|own| {
                let vectors = (own..k.len() / in_vector).step_by(lanes);
                let elements = vectors.flat_map(|vector| vector * in_vector..(vector + 1) * in_vector);
                elements.fold(0.0, |sum: f32, d| q[d].mul_add(k[d], sum))
            })
            .collect();
        let mut distance = 1;
        while distance < lanes {
            sums = (0..lanes)
                .map(|lane| sums[lane] + sums[lane ^ distance])
                .collect();
            distance *= 2;
        }
        sums[0]
    }

    /// One block of the grid.
    fn block(&self, sequence_head: usize, split: usize) -> Partial {
        let input = self.input;
        let group = input.n_heads / input.n_kv_heads;
        let (sequence, kv_head) = (sequence_head / input.n_kv_heads, sequence_head % input.n_kv_heads);
        let (range, _) = range_of(input.slots[sequence], split, self.splits, self.step());
        let wide = |from: &[E]| from.iter().map(|x| x.to_f32()).collect::<Vec<f32>>();
        let row_of = |rows: &Rows<'_, E>, dim: usize, entry: usize| {
            let first = sequence * rows.batch_stride + kv_head * rows.head_stride;
            // What is not loaded is zero.
            match entry < range.end {
                true => wide(&rows.data[first + entry * rows.row_stride..][..dim]),
                false => vec![0.0; dim],
            }
        };
        let q: Vec<Vec<f32>> = (0..group)
            .map(|h| wide(&input.q[(sequence_head * group + h) * input.key_dim..][..input.key_dim]))
            .collect();
        let value_rows = input.values.as_ref().unwrap();

        let warps = self.lanes.warps;
        let (mut parts, mut sums) = (Vec::new(), Vec::new());
        for warp in 0..warps {
            let mut sets = vec![
                Set {
                    m: vec![f32::NEG_INFINITY; group],
                    l: vec![0.0; group],
                    o: vec![vec![0.0; input.value_dim]; group],
                };
                self.sets()
            ];
            for first in (range.start + warp * self.step()..range.end).step_by(warps * self.step()) {
                for (set, state) in sets.iter_mut().enumerate() {
                    let entries: Vec<usize> = (0..self.lanes.keys)
                        .map(|j| first + j * self.sets() + set)
                        .collect();
                    let keys: Vec<_> = entries
                        .iter()
                        .map(|entry| row_of(&input.keys, input.key_dim, *entry))
                        .collect();
                    let values: Vec<_> = entries
                        .iter()
                        .map(|entry| row_of(value_rows, input.value_dim, *entry))
                        .collect();
                    for (h, q) in q.iter().enumerate() {
                        let mut s: Vec<f32> = keys.iter().map(|k| self.score(q, k)).collect();
                        for (s, entry) in s.iter_mut().zip(&entries) {
                            if *entry >= range.end {
                                *s = f32::NEG_INFINITY;
                            }
                        }
                        let top = s.iter().copied().fold(state.m[h], fmax);
                        let by = shrink(state.m[h], top, self.factor());
                        state.m[h] = top;
                        state.l[h] *= by;
                        state.o[h].iter_mut().for_each(|o| *o *= by);
                        let base = self.factor() * if top == f32::NEG_INFINITY { 0.0 } else { top };
                        for (s, v) in s.iter().zip(&values) {
                            let weight = s.mul_add(self.factor(), -base).exp2();
                            state.l[h] += weight;
                            for (o, v) in state.o[h].iter_mut().zip(v) {
                                *o = weight.mul_add(*v, *o);
                            }
                        }
                    }
                }
            }
            let (part, sum): (Vec<_>, Vec<_>) = (0..group).map(|h| self.join_sets(&sets, h)).unzip();
            parts.push(part);
            sums.push(sum);
        }
        let values = (0..group).map(|h| {
            let total = total_of(&sums, h, self.factor());
            let mut sum = vec![0.0; input.value_dim];
            for warp in 0..warps {
                let by = shrink(sums[warp][h][0], total[0], self.factor());
                for (sum, o) in sum.iter_mut().zip(&parts[warp][h]) {
                    *sum += by * o;
                }
            }
            sum
        });
        Partial {
            values: values.collect(),
            sums: (0..group).map(|h| total_of(&sums, h, self.factor())).collect(),
        }
    }

    /// The sets of a warp, by butterfly: values, and maximum and sum.
    fn join_sets(&self, sets: &[Set], h: usize) -> (Vec<f32>, [f32; 2]) {
        let top = sets
            .iter()
            .fold(f32::NEG_INFINITY, |max, set| fmax(max, set.m[h]));
        let by: Vec<f32> = sets
            .iter()
            .map(|set| shrink(set.m[h], top, self.factor()))
            .collect();
        let sum = |of: &dyn Fn(&Set) -> f32| {
            let mut all: Vec<f32> = sets.iter().zip(&by).map(|(set, by)| of(set) * by).collect();
            let mut distance = 1;
            while distance < all.len() {
                all = (0..all.len()).map(|set| all[set] + all[set ^ distance]).collect();
                distance *= 2;
            }
            all[0]
        };
        let columns = 0..sets[0].o[h].len();
        (
            columns.map(|d| sum(&|set| set.o[h][d])).collect(),
            [top, sum(&|set| set.l[h])],
        )
    }
}
