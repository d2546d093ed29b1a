//! The gradients that kernels are held against are those of the formulas: central differences of the sums that they
//! are gradients of.

use attn_kernels::{Attend, Entries, Rows};

use crate::cases::attend::{Sequences, causal, random_rows, strided, token_major, with_sequences};
use crate::cases::merge::Merge;
use crate::common::assert_close;

/// Far above what f32 rounds away of an element, and small enough for the cubes that are left out.
const STEP: f32 = 1.0 / 256.0;

/// What is left of these.
const TOLERANCE: f64 = 1e-4;

/// The derivative of `sum` by each of these elements of `data`.
fn differences(data: &[f32], at: impl Iterator<Item = usize>, sum: impl Fn(&[f32]) -> f64) -> Vec<f64> {
    let mut data = data.to_vec();
    at.map(|at| {
        let x = data[at];
        let sums = [x + STEP, x - STEP].map(|other| {
            data[at] = other;
            sum(&data)
        });
        data[at] = x;
        // As far apart as they are, and not as they should be.
        (sums[0] - sums[1]) / (f64::from(x + STEP) - f64::from(x - STEP))
    })
    .collect()
}

/// Where the elements of `[B, N, heads, D]` lie.
fn places(rows: &Rows<'_, f32>, [batch, heads, n, dim]: [usize; 4]) -> Vec<usize> {
    let [b, h, r] = [rows.batch_stride, rows.head_stride, rows.row_stride];
    let mut all = Vec::new();
    for at in 0..batch * n * heads {
        let first = at / heads / n * b + at % heads * h + at / heads % n * r;
        all.extend(first..first + dim);
    }
    all
}

fn check_attend(sizes: Sequences) {
    let Sequences {
        batch,
        n_heads: h,
        n_kv_heads: h_kv,
        tokens,
        key_dim,
        shared_dim,
        value_dim,
        ..
    } = sizes;
    with_sequences::<f32>(sizes, |input, _| {
        let data: Vec<f32> = random_rows([batch, h, tokens, value_dim], tokens, 9);
        let grad = token_major(&data, h, tokens, value_dim);
        let of_out: Vec<f64> = places(&grad, [batch, h, tokens, value_dim])
            .into_iter()
            .map(|at| f64::from(data[at]))
            .collect();
        let sum = |input: &Attend<'_, f32>| -> f64 {
            let out = crate::common::attend(input).0;
            out.iter().zip(&of_out).map(|(out, grad)| out * grad).sum()
        };
        let entries = input.own.or(input.closed).unwrap();
        let with = |entries: Entries<'_, f32>| match input.own {
            Some(_) => sum(&Attend {
                own: Some(entries),
                ..*input
            }),
            None => sum(&Attend {
                closed: Some(entries),
                ..*input
            }),
        };
        let n = input.own.map_or(input.n_keys, |_| tokens);
        let expected = crate::common::attend_gradients(input, &grad);

        let at = places(&input.q, [batch, h, tokens, key_dim]);
        let dq = differences(input.q.data, at.into_iter(), |data| {
            let q = Rows { data, ..input.q };
            sum(&Attend { q, ..*input })
        });
        let at = places(&entries.k, [batch, h_kv, n, key_dim - shared_dim]);
        let dk = differences(entries.k.data, at.into_iter(), |data| {
            let k = Rows { data, ..entries.k };
            with(Entries { k, ..entries })
        });
        let at = places(&entries.v, [batch, h_kv, n, value_dim]);
        let dv = differences(entries.v.data, at.into_iter(), |data| {
            let v = Rows { data, ..entries.v };
            with(Entries { v, ..entries })
        });
        assert_agree(&dq, &expected.q);
        assert_agree(&dk, &expected.k);
        assert_agree(&dv, &expected.v);
        if let Some(shared) = entries.shared {
            let at = places(&shared, [batch, 1, n, shared_dim]);
            let dshared = differences(shared.data, at.into_iter(), |data| {
                let shared = Some(Rows { data, ..shared });
                with(Entries { shared, ..entries })
            });
            assert_agree(&dshared, &expected.shared);
        }
    });
}

#[track_caller]
fn assert_agree(differences: &[f64], gradients: &[f64]) {
    let differences: Vec<f32> = differences.iter().map(|x| *x as f32).collect();
    assert_close(&differences, gradients, TOLERANCE);
}

#[test]
fn gradients_of_attend_are_those_of_the_formula() {
    let small = |sizes| Sequences {
        batch: 2,
        n_heads: 4,
        n_kv_heads: 2,
        tokens: 6,
        key_dim: 5,
        shared_dim: 2,
        value_dim: 3,
        ..sizes
    };
    check_attend(small(causal(1, 1, 1, 1)));
    check_attend(Sequences {
        start: 3,
        ..small(causal(1, 1, 1, 1))
    });
    for window in [1, 2, 5] {
        check_attend(Sequences {
            start: 3,
            window,
            ..small(causal(1, 1, 1, 1))
        });
    }
    for stride in 1..=3 {
        check_attend(small(strided(1, stride)));
    }
    check_attend(Sequences {
        shared_dim: 0,
        ..small(strided(1, 2))
    });
}

#[test]
fn gradients_of_the_merge_are_those_of_the_formula() {
    for stride in 1..=3 {
        let case = Merge::<f32>::new(4, stride, 2, 7);
        let expected = case.formula();
        let sum = |case: Merge<f32>| -> f64 {
            let sums = case.formula().sums;
            sums.iter()
                .zip(&case.grad)
                .map(|(sum, grad)| sum * f64::from(*grad))
                .sum()
        };
        let dc = differences(&case.c, 0..case.c.len(), |c| {
            let c = c.to_vec();
            sum(Merge { c, ..case.clone() })
        });
        let du = differences(&case.u, 0..case.u.len(), |u| {
            let u = u.to_vec();
            sum(Merge { u, ..case.clone() })
        });
        let db = differences(&case.b, 0..case.b.len(), |b| {
            let b = b.to_vec();
            sum(Merge { b, ..case.clone() })
        });
        assert_agree(&dc, &expected.dc);
        assert_agree(&du, &expected.du);
        assert_agree(&db, &expected.db);
    }
}
