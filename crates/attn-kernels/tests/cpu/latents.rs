//! Latents against their formula, on every level that runs here.

use attn_kernels::{Element, Gate, Grouped, Latents, LatentsOut, Level, Norm, Place, Turn, latents};
use half::{bf16, f16};

use crate::common::{assert_close, random};

#[derive(Debug, Clone, Copy)]
struct Sizes<'a> {
    tokens: usize,
    rank: usize,
    rope_dim: usize,
    starts: &'a [usize],
    /// With a gate.
    stride: Option<usize>,
    /// LayerNorm, and not RMSNorm.
    layer: bool,
    halves: bool,
}

fn check<E: Element>(sizes: &Sizes<'_>, tolerance: f64) {
    let Sizes {
        tokens,
        rank,
        rope_dim,
        starts,
        stride,
        layer,
        halves,
    } = *sizes;
    let (batch, width) = (starts.len(), rank + rope_dim);
    let x: Vec<E> = random(batch * tokens * width, 1);
    let (weight, bias): (Vec<E>, Vec<E>) = (random(rank, 2), random(rank, 3));
    let positions = starts.iter().max().unwrap() + tokens;
    let angle = |position: usize, i: usize| position as f32 * 10f32.powf(-(i as f32));
    let table = |f: fn(f32) -> f32| -> Vec<f32> {
        let of = |at: usize| f(angle(at / (rope_dim / 2), at % (rope_dim / 2)));
        (0..positions * rope_dim / 2).map(of).collect()
    };
    let (cos, sin) = (table(f32::cos), table(f32::sin));
    let blocks = positions.div_ceil(stride.unwrap_or(1));
    let (u, b): (Vec<f32>, Vec<f32>) = (random(blocks * rank, 4), random(blocks, 5));
    let open: Vec<f32> = random(batch * rank, 6);

    let (mut expected_c, mut expected_k, mut expected_last) = (Vec::new(), Vec::new(), Vec::new());
    for (sequence, start) in starts.iter().enumerate() {
        let mut sums: Vec<f64> = open[sequence * rank..][..rank]
            .iter()
            .map(|x| f64::from(*x))
            .collect();
        for token in 0..tokens {
            let row = &x[(sequence * tokens + token) * width..][..width];
            let row: Vec<f64> = row.iter().map(|x| f64::from(x.to_f32())).collect();
            let mean = if layer {
                row[..rank].iter().sum::<f64>() / rank as f64
            } else {
                0.0
            };
            let variance = row[..rank].iter().map(|x| (x - mean).powi(2)).sum::<f64>() / rank as f64;
            let c: Vec<f64> = (0..rank)
                .map(|d| {
                    let bias = if layer { f64::from(bias[d].to_f32()) } else { 0.0 };
                    let y = (row[d] - mean) / (variance + 1e-5).sqrt() * f64::from(weight[d].to_f32()) + bias;
                    f64::from(E::from_f32(y as f32).to_f32())
                })
                .collect();
            let position = start + token;
            match stride {
                None => expected_c.extend(&c),
                Some(stride) => {
                    let block = position / stride;
                    let dot: f64 = (0..rank).map(|d| c[d] * f64::from(u[block * rank + d])).sum();
                    let gate = 1.0 / (1.0 + (-(dot + f64::from(b[block]))).exp());
                    for d in 0..rank {
                        sums[d] = gate * c[d] + if position % stride == 0 { 0.0 } else { sums[d] };
                    }
                    expected_c.extend(&sums);
                }
            }
            let mut key = vec![0.0; rope_dim];
            for i in 0..rope_dim / 2 {
                let (p, q) = if halves {
                    (i, rope_dim / 2 + i)
                } else {
                    (2 * i, 2 * i + 1)
                };
                let (sin, cos) = f64::from(angle(position, i)).sin_cos();
                key[p] = row[rank + p] * cos - row[rank + q] * sin;
                key[q] = row[rank + p] * sin + row[rank + q] * cos;
            }
            expected_k.extend(key);
        }
        expected_last.extend(sums);
    }

    let input = Latents {
        x: Grouped {
            data: &x,
            group_stride: tokens * width,
            row_stride: width,
        },
        norm: Norm {
            weight: &weight,
            bias: layer.then_some(bias.as_slice()),
            eps: 1e-5,
        },
        turn: Turn {
            cos: &cos,
            sin: &sin,
            halves,
        },
        gate: stride.map(|stride| Gate {
            u: &u,
            b: &b,
            stride,
            open: Some(&open),
        }),
        starts,
        tokens,
        rank,
        rope_dim,
    };
    for level in Level::ALL.into_iter().filter(|level| level.is_available()) {
        // Entries side by side, and latents and keys apart.
        for together in [true, false] {
            let mut data = vec![E::from_f32(f32::NAN); batch * tokens * width];
            let mut last = vec![f32::NAN; batch * rank];
            let first = |each: usize, before: usize| -> Vec<usize> {
                (0..batch).map(|b| before + b * tokens * each).collect()
            };
            let (c_first, k_first) = match together {
                true => (first(width, 0), first(width, rank)),
                false => (first(rank, 0), first(rope_dim, batch * tokens * rank)),
            };
            let row_stride = |apart: usize| if together { width } else { apart };
            let mut out = LatentsOut {
                data: &mut data,
                c: Place {
                    first: &c_first,
                    row_stride: row_stride(rank),
                },
                k_r: Place {
                    first: &k_first,
                    row_stride: row_stride(rope_dim),
                },
                last: stride.map(|_| last.as_mut_slice()),
            };
            latents(&input, level, &mut out).unwrap();
            let gather = |first: &[usize], apart: usize| -> Vec<E> {
                let rows = first
                    .iter()
                    .flat_map(|&first| (0..tokens).map(move |t| (first, t)));
                rows.flat_map(|(first, t)| data[first + t * row_stride(apart)..][..apart].to_vec())
                    .collect()
            };
            assert_close(&gather(&c_first, rank), &expected_c, tolerance);
            assert_close(&gather(&k_first, rope_dim), &expected_k, tolerance);
            if stride.is_some() {
                assert_close(&last, &expected_last, tolerance);
            }
        }
    }
}

