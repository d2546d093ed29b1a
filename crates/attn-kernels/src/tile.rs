//! Products of small blocks that stay in registers, `C = A B` and `C += A B`, and scores of keys that lie as rows.
//!
//! Loops run over places, not over iterators with closures: a closure is a function of its own that is not compiled
//! for a level's instructions, and what it calls would stay a call.
#![allow(clippy::needless_range_loop)]

use crate::element::Element;
use crate::simd::Simd;

/// A matrix in memory: its first element and the distance between its rows.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<T> {
    pub(crate) at: T,
    pub(crate) stride: usize,
}

impl<T> Matrix<*const T> {
    /// The rows from one on.
    ///
    /// # Safety
    /// There are so many.
    #[inline(always)]
    pub(crate) unsafe fn below(self, row: usize) -> Self {
        // SAFETY: the caller's.
        let at = unsafe { self.at.add(row * self.stride) };
        Self { at, ..self }
    }

    pub(crate) fn of(rows: &[T], stride: usize) -> Self {
        let at = rows.as_ptr();
        Self { at, stride }
    }
}

impl<T> Matrix<*mut T> {
    pub(crate) fn of_mut(rows: &mut [T], stride: usize) -> Self {
        let at = rows.as_mut_ptr();
        Self { at, stride }
    }
}

/// Columns of queries, and the same of keys, of which there may be several where keys lie in parts.
#[derive(Clone, Copy)]
pub(crate) struct Columns<E> {
    pub(crate) q: Matrix<*const f32>,
    pub(crate) keys: Matrix<*const E>,
    pub(crate) dim: usize,
}

/// `scores[h][j] = q_h . k_j`, for H queries and K keys in P parts; `H K` is at most 16. TURNED scores lie as `[K, H]`.
/// `between` runs before each vector of terms.
///
/// # Safety
/// 1. Of each part `q` has H rows of `dim` f32 rounded up to whole vectors, zeros beyond `dim`, and `keys` K rows of
///    `dim`; `scores` has H rows of K, or where they are turned K rows of H.
/// 2. The processor has the instructions of `S`.
#[inline(always)]
pub(crate) unsafe fn scores<
    S: Simd,
    E: Element,
    const H: usize,
    const K: usize,
    const P: usize,
    const TURNED: bool,
>(
    parts: [Columns<E>; P],
    scores: Matrix<*mut f32>,
    mut between: impl FnMut(),
) {
    // SAFETY: rows and columns stay within what the caller vouches for.
    unsafe {
        let zero = S::splat(0.0);
        let mut sums = [[zero; K]; H];
        for part in 0..P {
            let Columns { q, keys, dim } = parts[part];
            let mut d = 0;
            while d < dim {
                between();
                let is_whole = d + S::LANES <= dim;
                let mut k = [zero; K];
                for j in 0..K {
                    let at = keys.at.add(j * keys.stride + d);
                    k[j] = if is_whole {
                        E::load::<S>(at)
                    } else {
                        E::load_part::<S>(at, dim - d)
                    };
                }
                for h in 0..H {
                    let q = S::load(q.at.add(h * q.stride + d));
                    for j in 0..K {
                        sums[h][j] = S::mul_add(q, k[j], sums[h][j]);
                    }
                }
                d += S::LANES;
            }
        }
        if H * K == 16 && TURNED {
            let mut all = [zero; 16];
            for i in 0..16 {
                all[i] = sums[i % H][i / H];
            }
            let all = S::sums(all);
            for j in 0..K {
                for h in 0..H {
                    *scores.at.add(j * scores.stride + h) = all[j * H + h];
                }
            }
        } else if H * K == 16 {
            let mut all = [zero; 16];
            for i in 0..16 {
                all[i] = sums[i / K][i % K];
            }
            let all = S::sums(all);
            for h in 0..H {
                for j in 0..K {
                    *scores.at.add(h * scores.stride + j) = all[h * K + j];
                }
            }
        } else {
            for h in 0..H {
                for j in 0..K {
                    let at = if TURNED {
                        j * scores.stride + h
                    } else {
                        h * scores.stride + j
                    };
                    *scores.at.add(at) = S::sum(sums[h][j]);
                }
            }
        }
    }
}

