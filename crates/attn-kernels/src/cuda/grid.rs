//! Geometries that every kernel is compiled for by the example `kernel_grid`.

use super::cache_update::CacheUpdateShape;
use super::machine::{Arch, Dtype, Machine};
use super::specialise::Planned;

/// Rank and rope size: what small models, our experiments and DeepSeek's have, and one that fits nothing.
const LATENTS: [[usize; 2]; 6] = [[256, 32], [512, 64], [128, 32], [64, 16], [256, 64], [84, 20]];

/// Kernels of the grid; of the small one a few of each.
pub fn grid(small: bool) -> Vec<Planned> {
    let mut all = Vec::new();
    let latents = if small { &LATENTS[..2] } else { &LATENTS[..] };
    for arch in Arch::ALL {
        let machine = Machine::usual(arch);
        for dtype in Dtype::ALL {
            for [rank, rope_dim] in latents.iter().copied() {
                for stride in [None, Some(2)] {
                    let shape = CacheUpdateShape {
                        dtype,
                        rank,
                        rope_dim,
                        stride,
                        layer_norm: true,
                        halves: false,
                    };
                    all.extend(shape.plan(machine, 1));
                }
            }
        }
    }
    all
}
