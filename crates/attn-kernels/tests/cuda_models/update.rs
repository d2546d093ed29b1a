//! The caches' updates, token after token.

use attn_kernels::cuda::{CacheUpdateShape, Dtype};
use attn_kernels::{Element, Grouped, Latents};
use half::{bf16, f16};

use crate::cases::update::Tokens;
use crate::models::cache_update::cache_update;

fn check_cache_update<E: Element>(shape: CacheUpdateShape, starts: &[usize], tolerance: f64) {
    let all = Tokens::<E>::new(shape, starts, 7);
    let width = all.width();
    let mut cache = vec![E::from_f32(f32::NAN); starts.len() * all.capacity * width];
    let mut open = all.open.clone();
    for token in 0..all.tokens {
        let input = all.input();
        let one = Latents {
            x: Grouped {
                data: &all.x[token * width..],
                ..input.x
            },
            starts: &all.positions(token),
            tokens: 1,
            ..input
        };
        cache_update(shape, &one, &mut cache, all.capacity, &mut open);
        all.check(token, &cache, tolerance);
    }
    all.check_open(&open, tolerance);
}

#[test]
fn cache_update_makes_the_entries_of_the_cpu_kernel() {
    for [rank, rope_dim] in [[256, 32], [512, 64], [84, 20], [1, 2], [33, 0]] {
        for stride in [None, Some(1), Some(2), Some(3), Some(4)] {
            for (layer_norm, halves) in [(true, false), (false, true)] {
                let shape = |dtype| CacheUpdateShape {
                    dtype,
                    rank,
                    rope_dim,
                    stride,
                    layer_norm,
                    halves,
                };
                check_cache_update::<f32>(shape(Dtype::F32), &[0, 5, 110], 1e-5);
                check_cache_update::<bf16>(shape(Dtype::Bf16), &[0, 5, 110], 1e-2);
                check_cache_update::<f16>(shape(Dtype::F16), &[0, 5, 110], 2e-3);
            }
        }
    }
}
