//! Decode, in one block of a sequence and in several.

use attn_kernels::cuda::{Cache, DecodeOperands, DecodePlan, GroupedDecodeShape, LatentDecodeShape};
use attn_kernels::{Decode, Element, Rows};
use half::{bf16, f16};

use crate::cases::dtype;
use crate::common::{self, assert_close, random, tolerance};
use crate::host::{self, Kernels, Operand};
use crate::machine;

/// A decode step: positions of the newest tokens, one of which may be negative.
struct Step<'a> {
    plan: DecodePlan,
    positions: &'a [i32],
    stride: usize,
}

/// Runs the kernel in several orders, and holds it against the formula.
fn check_decode<E: Element>(step: &Step<'_>) {
    if !host::is_possible() {
        return;
    }
    let Step {
        plan,
        positions,
        stride,
    } = step;
    let sizes = plan.sizes;
    let slots: Vec<usize> = positions
        .iter()
        .map(|position| usize::try_from(position + 1).unwrap().div_ceil(*stride))
        .collect();
    let capacity = slots.iter().max().unwrap() + 2;
    let heads = sizes.batch * sizes.n_kv_heads;
    let cache = |dim: usize, seed| {
        let mut cache: Vec<E> = random(heads * capacity * dim, seed);
        for (head, rows) in cache.chunks_exact_mut(capacity * dim).enumerate() {
            rows[slots[head / sizes.n_kv_heads] * dim..].fill(E::from_f32(f32::NAN));
        }
        cache
    };
    let q: Vec<E> = random(sizes.batch * sizes.n_heads * sizes.key_dim, 1);
    let (keys, values) = (cache(sizes.key_dim, 2), cache(sizes.value_dim, 3));
    let scale = 4.0 * (sizes.key_dim as f32).powf(-0.5);

    // A sequence without entries has no softmax; its output is zero.
    let mut expected = Vec::new();
    for (sequence, slots) in slots.iter().enumerate() {
        let (q, each) = (
            &q[sequence * sizes.n_heads * sizes.key_dim..],
            sizes.n_kv_heads * capacity,
        );
        let rows =
            |data: &'_ [E], dim: usize| -> Vec<E> { data[sequence * each * dim..][..each * dim].to_vec() };
        let (keys, values) = (rows(&keys, sizes.key_dim), rows(&values, sizes.value_dim));
        if *slots == 0 {
            expected.extend(vec![0.0; sizes.n_heads * sizes.value_dim]);
            continue;
        }
        let of = |data, dim| Rows::head_major(data, sizes.n_kv_heads, capacity, dim);
        expected.extend(common::decode(&Decode {
            q,
            keys: of(&keys, sizes.key_dim),
            values: sizes.apart.then(|| of(&values, sizes.value_dim)),
            tail: None,
            factors: None,
            n_heads: sizes.n_heads,
            n_kv_heads: sizes.n_kv_heads,
            key_dim: sizes.key_dim,
            value_dim: sizes.value_dim,
            slots: &[*slots],
            scale,
        }));
    }

    let workspace = plan.workspace;
    let (q, keys, values) = (Operand::new(&q), Operand::new(&keys), Operand::new(&values));
    let positions = Operand::new(positions);
    let partial = Operand::unwritten::<f32>(workspace.partial_floats);
    let partial_sums = Operand::unwritten::<[f32; 2]>(workspace.partial_sums);
    let tickets = Operand::new(&vec![0_u32; workspace.tickets]);
    let mut kernels = Kernels::new("Decode");
    let cache = |memory, dim| Cache {
        memory,
        batch_stride: sizes.n_kv_heads * capacity * dim,
        head_stride: capacity * dim,
        row_stride: dim,
    };
    let mut first = None;
    for seed in 0..2 {
        let out = Operand::unwritten::<E>(sizes.batch * sizes.n_heads * sizes.value_dim);
        let operands = DecodeOperands {
            q: q.memory(),
            keys: cache(keys.memory(), sizes.key_dim),
            values: sizes.apart.then(|| cache(values.memory(), sizes.value_dim)),
            out: out.memory(),
            positions: positions.memory(),
            partial: partial.memory(),
            partial_sums: partial_sums.memory(),
            tickets: tickets.memory(),
            capacity,
            scale,
        };
        let params = plan.params(&operands).unwrap();
        // SAFETY: the parameters are this kernel's, and its operands live until it has ended.
        unsafe { kernels.run(&plan.planned, &params, seed) };
        let out: Vec<E> = out.read();
        assert_close(&out, &expected, tolerance::<E>());
        let bits = common::bits(&out);
        assert_eq!(
            first.get_or_insert_with(|| bits.clone()),
            &bits,
            "the order shows in the result"
        );
        // The workspace is as the next launch needs it, and nothing beside it was written.
        assert!(tickets.read::<u32>().iter().all(|ticket| *ticket == 0));
        partial.read::<f32>();
        partial_sums.read::<f32>();
    }
}

