//! The cost model: floating-point operations and least bytes of a workload, closed-form.
//!
//! These are the numbers achieved rates are divided by, so they count useful work only: what the mathematics
//! needs, not what an implementation happens to do (no masked-out scores, no expanded heads, no copies).
//!
//! ```
//! use attn_core::grouped::GroupedConfig;
//! use attn_core::{Entry, LayerConfig, ModelDims, Params, Scope, Values, Workload};
//!
//! let dims = ModelDims { d_model: 512, n_heads: 8, head_dim: 64 };
//! let entry = Entry::new(1, 64, Values::Own(64));
//! let mqa = GroupedConfig::new(&dims, entry, &Params::default())?.geometry();
//! let step = Workload::Decode { batch: 1, context: 2048 };
//! let attention = mqa.cost(&step, Scope::Op, 4);
//! assert_eq!(attention.flops, 2 * 8 * (64 + 64) * 2048);
//! let layer = mqa.cost(&step, Scope::Layer, 4);
//! let macs = mqa.decode_macs;
//! assert_eq!(layer.flops - attention.flops, 2 * (macs.query + macs.key) as u64);
//! # Ok::<(), attn_core::Error>(())
//! ```

use serde::Serialize;

use crate::geometry::Geometry;
use crate::workload::Workload;

/// What is measured: a whole layer, one of the two operations alone, or a whole decoder.
///
/// ```
/// assert_eq!(attn_core::Scope::Layer.name(), "layer");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Projections, cache update, attention and output projection.
    Layer,
    /// `decode` or `attend` alone.
    Op,
    /// A decoder of many layers, from embedding to vocabulary.
    Model,
}

impl Scope {
    /// The name in sweeps and rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Layer => "layer",
            Self::Op => "op",
            Self::Model => "model",
        }
    }
}

/// Work of one run of a workload (one step for `decode`).
///
/// ```
/// use attn_core::Cost;
///
/// // At 30 GB/s and 300 GFLOP/s the bytes take longer: the case is bound by memory.
/// let cost = Cost { flops: 2_000_000, bytes_moved: 1_000_000 };
/// let (memory_s, compute_s) = (cost.bytes_moved as f64 / 30e9, cost.flops as f64 / 300e9);
/// assert!(memory_s > compute_s);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Useful floating-point operations (a multiply-add counts two).
    pub flops: u64,
    /// The least the scope must read and write, in bytes. `op`: cache (or keys and values), query, output;
    /// `layer`: weights, input, output and the new cache entries too; `model`: weights, encoder states and caches.
    pub bytes_moved: u64,
}

/// Query-key pairs that queries `start..start + n` of a sequence see: the closed blocks before each, and
/// its own partial sum (`floor(i / s) + 1`; s = 1 is plain causal attention).
///
/// ```
/// use attn_core::cost::visible_pairs;
///
/// assert_eq!(visible_pairs(0, 4, 1), 1 + 2 + 3 + 4); // plain causal attention
/// assert_eq!(visible_pairs(0, 4, 2), 1 + 1 + 2 + 2); // closed blocks of two, and a query's own sum
/// ```
pub fn visible_pairs(start: usize, n: usize, stride: usize) -> u64 {
    // Sum of floor(i / s) for i < x: whole blocks, then the rest of the last one.
    let blocks_below = |x: usize| {
        let (q, rem) = ((x / stride) as u64, (x % stride) as u64);
        (stride as u64) * (q * q.saturating_sub(1) / 2) + q * rem
    };
    blocks_below(start + n) - blocks_below(start) + n as u64
}