/// `c[h] = sum_j weights[h][j] v_j`, or `c[h] += ..` with `add`, for H rows and C vectors of columns. TURNED weights lie
/// as `[n, H]`. `between` runs before each term.
///
/// # Safety
/// 1. `weights` has H rows of `n`, or where they are turned `n` rows of H; `values` has `n` rows of C vectors, the last of them of `last` elements; `c` has H
///    rows of C whole vectors.
/// 2. The processor has the instructions of `S`.
#[inline(always)]
pub(crate) unsafe fn weigh<S: Simd, E: Element, const H: usize, const C: usize, const TURNED: bool>(
    weights: Matrix<*const f32>,
    values: Matrix<*const E>,
    n: usize,
    last: usize,
    c: Matrix<*mut f32>,
    add: bool,
    mut between: impl FnMut(),
) {
    // SAFETY: rows and columns stay within what the caller vouches for.
    unsafe {
        let mut sums = [[S::splat(0.0); C]; H];
        if add {
            for h in 0..H {
                for i in 0..C {
                    sums[h][i] = S::load(c.at.add(h * c.stride + i * S::LANES));
                }
            }
        }
        for j in 0..n {
            between();
            let mut v = [S::splat(0.0); C];
            for i in 0..C {
                let at = values.at.add(j * values.stride + i * S::LANES);
                let is_whole = i + 1 < C || last == S::LANES;
                v[i] = if is_whole {
                    E::load::<S>(at)
                } else {
                    E::load_part::<S>(at, last)
                };
            }
            for h in 0..H {
                let at = if TURNED {
                    j * weights.stride + h
                } else {
                    h * weights.stride + j
                };
                let weight = S::splat(*weights.at.add(at));
                for i in 0..C {
                    sums[h][i] = S::mul_add(weight, v[i], sums[h][i]);
                }
            }
        }
        for h in 0..H {
            for i in 0..C {
                S::store(c.at.add(h * c.stride + i * S::LANES), sums[h][i]);
            }
        }
    }
}

/// `C = A B`, or `C += A B` with `add`; a TURNED A lies as its transpose.
///
/// # Safety
/// 1. `a` has `rows` rows of `n`, or where it is turned `n` rows of `rows`; `b` has `n` rows of `columns`, a multiple of the lanes, and so has `c` `rows`.
/// 2. The processor has the instructions of `S`.
#[inline(always)]
pub(crate) unsafe fn multiply<S: Simd, const TURNED: bool>(
    a: Matrix<*const f32>,
    b: Matrix<*const f32>,
    [rows, n, columns]: [usize; 3],
    c: Matrix<*mut f32>,
    add: bool,
) {
    // SAFETY: every block lies within the matrices.
    unsafe {
        let wide = 2 * S::LANES;
        let mut column = 0;
        while column < columns {
            let b = Matrix {
                at: b.at.add(column),
                ..b
            };
            let is_wide = column + wide <= columns;
            let mut row = 0;
            while row < rows {
                let a = Matrix {
                    at: a.at.add(if TURNED { row } else { row * a.stride }),
                    ..a
                };
                let c = Matrix {
                    at: c.at.add(row * c.stride + column),
                    ..c
                };
                row += match (is_wide, rows - row) {
                    (true, left) if left >= 12 && S::ROWS >= 12 => {
                        weigh::<S, f32, 12, 2, TURNED>(a, b, n, S::LANES, c, add, || ());
                        12
                    }
                    (true, left) if left >= 6 && S::ROWS >= 6 => {
                        weigh::<S, f32, 6, 2, TURNED>(a, b, n, S::LANES, c, add, || ());
                        6
                    }
                    (true, left) if left >= 4 => {
                        weigh::<S, f32, 4, 2, TURNED>(a, b, n, S::LANES, c, add, || ());
                        4
                    }
                    (true, _) => {
                        weigh::<S, f32, 1, 2, TURNED>(a, b, n, S::LANES, c, add, || ());
                        1
                    }
                    (false, left) if left >= 8 => {
                        weigh::<S, f32, 8, 1, TURNED>(a, b, n, S::LANES, c, add, || ());
                        8
                    }
                    (false, _) => {
                        weigh::<S, f32, 1, 1, TURNED>(a, b, n, S::LANES, c, add, || ());
                        1
                    }
                };
            }
            column += if is_wide { wide } else { S::LANES };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Portable;

    #[test]
    fn blocks_of_every_shape_are_products() {
        for (rows, n, columns) in [(1, 1, 8), (5, 3, 16), (13, 7, 24), (31, 20, 40)] {
            let a: Vec<f32> = (0..rows * n).map(|i| (i % 7) as f32 - 3.0).collect();
            let b: Vec<f32> = (0..n * columns).map(|i| (i % 5) as f32 - 2.0).collect();
            // The same, turned.
            let turned: Vec<f32> = (0..n * rows).map(|i| a[i % rows * n + i / rows]).collect();
            let mut c = vec![f32::NAN; rows * columns];
            for add in [false, true] {
                let (sizes, right) = ([rows, n, columns], Matrix::of(&b, columns));
                // SAFETY: the slices are of these sizes, and every processor has the portable level.
                unsafe {
                    if add {
                        let a = Matrix::of(&turned, rows);
                        multiply::<Portable, true>(a, right, sizes, Matrix::of_mut(&mut c, columns), add);
                    } else {
                        let a = Matrix::of(&a, n);
                        multiply::<Portable, false>(a, right, sizes, Matrix::of_mut(&mut c, columns), add);
                    }
                }
                let times = if add { 2.0 } else { 1.0 };
                for row in 0..rows {
                    for column in 0..columns {
                        let sum: f32 = (0..n).map(|j| a[row * n + j] * b[j * columns + column]).sum();
                        assert_eq!(c[row * columns + column], times * sum, "{row} {column}");
                    }
                }
            }
        }
    }
}