/// Latents of a stride of 2; `slots` is what the plan expects, and so decides splits.
fn check_latents<E: Element>(n_heads: usize, [rank, rope_dim]: [usize; 2], positions: &[i32], slots: usize) {
    let shape = LatentDecodeShape {
        dtype: dtype::<E>(),
        n_heads,
        rank,
        rope_dim,
        stride: 2,
    };
    let plan = shape.plan(machine(), positions.len(), slots).unwrap();
    check_decode::<E>(&Step {
        plan,
        positions,
        stride: 2,
    });
}

fn check_grouped<E: Element>([n_heads, n_kv_heads, dim]: [usize; 3], positions: &[i32], slots: usize) {
    let shape = GroupedDecodeShape {
        dtype: dtype::<E>(),
        n_heads,
        n_kv_heads,
        key_dim: dim,
        value_dim: dim,
    };
    let plan = shape.plan(machine(), positions.len(), slots).unwrap();
    check_decode::<E>(&Step {
        plan,
        positions,
        stride: 1,
    });
}

/// Lengths of a ragged batch; one sequence is empty.
const POSITIONS: [i32; 5] = [0, 124, -1, 261, 5];

#[test]
fn latent_decode_in_one_block() {
    check_latents::<bf16>(8, [64, 16], &POSITIONS, 100);
    check_latents::<f32>(8, [64, 16], &POSITIONS, 100);
    check_latents::<f16>(8, [64, 16], &POSITIONS, 100);
}

#[test]
fn latent_decode_in_splits() {
    check_latents::<bf16>(8, [64, 16], &POSITIONS, 5000);
    check_latents::<f32>(8, [64, 16], &POSITIONS, 5000);
}

#[test]
fn latent_decode_at_the_size_of_our_experiments() {
    check_latents::<bf16>(16, [256, 32], &[700], 5000);
}

#[test]
fn latent_decode_of_warps_that_share_heads_and_columns() {
    check_latents::<bf16>(40, [512, 64], &[150], 5000);
    check_latents::<f32>(17, [512, 64], &[90], 100);
}

#[test]
fn latent_decode_of_rows_that_are_no_whole_chunks() {
    check_latents::<bf16>(3, [84, 22], &[150, 40], 5000);
    check_latents::<f32>(20, [33, 2], &[150, 40], 5000);
}

#[test]
fn grouped_decode_in_one_block_and_in_splits() {
    check_grouped::<bf16>([16, 2, 64], &POSITIONS, 100);
    check_grouped::<bf16>([24, 1, 80], &POSITIONS, 5000);
    check_grouped::<f32>([8, 1, 36], &POSITIONS, 5000);
}

#[test]
fn decode_of_few_heads_in_one_block_and_in_splits() {
    check_grouped::<bf16>([4, 2, 64], &POSITIONS, 100);
    check_grouped::<f16>([4, 2, 64], &POSITIONS, 100);
    check_grouped::<bf16>([7, 1, 80], &POSITIONS, 5000);
    check_grouped::<bf16>([2, 2, 36], &POSITIONS, 5000);
    check_grouped::<f32>([4, 1, 128], &POSITIONS, 5000);
}