impl Geometry {
    /// Work of `workload` over this layer with elements of `element_bytes`. In scope `model`, and for a beam search,
    /// which is no layer's workload, it is the part of one layer's attention with its projections
    /// ([`ModelShape::cost`](crate::ModelShape::cost) has the whole).
    ///
    /// # Source
    /// The projections and operations of the module docs of each variant. A train step counts the backward
    /// pass as twice the forward one (no recomputation), the convention of the scaling-law literature.
    ///
    /// ```
    /// # use attn_core::grouped::GroupedConfig;
    /// # use attn_core::{Entry, LayerConfig, ModelDims, Params, Scope, Values, Workload};
    /// # let dims = ModelDims { d_model: 8, n_heads: 2, head_dim: 4 };
    /// # let entry = Entry::new(1, 4, Values::Own(4));
    /// # let geometry = GroupedConfig::new(&dims, entry, &Params::default())?.geometry();
    /// let forward = geometry.cost(&Workload::Prefill { batch: 1, tokens: 32 }, Scope::Layer, 4);
    /// let training = geometry.cost(&Workload::TrainStep { batch: 1, tokens: 32 }, Scope::Layer, 4);
    /// assert_eq!(training.flops, 3 * forward.flops); // backward counts twice
    /// # Ok::<(), attn_core::Error>(())
    /// ```
    pub fn cost(&self, workload: &Workload, scope: Scope, element_bytes: usize) -> Cost {
        match *workload {
            Workload::Decode { batch, context } => self.step_cost(batch, context, scope, element_bytes),
            Workload::Prefill { batch, tokens } => self.prefill_cost(batch, tokens, scope, element_bytes),
            Workload::TrainStep { batch, tokens } => {
                let forward = self.prefill_cost(batch, tokens, scope, element_bytes);
                Cost {
                    flops: 3 * forward.flops,
                    bytes_moved: 3 * forward.bytes_moved,
                }
            }
            Workload::Generate {
                batch,
                tokens,
                new_tokens,
            } => {
                let prompt = self.prefill_cost(batch, tokens, scope, element_bytes);
                let steps = self.trajectory_cost(batch, tokens, new_tokens, scope, element_bytes);
                Cost {
                    flops: prompt.flops + steps.flops,
                    bytes_moved: prompt.bytes_moved + steps.bytes_moved,
                }
            }
            Workload::Trajectory {
                batch,
                tokens,
                new_tokens,
            } => self.trajectory_cost(batch, tokens, new_tokens, scope, element_bytes),
            Workload::Beam {
                batch,
                tokens,
                new_tokens,
                beam,
            } => self.search_cost(batch, tokens, new_tokens, beam, element_bytes),
        }
    }

    /// Work of one decode step of `batch` sequences that attends to `context` tokens, its own included: what one
    /// position of a trajectory costs.
    pub fn step_cost(&self, batch: usize, context: usize, scope: Scope, element_bytes: usize) -> Cost {
        self.steps_cost(batch, 1, self.slots(context) as u64, scope, element_bytes)
    }

    /// The sum of [`step_cost`](Self::step_cost) over `n` steps after `past` tokens.
    fn trajectory_cost(
        &self,
        batch: usize,
        past: usize,
        n: usize,
        scope: Scope,
        element_bytes: usize,
    ) -> Cost {
        // Slots of a context of L tokens are floor((L - 1) / s) + 1: what a query at position L - 1 sees.
        let slots = self.pairs(past, n);
        self.steps_cost(batch, n, slots, scope, element_bytes)
    }

    /// `n` decode steps that read `slots` cache slots of each sequence together.
    fn steps_cost(&self, batch: usize, n: usize, slots: u64, scope: Scope, element_bytes: usize) -> Cost {
        let (b, n, e) = (batch as u64, n as u64, element_bytes as u64);
        let entry = &self.entry;
        let (elements, width) = (entry.elements() as u64, (entry.key + entry.values.width()) as u64);
        let mut flops = 2 * b * self.n_heads as u64 * entry.macs() as u64 * slots;
        let mut bytes = b * e * (slots * elements + n * self.n_heads as u64 * width);
        if scope != Scope::Op {
            flops += 2 * b * n * (self.decode_macs.query + self.decode_macs.key) as u64;
            // The new entry is written before it is read.
            bytes += n * (self.layer_bytes(b, e) + b * elements * e);
        }
        Cost {
            flops,
            bytes_moved: bytes,
        }
    }

    /// Query-key pairs of queries `start..start + n`, those beyond a window left out.
    pub(crate) fn pairs(&self, start: usize, n: usize) -> u64 {
        let all = visible_pairs(start, n, self.stride);
        match self.window {
            None => all,
            // What a query beyond the window would see more.
            Some(window) => {
                let passed =
                    |end: usize| visible_pairs(0, end.saturating_sub(window * self.stride), self.stride);
                all - (passed(start + n) - passed(start))
            }
        }
    }

    fn prefill_cost(&self, batch: usize, tokens: usize, scope: Scope, element_bytes: usize) -> Cost {
        let (b, t, e) = (batch as u64, tokens as u64, element_bytes as u64);
        let width = (self.score_dim + self.v_dim) as u64;
        let mut flops = 2 * b * self.n_heads as u64 * width * self.pairs(0, tokens);
        // Queries and outputs, then keys and values: a token's own, block ends being among them.
        let mut bytes = b * e * width * t * (self.n_heads + self.n_kv_heads) as u64;
        if scope != Scope::Op {
            flops += 2 * b * t * (self.forward_macs.query + self.forward_macs.key) as u64;
            bytes += self.layer_bytes(b * t, e) + self.kv_bytes(batch, tokens, element_bytes);
        }
        Cost {
            flops,
            bytes_moved: bytes,
        }
    }

