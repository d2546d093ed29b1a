//! Project: rows through a weight.
//!
//! In a decode step there are few rows. Every weight is read once, and that is what takes the time: a product of few
//! rows is bound by memory as attention over a cache is, and is made of the same tiles. Where a weight has a row for
//! each output, rows of `x` are the queries and rows of the weight the keys; where it has a row for each input,
//! elements of `x` weigh its rows. Many rows of bf16 go through AMX; in f32 a general matrix product serves them
//! better than this.

#[cfg(target_arch = "x86_64")]
mod tiles;

use rayon::prelude::*;

use crate::element::Element;
use crate::error::{Mismatch, at_least, product};
use crate::level::{Level, for_each_level};
use crate::scratch::Scratch;
use crate::simd::Simd;
use crate::tile::{Columns, Matrix, scores, weigh};

/// Elements of a weight below which a part is not worth a task of its own.
const SMALLEST_PART: usize = 1 << 14;

/// Parts a thread gets at least, where there is work for them.
const PARTS_A_THREAD: usize = 2;

/// Rows up to which a product is bound by reading the weight.
pub const FEW_ROWS: usize = 16;

/// Outputs of a part are a multiple of this.
const OUTPUTS: usize = 16;

/// `[G, N, D]`, the last axis without gaps.
#[derive(Debug, Clone, Copy)]
pub struct Grouped<'a, E> {
    /// The elements.
    pub data: &'a [E],
    /// From one group to the next.
    pub group_stride: usize,
    /// From one row to the next.
    pub row_stride: usize,
}

/// What the rows of a weight are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orientation {
    /// `[G, outputs, inputs]`: `y = x W^T`.
    Outputs,
    /// `[G, inputs, outputs]`: `y = x W`.
    Inputs,
}

/// Operands of [`project`](project()).
#[derive(Debug, Clone, Copy)]
pub struct Project<'a, E> {
    /// `[G, rows, inputs]`.
    pub x: Grouped<'a, E>,
    /// As `orientation` says.
    pub weight: Grouped<'a, E>,
    /// What its rows are.
    pub orientation: Orientation,
    /// `[outputs]`, the same for all groups.
    pub bias: Option<&'a [E]>,
    /// Groups G, each with a weight of its own.
    pub groups: usize,
    /// Rows of `x`; few.
    pub rows: usize,
    /// Elements of a row of `x`.
    pub inputs: usize,
    /// Elements of a row of the output.
    pub outputs: usize,
}

/// Where the output goes: `[G, rows, outputs]`.
#[derive(Debug)]
pub struct Output<'a, E> {
    /// The elements.
    pub data: &'a mut [E],
    /// From one group to the next.
    pub group_stride: usize,
    /// From one row to the next.
    pub row_stride: usize,
}

/// Outputs of one group that one task computes.
#[derive(Debug, Clone, Copy)]
struct Part {
    group: usize,
    from: usize,
    to: usize,
}

/// `y = x W + bias` for every group.
///
/// # Errors
/// [`Mismatch`] where a slice is too short for what the sizes say.
pub fn project<E: Element>(
    input: &Project<'_, E>,
    level: Level,
    out: &mut Output<'_, E>,
) -> Result<(), Mismatch> {
    E::project(input, level, out)
}

