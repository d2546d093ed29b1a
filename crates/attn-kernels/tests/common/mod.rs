//! The operations as their formulas say them, in f64.
#![allow(dead_code)] // each test file uses its own part

use attn_kernels::{Attend, Decode, Element, Entries, Rows, Tail};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// So many elements between -1 and 1.
pub fn random<E: Element>(n: usize, seed: u64) -> Vec<E> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| E::from_f32(rng.random_range(-1.0..1.0))).collect()
}

/// Four tokens of one head of 16, whose queries, keys and values are the rows `x`: operands that fit, to be spoilt.
pub fn four_tokens(x: &[f32]) -> Attend<'_, f32> {
    let rows = Rows::head_major(x, 1, 4, 16);
    Attend {
        q: rows,
        closed: Some(Entries {
            k: rows,
            shared: None,
            v: rows,
        }),
        own: None,
        shared_dim: 0,
        batch: 1,
        n_heads: 1,
        n_kv_heads: 1,
        tokens: 4,
        n_keys: 4,
        key_dim: 16,
        value_dim: 16,
        start: 0,
        stride: 1,
        window: usize::MAX,
        scale: 1.0,
    }
}

fn softmax_sum(q: &[f64], keys: &[Vec<f64>], values: &[Vec<f64>], scale: f64) -> Vec<f64> {
    let scores: Vec<f64> = keys
        .iter()
        .map(|k| scale * q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>())
        .collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
    let total: f64 = weights.iter().sum();
    (0..values.first().map_or(0, Vec::len))
        .map(|d| weights.iter().zip(values).map(|(w, v)| w * v[d]).sum::<f64>() / total)
        .collect()
}

fn wide<E: Element>(row: &[E]) -> Vec<f64> {
    row.iter().map(|x| f64::from(x.to_f32())).collect()
}

fn tail_row<E: Element>(tail: &Tail<'_, E>, b: usize, j: usize) -> Vec<f64> {
    wide(&tail.rows.data[b * tail.rows.batch_stride + j * tail.rows.row_stride..][..tail.dim])
}

pub fn decode<E: Element>(input: &Decode<'_, E>) -> Vec<f64> {
    let group = input.n_heads / input.n_kv_heads;
    let mut out = Vec::new();
    for (b, &slots) in input.slots.iter().enumerate() {
        for h in 0..input.n_heads {
            let rows = |rows: &Rows<'_, E>, dim: usize| -> Vec<Vec<f64>> {
                let head = b * rows.batch_stride + h / group * rows.head_stride;
                (0..slots)
                    .map(|j| wide(&rows.data[head + j * rows.row_stride..][..dim]))
                    .collect()
            };
            let q = wide(&input.q[(b * input.n_heads + h) * input.key_dim..][..input.key_dim]);
            let (keys, values) = match input.factors {
                None => {
                    let tail = input
                        .tail
                        .map(|tail| (0..slots).map(move |j| tail_row(&tail, b, j)));
                    let mut keys = rows(&input.keys, input.key_dim - input.tail.map_or(0, |tail| tail.dim));
                    for (key, tail) in keys.iter_mut().zip(tail.into_iter().flatten()) {
                        key.extend(tail);
                    }
                    let values = rows(input.values.as_ref().unwrap_or(&input.keys), input.value_dim);
                    (keys, values)
                }
                Some(factors) => {
                    let sums = |cache: &Rows<'_, E>, n: usize, dim: usize| {
                        let width = dim + factors.heads;
                        let sum = |products: &Vec<f64>| -> Vec<f64> {
                            let of = |d: usize| {
                                products
                                    .chunks(width)
                                    .map(|row| row[dim + h % factors.heads] * row[d])
                                    .sum()
                            };
                            (0..dim).map(of).collect()
                        };
                        rows(cache, n * width).iter().map(sum).collect::<Vec<_>>()
                    };
                    (
                        sums(&input.keys, factors.keys, input.key_dim),
                        sums(&input.values.unwrap(), factors.values, input.value_dim),
                    )
                }
            };
            out.extend(softmax_sum(&q, &keys, &values, f64::from(input.scale)));
        }
    }
    out
}

/// `[B, T, H, Dv]`, and the logarithms `[B, H, T]`.
pub fn attend<E: Element>(input: &Attend<'_, E>) -> (Vec<f64>, Vec<f64>) {
    let group = input.n_heads / input.n_kv_heads;
    let mut out = Vec::new();
    let mut logarithms = vec![0.0; input.batch * input.n_heads * input.tokens];
    let row = |rows: &Rows<'_, E>, at: [usize; 3], dim: usize| {
        let first = at[0] * rows.batch_stride + at[1] * rows.head_stride + at[2] * rows.row_stride;
        wide(&rows.data[first..][..dim])
    };
    let entry = |entries: &Entries<'_, E>, b: usize, kv: usize, j: usize| {
        let mut key = row(&entries.k, [b, kv, j], input.key_dim - input.shared_dim);
        if let Some(shared) = &entries.shared {
            key.extend(row(shared, [b, 0, j], input.shared_dim));
        }
        (key, row(&entries.v, [b, kv, j], input.value_dim))
    };
    for b in 0..input.batch {
        for t in 0..input.tokens {
            for h in 0..input.n_heads {
                let seen = match input.own {
                    Some(_) => (input.start + t) / input.stride,
                    None => input.start + t + 1,
                };
                let closed = |j: usize| match (&input.closed, &input.own) {
                    (Some(closed), _) => entry(closed, b, h / group, j),
                    (None, Some(own)) => entry(own, b, h / group, (j + 1) * input.stride - 1),
                    (None, None) => panic!("no entries"),
                };
                let passed = seen.saturating_sub(input.window);
                let mut entries: Vec<_> = (passed..seen).map(closed).collect();
                entries.extend(input.own.iter().map(|own| entry(own, b, h / group, t)));
                let (keys, values): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
                let q = row(&input.q, [b, h, t], input.key_dim);
                let scale = f64::from(input.scale);
                let score = |k: &Vec<f64>| scale * q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>();
                logarithms[(b * input.n_heads + h) * input.tokens + t] =
                    keys.iter().map(|k| score(k).exp()).sum::<f64>().ln();
                out.extend(softmax_sum(&q, &keys, &values, scale));
            }
        }
    }
    (out, logarithms)
}