    /// Weights once, input and output of every token once.
    fn layer_bytes(&self, tokens: u64, e: u64) -> u64 {
        (self.parameters as u64 + 2 * tokens * self.d_model as u64) * e
    }
}

#[cfg(test)]
mod tests {
    use super::{Scope, visible_pairs};
    use crate::{Entry, Geometry, ProjectionMacs, Values, Workload};

    /// MTLA at the seed's sizes, s = 2.
    fn mtla() -> Geometry {
        Geometry {
            d_model: 512,
            n_heads: 8,
            n_kv_heads: 8,
            score_dim: 96,
            v_dim: 64,
            stride: 2,
            window: None,
            entry: Entry::new(1, 288, Values::KeyPrefix(256)),
            state_elements: 256,
            parameters: 1_098_368,
            forward_macs: ProjectionMacs { query: 10, key: 20 },
            decode_macs: ProjectionMacs { query: 30, key: 40 },
        }
    }

    #[test]
    fn operations_per_pair_are_those_of_the_mathematics() {
        let g = mtla();
        // Absorbed: 1088 per slot and head; decompressed: 320 per pair and head.
        let decode = g.cost(
            &Workload::Decode {
                batch: 3,
                context: 101,
            },
            Scope::Op,
            4,
        );
        assert_eq!(decode.flops, 3 * 8 * 1088 * 51);
        assert_eq!(decode.bytes_moved, 4 * 3 * (51 * 288 + 8 * (288 + 256)));
        let prefill = g.cost(
            &Workload::Prefill {
                batch: 3,
                tokens: 100,
            },
            Scope::Op,
            4,
        );
        assert_eq!(prefill.flops, 3 * 8 * 320 * visible_pairs(0, 100, 2));
    }

    #[test]
    fn a_layer_adds_projections_weights_input_output_and_the_new_entry() {
        let g = mtla();
        let step = Workload::Decode {
            batch: 3,
            context: 101,
        };
        let (op, layer) = (g.cost(&step, Scope::Op, 2), g.cost(&step, Scope::Layer, 2));
        assert_eq!(layer.flops - op.flops, 2 * 3 * 70);
        assert_eq!(
            layer.bytes_moved - op.bytes_moved,
            2 * (1_098_368 + 3 * (2 * 512 + 288))
        );
        let generate = Workload::Generate {
            batch: 3,
            tokens: 100,
            new_tokens: 1,
        };
        let prefill = g.cost(
            &Workload::Prefill {
                batch: 3,
                tokens: 100,
            },
            Scope::Layer,
            2,
        );
        assert_eq!(
            g.cost(&generate, Scope::Layer, 2).flops,
            prefill.flops + layer.flops
        );
    }

    #[test]
    fn many_steps_cost_the_sum_of_each() {
        for stride in [1, 2, 3, 8] {
            let g = Geometry { stride, ..mtla() };
            for (tokens, new_tokens) in [(1, 1), (7, 5), (100, 33), (64, 0)] {
                for scope in [Scope::Op, Scope::Layer] {
                    let steps = (1..=new_tokens).map(|step| g.step_cost(3, tokens + step, scope, 2));
                    let sum = steps.fold((0, 0), |sum, cost| (sum.0 + cost.flops, sum.1 + cost.bytes_moved));
                    let batch = 3;
                    let trajectory = Workload::Trajectory {
                        batch,
                        tokens,
                        new_tokens,
                    };
                    let got = g.cost(&trajectory, scope, 2);
                    assert_eq!((got.flops, got.bytes_moved), sum, "s {stride} {trajectory:?}");
                    let generate = Workload::Generate {
                        batch,
                        tokens,
                        new_tokens,
                    };
                    let (prompt, whole) = (
                        g.cost(&Workload::Prefill { batch, tokens }, scope, 2),
                        g.cost(&generate, scope, 2),
                    );
                    let steps = (whole.flops - prompt.flops, whole.bytes_moved - prompt.bytes_moved);
                    assert_eq!(steps, sum, "s {stride} {generate:?}");
                }
            }
        }
    }

    #[test]
    fn a_trajectory_ends_with_a_cache_of_all_its_tokens() {
        let trajectory = Workload::Trajectory {
            batch: 3,
            tokens: 100,
            new_tokens: 20,
        };
        assert_eq!(
            (trajectory.cached_tokens(), trajectory.processed_tokens()),
            (120, 60)
        );
    }

    #[test]
    fn visible_pairs_equals_the_sum_it_closes() {
        for stride in 1..7 {
            for start in 0..13 {
                for n in 0..17 {
                    let sum: usize = (start..start + n).map(|i| i / stride + 1).sum();
                    assert_eq!(
                        visible_pairs(start, n, stride),
                        sum as u64,
                        "s {stride} start {start} n {n}"
                    );
                }
            }
        }
    }
}