pub(crate) fn run<E: Element>(
    input: &Project<'_, E>,
    level: Level,
    out: &mut Output<'_, E>,
) -> Result<(), Mismatch> {
    input.check(out)?;
    if input.rows == 0 || input.groups == 0 || input.outputs == 0 {
        return Ok(());
    }
    #[cfg(target_arch = "x86_64")]
    if E::IS_BF16 && level == Level::Amx && input.rows > FEW_ROWS {
        // SAFETY: the element is bf16, so that both are the same types.
        let done = unsafe {
            tiles::project(
                &*std::ptr::from_ref(input).cast::<Project<'_, half::bf16>>(),
                &mut *std::ptr::from_mut(out).cast::<Output<'_, half::bf16>>(),
            )
        };
        if done {
            return Ok(());
        }
    }
    let width = input.inputs.next_multiple_of(16);
    let x = input.widened(width);
    let parts = input.parts();
    let each = parts.iter().map(|part| part.to - part.from).max().unwrap_or(0);
    let size = input.rows * each.next_multiple_of(OUTPUTS);
    let mut sums = Scratch::unwritten(parts.len() * size);
    let pieces = sums.as_mut_slice().par_chunks_exact_mut(size);
    parts.par_iter().zip(pieces).for_each(|(part, sums)| {
        let x = &x.as_slice()[part.group * input.rows * width..][..input.rows * width];
        let work = Work {
            input,
            part: *part,
            x,
            width,
            sums,
        };
        run_part(level, work);
    });
    for (part, sums) in parts.iter().zip(sums.as_slice().chunks_exact(size)) {
        let stride = (part.to - part.from).next_multiple_of(OUTPUTS);
        for row in 0..input.rows {
            let at = part.group * out.group_stride + row * out.row_stride;
            let to = &mut out.data[at + part.from..at + part.to];
            let from = &sums[row * stride..];
            match input.bias {
                None => to
                    .iter_mut()
                    .zip(from)
                    .for_each(|(to, sum)| *to = E::from_f32(*sum)),
                Some(bias) => {
                    for ((to, sum), bias) in to.iter_mut().zip(from).zip(&bias[part.from..part.to]) {
                        *to = E::from_f32(sum + bias.to_f32());
                    }
                }
            }
        }
    }
    Ok(())
}

impl<E: Element> Project<'_, E> {
    fn check(&self, out: &Output<'_, E>) -> Result<(), Mismatch> {
        let op = "project";
        if self.groups == 0 || self.rows == 0 || self.outputs == 0 {
            return Ok(());
        }
        let last = |group_stride: usize, row_stride: usize, rows: usize, columns: usize| {
            product(&[self.groups - 1, group_stride])
                .saturating_add(product(&[rows.saturating_sub(1), row_stride]))
                .saturating_add(columns)
        };
        let Self { x, weight, .. } = self;
        let end = last(x.group_stride, x.row_stride, self.rows, self.inputs);
        at_least(op, "the length of x", x.data.len(), end)?;
        let (rows, columns) = match self.orientation {
            Orientation::Outputs => (self.outputs, self.inputs),
            Orientation::Inputs => (self.inputs, self.outputs),
        };
        let end = last(weight.group_stride, weight.row_stride, rows, columns);
        at_least(op, "the length of the weight", weight.data.len(), end)?;
        if let Some(bias) = self.bias {
            at_least(op, "the length of the bias", bias.len(), self.outputs)?;
        }
        let end = last(out.group_stride, out.row_stride, self.rows, self.outputs);
        at_least(op, "the length of the output", out.data.len(), end)
    }

    /// `x` in f32, in rows of whole vectors.
    fn widened(&self, width: usize) -> Scratch {
        let mut wide = Scratch::unwritten(self.groups * self.rows * width);
        for (at, to) in wide.as_mut_slice().chunks_exact_mut(width).enumerate() {
            let (group, row) = (at / self.rows, at % self.rows);
            let from = &self.x.data[group * self.x.group_stride + row * self.x.row_stride..];
            let (to, rest) = to.split_at_mut(self.inputs);
            for (to, from) in to.iter_mut().zip(from) {
                *to = from.to_f32();
            }
            rest.fill(0.0);
        }
        wide
    }

    fn parts(&self) -> Vec<Part> {
        let tasks = PARTS_A_THREAD * rayon::current_num_threads();
        let all = self.groups * self.outputs;
        let least = SMALLEST_PART.div_ceil(self.inputs.max(1));
        let each = all
            .div_ceil(tasks)
            .max(least)
            .next_multiple_of(OUTPUTS)
            .min(self.outputs);
        let mut parts = Vec::with_capacity(self.groups * self.outputs.div_ceil(each));
        for group in 0..self.groups {
            for from in (0..self.outputs).step_by(each) {
                let to = (from + each).min(self.outputs);
                parts.push(Part { group, from, to });
            }
        }
        parts
    }
}

/// A part and where its results go.
struct Work<'a, E> {
    input: &'a Project<'a, E>,
    part: Part,
    /// `[rows, width]`.
    x: &'a [f32],
    width: usize,
    /// `[rows, outputs]`.
    sums: &'a mut [f32],
}

for_each_level! {
    /// The outputs of a part.
    fn run_part(level, Work<E>) = compute
}

