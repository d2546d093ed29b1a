//! The caches' updates, token after token.

use attn_kernels::cuda::{Arch, CacheUpdateShape, Dtype, GroupedUpdateShape, Machine};
use attn_kernels::{Element, Grouped, Latents};
use half::{bf16, f16};

use crate::cases::update::{GroupedToken, Tokens};
use crate::models::cache_update::cache_update;
use crate::models::grouped_update::GroupedUpdate;

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

fn check_grouped_update<E: Element>(shape: GroupedUpdateShape, positions: &[i32], tolerance: f64) {
    let token = GroupedToken::<E>::new(shape, positions);
    let plan = shape.plan(Machine::usual(Arch::Sm90a), positions.len()).unwrap();
    let model = GroupedUpdate {
        plan: &plan,
        qkv: &token.qkv,
        cos: &token.cos,
        sin: &token.sin,
        n_positions: token.n_positions,
        positions,
        capacity: token.capacity,
    };
    let mut caches = token.untouched();
    model.run(&mut caches.turned, &mut caches.keys, &mut caches.values);
    token.check(&caches, tolerance);
}

#[test]
fn grouped_update_turns_and_enters_one_token() {
    for [n_heads, n_kv_heads, key_dim, value_dim] in [
        [6, 2, 80, 36],
        [3, 3, 64, 64],
        [8, 1, 128, 128],
        [1, 1, 2, 1],
        [7, 1, 66, 130],
    ] {
        for halves in [false, true] {
            let shape = |dtype| GroupedUpdateShape {
                dtype,
                n_heads,
                n_kv_heads,
                key_dim,
                value_dim,
                halves,
            };
            // One that is not there, one beyond the tables and one beyond the cache among them.
            let positions = [0, 7, -1, 3, 8, 9, 7];
            check_grouped_update::<f32>(shape(Dtype::F32), &positions, 1e-6);
            check_grouped_update::<bf16>(shape(Dtype::Bf16), &positions, 5e-3);
            check_grouped_update::<f16>(shape(Dtype::F16), &positions, 1e-3);
        }
    }
}
