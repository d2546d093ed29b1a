//! The gradients of attend against their formula in f64, on every level that runs here.

use attn_kernels::{
    Attend, Backward, Element, Entries, EntryGradients, Gradients, Level, Rows, attend, attend_backward,
};
use half::bf16;

use crate::common::{assert_close, four_tokens, random};

#[derive(Debug, Clone, Copy)]
struct Sizes {
    batch: usize,
    n_heads: usize,
    n_kv_heads: usize,
    tokens: usize,
    key_dim: usize,
    value_dim: usize,
    /// With own entries, of which those that close a block are the others.
    stride: Option<usize>,
    /// Last columns of keys that all heads share, keys and values lying side by side.
    shared_dim: Option<usize>,
    /// Entries that a query sees at most.
    window: usize,
}

/// Gradients of `sum(grad out)` by the dense formula: every weight of every query. Token by token.
fn formula<E: Element>(sizes: &Sizes, [q, k, v, grad]: [&[E]; 4], scale: f64) -> [Vec<f64>; 3] {
    let Sizes {
        batch,
        n_heads,
        n_kv_heads,
        tokens,
        key_dim,
        value_dim,
        stride,
        window,
        ..
    } = *sizes;
    let row = |x: &[E], at: usize, dim: usize| -> Vec<f64> {
        x[at * dim..][..dim]
            .iter()
            .map(|x| f64::from(x.to_f32()))
            .collect()
    };
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let (mut dq, mut dk, mut dv) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
    for b in 0..batch {
        for h in 0..n_heads {
            let kv = b * n_kv_heads + h / (n_heads / n_kv_heads);
            for t in 0..tokens {
                let mut entries: Vec<usize> = match stride {
                    None => ((t + 1).saturating_sub(window)..=t).collect(),
                    Some(s) => (0..t / s).map(|j| (j + 1) * s - 1).collect(),
                };
                entries.extend(stride.map(|_| t));
                let query = row(q, (b * n_heads + h) * tokens + t, key_dim);
                let gradient = row(grad, (b * n_heads + h) * tokens + t, value_dim);
                let keys: Vec<_> = entries.iter().map(|j| row(k, kv * tokens + j, key_dim)).collect();
                let values: Vec<_> = entries
                    .iter()
                    .map(|j| row(v, kv * tokens + j, value_dim))
                    .collect();
                let weights: Vec<f64> = keys.iter().map(|key| (scale * dot(&query, key)).exp()).collect();
                let total: f64 = weights.iter().sum();
                let weights: Vec<f64> = weights.iter().map(|weight| weight / total).collect();
                let of_weights: Vec<f64> = values.iter().map(|value| dot(&gradient, value)).collect();
                let mean = dot(&weights, &of_weights);
                for (i, j) in entries.iter().enumerate() {
                    let ds = scale * weights[i] * (of_weights[i] - mean);
                    let entry = (b * tokens + j) * n_kv_heads + kv % n_kv_heads;
                    for d in 0..key_dim {
                        dq[((b * tokens + t) * n_heads + h) * key_dim + d] += ds * keys[i][d];
                        dk[entry * key_dim + d] += ds * query[d];
                    }
                    for d in 0..value_dim {
                        dv[entry * value_dim + d] += weights[i] * gradient[d];
                    }
                }
            }
        }
    }
    [dq, dk, dv]
}

/// `[B, N, H, D]` of `[B, H, N, D]`.
fn token_by_token<E: Element>(x: &[E], [heads, rows, dim]: [usize; 3]) -> Vec<E> {
    let sequences = x.len() / (heads * rows * dim);
    let at = (0..sequences).flat_map(|b| (0..rows).flat_map(move |n| (0..heads).map(move |h| [b, n, h])));
    at.flat_map(|[b, n, h]| &x[((b * heads + h) * rows + n) * dim..][..dim])
        .copied()
        .collect()
}