#[inline(always)]
fn compute<S: Simd, E: Element>(work: Work<'_, E>) {
    let Work {
        input,
        part: Part { group, from, to },
        x,
        width,
        sums,
    } = work;
    let outputs = to - from;
    let stride = outputs.next_multiple_of(OUTPUTS);
    let weight = &input.weight.data[group * input.weight.group_stride..];
    let rows = match input.orientation {
        Orientation::Outputs => &weight[from * input.weight.row_stride..],
        Orientation::Inputs => &weight[from..],
    };
    let mut row = 0;
    while row < input.rows {
        let x = Matrix {
            at: x[row * width..].as_ptr(),
            stride: width,
        };
        let to = Matrix {
            at: sums[row * stride..].as_mut_ptr(),
            stride,
        };
        // SAFETY: `x` has rows of whole vectors with zeros beyond, the weight was checked, the sums have rows of
        // `stride`; the processor has the instructions since `run_part` chose `S`.
        unsafe {
            row += match (input.orientation, input.rows - row) {
                (Orientation::Outputs, 8..) => {
                    by_outputs::<S, E, 8, 2>(input, x, rows, outputs, to);
                    8
                }
                (Orientation::Outputs, 4..) => {
                    by_outputs::<S, E, 4, 4>(input, x, rows, outputs, to);
                    4
                }
                (Orientation::Outputs, 2..) => {
                    by_outputs::<S, E, 2, 8>(input, x, rows, outputs, to);
                    2
                }
                (Orientation::Outputs, _) => {
                    by_outputs::<S, E, 1, 16>(input, x, rows, outputs, to);
                    1
                }
                (Orientation::Inputs, 8..) => {
                    by_inputs::<S, E, 8, 2>(input, x, rows, outputs, to);
                    8
                }
                (Orientation::Inputs, 4..) => {
                    by_inputs::<S, E, 4, 4>(input, x, rows, outputs, to);
                    4
                }
                (Orientation::Inputs, _) => {
                    by_inputs::<S, E, 1, 4>(input, x, rows, outputs, to);
                    1
                }
            };
        }
    }
}

/// Outputs of R rows of `x`, K at a time.
///
/// # Safety
/// As of [`scores`], for all outputs.
#[inline(always)]
unsafe fn by_outputs<S: Simd, E: Element, const R: usize, const K: usize>(
    input: &Project<'_, E>,
    x: Matrix<*const f32>,
    weight: &[E],
    outputs: usize,
    to: Matrix<*mut f32>,
) {
    let stride = input.weight.row_stride;
    let mut j = 0;
    while j < outputs {
        // SAFETY: the caller's; no tile goes beyond the outputs.
        unsafe {
            let rows = Matrix {
                at: weight.as_ptr().add(j * stride),
                stride,
            };
            let to = Matrix {
                at: to.at.add(j),
                ..to
            };
            let columns = Columns {
                q: x,
                keys: rows,
                dim: input.inputs,
            };
            j += if outputs - j >= K {
                scores::<S, E, R, K, 1, false>([columns], to, || ());
                K
            } else {
                scores::<S, E, R, 1, 1, false>([columns], to, || ());
                1
            };
        }
    }
}

/// Outputs of R rows of `x`, C vectors at a time.
///
/// # Safety
/// As of [`weigh`], for all outputs.
#[inline(always)]
unsafe fn by_inputs<S: Simd, E: Element, const R: usize, const C: usize>(
    input: &Project<'_, E>,
    x: Matrix<*const f32>,
    weight: &[E],
    outputs: usize,
    to: Matrix<*mut f32>,
) {
    let mut j = 0;
    while j < outputs {
        // SAFETY: the caller's; no tile goes beyond the outputs but for the last vector, which is told, and whose sums
        // have room.
        unsafe {
            let rows = Matrix {
                at: weight.as_ptr().add(j),
                stride: input.weight.row_stride,
            };
            let to = Matrix {
                at: to.at.add(j),
                ..to
            };
            j += if outputs - j >= C * S::LANES {
                weigh::<S, E, R, C, false>(x, rows, input.inputs, S::LANES, to, false, || ());
                C * S::LANES
            } else {
                weigh::<S, E, R, 1, false>(
                    x,
                    rows,
                    input.inputs,
                    S::LANES.min(outputs - j),
                    to,
                    false,
                    || (),
                );
                S::LANES
            };
        }
    }
}
