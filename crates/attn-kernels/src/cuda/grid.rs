//! Geometries that every kernel is compiled for by the example `kernel_grid`.

use super::cache_update::CacheUpdateShape;
use super::grouped_decode::GroupedDecodeShape;
use super::grouped_update::GroupedUpdateShape;
use super::latent_decode::LatentDecodeShape;
use super::machine::{Arch, Dtype, Machine};
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

/// Kernels of the grid; of the small one a few of each.
pub fn grid(small: bool) -> Vec<Planned> {
    let mut all = Vec::new();
    let grouped = if small { &GROUPED[..3] } else { &GROUPED[..] };
    let latents = if small { &LATENTS[..2] } else { &LATENTS[..] };
    for arch in Arch::ALL {
        let machine = Machine::usual(arch);
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
