//! Project in bf16 by AMX: many rows through a weight, which is laid out as panels once.

use half::bf16;
use rayon::prelude::*;

use super::{Orientation, Output, Project};
use crate::amx::{
    SIDE, STEP, TERMS, Tiles, columns_to_panels, is_available, narrow_row, product_2_2, rows_to_panel,
};
use crate::scratch::Scratch;

/// Rows and columns of a product.
const PAIR: usize = 2 * SIDE;

/// Rows of a task at most: with a pair of panels they stay in the second cache.
const MOST_ROWS: usize = 128;

/// As [`super::project`], for operands that were checked. False, and nothing done, where tiles do not fit them.
pub(super) fn project(input: &Project<'_, bf16>, out: &mut Output<'_, bf16>) -> bool {
    let one_matrix = input.groups == 1 && out.row_stride == input.outputs;
    if !one_matrix || input.inputs == 0 || !is_available() {
        return false;
    }
    let panels = lay_out(input);
    let tasks = 2 * rayon::current_num_threads();
    let rows = input.rows.div_ceil(tasks).next_multiple_of(PAIR).min(MOST_ROWS);
    let blocks = out.data[..input.rows * input.outputs].par_chunks_mut(rows * input.outputs);
    blocks.enumerate().for_each(|(block, out)| {
        // SAFETY: the processor has tiles, and what they come with; the panels are those of `input`.
        unsafe { multiply(input, &panels, block * rows, out) };
    });
    true
}

/// Elements of a panel: 16 outputs.
fn panel_len(inputs: usize) -> usize {
    inputs.div_ceil(TERMS) * STEP
}

/// The weight as panels of 16 outputs, an even number of them. The memory is that of f32, which has the alignment.
fn lay_out(input: &Project<'_, bf16>) -> Scratch {
    let Project {
        weight,
        inputs,
        outputs,
        ..
    } = *input;
    let len = panel_len(inputs);
    let mut panels = Scratch::zeros(outputs.next_multiple_of(PAIR) / SIDE * len / 2);
    // Two panels side by side: len bf16 are half as many f32, so two panels are `len` of them.
    let of_pair = panels.as_mut_slice().par_chunks_exact_mut(len).enumerate();
    of_pair.for_each(|(at, pair)| {
        let first = at * PAIR;
        let there = PAIR.min(outputs - first);
        let panels: *mut bf16 = pair.as_mut_ptr().cast();
        match input.orientation {
            Orientation::Outputs => {
                for (side, n) in [there.min(SIDE), there.saturating_sub(SIDE)]
                    .into_iter()
                    .enumerate()
                {
                    let rows =
                        &weight.data[((first + side * SIDE) * weight.row_stride).min(weight.data.len())..];
                    // SAFETY: the weight has `n` rows of `inputs` from here on, a panel is for as many terms.
                    unsafe {
                        rows_to_panel(
                            rows.as_ptr(),
                            weight.row_stride,
                            n,
                            inputs,
                            panels.add(side * len),
                        );
                    }
                }
            }
            Orientation::Inputs => {
                for (step, row) in (0..inputs).step_by(TERMS).enumerate() {
                    let rows = &weight.data[row * weight.row_stride + first..];
                    let n = TERMS.min(inputs - row);
                    // SAFETY: the weight has `n` rows from here on, each with `there` more elements; a panel has this
                    // step.
                    unsafe {
                        let to = panels.add(step * STEP);
                        columns_to_panels(rows.as_ptr(), weight.row_stride, n, there, [to, to.add(len)]);
                    }
                }
            }
        }
    });
    panels
}

/// Outputs of the rows from `first` on.
///
/// # Safety
/// The processor has AMX and AVX-512; the operands were checked, `panels` is the layout of their weight.
unsafe fn multiply(input: &Project<'_, bf16>, panels: &Scratch, first: usize, out: &mut [bf16]) {
    let Project {
        x,
        bias,
        inputs,
        outputs,
        ..
    } = *input;
    let rows = out.len() / outputs;
    let (steps, len) = (inputs.div_ceil(TERMS), panel_len(inputs));
    let padded = rows.next_multiple_of(PAIR);
    let width = steps * TERMS;
    let mut scratch = Scratch::zeros(PAIR * PAIR + padded * width / 2);
    let (sums, copy) = scratch.as_mut_slice().split_at_mut(PAIR * PAIR);
    // Copied, because a row of a tile that crosses a cache line takes twice as long to load, and is loaded often.
    let a: *mut bf16 = copy.as_mut_ptr().cast();
    for row in 0..rows {
        let from = &x.data[(first + row) * x.row_stride..][..inputs];
        // SAFETY: there is room for `padded` rows of `width`.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), a.add(row * width), inputs) };
    }
    let panels: *const bf16 = panels.as_slice().as_ptr().cast();
    // SAFETY: `a` has `padded` rows of whole steps, there are panels for all outputs, and an even number of them.
    unsafe {
        let _tiles = Tiles::configure();
        for column in (0..outputs).step_by(PAIR) {
            let panel = panels.add(column / SIDE * len);
            let columns = PAIR.min(outputs - column);
            for top in (0..rows).step_by(PAIR) {
                product_2_2::<false>(
                    a.add(top * width),
                    2 * width,
                    [panel, panel.add(len)],
                    steps,
                    sums.as_mut_ptr(),
                    4 * PAIR,
                    || (),
                );
                for row in top..rows.min(top + PAIR) {
                    let to = &mut out[row * outputs + column..][..columns];
                    let from = &sums[(row - top) * PAIR..][..columns];
                    narrow_row(from, bias.map(|bias| &bias[column..][..columns]), to);
                }
            }
        }
    }
}
