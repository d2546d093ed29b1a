//! Models of the CUDA kernels against the formulas. They share the kernels' plans and say nothing of speed.
#![allow(clippy::unwrap_used)] // in helpers too

mod common;
mod models;

use attn_kernels::cuda::{
    Arch, AttendShape, CacheUpdateShape, Dtype, GroupedDecodeShape, LatentDecodeShape, Machine, MergeShape,
    Pass, Tiles,
};
use attn_kernels::{
    Attend, Decode, Element, Entries, Gate, Grouped, Latents, LatentsOut, Level, Norm, Place, Rows, Turn,
    latents as cpu_latents,
};
use common::{assert_close, random, tolerance};
use half::{bf16, f16};
use models::attend::Model as AttendModel;
use models::attend_backward::Model as GradientModel;
use models::cache_update::cache_update;
use models::few_heads::FewHeads;
use models::merge::Merge;
use models::streams::Streams;

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
        n_heads: sizes.n_heads,
        n_kv_heads: sizes.n_kv_heads,
        key_dim: sizes.key_dim,
        value_dim: sizes.value_dim,
        slots: sizes.slots,
        // Scores that differ enough for maxima to move.
        scale: 4.0 * (sizes.key_dim as f32).powf(-0.5),
    });
}

fn dtype<E: Element>() -> Dtype {
    match size_of::<E>() {
        4 => Dtype::F32,
        _ if E::from_f32(1e6).to_f32().is_finite() => Dtype::Bf16,
        _ => Dtype::F16,
    }
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

/// Token after token through the model, and the same tokens through the CPU kernel at once.
fn check_cache_update<E: Element>(shape: CacheUpdateShape, starts: &[usize], tolerance: f64) {
    const TOKENS: usize = 7;
    let CacheUpdateShape { rank, rope_dim, .. } = shape;
    let (b, width) = (starts.len(), rank + rope_dim);
    let positions = starts.iter().max().unwrap() + TOKENS;
    let stride = shape.stride.unwrap_or(1);
    let capacity = positions.div_ceil(stride);
    let x: Vec<E> = random(b * TOKENS * width, 1);
    let (weight, bias): (Vec<E>, Vec<E>) = (random(rank, 2), random(rank, 3));
    let (cos, sin): (Vec<f32>, Vec<f32>) = (random(positions * rope_dim, 4), random(positions * rope_dim, 5));
    let (u, biases): (Vec<f32>, Vec<f32>) = (random(capacity * rank, 6), random(capacity, 7));
    let mut open: Vec<f32> = random(b * rank, 8);
    let before = open.clone();
    let input = Latents {
        x: Grouped {
            data: &x,
            group_stride: TOKENS * width,
            row_stride: width,
        },
        norm: Norm {
            weight: &weight,
            bias: shape.layer_norm.then_some(bias.as_slice()),
            eps: 1e-5,
        },
        turn: Turn {
            cos: &cos,
            sin: &sin,
            halves: shape.halves,
        },
        gate: shape.stride.map(|stride| Gate {
            u: &u,
            b: &biases,
            stride,
            open: Some(&before),
        }),
        starts,
        tokens: TOKENS,
        rank,
        rope_dim,
    };

    // A row for every token.
    let mut rows = vec![E::default(); b * TOKENS * width];
    let first: Vec<usize> = (0..b).map(|sequence| sequence * TOKENS * width).collect();
    let keys: Vec<usize> = first.iter().map(|first| first + rank).collect();
    let mut last = vec![0.0; b * rank];
    let mut out = LatentsOut {
        data: &mut rows,
        c: Place {
            first: &first,
            row_stride: width,
        },
        k_r: Place {
            first: &keys,
            row_stride: width,
        },
        last: shape.stride.is_some().then_some(last.as_mut_slice()),
    };
    cpu_latents(&input, Level::Portable, &mut out).unwrap();

    let mut cache = vec![E::from_f32(f32::NAN); b * capacity * width];
    for token in 0..TOKENS {
        let starts: Vec<usize> = starts.iter().map(|start| start + token).collect();
        let one = Latents {
            x: Grouped {
                data: &x[token * width..],
                ..input.x
            },
            starts: &starts,
            tokens: 1,
            ..input
        };
        cache_update(shape, &one, &mut cache, capacity, &mut open);
        for (sequence, position) in starts.iter().enumerate() {
            let got = &cache[(sequence * capacity + position / stride) * width..][..width];
            let expected = &rows[(sequence * TOKENS + token) * width..][..width];
            let expected: Vec<f64> = expected.iter().map(|x| f64::from(x.to_f32())).collect();
            assert_close(got, &expected, tolerance);
        }
    }
    if shape.stride.is_some() {
        let last: Vec<f64> = last.iter().map(|x| f64::from(*x)).collect();
        assert_close(&open, &last, tolerance);
    }
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

/// Sizes of attend.
#[derive(Debug, Clone, Copy)]
struct Sequences {
    batch: usize,
    n_heads: usize,
    n_kv_heads: usize,
    tokens: usize,
    start: usize,
    key_dim: usize,
    shared_dim: usize,
    value_dim: usize,
    /// With own entries.
    stride: Option<usize>,
    /// Closed entries are those of the own ones.
    ends: bool,
}

/// `[B, n, heads, D]` with a gap of a chunk behind each token's heads.
fn token_major<E: Element>(data: &[E], heads: usize, n: usize, dim: usize) -> Rows<'_, E> {
    let row_stride = heads * dim + 8;
    Rows {
        data,
        batch_stride: n * row_stride,
        head_stride: dim,
        row_stride,
    }
}

/// Calls `check` with operands of which nothing but the entries that are seen is a number.
fn with_sequences<E: Element>(sizes: Sequences, check: impl FnOnce(&Attend<'_, E>, AttendShape)) {
    let Sequences {
        batch,
        n_heads,
        n_kv_heads,
        tokens,
        start,
        key_dim,
        shared_dim,
        value_dim,
        stride,
        ends,
    } = sizes;
    let seen = stride.map_or(start + tokens, |stride| (start + tokens - 1) / stride);
    // An open block may have been closed by the last token, which no query sees.
    let n_keys = stride.map_or(seen, |stride| (start + tokens) / stride);
    let data = |heads: usize, n: usize, dim: usize, seed, numbers: usize| -> Vec<E> {
        let row = heads * dim + 8;
        let mut data: Vec<E> = random(batch * n * row, seed);
        for (at, row) in data.chunks_exact_mut(row).enumerate() {
            let used = if at % n.max(1) < numbers { heads * dim } else { 0 };
            row[used..].fill(E::from_f32(f32::NAN));
        }
        data
    };
    let of_head = key_dim - shared_dim;
    let entries = |n: usize, seed, numbers| {
        [(n_kv_heads, of_head), (1, shared_dim), (n_kv_heads, value_dim)]
            .map(|(heads, dim)| data(heads, n, dim, seed + dim as u64, numbers))
    };
    let q = data(n_heads, tokens, key_dim, 1, tokens);
    let (closed, own) = (entries(n_keys, 1000, seen), entries(tokens, 2000, tokens));
    fn view<E: Element>([k, shared, v]: &[Vec<E>; 3], sizes: Sequences, n: usize) -> Entries<'_, E> {
        let ds = sizes.shared_dim;
        Entries {
            k: token_major(k, sizes.n_kv_heads, n, sizes.key_dim - ds),
            shared: (ds > 0).then(|| token_major(shared, 1, n, ds)),
            v: token_major(v, sizes.n_kv_heads, n, sizes.value_dim),
        }
    }
    let input = Attend {
        q: token_major(&q, n_heads, tokens, key_dim),
        closed: (!ends).then(|| view(&closed, sizes, n_keys)),
        own: stride.map(|_| view(&own, sizes, tokens)),
        shared_dim,
        batch,
        n_heads,
        n_kv_heads,
        tokens,
        n_keys,
        key_dim,
        value_dim,
        start,
        stride: stride.unwrap_or(1),
        // Scores that differ enough for maxima to move.
        scale: 3.0 * (key_dim as f32).powf(-0.5),
    };
    let shape = AttendShape {
        dtype: dtype::<E>(),
        n_heads,
        n_kv_heads,
        key_dim,
        shared_dim,
        value_dim,
        stride,
    };
    check(&input, shape);
}

fn check_attend<E: Element>(sizes: Sequences) {
    with_sequences::<E>(sizes, |input, shape| {
        let (expected, logarithms) = common::attend(input);
        let mut seen = Vec::new();
        // With many sequences, and with few: tiles differ.
        for batch in [1000, 1] {
            let machine = Machine::usual(Arch::Sm80);
            let tiles = shape.plan(machine, batch, sizes.tokens).unwrap().tiles;
            if seen.contains(&tiles) {
                continue;
            }
            seen.push(tiles);
            let (out, lse) = AttendModel { input, tiles }.run();
            assert_close(&out, &expected, tolerance::<E>());
            assert_close(&lse, &logarithms, 2e-6);
        }
    });
}

fn check_attend_of_every_dtype(sizes: Sequences) {
    check_attend::<f32>(sizes);
    check_attend::<bf16>(sizes);
    check_attend::<f16>(sizes);
}

/// Plain causal attention of one sequence.
fn causal(n_heads: usize, n_kv_heads: usize, tokens: usize, dim: usize) -> Sequences {
    Sequences {
        batch: 1,
        n_heads,
        n_kv_heads,
        tokens,
        start: 0,
        key_dim: dim,
        shared_dim: 0,
        value_dim: dim,
        stride: None,
        ends: false,
    }
}

/// MTLA's.
fn strided(tokens: usize, stride: usize) -> Sequences {
    Sequences {
        key_dim: 24,
        shared_dim: 8,
        stride: Some(stride),
        ends: true,
        ..causal(1, 1, tokens, 16)
    }
}

#[test]
fn attend_takes_lengths_of_every_kind() {
    for tokens in [1, 3, 63, 64, 65, 111, 260] {
        check_attend_of_every_dtype(causal(1, 1, tokens, 16));
        for stride in 1..=4 {
            for ends in [false, true] {
                check_attend_of_every_dtype(Sequences {
                    ends,
                    ..strided(tokens, stride)
                });
            }
        }
    }
}

#[test]
fn attend_takes_queries_from_anywhere() {
    for start in [1, 2, 5, 64, 130] {
        for tokens in [1, 3, 111] {
            let later = Sequences {
                start,
                ends: false,
                ..strided(tokens, 3)
            };
            check_attend_of_every_dtype(later);
            check_attend_of_every_dtype(Sequences {
                start,
                ..causal(1, 1, tokens, 16)
            });
        }
    }
}

#[test]
fn attend_takes_batches_and_groups() {
    for (n_heads, n_kv_heads) in [(4, 2), (3, 1), (2, 2)] {
        check_attend_of_every_dtype(Sequences {
            batch: 2,
            ..causal(n_heads, n_kv_heads, 65, 16)
        });
        check_attend_of_every_dtype(Sequences {
            batch: 2,
            n_heads,
            n_kv_heads,
            ..strided(65, 2)
        });
    }
}

/// Sequences whose heads are of every kind of size.
fn heads_of_every_size() -> impl Iterator<Item = Sequences> {
    let sizes = [
        (64, 0, 64),
        (96, 32, 64),
        (128, 0, 128),
        (192, 64, 128),
        (256, 0, 256),
        (40, 8, 24),
        (8, 0, 8),
        (80, 0, 112),
        (64, 64, 200),
    ];
    sizes
        .into_iter()
        .map(|(key_dim, shared_dim, value_dim)| Sequences {
            key_dim,
            shared_dim,
            value_dim,
            ..strided(70, 2)
        })
}

#[test]
fn attend_takes_heads_of_every_size() {
    heads_of_every_size().for_each(check_attend_of_every_dtype);
}

/// The gradients of the model against those of the formula, both of what the model of attend returns.
fn check_gradients<E: Element>(sizes: Sequences, machine: Machine) {
    let Sequences {
        batch,
        n_heads,
        tokens,
        value_dim,
        ..
    } = sizes;
    with_sequences::<E>(sizes, |input, shape| {
        let tiles = shape.plan(machine, batch, tokens).unwrap().tiles;
        let (out, lse) = AttendModel { input, tiles }.run();
        let data: Vec<E> = random(batch * tokens * (n_heads * value_dim + 8), 9);
        let grad = token_major(&data, n_heads, tokens, value_dim);
        let plan = shape.plan_backward(machine, batch, tokens, input.n_keys).unwrap();
        let model = GradientModel {
            input,
            plan: &plan,
            out: &out,
            lse: &lse,
            grad,
        };
        let (got, expected) = (model.run(), common::attend_gradients(input, &grad));
        // Weights and their gradients are rounded, and so is the output of which D is made.
        let tolerance = if size_of::<E>() == 4 { 1e-5 } else { 2e-2 };
        let (got, expected) = (
            [got.q, got.k, got.v, got.shared],
            [expected.q, expected.k, expected.v, expected.shared],
        );
        if tokens <= 3 {
            // One entry has all the weight, or nearly so: gradients of scores are little more than rounding.
            assert_close(&got.concat(), &expected.concat(), tolerance);
            return;
        }
        for (got, expected) in got.iter().zip(&expected) {
            assert_close(got, expected, tolerance);
        }
    });
}

fn check_gradients_of_every_dtype(sizes: Sequences) {
    let machine = Machine::usual(Arch::Sm80);
    check_gradients::<f32>(sizes, machine);
    check_gradients::<bf16>(sizes, machine);
    check_gradients::<f16>(sizes, machine);
}

#[test]
fn gradients_take_lengths_of_every_kind() {
    for tokens in [1, 3, 63, 64, 65, 111, 260] {
        check_gradients_of_every_dtype(causal(1, 1, tokens, 16));
        for stride in 1..=4 {
            check_gradients_of_every_dtype(strided(tokens, stride));
        }
    }
}

#[test]
fn gradients_take_batches_and_groups() {
    for (n_heads, n_kv_heads) in [(4, 2), (3, 1), (2, 2)] {
        check_gradients_of_every_dtype(Sequences {
            batch: 2,
            ..causal(n_heads, n_kv_heads, 65, 16)
        });
        check_gradients_of_every_dtype(Sequences {
            batch: 2,
            n_heads,
            n_kv_heads,
            ..strided(65, 2)
        });
    }
}

#[test]
fn gradients_take_queries_from_anywhere() {
    for start in [1, 5, 64, 130] {
        for tokens in [1, 3, 111] {
            let later = Sequences {
                start,
                key_dim: 24,
                shared_dim: 8,
                ..causal(2, 2, tokens, 16)
            };
            check_gradients_of_every_dtype(later);
        }
    }
}

#[test]
fn gradients_take_heads_of_every_size() {
    heads_of_every_size().for_each(check_gradients_of_every_dtype);
}

#[test]
fn gradients_of_large_heads_are_two_passes() {
    let shape = AttendShape {
        dtype: Dtype::Bf16,
        n_heads: 1,
        n_kv_heads: 1,
        key_dim: 256,
        shared_dim: 0,
        value_dim: 256,
        stride: Some(2),
    };
    let plan = shape
        .plan_backward(Machine::usual(Arch::Sm90a), 1, 64, 32)
        .unwrap();
    let passes: Vec<_> = plan.passes.iter().map(|pass| pass.pass).collect();
    let expected = [
        Pass::Rows,
        Pass::Queries,
        Pass::Keys,
        Pass::Values,
        Pass::OwnEntries,
    ];
    assert_eq!(passes, expected);
}

/// The formula in f64: sums and gradients of latents, table and biases.
fn merge<E: Element>(
    shape: MergeShape,
    tokens: usize,
    [c, grad]: [&[E]; 2],
    [u, b]: [&[f32]; 2],
) -> [Vec<f64>; 4] {
    let r = shape.rank;
    let wide = |x: &[E]| x.iter().map(|x| f64::from(x.to_f32())).collect::<Vec<_>>();
    let (c, grad) = (wide(c), wide(grad));
    let mut all = [c.len(), c.len(), u.len(), b.len()].map(|n| vec![0.0; n]);
    let [sums, dc, du, db] = &mut all;
    for token in 0..c.len() / r {
        let (block, phase) = (token % tokens / shape.stride, token % tokens % shape.stride);
        let left = (shape.stride - phase).min(tokens - token % tokens);
        let row = |of: &[f64], token: usize, d: usize| of[token * r + d];
        let u = |d: usize| f64::from(u[block * r + d]);
        let logit = (0..r).map(|d| row(&c, token, d) * u(d)).sum::<f64>() + f64::from(b[block]);
        let weight = 1.0 / (1.0 + (-logit).exp());
        let later = |d: usize| {
            (token..token + left)
                .map(|token| row(&grad, token, d))
                .sum::<f64>()
        };
        let along = (0..r).map(|d| later(d) * row(&c, token, d)).sum::<f64>();
        let of_logit = along * weight * (1.0 - weight);
        db[block] += of_logit;
        for d in 0..r {
            (token..token + left).for_each(|to| sums[to * r + d] += weight * row(&c, token, d));
            dc[token * r + d] = weight * later(d) + of_logit * u(d);
            du[block * r + d] += of_logit * row(&c, token, d);
        }
    }
    all
}

fn check_merge<E: Element>(rank: usize, stride: usize, batch: usize, tokens: usize, tolerance: f64) {
    let shape = MergeShape {
        dtype: dtype::<E>(),
        rank,
        stride,
    };
    let plan = shape.plan(Machine::usual(Arch::Sm90a), batch, tokens).unwrap();
    let blocks = tokens.div_ceil(stride);
    let (c, grad): (Vec<E>, Vec<E>) = (random(batch * tokens * rank, 1), random(batch * tokens * rank, 2));
    let (u, b): (Vec<f32>, Vec<f32>) = (random(blocks * rank, 3), random(blocks, 4));
    let model = Merge {
        plan: &plan,
        c: &c,
        u: &u,
        b: &b,
    };
    let [sums, dc, du, db] = merge(shape, tokens, [&c, &grad], [&u, &b]);
    let got = model.backward(&grad);
    assert_close(&model.forward(), &sums, tolerance);
    assert_close(&got.c, &dc, tolerance);
    // One product that is nearly zero may be all there is.
    assert_close(&got.u, &du, 1e-4);
    assert_close(&got.b, &db, 1e-4);
}

#[test]
fn merge_sums_blocks_and_their_gradients() {
    for rank in [16, 84, 256, 512] {
        for stride in 1..=4 {
            for (batch, tokens) in [(1, 1), (2, 3), (1, 63), (3, 64), (2, 65), (1, 111), (2, 260)] {
                check_merge::<f32>(rank, stride, batch, tokens, 1e-5);
                check_merge::<bf16>(rank, stride, batch, tokens, 5e-3);
                check_merge::<f16>(rank, stride, batch, tokens, 1e-3);
            }
        }
    }
    check_merge::<f32>(33, 2, 2, 7, 1e-5);
}

#[test]
fn what_no_kernel_takes_is_refused_with_a_remedy() {
    let machine = Machine::usual(Arch::Sm90a);
    let latents = LatentDecodeShape {
        dtype: Dtype::Bf16,
        n_heads: 8,
        rank: 63,
        rope_dim: 32,
        stride: 2,
    };
    let refused = latents.plan(machine, 1, 100).unwrap_err().to_string();
    assert_eq!(
        refused,
        "latent_decode: no kernel for rows of [190] bytes, use head sizes that are even, or f32"
    );
    let wide = LatentDecodeShape {
        rank: 4096,
        ..latents
    };
    assert!(
        wide.plan(machine, 1, 100)
            .unwrap_err()
            .to_string()
            .contains("4096 columns")
    );
    let heads = grouped_shape::<f32>(grouped(8, 3, 64, &[1]));
    assert!(
        heads
            .plan(machine, 1, 100)
            .unwrap_err()
            .to_string()
            .contains("3 KV heads")
    );
    let update = CacheUpdateShape {
        dtype: Dtype::F32,
        rank: 64,
        rope_dim: 3,
        stride: None,
        layer_norm: true,
        halves: false,
    };
    assert!(
        update
            .plan(machine, 1)
            .unwrap_err()
            .to_string()
            .ends_with("use an even size")
    );
    let attend = AttendShape {
        dtype: Dtype::Bf16,
        n_heads: 8,
        n_kv_heads: 8,
        key_dim: 100,
        shared_dim: 0,
        value_dim: 64,
        stride: None,
    };
    assert_eq!(
        attend.plan(machine, 1, 100).unwrap_err().to_string(),
        "attend: no kernel for keys of 100, 0 of them shared, and values of 64, use multiples of 8 up to 256"
    );
}
