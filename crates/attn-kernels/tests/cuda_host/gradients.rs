//! The gradients of attend, by all passes of their plan one after another.

use std::collections::BTreeSet;

use attn_kernels::cuda::{AttendBackwardOperands, AttendBackwardPlan, AttendGradients, Machine};
use attn_kernels::{Attend, Element, Rows};
use half::{bf16, f16};

use crate::attend::{Held, run};
use crate::cases::attend::{Sequences, causal, random_rows, strided, token_major, with_sequences};
use crate::common::{self, AttendGradients as Formula, assert_close, bits};
use crate::host::{self, Kernels, Operand};
use crate::machine;

/// What attend returned, and the gradient of it.
struct Before<'a, E> {
    out: &'a [E],
    lse: &'a [f32],
    grad: Rows<'a, E>,
}

/// Gradients of queries and entries, `[B, M, Hkv, D]`, and of shared columns, as numbers.
fn gradients<E: Element>(
    kernels: &mut Kernels,
    plan: &AttendBackwardPlan,
    input: &Attend<'_, E>,
    before: &Before<'_, E>,
    is_joint: bool,
    seed: u64,
) -> [Vec<E>; 4] {
    let Attend {
        n_kv_heads: h_kv,
        key_dim,
        shared_dim,
        value_dim,
        ..
    } = *input;
    let entries = input.batch * input.own.map_or(input.n_keys, |_| input.tokens);
    let rows = input.batch * input.n_heads * input.tokens;
    let of_head = key_dim - shared_dim;
    let (_q, q) = Operand::rows(&input.q);
    let (_grad, grad) = Operand::rows(&before.grad);
    let (closed, own) = (
        input.closed.as_ref().map(Held::new),
        input.own.as_ref().map(Held::new),
    );
    let (out, lse) = (Operand::new(before.out), Operand::new(before.lse));
    let dq = Operand::unwritten::<E>(rows * key_dim);
    let dk = Operand::unwritten::<E>(entries * h_kv * key_dim);
    let dv = Operand::unwritten::<E>(entries * h_kv * value_dim);
    let dkv = Operand::unwritten::<E>(entries * h_kv * (of_head + value_dim));
    let dshared = Operand::unwritten::<E>(entries * shared_dim);
    let workspace = plan.workspace;
    let [of_rows, own_weights] = [workspace.rows, workspace.own_weights].map(Operand::unwritten::<[f32; 2]>);
    let shared_parts = Operand::unwritten::<f32>(workspace.shared_parts);
    let operands = AttendBackwardOperands {
        q,
        closed: closed.as_ref().map(|held| held.entries),
        own: own.as_ref().map(|held| held.entries),
        start: input.start,
        out: out.memory(),
        lse: lse.memory(),
        grad,
        dq: dq.memory(),
        entries: if is_joint {
            AttendGradients::Joint {
                kv: dkv.memory(),
                shared: dshared.memory(),
            }
        } else {
            AttendGradients::Apart {
                k: dk.memory(),
                v: dv.memory(),
            }
        },
        rows: of_rows.memory(),
        own_weights: own_weights.memory(),
        shared_parts: shared_parts.memory(),
        scale: input.scale,
    };
    let params = plan.params(&operands).unwrap();
    for pass in &plan.passes {
        // SAFETY: the parameters are these kernels', and their operands live until they have ended.
        unsafe { kernels.run(&pass.planned, &params, seed) };
    }
    of_rows.read::<f32>();
    own_weights.read::<f32>();
    shared_parts.read::<f32>();
    if !is_joint {
        return [dq.read(), dk.read(), dv.read(), Vec::new()];
    }
    let both: Vec<E> = dkv.read();
    let part = |columns: std::ops::Range<usize>| -> Vec<E> {
        let rows = both.chunks_exact(of_head + value_dim);
        rows.flat_map(|row| &row[columns.clone()]).copied().collect()
    };
    let (dk, dv) = (part(0..of_head), part(of_head..of_head + value_dim));
    [dq.read(), dk, dv, dshared.read()]
}

