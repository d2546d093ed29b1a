//! Geometries that every kernel is compiled for by the example `kernel_grid`.

use super::advance::AdvanceShape;
use super::attend::AttendShape;
use super::cache_update::CacheUpdateShape;
use super::grouped_decode::GroupedDecodeShape;
use super::grouped_update::GroupedUpdateShape;
use super::latent_decode::LatentDecodeShape;
use super::machine::{Arch, Dtype, Machine};
use super::merge::MergeShape;
use super::read_all::ReadAllPlan;
use super::specialise::Planned;

/// Rank and rope size: what small models, our experiments and DeepSeek's have, and one that fits nothing.
const LATENTS: [[usize; 2]; 6] = [[256, 32], [512, 64], [128, 32], [64, 16], [256, 64], [84, 20]];

/// Query heads, KV heads and head size: MQA, MHA and GQA.
const GROUPED: [[usize; 3]; 12] = [
    [8, 1, 64],
    [8, 8, 64],
    [32, 8, 128],
    [8, 4, 64],
    [7, 1, 64],
    [32, 4, 128],
    [32, 1, 128],
    [32, 32, 128],
    [16, 1, 256],
    [4, 4, 256],
    [24, 2, 80],
    [6, 2, 36],
];

/// Keys, their shared columns and values of a head, and the stride: MHA, GQA and MQA of small and large models, MLA and
/// MTLA of both, and what fits nothing.
const HEADS: [([usize; 3], Option<usize>); 9] = [
    ([64, 0, 64], None),
    ([96, 32, 64], Some(2)),
    ([96, 32, 64], None),
    ([128, 0, 128], None),
    ([192, 64, 128], None),
    ([192, 64, 128], Some(4)),
    ([256, 0, 256], None),
    ([40, 8, 24], Some(3)),
    ([80, 0, 112], None),
];

/// Kernels of the grid; of the small one a few of each.
pub fn grid(small: bool) -> Vec<Planned> {
    let mut all = Vec::new();
    let grouped = if small { &GROUPED[..3] } else { &GROUPED[..] };
    let latents = if small { &LATENTS[..2] } else { &LATENTS[..] };
    let heads = if small { &HEADS[..2] } else { &HEADS[..] };
    for arch in Arch::ALL {
        let machine = Machine::usual(arch);
        all.extend(ReadAllPlan::new(machine, 1 << 30).map(|plan| plan.planned));
        for dtype in Dtype::ALL {
            for [rank, rope_dim] in latents.iter().copied() {
                for n_heads in if small { &[16][..] } else { &[8, 16, 32, 128] } {
                    let shape = LatentDecodeShape {
                        dtype,
                        n_heads: *n_heads,
                        rank,
                        rope_dim,
                        stride: 2,
                    };
                    all.extend(shape.plan(machine, 1, 4096).map(|plan| plan.planned));
                }
                let advance = AdvanceShape {
                    dtype,
                    n_heads: 8,
                    rope_dim,
                    halves: false,
                };
                all.extend(advance.plan(machine, 1).map(|plan| plan.planned));
                for stride in [None, Some(2)] {
                    let shape = CacheUpdateShape {
                        dtype,
                        rank,
                        rope_dim,
                        stride,
                        layer_norm: true,
                        halves: false,
                    };
                    all.extend(shape.plan(machine, 1).map(|plan| plan.planned));
                }
            }
            for [rank, _] in latents.iter().copied() {
                let shape = MergeShape {
                    dtype,
                    rank,
                    stride: 2,
                };
                let passes = shape.plan(machine, 1, 8192).into_iter();
                all.extend(passes.flat_map(|plan| [vec![plan.forward], plan.backward.to_vec()].concat()));
            }
            for ([key_dim, shared_dim, value_dim], stride) in heads.iter().copied() {
                let shape = AttendShape {
                    dtype,
                    n_heads: 8,
                    n_kv_heads: 8,
                    key_dim,
                    shared_dim,
                    value_dim,
                    stride,
                };
                let n_keys = 8192 / stride.unwrap_or(1);
                let passes = shape.plan_backward(machine, 1, 8192, n_keys).into_iter();
                all.extend(passes.flat_map(|plan| plan.passes).map(|pass| pass.planned));
                // Many tokens and few: where tiles differ, two kernels.
                let plans = [8192, 64]
                    .into_iter()
                    .flat_map(|tokens| shape.plan(machine, 1, tokens));
                let mut plans: Vec<_> = plans.map(|plan| plan.planned).collect();
                plans.dedup_by(|a, b| a.specialisation == b.specialisation);
                all.extend(plans);
            }
            for [n_heads, n_kv_heads, dim] in grouped.iter().copied() {
                let update = GroupedUpdateShape {
                    dtype,
                    n_heads,
                    n_kv_heads,
                    key_dim: dim,
                    value_dim: dim,
                    halves: false,
                };
                all.extend(update.plan(machine, 1).map(|plan| plan.planned));
                let shape = GroupedDecodeShape {
                    dtype,
                    n_heads,
                    n_kv_heads,
                    key_dim: dim,
                    value_dim: dim,
                };
                all.extend(shape.plan(machine, 1, 4096).map(|plan| plan.planned));
            }
        }
    }
    all
}
