//! Decode: every kernel's model with the tiles and splits of plans.

use attn_kernels::cuda::{Arch, GroupedDecodeShape, LatentDecodeShape, Machine, Tiles};
use attn_kernels::{Decode, Element, Rows};
use half::{bf16, f16};

use crate::cases::dtype;
use crate::common::{self, assert_close, random, tolerance};
use crate::models::few_heads::FewHeads;
use crate::models::streams::Streams;

/// Sizes of a decode step.
#[derive(Debug, Clone, Copy)]
struct Sizes<'a> {
    n_heads: usize,
    n_kv_heads: usize,
    key_dim: usize,
    value_dim: usize,
    /// Whether values are not the first columns of the keys.
    apart: bool,
    slots: &'a [usize],
}

/// Calls `check` with operands of which nothing but the entries in use is a number.
fn with_operands<E: Element>(sizes: Sizes<'_>, check: impl FnOnce(&Decode<'_, E>)) {
    let capacity = sizes.slots.iter().max().unwrap() + 3;
    let heads = sizes.slots.len() * sizes.n_kv_heads;
    let cache = |dim: usize, seed| {
        let mut cache: Vec<E> = random(heads * capacity * dim, seed);
        for (head, rows) in cache.chunks_exact_mut(capacity * dim).enumerate() {
            let slots = sizes.slots[head / sizes.n_kv_heads];
            rows[slots * dim..].fill(E::from_f32(f32::NAN));
        }
        cache
    };
    let q: Vec<E> = random(sizes.slots.len() * sizes.n_heads * sizes.key_dim, 1);
    let (keys, values) = (cache(sizes.key_dim, 2), cache(sizes.value_dim, 3));
    let rows = |data, dim| Rows::head_major(data, sizes.n_kv_heads, capacity, dim);
    check(&Decode {
        q: &q,
        keys: rows(&keys, sizes.key_dim),
        values: sizes.apart.then(|| rows(&values, sizes.value_dim)),
        tail: None,
        factors: None,
        n_heads: sizes.n_heads,
        n_kv_heads: sizes.n_kv_heads,
        key_dim: sizes.key_dim,
        value_dim: sizes.value_dim,
        slots: sizes.slots,
        // Scores that differ enough for maxima to move.
        scale: 4.0 * (sizes.key_dim as f32).powf(-0.5),
    });
}

fn grouped_shape<E: Element>(sizes: Sizes<'_>) -> GroupedDecodeShape {
    GroupedDecodeShape {
        dtype: dtype::<E>(),
        n_heads: sizes.n_heads,
        n_kv_heads: sizes.n_kv_heads,
        key_dim: sizes.key_dim,
        value_dim: sizes.value_dim,
    }
}

/// The tiles that the plan of these sizes has.
fn tiles<E: Element>(sizes: Sizes<'_>, arch: Arch) -> Tiles {
    let machine = Machine::usual(arch);
    if sizes.apart {
        return grouped_shape::<E>(sizes).tiles(machine).unwrap();
    }
    let shape = LatentDecodeShape {
        dtype: dtype::<E>(),
        n_heads: sizes.n_heads,
        rank: sizes.value_dim,
        rope_dim: sizes.key_dim - sizes.value_dim,
        stride: 1,
    };
    shape.tiles(machine).unwrap()
}

fn check_streams<E: Element>(sizes: Sizes<'_>, splits: &[usize]) {
    with_operands::<E>(sizes, |input| {
        let expected = common::decode(input);
        for arch in Arch::ALL {
            let tiles = tiles::<E>(sizes, arch);
            for &splits in splits {
                let streams = Streams { input, tiles, splits };
                assert_close(&streams.run(), &expected, tolerance::<E>());
            }
        }
    });
}

fn check_streams_of_every_dtype(sizes: Sizes<'_>, splits: &[usize]) {
    check_streams::<f32>(sizes, splits);
    check_streams::<bf16>(sizes, splits);
    check_streams::<f16>(sizes, splits);
}