/// All of them are of the same kernels.
fn check<E: Element>(machine: Machine, tolerance: f64, all: impl IntoIterator<Item = Sequences>) {
    if !host::is_possible() {
        return;
    }
    let (mut forward, mut backward) = (Kernels::new("Attend"), Kernels::new("AttendBackward"));
    for sizes in all {
        let Sequences {
            batch,
            n_heads,
            tokens,
            value_dim,
            ..
        } = sizes;
        with_sequences::<E>(sizes, |input, shape| {
            let plan = shape.plan(machine, batch, tokens).unwrap();
            let (out, lse) = run(&mut forward, &plan, input, true, 1);
            let data: Vec<E> = random_rows([batch, n_heads, tokens, value_dim], tokens, 9);
            let before = Before {
                out: &out,
                lse: &lse,
                grad: token_major(&data, n_heads, tokens, value_dim),
            };
            let is_joint = sizes.joint || sizes.shared_dim > 0;
            let Formula { q, k, v, shared } = common::attend_gradients(input, &before.grad);
            let expected = [q, k, v, shared];
            let seen = shape.stride.map_or(input.n_keys, |stride| (tokens - 1) / stride);
            // An entry that the last token closes, and that no query sees, may be counted or not.
            for n_keys in BTreeSet::from([input.n_keys, seen]) {
                let plan = shape.plan_backward(machine, batch, tokens, n_keys).unwrap();
                let input = Attend { n_keys, ..*input };
                let mut run = |seed| gradients(&mut backward, &plan, &input, &before, is_joint, seed);
                let got = run(1);
                assert_eq!(
                    run(2).map(|x| bits(&x)),
                    got.each_ref().map(|x| bits(x)),
                    "the order shows in the result"
                );
                if tokens <= 3 {
                    // One entry has all the weight, or nearly so: gradients of scores are little more than rounding.
                    assert_close(&got.concat(), &expected.concat(), tolerance);
                    continue;
                }
                for (got, expected) in got.iter().zip(&expected) {
                    assert_close(got, expected, tolerance);
                }
            }
        });
    }
}

// Weights and their gradients are rounded, and so is the output of which D is made.
const F32: f64 = 1e-5;
const F16: f64 = 3e-3;
const BF16: f64 = 2e-2;

/// Around the sizes of tiles and of blocks.
const LENGTHS: [usize; 7] = [1, 2, 31, 64, 65, 132, 150];

#[test]
fn gradients_of_plain_causal_attention_of_every_length() {
    let all = || LENGTHS.map(|tokens| causal(1, 1, tokens, 16));
    check::<f32>(machine(), F32, all());
    check::<bf16>(machine(), BF16, all());
}

#[test]
fn gradients_of_strides_with_a_diagonal_of_every_length() {
    let all = |stride| LENGTHS.map(|tokens| strided(tokens, stride));
    check::<f32>(machine(), F32, all(2));
    check::<bf16>(machine(), BF16, all(3));
    check::<f16>(machine(), F16, all(4));
}

/// MTLA's, of several heads and sequences: what heads share is added up over them.
#[test]
fn gradients_of_batches_groups_and_latent_layers() {
    let of = |n_heads, n_kv_heads| Sequences {
        batch: 2,
        n_heads,
        n_kv_heads,
        joint: true,
        ..strided(65, 2)
    };
    check::<f32>(machine(), F32, [of(4, 2), of(3, 1), of(2, 2)]);
    check::<bf16>(machine(), BF16, [of(4, 2)]);
}

/// MLA's, whose queries may go on behind entries that a cache holds.
#[test]
fn gradients_of_queries_that_begin_anywhere() {
    let later = [1, 5, 14, 64, 130]
        .into_iter()
        .flat_map(|start| [1, 3, 70].map(|tokens| (start, tokens)));
    let all = later.map(|(start, tokens)| Sequences {
        start,
        key_dim: 24,
        shared_dim: 8,
        ..causal(4, 2, tokens, 16)
    });
    check::<f16>(machine(), F16, all);
}

#[test]
fn gradients_of_large_heads_are_two_passes() {
    let of = |dim| Sequences {
        key_dim: dim,
        value_dim: dim,
        shared_dim: 0,
        ..strided(70, 2)
    };
    check::<bf16>(machine(), BF16, [of(256)]);
}
