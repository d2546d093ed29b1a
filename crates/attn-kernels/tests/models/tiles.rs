//! `cuda/attend.cuh` in Rust, lane by lane: tiles in shared memory and a warp's products of them.

use std::marker::PhantomData;

use attn_kernels::cuda::swizzled;
use attn_kernels::{Element, Rows};

use super::warp::{Lanes, butterfly, load_matrices, load_transposed, multiply, rounded};

/// A warp's sums: for each of its tiles of 16 rows, tiles of 16 x 8.
pub type Sums = Vec<Vec<Lanes<[f32; 4]>>>;

/// So many zeros.
pub fn zeros(row_tiles: usize, columns: usize) -> Sums {
    vec![vec![[[0.0; 4]; 32]; columns]; row_tiles]
}

/// Rows of a head in shared memory, as f32.
pub struct Tile<E> {
    memory: Vec<f32>,
    width: usize,
    element: PhantomData<E>,
}

/// Elements of a chunk.
pub fn in_chunk<E>() -> usize {
    16 / size_of::<E>()
}

/// A row of a head.
pub fn row_of<E: Element>(rows: &Rows<'_, E>, [sequence, head, row]: [usize; 3], dim: usize) -> Vec<f32> {
    let first = sequence * rows.batch_stride + head * rows.head_stride + row * rows.row_stride;
    rows.data[first..][..dim].iter().map(|x| x.to_f32()).collect()
}

impl<E: Element> Tile<E> {
    /// `copy_tile`: `n` rows of which `rows` exist.
    pub fn copy(n: usize, dim: usize, rows: usize, row: impl Fn(usize) -> Vec<f32>) -> Self {
        let (width, in_chunk) = (dim.next_multiple_of(16), in_chunk::<E>());
        let chunks = width / in_chunk;
        // Shared memory that nobody has written is NaN.
        let mut memory = vec![f32::NAN; n * width];
        for i in 0..n * chunks {
            let (at, chunk) = (i / chunks, i % chunks);
            let to = &mut memory[swizzled(chunks, at, chunk) * in_chunk..][..in_chunk];
            if at < rows && chunk * in_chunk < dim {
                to.copy_from_slice(&row(at)[chunk * in_chunk..][..in_chunk]);
            } else {
                to.fill(0.0);
            }
        }
        Self {
            memory,
            width,
            element: PhantomData,
        }
    }

    /// Where a chunk of a row lies, of the 16 rows from `first` on.
    pub fn at(&self, first: usize, row: usize, chunk: usize) -> usize {
        first * self.width + swizzled(self.width / in_chunk::<E>(), row, chunk) * in_chunk::<E>()
    }

    /// A chunk.
    pub fn chunk(&self, first: usize, row: usize, chunk: usize) -> &[f32] {
        &self.memory[self.at(first, row, chunk)..][..in_chunk::<E>()]
    }
}

/// `c += A B^T` for the rows of A from `first` on.
pub fn add_products<E: Element>(c: &mut Sums, a: &Tile<E>, first: usize, b: &Tile<E>) {
    for step in 0..a.width / 16 {
        if size_of::<E>() == 2 {
            for (tile, c) in c.iter_mut().enumerate() {
                let of_a = load_matrices(&a.memory, |lane| {
                    let (matrix, row) = (lane / 8, lane % 8);
                    a.at(first + 16 * tile, matrix % 2 * 8 + row, 2 * step + matrix / 2)
                });
                for n in (0..c.len()).step_by(2) {
                    let of_b = load_matrices(&b.memory, |lane| {
                        let (matrix, row) = (lane / 8, lane % 8);
                        b.at(8 * n, matrix / 2 * 8 + row, 2 * step + matrix % 2)
                    });
                    multiply(&mut c[n], &of_a, &of_b, 0);
                    multiply(&mut c[n + 1], &of_a, &of_b, 2);
                }
            }
            continue;
        }
        for chunk in 4 * step..4 * step + 4 {
            for (tile, c) in c.iter_mut().enumerate() {
                for (n, c) in c.iter_mut().enumerate() {
                    for (lane, c) in c.iter_mut().enumerate() {
                        let (g, t) = (lane / 4, lane % 4);
                        for (i, c) in c.iter_mut().enumerate() {
                            let a = a.chunk(first, 16 * tile + g + i / 2 * 8, chunk);
                            let b = b.chunk(0, 8 * n + 2 * t + i % 2, chunk);
                            (0..4).for_each(|d| *c = a[d].mul_add(b[d], *c));
                        }
                    }
                }
            }
        }
    }
}

/// `c += W B`.
pub fn add_weighed<E: Element>(c: &mut Sums, w: &Sums, b: &Tile<E>) {
    for (c, w) in c.iter_mut().zip(w) {
        if size_of::<E>() == 2 {
            for n in (0..w.len()).step_by(2) {
                let p =
                    |n: usize, lane: usize, i: usize| [w[n][lane][i], w[n][lane][i + 1]].map(rounded::<E>);
                let of_w = std::array::from_fn(|lane| {
                    [p(n, lane, 0), p(n, lane, 2), p(n + 1, lane, 0), p(n + 1, lane, 2)]
                });
                for columns in 0..b.width / 16 {
                    let of_b = load_transposed(&b.memory, |lane| {
                        let (matrix, row) = (lane / 8, lane % 8);
                        b.at(8 * n, matrix % 2 * 8 + row, 2 * columns + matrix / 2)
                    });
                    multiply(&mut c[2 * columns], &of_w, &of_b, 0);
                    multiply(&mut c[2 * columns + 1], &of_w, &of_b, 2);
                }
            }
            continue;
        }
        for row in 0..8 * w.len() {
            for (n, c) in c.iter_mut().enumerate() {
                for (lane, c) in c.iter_mut().enumerate() {
                    let t = lane % 4;
                    let from = w[row / 8][lane / 4 * 4 + row % 8 / 2];
                    // Pairs of chunks lie together, as they are or exchanged.
                    let at = b.at(0, row, 2 * n) / 4;
                    let b = &b.memory[4 * (at ^ (t / 2)) + t % 2 * 2..];
                    for (i, c) in c.iter_mut().enumerate() {
                        *c = from[i / 2 * 2 + row % 2].mul_add(b[i % 2], *c);
                    }
                }
            }
        }
    }
}

/// Dot products of two rows by four or more lanes that take the chunks in turns.
pub fn dot<E>(lanes: usize, a: &[f32], b: &[f32]) -> f32 {
    let in_chunk = in_chunk::<E>();
    let mut sums = std::array::from_fn(|lane| {
        let chunks = (lane % lanes..a.len() / in_chunk).step_by(lanes);
        let elements = chunks.flat_map(|chunk| chunk * in_chunk..(chunk + 1) * in_chunk);
        elements.fold(0.0, |sum, d| a[d].mul_add(b[d], sum))
    });
    butterfly(&mut sums, lanes, |a, b| a + b);
    sums[0]
}
