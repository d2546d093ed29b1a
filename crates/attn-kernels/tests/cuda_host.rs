//! The CUDA sources themselves, on the host: operands as a launcher gives them, threads and blocks in random order,
//! copies as late as they may be. Not a GPU, but the same text.
#![cfg(unix)]
#![allow(clippy::unwrap_used)] // in helpers too

mod common;
mod host;

use attn_kernels::cuda::{
    Arch, Cache, CacheUpdateOperands, CacheUpdateShape, DecodeOperands, DecodePlan, Dtype,
    GroupedDecodeShape, GroupedUpdateOperands, GroupedUpdateShape, LatentDecodeShape, Machine, Memory,
};
use attn_kernels::{
    Decode, Element, Gate, Grouped, Latents, LatentsOut, Level, Norm, Place, Rows, Turn, latents,
};
use common::{assert_close, random, tolerance};
use half::bf16;
use host::Kernel;

/// Bytes before and behind an operand that nobody may read into a result, or write.
const MARGIN: usize = 256;

/// An operand among bytes that make no number of any type.
struct Operand {
    bytes: Vec<u8>,
    first: usize,
    len: usize,
}

impl Operand {
    fn new<T: Copy>(elements: &[T]) -> Self {
        let len = size_of_val(elements);
        let mut bytes = vec![0xff_u8; len + 3 * MARGIN];
        let first = MARGIN + bytes[MARGIN..].as_ptr().align_offset(MARGIN);
        // SAFETY: so many bytes are there from `first` on, and any bytes may be written.
        unsafe {
            let from = elements.as_ptr().cast::<u8>();
            std::ptr::copy_nonoverlapping(from, bytes[first..][..len].as_mut_ptr(), len);
        }
        Self { bytes, first, len }
    }

    fn memory(&mut self) -> Memory {
        Memory {
            address: self.bytes[self.first..].as_mut_ptr() as u64,
            bytes: self.len,
        }
    }