#[test]
fn entries_of_every_kind_agree_with_the_formula() {
    for (tokens, starts) in [
        (1, [0, 0].as_slice()),
        (1, &[3, 10, 6]),
        (7, &[5]),
        (300, &[0]),
        (301, &[130, 2]),
    ] {
        for stride in [None, Some(1), Some(2), Some(3), Some(4)] {
            for (rank, rope_dim) in [(1, 2), (16, 16), (63, 6), (256, 32)] {
                for (layer, halves) in [(true, false), (false, true)] {
                    let sizes = Sizes {
                        tokens,
                        rank,
                        rope_dim,
                        starts,
                        stride,
                        layer,
                        halves,
                    };
                    check::<f32>(&sizes, 1e-5);
                    check::<bf16>(&sizes, 1e-2);
                    check::<f16>(&sizes, 2e-3);
                }
            }
        }
    }
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let (x, table) = (vec![0.5_f32; 2 * 6], vec![0.0_f32; 2]);
    let input = Latents {
        x: Grouped {
            data: &x,
            group_stride: 12,
            row_stride: 6,
        },
        norm: Norm {
            weight: &x,
            bias: None,
            eps: 1e-5,
        },
        turn: Turn {
            cos: &table,
            sin: &table,
            halves: false,
        },
        gate: None,
        starts: &[0],
        tokens: 2,
        rank: 4,
        rope_dim: 2,
    };
    let run = |input: &Latents<'_, f32>, keys: usize, out: usize| {
        let mut out = vec![0.0; out];
        let mut out = LatentsOut {
            data: &mut out,
            c: Place {
                first: &[0],
                row_stride: 6,
            },
            k_r: Place {
                first: &[keys],
                row_stride: 6,
            },
            last: None,
        };
        latents(input, Level::Portable, &mut out).map_err(|error| error.to_string())
    };
    assert_eq!(run(&input, 4, 12), Ok(()));
    assert!(run(&input, 4, 11).unwrap_err().contains("length of the output"));
    assert!(run(&input, 3, 12).unwrap_err().contains("begin of a row"));
    // The second latent would lie on the first key.
    let mut data = vec![0.0; 12];
    let mut out = LatentsOut {
        data: &mut data,
        c: Place {
            first: &[0],
            row_stride: 4,
        },
        k_r: Place {
            first: &[4],
            row_stride: 4,
        },
        last: None,
    };
    let refused = latents(&input, Level::Portable, &mut out).unwrap_err();
    assert!(refused.to_string().contains("distance of entries"));
    let later = Latents {
        starts: &[1],
        ..input
    };
    assert!(run(&later, 4, 12).unwrap_err().contains("table of cosines"));
    let odd = Latents { rope_dim: 3, ..input };
    assert!(run(&odd, 4, 12).unwrap_err().contains("rope keys"));
    let gate = Gate {
        u: &x,
        b: &x,
        stride: 2,
        open: None,
    };
    let inside = Latents {
        gate: Some(gate),
        starts: &[1],
        tokens: 1,
        ..input
    };
    assert!(run(&inside, 4, 12).unwrap_err().contains("open blocks"));
}
