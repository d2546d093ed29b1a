//! A block of entries for all heads of a group, tile by tile: scores, and weighed values.

use super::ahead::Ahead;
use crate::element::Element;
use crate::simd::Simd;
use crate::tile::{Columns, Matrix, scores, weigh};

/// Tiles of a block of so many keys and values, or where it is FINE their steps: how often the next one can be asked
/// for.
pub(super) fn calls<S: Simd, const FINE: bool>(
    group: usize,
    [n_keys, n_values]: [usize; 2],
    [key_dim, value_dim]: [usize; 2],
) -> usize {
    // As many heads and entries, and heads and vectors of values, as the tiles below hold.
    let (heads, vectors) = if group >= 8 { (8, 2) } else { (group.min(4), 4) };
    let groups = group.div_ceil(heads);
    let scores = groups * n_keys.div_ceil(16 / heads);
    let values = groups * value_dim.div_ceil(vectors * S::LANES);
    if FINE {
        scores * key_dim.div_ceil(S::LANES) + values * n_values
    } else {
        scores + values
    }
}

/// Scores of `n` entries for all heads of the group, `[group, n]` or TURNED.
///
/// # Safety
/// As of [`scores`], for all heads and entries.
#[inline(always)]
pub(super) unsafe fn score_block<
    S: Simd,
    E: Element,
    const FINE: bool,
    const P: usize,
    const TURNED: bool,
>(
    parts: [Columns<E>; P],
    [group, n]: [usize; 2],
    to: Matrix<*mut f32>,
    ahead: &mut Ahead,
) {
    let mut h = 0;
    while h < group {
        // SAFETY: the caller's; no tile goes beyond `group` rows or `n` entries.
        unsafe {
            let mut of_heads = parts;
            for part in 0..P {
                of_heads[part].q = parts[part].q.below(h);
            }
            let to = Matrix {
                at: to.at.add(if TURNED { h } else { h * to.stride }),
                ..to
            };
            h += match group - h {
                8.. => {
                    score_rows::<S, E, FINE, 8, 2, P, TURNED>(of_heads, n, to, ahead);
                    8
                }
                4.. => {
                    score_rows::<S, E, FINE, 4, 4, P, TURNED>(of_heads, n, to, ahead);
                    4
                }
                2.. => {
                    score_rows::<S, E, FINE, 2, 8, P, TURNED>(of_heads, n, to, ahead);
                    2
                }
                _ => {
                    score_rows::<S, E, FINE, 1, 16, P, TURNED>(of_heads, n, to, ahead);
                    1
                }
            };
        }
    }
}

/// Scores of `n` entries for H heads, K entries at a time.
///
/// # Safety
/// As of [`scores`], for `n` entries.
#[inline(always)]
unsafe fn score_rows<
    S: Simd,
    E: Element,
    const FINE: bool,
    const H: usize,
    const K: usize,
    const P: usize,
    const TURNED: bool,
>(
    parts: [Columns<E>; P],
    n: usize,
    to: Matrix<*mut f32>,
    ahead: &mut Ahead,
) {
    let mut j = 0;
    while j < n {
        ahead.tile::<FINE>();
        // SAFETY: the caller's; no tile goes beyond `n` entries.
        unsafe {
            let mut of_entries = parts;
            for part in 0..P {
                of_entries[part].keys = parts[part].keys.below(j);
            }
            let to = Matrix {
                at: to.at.add(if TURNED { j * to.stride } else { j }),
                ..to
            };
            j += if n - j >= K {
                scores::<S, E, H, K, P, TURNED>(of_entries, to, || ahead.step::<FINE>());
                K
            } else {
                scores::<S, E, H, 1, P, TURNED>(of_entries, to, || ahead.step::<FINE>());
                1
            };
        }
    }
}

/// Adds the weighed values of `n` entries for all heads of the group.
///
/// # Safety
/// As of [`weigh`], for all heads and columns; `acc` has rows of whole vectors of 16.
#[inline(always)]
pub(super) unsafe fn weigh_block<S: Simd, E: Element, const FINE: bool, const TURNED: bool>(
    weights: Matrix<*const f32>,
    values: Matrix<*const E>,
    [group, n, dim]: [usize; 3],
    acc: Matrix<*mut f32>,
    ahead: &mut Ahead,
) {
    let mut h = 0;
    while h < group {
        // SAFETY: the caller's; no tile goes beyond `group` rows.
        unsafe {
            let weights = Matrix {
                at: weights.at.add(if TURNED { h } else { h * weights.stride }),
                ..weights
            };
            let acc = Matrix {
                at: acc.at.add(h * acc.stride),
                ..acc
            };
            h += match group - h {
                8.. => {
                    weigh_columns::<S, E, FINE, 8, 2, TURNED>(weights, values, n, dim, acc, ahead);
                    8
                }
                4.. => {
                    weigh_columns::<S, E, FINE, 4, 4, TURNED>(weights, values, n, dim, acc, ahead);
                    4
                }
                2.. => {
                    weigh_columns::<S, E, FINE, 2, 4, TURNED>(weights, values, n, dim, acc, ahead);
                    2
                }
                _ => {
                    weigh_columns::<S, E, FINE, 1, 4, TURNED>(weights, values, n, dim, acc, ahead);
                    1
                }
            };
        }
    }
}

/// Adds the weighed values for H heads, C vectors of columns at a time.
///
/// # Safety
/// As of [`weigh`], for all columns.
#[inline(always)]
unsafe fn weigh_columns<
    S: Simd,
    E: Element,
    const FINE: bool,
    const H: usize,
    const C: usize,
    const TURNED: bool,
>(
    weights: Matrix<*const f32>,
    values: Matrix<*const E>,
    n: usize,
    dim: usize,
    acc: Matrix<*mut f32>,
    ahead: &mut Ahead,
) {
    let mut d = 0;
    while d < dim {
        ahead.tile::<FINE>();
        // SAFETY: the caller's; no tile goes beyond `dim` columns, but for the last vector, which is told.
        unsafe {
            let values = Matrix {
                at: values.at.add(d),
                ..values
            };
            let acc = Matrix {
                at: acc.at.add(d),
                ..acc
            };
            d += if dim - d >= C * S::LANES {
                weigh::<S, E, H, C, TURNED>(weights, values, n, S::LANES, acc, true, || ahead.step::<FINE>());
                C * S::LANES
            } else {
                weigh::<S, E, H, 1, TURNED>(weights, values, n, S::LANES.min(dim - d), acc, true, || {
                    ahead.some()
                });
                S::LANES
            };
        }
    }
}