    /// The elements, nothing beside them having been written.
    #[track_caller]
    fn read<T: Copy>(&self) -> Vec<T> {
        let (before, rest) = self.bytes.split_at(self.first);
        assert!(before.iter().chain(&rest[self.len..]).all(|byte| *byte == 0xff));
        let from = rest.as_ptr().cast::<T>();
        // SAFETY: elements of this type lie there, at an address that is aligned to more than any needs.
        (0..self.len / size_of::<T>())
            .map(|i| unsafe { *from.add(i) })
            .collect()
    }
}

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
            n_heads: sizes.n_heads,
            n_kv_heads: sizes.n_kv_heads,
            key_dim: sizes.key_dim,
            value_dim: sizes.value_dim,
            slots: &[*slots],
            scale,
        }));
    }

    let workspace = plan.workspace;
    let (mut q, mut keys, mut values) = (Operand::new(&q), Operand::new(&keys), Operand::new(&values));
    let mut positions = Operand::new(positions);
    let mut partial = Operand::new(&vec![f32::NAN; workspace.partial_floats]);
    let mut partial_sums = Operand::new(&vec![f32::NAN; 2 * workspace.partial_sums]);
    let mut tickets = Operand::new(&vec![0_u32; workspace.tickets]);
    let mut kernel = Kernel::new(&plan.planned, "Decode");
    let cache = |memory, dim| Cache {
        memory,
        batch_stride: sizes.n_kv_heads * capacity * dim,
        head_stride: capacity * dim,
        row_stride: dim,
    };
    let mut first = None;
    for seed in 0..2 {
        let mut out = Operand::new(&vec![
            E::from_f32(f32::NAN);
            sizes.batch * sizes.n_heads * sizes.value_dim
        ]);
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
        unsafe { kernel.run(&plan.planned, &params, seed) };
        let out: Vec<E> = out.read();
        assert_close(&out, &expected, tolerance::<E>());
        let bits: Vec<u32> = out.iter().map(|x| x.to_f32().to_bits()).collect();
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

fn machine() -> Machine {
    Machine::usual(Arch::Sm90a)
}

fn dtype<E: Element>() -> Dtype {
    if size_of::<E>() == 4 {
        Dtype::F32
    } else {
        Dtype::Bf16
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
    check_grouped::<bf16>([7, 1, 80], &POSITIONS, 5000);
    check_grouped::<bf16>([2, 2, 36], &POSITIONS, 5000);
    check_grouped::<f32>([4, 1, 128], &POSITIONS, 5000);
}

/// Token after token through the kernel, and the same tokens through the CPU kernel at once.
fn check_cache_update<E: Element>(shape: CacheUpdateShape, starts: &[usize], tolerance: f64) {
    const TOKENS: usize = 5;
    if !host::is_possible() {
        return;
    }
    let CacheUpdateShape { rank, rope_dim, .. } = shape;
    let (b, width) = (starts.len(), rank + rope_dim);
    let n_positions = starts.iter().max().unwrap() + TOKENS;
    let stride = shape.stride.unwrap_or(1);
    let capacity = n_positions.div_ceil(stride);
    let x: Vec<E> = random(b * TOKENS * width, 1);
    let (weight, bias): (Vec<E>, Vec<E>) = (random(rank, 2), random(rank, 3));
    let table = |seed| -> Vec<f32> { random(n_positions * rope_dim / 2, seed) };
    let (cos, sin) = (table(4), table(5));
    let (u, biases): (Vec<f32>, Vec<f32>) = (random(capacity * rank, 6), random(capacity, 7));
    let open: Vec<f32> = random(b * rank, 8);
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
            open: Some(&open),
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
    let place = |first| Place {
        first,
        row_stride: width,
    };
    let mut out = LatentsOut {
        data: &mut rows,
        c: place(&first),
        k_r: place(&keys),
        last: shape.stride.is_some().then_some(last.as_mut_slice()),
    };
    latents(&input, Level::Portable, &mut out).unwrap();

    let plan = shape.plan(machine(), b).unwrap();
    let mut kernel = Kernel::new(&plan.planned, "CacheUpdate");
    let [mut cos, mut sin, mut u, mut biases, mut open] =
        [&cos, &sin, &u, &biases, &open].map(|floats| Operand::new(floats));
    let (mut weight, mut bias) = (Operand::new(&weight), Operand::new(&bias));
    let mut cache = Operand::new(&vec![E::from_f32(f32::NAN); b * capacity * width]);
    for token in 0..TOKENS {
        let of_token = |sequence: usize| &x[(sequence * TOKENS + token) * width..][..width];
        let mut x = Operand::new(&(0..b).flat_map(of_token).copied().collect::<Vec<E>>());
        let position = |start: &usize| i32::try_from(start + token).unwrap();
        let mut positions = Operand::new(&starts.iter().map(position).collect::<Vec<i32>>());
        let operands = CacheUpdateOperands {
            x: x.memory(),
            x_stride: width,
            weight: weight.memory(),
            bias: shape.layer_norm.then(|| bias.memory()),
            cos: cos.memory(),
            sin: sin.memory(),
            n_positions,
            gate: shape.stride.map(|_| [u.memory(), biases.memory(), open.memory()]),
            cache: cache.memory(),
            cache_stride: capacity * width,
            positions: positions.memory(),
            capacity,
            eps: 1e-5,
        };
        let params = plan.params(&operands).unwrap();
        // SAFETY: the parameters are this kernel's, and its operands live until it has ended.
        unsafe { kernel.run(&plan.planned, &params, token as u64) };
        let cache: Vec<E> = cache.read();
        for (sequence, start) in starts.iter().enumerate() {
            let slot = (start + token) / stride;
            let got = &cache[(sequence * capacity + slot) * width..][..width];
            let expected = &rows[(sequence * TOKENS + token) * width..][..width];
            let expected: Vec<f64> = expected.iter().map(|x| f64::from(x.to_f32())).collect();
            assert_close(got, &expected, tolerance);
        }
    }
    if shape.stride.is_some() {
        let last: Vec<f64> = last.iter().map(|x| f64::from(*x)).collect();
        assert_close(&open.read::<f32>(), &last, tolerance);
    }
}

#[test]
fn cache_update_with_and_without_a_gate() {
    let shape = |dtype, [rank, rope_dim]: [usize; 2], stride, layer_norm| CacheUpdateShape {
        dtype,
        rank,
        rope_dim,
        stride,
        layer_norm,
        halves: !layer_norm,
    };
    let starts = [0, 5, 11, 4, 1];
    check_cache_update::<f32>(shape(Dtype::F32, [256, 32], Some(2), true), &starts, 1e-5);
    check_cache_update::<f32>(shape(Dtype::F32, [84, 20], None, false), &starts, 1e-5);
    check_cache_update::<bf16>(shape(Dtype::Bf16, [33, 70], Some(3), false), &starts, 1e-2);
}

/// One token of every sequence through the kernel, against the formula; what belongs to others is left as it was.
fn check_grouped_update<E: Element>(shape: GroupedUpdateShape, positions: &[i32], tolerance: f64) {
    if !host::is_possible() {
        return;
    }
    let GroupedUpdateShape {
        n_heads,
        n_kv_heads,
        key_dim,
        value_dim,
        ..
    } = shape;
    let (b, half) = (positions.len(), key_dim / 2);
    let (capacity, n_positions) = (9, 8);
    let widths = [n_heads * key_dim, n_kv_heads * key_dim, n_kv_heads * value_dim];
    let all: usize = widths.iter().sum();
    // As one projection writes them: queries, keys and values of a sequence side by side.
    let qkv: Vec<E> = random(b * all, 1);
    let (cos, sin): (Vec<f32>, Vec<f32>) = (random(n_positions * half, 2), random(n_positions * half, 3));

    let turn = |from: &[E], position: usize| -> Vec<f64> {
        let wide: Vec<f64> = from.iter().map(|x| f64::from(x.to_f32())).collect();
        let mut to = vec![0.0; key_dim];
        for i in 0..half {
            let (first, second) = if shape.halves {
                (i, half + i)
            } else {
                (2 * i, 2 * i + 1)
            };
            let (cos, sin) = (
                f64::from(cos[position * half + i]),
                f64::from(sin[position * half + i]),
            );
            to[first] = wide[first] * cos - wide[second] * sin;
            to[second] = wide[first] * sin + wide[second] * cos;
        }
        to
    };

    let plan = shape.plan(machine(), b).unwrap();
    let mut kernel = Kernel::new(&plan.planned, "GroupedUpdate");
    let mut operand = Operand::new(&qkv);
    let (mut table_cos, mut table_sin) = (Operand::new(&cos), Operand::new(&sin));
    let mut device_positions = Operand::new(positions);
    let untouched = E::from_f32(7.0);
    let mut turned = Operand::new(&vec![untouched; b * widths[0]]);
    let mut keys = Operand::new(&vec![untouched; b * widths[1] * capacity]);
    let mut values = Operand::new(&vec![untouched; b * widths[2] * capacity]);
    let part = |memory: Memory, from: usize| Memory {
        address: memory.address + (from * size_of::<E>()) as u64,
        bytes: memory.bytes - from * size_of::<E>(),
    };
    let cache = |memory, dim| Cache {
        memory,
        batch_stride: n_kv_heads * capacity * dim,
        head_stride: capacity * dim,
        row_stride: dim,
    };
    let operands = GroupedUpdateOperands {
        qkv: [0, widths[0], widths[0] + widths[1]].map(|from| part(operand.memory(), from)),
        qkv_strides: [all; 3],
        turned: turned.memory(),
        keys: cache(keys.memory(), key_dim),
        values: cache(values.memory(), value_dim),
        cos: table_cos.memory(),
        sin: table_sin.memory(),
        n_positions,
        positions: device_positions.memory(),
        capacity,
    };
    let params = plan.params(&operands).unwrap();
    // SAFETY: the parameters are this kernel's, and its operands live until it has ended.
    unsafe { kernel.run(&plan.planned, &params, 1) };

    let left = |n: usize| vec![f64::from(untouched.to_f32()); n];
    let (mut expected_q, mut expected_k, mut expected_v) = (Vec::new(), Vec::new(), Vec::new());
    for (sequence, position) in positions.iter().enumerate() {
        let own = &qkv[sequence * all..][..all];
        let (q, rest) = own.split_at(widths[0]);
        let (k, v) = rest.split_at(widths[1]);
        let position = usize::try_from(*position)
            .ok()
            .filter(|position| *position < n_positions);
        for head in q.chunks_exact(key_dim) {
            expected_q.extend(position.map_or_else(|| left(key_dim), |position| turn(head, position)));
        }
        for slot in (0..n_kv_heads).flat_map(|head| (0..capacity).map(move |slot| (head, slot))) {
            let (head, is_own) = (slot.0, position == Some(slot.1));
            let (k, v) = (
                &k[head * key_dim..][..key_dim],
                &v[head * value_dim..][..value_dim],
            );
            let wide = |v: &[E]| v.iter().map(|x| f64::from(x.to_f32())).collect();
            expected_k.extend(if is_own { turn(k, slot.1) } else { left(key_dim) });
            expected_v.extend(if is_own { wide(v) } else { left(value_dim) });
        }
    }
    assert_close(&turned.read::<E>(), &expected_q, tolerance);
    assert_close(&keys.read::<E>(), &expected_k, tolerance);
    assert_close(&values.read::<E>(), &expected_v, tolerance);
}

#[test]
fn grouped_update_turns_and_enters_one_token() {
    let shape = |dtype, [n_heads, n_kv_heads, key_dim, value_dim]: [usize; 4], halves| GroupedUpdateShape {
        dtype,
        n_heads,
        n_kv_heads,
        key_dim,
        value_dim,
        halves,
    };
    let positions = [0, 7, -1, 3, 8];
    check_grouped_update::<f32>(shape(Dtype::F32, [6, 2, 80, 36], true), &positions, 1e-6);
    check_grouped_update::<bf16>(shape(Dtype::Bf16, [3, 3, 64, 64], false), &positions, 5e-3);
}
