//! Attend against its formula, on every level that runs here.

use attn_kernels::{Attend, Element, Entries, Level, Rows, attend};
use half::{bf16, f16};

use crate::common::{assert_close, four_tokens, random, tolerance};

#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    n_heads: usize,
    n_kv_heads: usize,
    tokens: usize,
    start: usize,
    key_dim: usize,
    value_dim: usize,
    /// Columns of keys that all heads share.
    shared_dim: usize,
    /// With own entries.
    stride: Option<usize>,
    /// Rows of tokens with all heads side by side, not heads with all tokens.
    token_major: bool,
    /// Closed entries are those of the own ones.
    ends: bool,
    window: usize,
}

/// `[batch, heads, n, dim]` in either order, with a gap after each row of heads.
fn rows<E: Element>(data: &[E], heads: usize, n: usize, dim: usize, token_major: bool) -> Rows<'_, E> {
    if !token_major {
        return Rows::head_major(data, heads, n, dim);
    }
    let row_stride = heads * dim + GAP;
    Rows {
        data,
        batch_stride: n * row_stride,
        head_stride: dim,
        row_stride,
    }
}

const GAP: usize = 5;

fn check<E: Element>(sizes: &Sizes) {
    let Sizes {
        batch,
        n_heads,
        n_kv_heads,
        tokens,
        start,
        key_dim,
        value_dim,
        shared_dim,
        stride,
        token_major,
        ends,
        window,
    } = *sizes;
    let n_keys = match stride {
        Some(stride) => (start + tokens) / stride,
        None => start + tokens,
    };
    let data = |heads: usize, n: usize, dim: usize, seed| -> Vec<E> {
        random(batch * n * (heads * dim + GAP), seed)
    };
    let of_head = key_dim - shared_dim;
    let entries = |n: usize, seed| {
        let k = data(n_kv_heads, n, of_head, seed);
        let v = data(n_kv_heads, n, value_dim, seed + 1);
        (k, v, data(1, n, shared_dim, seed + 2))
    };
    let q = data(n_heads, tokens, key_dim, 1);
    let (closed, own) = (entries(n_keys, 2), entries(tokens, 5));
    let view = |(k, v, shared): &(Vec<E>, Vec<E>, Vec<E>), n: usize| {
        // The data live as long as this function: leaked once a case, in a test.
        let leak = |data: &Vec<E>| -> &'static [E] { Box::leak(data.clone().into_boxed_slice()) };
        Entries {
            k: rows(leak(k), n_kv_heads, n, of_head, token_major),
            v: rows(leak(v), n_kv_heads, n, value_dim, token_major),
            shared: (shared_dim > 0).then(|| rows(leak(shared), 1, n, shared_dim, token_major)),
        }
    };
    let input = Attend {
        q: rows(&q, n_heads, tokens, key_dim, token_major),
        closed: (!ends).then(|| view(&closed, n_keys)),
        own: stride.map(|_| view(&own, tokens)),
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
        window,
        scale: (key_dim as f32).powf(-0.5),
    };
    let (expected, logarithms) = crate::common::attend(&input);
    for level in Level::ALL.into_iter().filter(|level| level.is_available()) {
        let mut out = vec![E::from_f32(f32::NAN); batch * n_heads * tokens * value_dim];
        let mut lse = vec![f32::NAN; batch * n_heads * tokens];
        attend(&input, level, &mut out, Some(&mut lse)).unwrap();
        assert_close(&out, &expected, tolerance::<E>());
        assert_close(&lse, &logarithms, 2e-6);
        let mut again = vec![E::from_f32(f32::NAN); out.len()];
        attend(&input, level, &mut again, None).unwrap();
        assert!(
            out.iter().zip(&again).all(|(a, b)| a.to_f32() == b.to_f32()),
            "{level}"
        );
    }
}

fn check_all(sizes: Sizes) {
    check::<f32>(&sizes);
    check::<bf16>(&sizes);
    check::<f16>(&sizes);
}

const PLAIN: Sizes = Sizes {
    batch: 1,
    n_heads: 2,
    n_kv_heads: 1,
    tokens: 63,
    start: 0,
    key_dim: 32,
    value_dim: 32,
    shared_dim: 0,
    stride: None,
    token_major: false,
    ends: false,
    window: usize::MAX,
};

#[test]
fn windows_hide_what_lies_behind_them() {
    for (tokens, start) in [(1, 0), (63, 0), (300, 0), (97, 130), (5, 400), (200, 31)] {
        for window in [1, 2, 31, 96, 128, 129, 250, 1000] {
            check_all(Sizes {
                tokens,
                start,
                window,
                ..PLAIN
            });
        }
    }
    check_all(Sizes {
        n_heads: 6,
        n_kv_heads: 2,
        batch: 2,
        tokens: 257,
        window: 70,
        shared_dim: 8,
        token_major: true,
        ..PLAIN
    });
}

