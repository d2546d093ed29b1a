//! What a decode step begins with.

use attn_kernels::Element;
use attn_kernels::cuda::{AdvanceOperands, AdvanceShape, Columns, Dtype, Memory, Turn};
use half::{bf16, f16};

use crate::common::{assert_close, random};
use crate::host::{self, Kernels, Operand};
use crate::machine;

/// Columns before those that are turned, of the queries and of where they go.
const PASS: [usize; 2] = [5, 12];

/// Rows of the tables.
const N_POSITIONS: usize = 9;

/// Counts and turns; what belongs to others is left as it was. `newest` are positions, -1 of an empty sequence.
fn check<E: Element>(shape: AdvanceShape, newest: &[i32], tolerance: f64) {
    if !host::is_possible() {
        return;
    }
    let AdvanceShape {
        n_heads, rope_dim, ..
    } = shape;
    let (rows, half) = (newest.len() * n_heads, rope_dim / 2);
    let [from_width, to_width] = PASS.map(|pass| pass + rope_dim);
    let q: Vec<E> = random(rows * from_width, 1);
    let tables: [Vec<f32>; 2] = [2, 3].map(|seed| random(N_POSITIONS * half, seed));
    let untouched = vec![E::from_f32(7.0); rows * to_width];

    let plan = shape.plan(machine(), newest.len()).unwrap();
    let (positions, from, to) = (Operand::new(newest), Operand::new(&q), Operand::new(&untouched));
    let [cos, sin] = [&tables[0], &tables[1]].map(|table| Operand::new(table));
    let columns = |of: &Operand, width: usize, pass: usize| Columns {
        memory: Memory {
            address: of.memory().address + (pass * size_of::<E>()) as u64,
            bytes: of.memory().bytes.saturating_sub(pass * size_of::<E>()),
        },
        batch_stride: n_heads * width,
        head_stride: width,
    };
    let turn = (n_heads > 0).then(|| Turn {
        q: columns(&from, from_width, PASS[0]),
        turned: columns(&to, to_width, PASS[1]),
        cos: cos.memory(),
        sin: sin.memory(),
        n_positions: N_POSITIONS,
    });
    let operands = AdvanceOperands {
        positions: positions.memory(),
        turn,
    };
    let params = plan.params(&operands).unwrap();
    // SAFETY: the parameters are this kernel's, and its operands live until it has ended.
    unsafe { Kernels::new("Advance").run(&plan.planned, &params, 1) };

    let counted: Vec<i32> = newest.iter().map(|position| position + 1).collect();
    assert_eq!(positions.read::<i32>(), counted);
    let mut expected: Vec<f64> = untouched.iter().map(|x| f64::from(x.to_f32())).collect();
    for (row, from) in q.chunks_exact(from_width).enumerate() {
        let position = counted[row / n_heads] as usize;
        if position >= N_POSITIONS {
            continue;
        }
        let to = &mut expected[row * to_width + PASS[1]..][..rope_dim];
        let x: Vec<f64> = from[PASS[0]..].iter().map(|x| f64::from(x.to_f32())).collect();
        for i in 0..half {
            let (a, b) = if shape.halves {
                (i, half + i)
            } else {
                (2 * i, 2 * i + 1)
            };
            let [cos, sin] = [&tables[0], &tables[1]].map(|table| f64::from(table[position * half + i]));
            (to[a], to[b]) = (x[a] * cos - x[b] * sin, x[a] * sin + x[b] * cos);
        }
    }
    assert_close(&to.read::<E>(), &expected, tolerance);
}

#[test]
fn advance_counts_every_sequence_and_turns_its_queries() {
    let shape = |dtype, n_heads, rope_dim, halves| AdvanceShape {
        dtype,
        n_heads,
        rope_dim,
        halves,
    };
    // Empty, in the middle, the last position of the tables, and beyond them.
    let newest = [-1, 3, 7, 8, 0];
    check::<f32>(shape(Dtype::F32, 8, 32, false), &newest, 1e-6);
    check::<bf16>(shape(Dtype::Bf16, 3, 70, true), &newest, 1e-2);
    check::<f16>(shape(Dtype::F16, 16, 64, false), &newest, 1e-3);
    // Nothing to turn.
    check::<f32>(shape(Dtype::F32, 0, 2, false), &newest, 0.0);
}
