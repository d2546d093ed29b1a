//! Attend and its gradients.

use attn_kernels::Element;
use attn_kernels::cuda::{Arch, AttendShape, Dtype, Machine, Pass};
use half::{bf16, f16};

use crate::cases::attend::{
    Sequences, causal, heads_of_every_size, random_rows, strided, token_major, with_sequences,
};
use crate::common::{self, assert_close, tolerance};
use crate::models::attend::Model as AttendModel;
use crate::models::attend_backward::Model as GradientModel;

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
        let data: Vec<E> = random_rows([batch, n_heads, tokens, value_dim], tokens, 9);
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
