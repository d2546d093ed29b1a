//! Decode against its formula, on every level that runs here.

use attn_kernels::{Decode, Element, Factors, Level, Rows, Tail, decode};
use half::{bf16, f16};

use crate::common::{assert_close, random, tolerance};

struct Sizes {
    n_heads: usize,
    n_kv_heads: usize,
    key_dim: usize,
    /// Of values of their own; otherwise they are the first columns of the keys.
    value_dim: (usize, bool),
    slots: Vec<usize>,
    capacity: usize,
}

fn levels() -> impl Iterator<Item = Level> {
    Level::ALL.into_iter().filter(|level| level.is_available())
}

/// A cache of which only the entries in use are numbers.
fn cache<E: Element>(sizes: &Sizes, dim: usize, seed: u64) -> Vec<E> {
    let mut cache: Vec<E> = random(sizes.slots.len() * sizes.n_kv_heads * sizes.capacity * dim, seed);
    for (b, &slots) in sizes.slots.iter().enumerate() {
        for h in 0..sizes.n_kv_heads {
            let head = (b * sizes.n_kv_heads + h) * sizes.capacity;
            cache[(head + slots) * dim..(head + sizes.capacity) * dim].fill(E::from_f32(f32::NAN));
        }
    }
    cache
}

fn check<E: Element>(sizes: &Sizes) {
    let (b, (value_dim, own)) = (sizes.slots.len(), sizes.value_dim);
    let q: Vec<E> = random(b * sizes.n_heads * sizes.key_dim, 1);
    let keys: Vec<E> = cache(sizes, sizes.key_dim, 2);
    let values: Vec<E> = cache(sizes, value_dim, 3);
    let rows = |data, dim| Rows {
        data,
        batch_stride: sizes.n_kv_heads * sizes.capacity * dim,
        head_stride: sizes.capacity * dim,
        row_stride: dim,
    };
    let input = Decode {
        q: &q,
        keys: rows(&keys, sizes.key_dim),
        values: own.then(|| rows(&values, value_dim)),
        tail: None,
        factors: None,
        n_heads: sizes.n_heads,
        n_kv_heads: sizes.n_kv_heads,
        key_dim: sizes.key_dim,
        value_dim,
        slots: &sizes.slots,
        scale: (sizes.key_dim as f32).powf(-0.5),
    };
    let expected = crate::common::decode(&input);
    for level in levels() {
        let mut out = vec![E::from_f32(f32::NAN); b * sizes.n_heads * value_dim];
        decode(&input, level, &mut out).unwrap();
        assert_close(&out, &expected, tolerance::<E>());
        let mut again = vec![E::from_f32(f32::NAN); out.len()];
        decode(&input, level, &mut again).unwrap();
        assert!(
            out.iter().zip(&again).all(|(a, b)| a.to_f32() == b.to_f32()),
            "{level}"
        );
    }
}

fn check_all(sizes: &Sizes) {
    check::<f32>(sizes);
    check::<bf16>(sizes);
    check::<f16>(sizes);
}

#[test]
fn lengths_of_every_kind_agree_with_the_formula() {
    for slots in [1, 3, 31, 32, 33, 63, 111, 1000] {
        check_all(&Sizes {
            n_heads: 8,
            n_kv_heads: 2,
            key_dim: 64,
            value_dim: (64, true),
            slots: vec![slots],
            capacity: 1003,
        });
    }
}

#[test]
fn heads_share_entries_in_groups_of_every_size() {
    for (n_heads, n_kv_heads) in [(1, 1), (3, 3), (2, 1), (5, 1), (8, 1), (15, 1), (16, 2), (40, 1)] {
        check_all(&Sizes {
            n_heads,
            n_kv_heads,
            key_dim: 64,
            value_dim: (32, false),
            slots: vec![77, 201],
            capacity: 201,
        });
    }
}

#[test]
fn sizes_of_heads_need_not_be_multiples_of_anything() {
    for (key_dim, value_dim) in [
        (16, 16),
        (17, 9),
        (40, 24),
        (63, 111),
        (96, 80),
        (288, 256),
        (512, 512),
        (576, 512),
    ] {
        check_all(&Sizes {
            n_heads: 6,
            n_kv_heads: 2,
            key_dim,
            value_dim: (value_dim, value_dim > key_dim || key_dim % 2 == 1),
            slots: vec![45],
            capacity: 50,
        });
    }
}