fn check<E: Element>(sizes: &Sizes, tolerance: f64) {
    let Sizes {
        batch,
        n_heads,
        n_kv_heads,
        tokens,
        key_dim,
        value_dim,
        stride,
        shared_dim,
        window,
    } = *sizes;
    let ds = shared_dim.unwrap_or(0);
    let (of_head, kv_width) = (key_dim - ds, key_dim - ds + value_dim);
    let q: Vec<E> = random(batch * n_heads * tokens * key_dim, 1);
    let mut k: Vec<E> = random(batch * n_kv_heads * tokens * key_dim, 2);
    let v: Vec<E> = random(batch * n_kv_heads * tokens * value_dim, 3);
    let grad: Vec<E> = random(batch * n_heads * tokens * value_dim, 4);
    for sequence in k.chunks_exact_mut(n_kv_heads * tokens * key_dim) {
        let (first, others) = sequence.split_at_mut(tokens * key_dim);
        let others = others.chunks_exact_mut(tokens * key_dim);
        for (to, from) in
            others.flat_map(|other| other.chunks_exact_mut(key_dim).zip(first.chunks_exact(key_dim)))
        {
            to[of_head..].copy_from_slice(&from[of_head..]);
        }
    }
    // Keys without what is shared and values side by side, and what is shared.
    let kv: Vec<E> = token_by_token(&k, [n_kv_heads, tokens, key_dim])
        .chunks_exact(key_dim)
        .zip(token_by_token(&v, [n_kv_heads, tokens, value_dim]).chunks_exact(value_dim))
        .flat_map(|(k, v)| [&k[..of_head], v].concat())
        .collect();
    let shared: Vec<E> = k
        .chunks_exact(n_kv_heads * tokens * key_dim)
        .flat_map(|sequence| sequence[..tokens * key_dim].chunks_exact(key_dim))
        .flat_map(|key| &key[of_head..])
        .copied()
        .collect();
    let joint = |first: usize| Rows {
        data: &kv[first..],
        batch_stride: tokens * n_kv_heads * kv_width,
        head_stride: kv_width,
        row_stride: n_kv_heads * kv_width,
    };
    let entries = match shared_dim {
        None => Entries {
            k: Rows::head_major(&k, n_kv_heads, tokens, key_dim),
            shared: None,
            v: Rows::head_major(&v, n_kv_heads, tokens, value_dim),
        },
        Some(_) => Entries {
            k: joint(0),
            shared: Some(Rows::head_major(&shared, 1, tokens, ds)),
            v: joint(of_head),
        },
    };
    let input = Attend {
        q: Rows::head_major(&q, n_heads, tokens, key_dim),
        closed: stride.is_none().then_some(entries),
        own: stride.map(|_| entries),
        shared_dim: ds,
        batch,
        n_heads,
        n_kv_heads,
        tokens,
        n_keys: tokens / stride.unwrap_or(1),
        key_dim,
        value_dim,
        start: 0,
        stride: stride.unwrap_or(1),
        window,
        scale: 0.7,
    };
    let [dq, dk, dv] = formula(sizes, [&q, &k, &v, &grad], f64::from(0.7_f32));
    let expected = match shared_dim {
        None => [dq, dk, dv].concat(),
        Some(_) => {
            let dkv = dk.chunks_exact(key_dim).zip(dv.chunks_exact(value_dim));
            let dkv = dkv.flat_map(|(dk, dv)| [&dk[..of_head], dv].concat()).collect();
            let of_token = dk.chunks_exact(n_kv_heads * key_dim);
            let d_shared = of_token.flat_map(|heads| {
                (of_head..key_dim).map(|d| heads.chunks_exact(key_dim).map(|head| head[d]).sum::<f64>())
            });
            [dq, dkv, d_shared.collect()].concat()
        }
    };
    for level in Level::ALL.into_iter().filter(|level| level.is_available()) {
        let mut out = vec![E::default(); batch * n_heads * tokens * value_dim];
        let mut lse = vec![0.0; batch * n_heads * tokens];
        attend(&input, level, &mut out, Some(&mut lse)).unwrap();
        let backward = Backward {
            input,
            out: &out,
            lse: &lse,
            grad: Rows::head_major(&grad, n_heads, tokens, value_dim),
        };
        let run = || {
            let nan = |n: usize| vec![E::from_f32(f32::NAN); n];
            let mut all = match shared_dim {
                None => [nan(q.len()), nan(k.len()), nan(v.len())],
                Some(_) => [nan(q.len()), nan(kv.len()), nan(shared.len())],
            };
            let [q, first, second] = &mut all;
            let entries = match shared_dim {
                None => EntryGradients::Apart { k: first, v: second },
                Some(_) => EntryGradients::Joint {
                    kv: first,
                    shared: second,
                },
            };
            attend_backward(&backward, level, &mut Gradients { q, entries }).unwrap();
            all
        };
        let got = run();
        // Together, because some are zeros but for the rounding of what they are differences of.
        assert_close(&got.concat(), &expected, tolerance);
        for (a, b) in got.iter().flatten().zip(run().iter().flatten()) {
            assert_eq!(a.to_f32().to_bits(), b.to_f32().to_bits(), "{level}");
        }
    }
}

#[test]
fn gradients_of_every_kind_agree_with_the_formula() {
    for tokens in [1, 3, 63, 97, 130, 260] {
        for stride in [None, Some(1), Some(2), Some(3), Some(4)] {
            for (batch, n_heads, n_kv_heads) in [(1, 1, 1), (2, 4, 2)] {
                for (key_dim, value_dim, shared_dim) in [
                    (16, 16, None),
                    (17, 9, None),
                    (96, 64, None),
                    (17, 9, Some(0)),
                    (21, 9, Some(4)),
                    (96, 64, Some(32)),
                ] {
                    let sizes = Sizes {
                        batch,
                        n_heads,
                        n_kv_heads,
                        tokens,
                        key_dim,
                        value_dim,
                        stride,
                        shared_dim,
                        window: usize::MAX,
                    };
                    check::<f32>(&sizes, 1e-5);
                    // The output, which the gradients start from, is rounded.
                    check::<bf16>(&sizes, 2e-2);
                    if stride.is_none() {
                        for window in [1, 70, 128, 200] {
                            check::<f32>(&Sizes { window, ..sizes }, 1e-5);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let x = vec![0.0_f32; 4 * 16];
    let input = four_tokens(&x);
    let refused = |input: Attend<'_, f32>, q: usize| {
        let backward = Backward {
            input,
            out: &x,
            lse: &[0.0; 4],
            grad: input.q,
        };
        let (mut q, mut k, mut v) = (vec![0.0; q], vec![0.0; 64], vec![0.0; 64]);
        let mut gradients = Gradients {
            q: &mut q,
            entries: EntryGradients::Apart { k: &mut k, v: &mut v },
        };
        attend_backward(&backward, Level::Portable, &mut gradients).map_err(|error| error.to_string())
    };
    assert_eq!(refused(input, 64), Ok(()));
    assert!(refused(input, 63).unwrap_err().contains("q's gradient"));
    let both = Attend {
        own: input.closed,
        ..input
    };
    assert!(refused(both, 64).unwrap_err().contains("kinds of entries"));
}
