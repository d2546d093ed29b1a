//! A warp's instructions on numbers: fragments as the PTX ISA lays them out, reductions by butterfly.

use attn_kernels::Element;

/// One value for each lane.
pub type Lanes<T> = [T; 32];

/// Four registers of two elements.
pub type Operand = [[f32; 2]; 4];

/// Four 8 x 8 matrices from shared memory; `at` is where the row begins that a lane gives the address of.
pub fn load_matrices(memory: &[f32], at: impl Fn(usize) -> usize) -> Lanes<Operand> {
    std::array::from_fn(|lane| {
        std::array::from_fn(|matrix| {
            let row = at(8 * matrix + lane / 4);
            [0, 1].map(|i| memory[row + 2 * (lane % 4) + i])
        })
    })
}

/// The same, each transposed.
pub fn load_transposed(memory: &[f32], at: impl Fn(usize) -> usize) -> Lanes<Operand> {
    std::array::from_fn(|lane| {
        std::array::from_fn(|matrix| [0, 1].map(|i| memory[at(8 * matrix + 2 * (lane % 4) + i) + lane / 4]))
    })
}

/// `c += a b` of m16n8k16, `b` being registers `first` and `first + 1`.
pub fn multiply(c: &mut Lanes<[f32; 4]>, a: &Lanes<Operand>, b: &Lanes<Operand>, first: usize) {
    let (mut rows, mut columns) = ([[0.0; 16]; 16], [[0.0; 16]; 8]);
    for lane in 0..32 {
        let (g, t) = (lane / 4, lane % 4);
        for i in 0..2 {
            for register in 0..4 {
                rows[g + register % 2 * 8][2 * t + register / 2 * 8 + i] = a[lane][register][i];
            }
            for register in 0..2 {
                columns[g][2 * t + register * 8 + i] = b[lane][first + register][i];
            }
        }
    }
    for (lane, c) in c.iter_mut().enumerate() {
        for (i, c) in c.iter_mut().enumerate() {
            let (row, column) = (&rows[lane / 4 + i / 2 * 8], &columns[lane % 4 * 2 + i % 2]);
            *c += row.iter().zip(column).map(|(a, b)| a * b).sum::<f32>();
        }
    }
}

/// Over the lanes that differ in the low bits of their number.
pub fn butterfly(x: &mut Lanes<f32>, lanes: usize, join: impl Fn(f32, f32) -> f32) {
    let mut distance = 1;
    while distance < lanes {
        let other = *x;
        for lane in 0..32 {
            x[lane] = join(other[lane], other[lane ^ distance]);
        }
        distance *= 2;
    }
}

/// The nearest element, as f32.
pub fn rounded<E: Element>(x: f32) -> f32 {
    E::from_f32(x).to_f32()
}

/// CUDA's maximum: the other one where one is NaN.
pub fn fmax(a: f32, b: f32) -> f32 {
    a.max(b)
}

/// `shrink` of `combine.cuh`.
pub fn shrink(from: f32, to: f32, factor: f32) -> f32 {
    if from == to {
        1.0
    } else {
        (factor * (from - to)).exp2()
    }
}