/// Gradients of [`attend`], `[B, M, Hkv, D]` of the entries that were given, shared columns `[B, M, Ds]`.
pub struct AttendGradients {
    pub q: Vec<f64>,
    pub k: Vec<f64>,
    pub v: Vec<f64>,
    pub shared: Vec<f64>,
}

/// Of entries that are all own ones, or all closed ones; `grad` is `[B, H, T, Dv]`.
pub fn attend_gradients<E: Element>(input: &Attend<'_, E>, grad: &Rows<'_, E>) -> AttendGradients {
    let (group, h_kv) = (input.n_heads / input.n_kv_heads, input.n_kv_heads);
    let (dk, ds, dv) = (input.key_dim, input.shared_dim, input.value_dim);
    let given = input.own.map_or(input.n_keys, |_| input.tokens);
    let scale = f64::from(input.scale);
    let row = |rows: &Rows<'_, E>, at: [usize; 3], dim: usize| {
        let first = at[0] * rows.batch_stride + at[1] * rows.head_stride + at[2] * rows.row_stride;
        wide(&rows.data[first..][..dim])
    };
    let entries = input.own.or(input.closed).unwrap();
    let mut all = AttendGradients {
        q: Vec::new(),
        k: vec![0.0; input.batch * given * h_kv * (dk - ds)],
        v: vec![0.0; input.batch * given * h_kv * dv],
        shared: vec![0.0; input.batch * given * ds],
    };
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let add = |to: &mut [f64], by: f64, from: &[f64]| {
        to.iter_mut().zip(from).for_each(|(to, from)| *to += by * from);
    };
    for b in 0..input.batch {
        for t in 0..input.tokens {
            for h in 0..input.n_heads {
                let kv = h / group;
                let position = input.start + t;
                let mut seen: Vec<usize> = match input.own {
                    Some(_) => (1..=position / input.stride)
                        .map(|j| j * input.stride - 1)
                        .collect(),
                    None => ((position + 1).saturating_sub(input.window)..=position).collect(),
                };
                seen.extend(input.own.map(|_| t));
                let (q, grad) = (row(&input.q, [b, h, t], dk), row(grad, [b, h, t], dv));
                let keys: Vec<Vec<f64>> = seen
                    .iter()
                    .map(|&j| {
                        let mut key = row(&entries.k, [b, kv, j], dk - ds);
                        key.extend(
                            entries
                                .shared
                                .iter()
                                .flat_map(|shared| row(shared, [b, 0, j], ds)),
                        );
                        key
                    })
                    .collect();
                let values: Vec<Vec<f64>> = seen.iter().map(|&j| row(&entries.v, [b, kv, j], dv)).collect();
                let scores: Vec<f64> = keys.iter().map(|k| scale * dot(&q, k)).collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = scores.iter().map(|score| (score - max).exp()).sum();
                let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp() / total).collect();
                let of_weights: Vec<f64> = values.iter().map(|v| dot(&grad, v)).collect();
                let mean = dot(&weights, &of_weights);
                let mut dq = vec![0.0; dk];
                for (i, &j) in seen.iter().enumerate() {
                    let of_score = scale * weights[i] * (of_weights[i] - mean);
                    add(&mut dq, of_score, &keys[i]);
                    let at = (b * given + j) * h_kv + kv;
                    add(&mut all.k[at * (dk - ds)..][..dk - ds], of_score, &q);
                    add(
                        &mut all.shared[(b * given + j) * ds..][..ds],
                        of_score,
                        &q[dk - ds..],
                    );
                    add(&mut all.v[at * dv..][..dv], weights[i], &grad);
                }
                all.q.extend(dq);
            }
        }
    }
    all
}

/// To be compared where nothing may differ.
pub fn bits<E: Element>(x: &[E]) -> Vec<u32> {
    x.iter().map(|x| x.to_f32().to_bits()).collect()
}

/// The largest difference, over the largest value.
#[track_caller]
pub fn assert_close<E: Element>(got: &[E], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len());
    let scale = expected.iter().fold(1e-30, |max: f64, x| max.max(x.abs()));
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let error = (f64::from(got.to_f32()) - expected).abs() / scale;
        assert!(error <= tolerance, "{i}: {} {expected}", got.to_f32());
    }
}

/// What rounding allows.
pub fn tolerance<E: Element>() -> f64 {
    match size_of::<E>() {
        4 => 2e-6,
        // Half a unit in the last place, and a little.
        _ if E::from_f32(1e6).to_f32().is_finite() => 5e-3,
        _ => 1e-3,
    }
}