fn latents(n_heads: usize, rank: usize, rope_dim: usize, slots: &[usize]) -> Sizes<'_> {
    Sizes {
        n_heads,
        n_kv_heads: 1,
        key_dim: rank + rope_dim,
        value_dim: rank,
        apart: false,
        slots,
    }
}

fn grouped(n_heads: usize, n_kv_heads: usize, dim: usize, slots: &[usize]) -> Sizes<'_> {
    Sizes {
        n_heads,
        n_kv_heads,
        key_dim: dim,
        value_dim: dim,
        apart: true,
        slots,
    }
}

#[test]
fn latent_decode_takes_lengths_of_every_kind() {
    for slots in [1, 3, 15, 16, 17, 63, 64, 111, 1000] {
        check_streams_of_every_dtype(latents(8, 64, 16, &[slots]), &[1, 2, 5, 9]);
    }
}

#[test]
fn latent_decode_takes_ragged_batches() {
    check_streams_of_every_dtype(latents(5, 64, 16, &[1, 300, 32, 777, 5]), &[1, 3]);
}

#[test]
fn latent_decode_takes_any_number_of_heads() {
    for n_heads in [1, 3, 16, 17, 32, 40, 64, 128, 144] {
        check_streams_of_every_dtype(latents(n_heads, 64, 16, &[77]), &[2]);
    }
}

#[test]
fn latent_decode_takes_every_rank() {
    for [rank, rope_dim] in [
        [256, 32],
        [512, 64],
        [256, 64],
        [128, 32],
        [84, 20],
        [16, 2],
        [40, 0],
        [768, 64],
    ] {
        check_streams_of_every_dtype(latents(8, rank, rope_dim, &[150]), &[2]);
    }
    check_streams::<bf16>(latents(40, 512, 64, &[150]), &[1, 2]);
}

#[test]
fn grouped_decode_takes_groups_heads_and_lengths() {
    for (n_heads, n_kv_heads, dim) in [(8, 1, 64), (16, 2, 128), (24, 2, 80), (16, 1, 256), (40, 1, 36)] {
        for slots in [&[1][..], &[63], &[64, 3], &[111, 1000]] {
            check_streams_of_every_dtype(grouped(n_heads, n_kv_heads, dim, slots), &[1, 3]);
        }
    }
}

#[test]
fn grouped_decode_takes_values_of_another_size() {
    for (key_dim, value_dim) in [(192, 128), (64, 100), (36, 300)] {
        let sizes = Sizes {
            key_dim,
            value_dim,
            ..grouped(8, 1, 64, &[99])
        };
        check_streams_of_every_dtype(sizes, &[2]);
    }
}

fn check_few_heads<E: Element>(sizes: Sizes<'_>, splits: &[usize]) {
    let lanes = grouped_shape::<E>(sizes).lanes().unwrap().unwrap();
    with_operands::<E>(sizes, |input| {
        let expected = common::decode(input);
        for &splits in splits {
            let few = FewHeads { input, lanes, splits };
            assert_close(&few.run(), &expected, tolerance::<E>());
        }
    });
}

#[test]
fn decode_of_few_heads_takes_groups_heads_and_lengths() {
    for (n_heads, n_kv_heads, dim) in [
        (2, 2, 64),
        (4, 2, 128),
        (7, 1, 64),
        (8, 2, 80),
        (6, 2, 36),
        (1, 1, 256),
    ] {
        for slots in [&[1][..], &[3], &[63], &[64, 2], &[111, 1000]] {
            let sizes = grouped(n_heads, n_kv_heads, dim, slots);
            check_few_heads::<f32>(sizes, &[1, 2, 7]);
            check_few_heads::<bf16>(sizes, &[1, 2, 7]);
            check_few_heads::<f16>(sizes, &[1, 2, 7]);
        }
    }
}

#[test]
fn decode_of_few_heads_takes_values_of_another_size() {
    let sizes = Sizes {
        value_dim: 128,
        ..grouped(4, 2, 192, &[99])
    };
    check_few_heads::<f32>(sizes, &[2]);
    check_few_heads::<bf16>(sizes, &[2]);
}
