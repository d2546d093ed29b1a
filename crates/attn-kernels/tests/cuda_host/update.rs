//! The caches' updates.

use attn_kernels::Element;
use attn_kernels::cuda::{
    Cache, CacheUpdateOperands, CacheUpdateShape, Dtype, GroupedUpdateOperands, GroupedUpdateShape, Memory,
};
use half::{bf16, f16};

use crate::cases::update::{GroupedCaches, GroupedToken, Tokens};
use crate::host::{self, Kernels, Operand};
use crate::machine;

/// Token after token through the kernel, against the same tokens through the CPU kernel at once.
fn check_cache_update<E: Element>(shape: CacheUpdateShape, starts: &[usize], tolerance: f64) {
    if !host::is_possible() {
        return;
    }
    let all = Tokens::<E>::new(shape, starts, 5);
    let width = all.width();
    let plan = shape.plan(machine(), starts.len()).unwrap();
    let mut kernels = Kernels::new("CacheUpdate");
    let [cos, sin, u, b, open] =
        [&all.cos, &all.sin, &all.u, &all.b, &all.open].map(|floats| Operand::new(floats));
    let (weight, bias) = (Operand::new(&all.weight), Operand::new(&all.bias));
    let cache = Operand::unwritten::<E>(starts.len() * all.capacity * width);
    for token in 0..all.tokens {
        let rows = all.x.chunks_exact(width).skip(token).step_by(all.tokens);
        let x = Operand::new(&rows.flatten().copied().collect::<Vec<E>>());
        let positions = all
            .positions(token)
            .into_iter()
            .map(|at| i32::try_from(at).unwrap());
        let positions = Operand::new(&positions.collect::<Vec<i32>>());
        let operands = CacheUpdateOperands {
            x: x.memory(),
            x_stride: width,
            weight: weight.memory(),
            bias: shape.layer_norm.then(|| bias.memory()),
            cos: cos.memory(),
            sin: sin.memory(),
            n_positions: all.n_positions,
            gate: shape.stride.map(|_| [u.memory(), b.memory(), open.memory()]),
            cache: cache.memory(),
            cache_stride: all.capacity * width,
            positions: positions.memory(),
            capacity: all.capacity,
            eps: Tokens::<E>::EPS,
        };
        let params = plan.params(&operands).unwrap();
        // SAFETY: the parameters are this kernel's, and its operands live until it has ended.
        unsafe { kernels.run(&plan.planned, &params, token as u64) };
        all.check(token, &cache.read::<E>(), tolerance);
    }
    all.check_open(&open.read::<f32>(), tolerance);
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
    check_cache_update::<f16>(shape(Dtype::F16, [64, 16], Some(4), true), &starts, 2e-3);
}

/// One token of every sequence through the kernel; what belongs to others is left as it was.
fn check_grouped_update<E: Element>(shape: GroupedUpdateShape, positions: &[i32], tolerance: f64) {
    if !host::is_possible() {
        return;
    }
    let token = GroupedToken::<E>::new(shape, positions);
    let (capacity, n_kv_heads) = (token.capacity, shape.n_kv_heads);
    let plan = shape.plan(machine(), positions.len()).unwrap();
    let mut kernels = Kernels::new("GroupedUpdate");
    let (qkv, cos, sin) = (
        Operand::new(&token.qkv),
        Operand::new(&token.cos),
        Operand::new(&token.sin),
    );
    let positions = Operand::new(positions);
    let before = token.untouched();
    let [turned, keys, values] =
        [&before.turned, &before.keys, &before.values].map(|elements| Operand::new(elements));
    let part = |from: usize| Memory {
        address: qkv.memory().address + (from * size_of::<E>()) as u64,
        bytes: qkv.memory().bytes - from * size_of::<E>(),
    };
    let cache = |memory, dim| Cache {
        memory,
        batch_stride: n_kv_heads * capacity * dim,
        head_stride: capacity * dim,
        row_stride: dim,
    };
    let widths = token.widths();
    let operands = GroupedUpdateOperands {
        qkv: [0, widths[0], widths[0] + widths[1]].map(part),
        qkv_strides: [token.width(); 3],
        turned: turned.memory(),
        keys: cache(keys.memory(), shape.key_dim),
        values: cache(values.memory(), shape.value_dim),
        cos: cos.memory(),
        sin: sin.memory(),
        n_positions: token.n_positions,
        positions: positions.memory(),
        capacity,
    };
    let params = plan.params(&operands).unwrap();
    // SAFETY: the parameters are this kernel's, and its operands live until it has ended.
    unsafe { kernels.run(&plan.planned, &params, 1) };
    let got = GroupedCaches {
        turned: turned.read::<E>(),
        keys: keys.read(),
        values: values.read(),
    };
    token.check(&got, tolerance);
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
    check_grouped_update::<f16>(shape(Dtype::F16, [7, 1, 64, 64], false), &positions, 1e-3);
}