#[test]
fn sequences_have_lengths_of_their_own() {
    check_all(&Sizes {
        n_heads: 8,
        n_kv_heads: 1,
        key_dim: 288,
        value_dim: (256, false),
        slots: vec![1, 700, 32, 1500, 5],
        capacity: 1500,
    });
}

/// Sizes of entries whose keys end in columns that all heads share, and of ones that are sums of outer products.
struct Parts {
    n_heads: usize,
    n_kv_heads: usize,
    key_dim: usize,
    tail_dim: usize,
    /// Values are the first columns of what each head has for itself.
    value_dim: usize,
    factors: Option<Factors>,
    slots: Vec<usize>,
}

fn check_parts<E: Element>(sizes: &Parts) {
    let Parts {
        n_heads: h,
        n_kv_heads: h_kv,
        key_dim,
        tail_dim,
        value_dim,
        factors,
        ref slots,
    } = *sizes;
    let (b, capacity) = (slots.len(), slots.iter().max().unwrap() + 3);
    // What each head has for itself, of which some may be values alone.
    let own = match factors {
        Some(factors) => factors.keys * (key_dim + factors.heads),
        None => (key_dim - tail_dim).max(value_dim),
    };
    let of_values = factors.map_or(0, |factors| factors.values * (value_dim + factors.heads));
    let data = |heads: usize, dim: usize, seed: u64| -> Vec<E> {
        let mut data: Vec<E> = random(b * heads * capacity * dim, seed);
        for (at, head) in data.chunks_mut((capacity * dim).max(1)).enumerate() {
            head[slots[at / heads] * dim..].fill(E::from_f32(f32::NAN));
        }
        data
    };
    let rows = |data, heads: usize, dim: usize| Rows {
        data,
        batch_stride: heads * capacity * dim,
        head_stride: capacity * dim,
        row_stride: dim,
    };
    let q: Vec<E> = random(b * h * key_dim, 1);
    let (keys, values, tail) = (data(h_kv, own, 2), data(1, of_values, 3), data(1, tail_dim, 4));
    let input = Decode {
        q: &q,
        keys: rows(&keys, h_kv, own),
        values: factors.map(|_| rows(&values, 1, of_values)),
        tail: (tail_dim > 0).then(|| Tail {
            rows: rows(&tail, 1, tail_dim),
            dim: tail_dim,
        }),
        factors,
        n_heads: h,
        n_kv_heads: h_kv,
        key_dim,
        value_dim,
        slots,
        scale: 3.0 * (key_dim as f32).powf(-0.5),
    };
    let expected = crate::common::decode(&input);
    for level in levels() {
        let mut out = vec![E::from_f32(f32::NAN); b * h * value_dim];
        decode(&input, level, &mut out).unwrap();
        assert_close(&out, &expected, 2.0 * tolerance::<E>());
    }
}

#[test]
fn keys_may_end_in_columns_that_all_heads_share() {
    for (n_heads, n_kv_heads) in [(8, 2), (8, 1), (6, 3), (16, 2), (4, 4)] {
        // GTA: values are wider than a head's own columns of keys; GLA: they are as wide; and odd ones.
        for (key_dim, tail_dim, value_dim) in [(64, 32, 64), (160, 32, 128), (23, 6, 11), (9, 8, 1)] {
            let sizes = Parts {
                n_heads,
                n_kv_heads,
                key_dim,
                tail_dim,
                value_dim,
                factors: None,
                slots: vec![1, 33, 300],
            };
            check_parts::<f32>(&sizes);
            check_parts::<bf16>(&sizes);
            check_parts::<f16>(&sizes);
        }
    }
}

#[test]
fn keys_and_values_may_be_sums_of_outer_products() {
    // Fewer heads than a vector holds, more, and query heads that share factors or use only some of them.
    for (n_heads, heads) in [(8, 8), (1, 1), (5, 5), (24, 8), (21, 21), (32, 16), (6, 9)] {
        for (keys, values) in [(2, 2), (1, 3), (4, 1), (32, 5)] {
            for (key_dim, value_dim) in [(64, 64), (24, 40)] {
                let sizes = Parts {
                    n_heads,
                    n_kv_heads: 1,
                    key_dim,
                    tail_dim: 0,
                    value_dim,
                    factors: Some(Factors { heads, keys, values }),
                    slots: vec![7, 130, 31],
                };
                check_parts::<f32>(&sizes);
                check_parts::<bf16>(&sizes);
                check_parts::<f16>(&sizes);
            }
        }
    }
}