#[test]
fn prompts_of_every_length_agree_with_the_formula() {
    for tokens in [1, 3, 63, 95, 96, 97, 111, 128, 129, 300] {
        for stride in [None, Some(1), Some(2), Some(3), Some(4)] {
            check_all(Sizes {
                tokens,
                stride,
                ..PLAIN
            });
        }
    }
}

#[test]
fn a_prompt_may_go_on_anywhere_in_a_block() {
    for start in [1, 2, 5, 130] {
        for stride in [None, Some(2), Some(3)] {
            check_all(Sizes {
                start,
                stride,
                tokens: 100,
                ..PLAIN
            });
        }
    }
}

#[test]
fn heads_batches_and_sizes_of_every_kind_agree_with_the_formula() {
    for (batch, n_heads, n_kv_heads) in [(1, 1, 1), (2, 4, 2), (3, 6, 1)] {
        for (key_dim, value_dim) in [(16, 16), (17, 9), (40, 24), (96, 64), (63, 111), (192, 128)] {
            for stride in [None, Some(2)] {
                check_all(Sizes {
                    batch,
                    n_heads,
                    n_kv_heads,
                    key_dim,
                    value_dim,
                    stride,
                    tokens: 101,
                    ..PLAIN
                });
            }
        }
    }
}

#[test]
fn operands_may_lie_in_either_order_and_keys_in_two_parts() {
    for (batch, n_heads, n_kv_heads) in [(1, 2, 2), (2, 4, 2)] {
        for (key_dim, shared_dim, value_dim) in [(32, 0, 16), (96, 32, 64), (40, 9, 24)] {
            for (stride, ends) in [(None, false), (Some(2), false), (Some(2), true), (Some(3), true)] {
                check_all(Sizes {
                    batch,
                    n_heads,
                    n_kv_heads,
                    key_dim,
                    value_dim,
                    shared_dim,
                    stride,
                    token_major: true,
                    ends,
                    tokens: 101,
                    ..PLAIN
                });
            }
        }
    }
}

#[test]
fn a_key_that_is_nan_spoils_the_queries_that_see_it_and_no_others() {
    for level in Level::ALL.into_iter().filter(|level| level.is_available()) {
        let (tokens, dim, bad) = (200, 16, 130);
        let q: Vec<f32> = random(tokens * dim, 1);
        let mut k: Vec<f32> = random(tokens * dim, 2);
        let v: Vec<f32> = random(tokens * dim, 3);
        k[bad * dim + 3] = f32::NAN;
        let entries = |k, v| Entries {
            k: Rows::head_major(k, 1, tokens, dim),
            shared: None,
            v: Rows::head_major(v, 1, tokens, dim),
        };
        let input = Attend {
            q: Rows::head_major(&q, 1, tokens, dim),
            closed: Some(entries(&k, &v)),
            own: None,
            shared_dim: 0,
            batch: 1,
            n_heads: 1,
            n_kv_heads: 1,
            tokens,
            n_keys: tokens,
            key_dim: dim,
            value_dim: dim,
            start: 0,
            stride: 1,
            window: usize::MAX,
            scale: 0.25,
        };
        let mut spoiled = v.clone();
        spoiled[bad * dim..][..dim].fill(f32::NAN);
        let mut out = vec![0.0; tokens * dim];
        attend(
            &Attend {
                closed: Some(entries(&v, &spoiled)),
                ..input
            },
            level,
            &mut out,
            None,
        )
        .unwrap();
        for (t, row) in out.chunks(dim).enumerate() {
            assert!(row.iter().all(|x| x.is_nan() == (t >= bad)), "{level} {t}");
        }
        attend(&input, level, &mut out, None).unwrap();
        for (t, row) in out.chunks(dim).enumerate() {
            assert!(row.iter().all(|x| x.is_nan() == (t >= bad)), "{level} {t}");
        }
    }
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let x = vec![0.0_f32; 4 * 16];
    let input = four_tokens(&x);
    let run = |input: Attend<'_, f32>, out: usize| attend(&input, Level::Portable, &mut vec![0.0; out], None);
    assert_eq!(run(input, 64), Ok(()));
    let refused = |input, out| run(input, out).unwrap_err().to_string();
    let later = Attend { start: 1, ..input };
    assert_eq!(refused(later, 64), "attend: the number of keys is 4, expected 5");
    let strided = Attend { stride: 2, ..input };
    assert!(refused(strided, 64).contains("stride"));
    assert!(refused(input, 63).contains("output"));
    let more = Attend { n_heads: 2, ..input };
    assert!(refused(more, 128).contains("length of q"));
    let none = Attend {
        closed: None,
        ..input
    };
    assert!(refused(none, 64).contains("closed entries"));
    let shared = Attend {
        shared_dim: 4,
        ..input
    };
    assert!(refused(shared, 64).contains("shared keys"));
}