#[test]
fn a_factor_that_is_no_number_spoils_its_head_alone() {
    let (heads, dim, n) = (5, 16, 70);
    let width = 2 * (dim + heads);
    let (q, values): (Vec<f32>, Vec<f32>) = (random(heads * dim, 1), random(n * width, 2));
    for level in levels() {
        for value in [f32::NAN, f32::INFINITY] {
            let mut keys: Vec<f32> = random(n * width, 3);
            // Of the second product of a slot, for the third head.
            keys[40 * width + 2 * dim + heads + 2] = value;
            let mut out = vec![0.0; heads * dim];
            let input = Decode {
                q: &q,
                keys: Rows::head_major(&keys, 1, n, width),
                values: Some(Rows::head_major(&values, 1, n, width)),
                tail: None,
                factors: Some(Factors {
                    heads,
                    keys: 2,
                    values: 2,
                }),
                n_heads: heads,
                n_kv_heads: 1,
                key_dim: dim,
                value_dim: dim,
                slots: &[n],
                scale: 1.0,
            };
            decode(&input, level, &mut out).unwrap();
            for (head, out) in out.chunks_exact(dim).enumerate() {
                // A score of minus infinity is an entry that weighs nothing.
                let is_spoilt = out.iter().all(|x| x.is_nan());
                let is_number = out.iter().all(|x| x.is_finite());
                match (head, value.is_nan()) {
                    (2, true) => assert!(is_spoilt, "{level}"),
                    (2, false) => assert!(is_spoilt || is_number, "{level}"),
                    _ => assert!(is_number, "{level} {head}"),
                }
            }
        }
    }
}

#[test]
fn nan_and_infinity_come_through() {
    for level in levels() {
        let run = |at: usize, value: f32, slots: usize| {
            let mut keys: Vec<f32> = random(300 * 16, 4);
            keys[at * 16] = value;
            let mut out = vec![0.0; 16];
            let rows = Rows {
                data: keys.as_slice(),
                batch_stride: 0,
                head_stride: 0,
                row_stride: 16,
            };
            let input = Decode {
                q: &[1.0; 16],
                keys: rows,
                values: None,
                tail: None,
                factors: None,
                n_heads: 1,
                n_kv_heads: 1,
                key_dim: 16,
                value_dim: 16,
                slots: &[slots],
                scale: 1.0,
            };
            decode(&input, level, &mut out).unwrap();
            out
        };
        for at in [0, 7, 31, 32, 150, 299] {
            assert!(run(at, f32::NAN, 300).iter().all(|x| x.is_nan()), "{level} {at}");
            assert!(
                run(at, f32::INFINITY, 300).iter().all(|x| x.is_nan()),
                "{level} {at}"
            );
            // A key that is infinitely far away weighs nothing; its own value is -infinity times 0.
            let far = run(at, f32::NEG_INFINITY, 300);
            assert!(
                far[0].is_nan() && far[1..].iter().all(|x| x.is_finite()),
                "{level} {at}"
            );
        }
        assert!(run(299, f32::NAN, 299).iter().all(|x| x.is_finite()));
    }
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let keys = vec![0.0_f32; 64];
    let rows = Rows {
        data: keys.as_slice(),
        batch_stride: 64,
        head_stride: 64,
        row_stride: 16,
    };
    let input = Decode {
        q: &keys,
        keys: rows,
        values: None,
        tail: None,
        factors: None,
        n_heads: 2,
        n_kv_heads: 1,
        key_dim: 16,
        value_dim: 16,
        slots: &[4],
        scale: 1.0,
    };
    let run = |input: &Decode<'_, f32>, out: usize| decode(input, Level::Portable, &mut vec![0.0; out]);
    assert_eq!(run(&input, 32), Ok(()));
    let refused = |input: Decode<'_, f32>, out| run(&input, out).unwrap_err().to_string();
    assert_eq!(
        refused(input, 31),
        "decode: the length of the output is 31, expected 32"
    );
    let longer = Decode { slots: &[5], ..input };
    assert_eq!(
        refused(longer, 32),
        "decode: the length of the cache is 64, expected 80"
    );
    let empty = Decode { slots: &[0], ..input };
    assert!(refused(empty, 32).contains("entries in use"));
    let heads = Decode {
        n_kv_heads: 3,
        ..input
    };
    assert!(refused(heads, 32).contains("number of heads"));
    let wide = Decode {
        value_dim: 17,
        ..input
    };
    assert!(refused(wide, 34).contains("width of keys"));
}
