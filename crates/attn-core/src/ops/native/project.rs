//! Projections and products of few rows, which read the other operand where it lies.

use attn_kernels::{Element, FEW_ROWS, Grouped, Level, Orientation, Output, Project};
use candle_core::{D, DType, Tensor, WithDType};
use half::{bf16, f16};

use super::{Guard, by_dtype, guard, kernel_dtype, level, side_by_side};
use crate::error::Result;

/// Rows up to which a projection reads the weight where it lies. A general product first copies it into another order,
/// and one of half precision also widens it: two threads with AVX-512 take for 24 rows 3 to 5 times as long by candle's
/// product, for 64 rows twice as long, and as long for some 100 rows in f32 and 200 in bf16.
const PROJECTED_ROWS: usize = 96;

/// `x W^T + b` of rows `[n, in]` and a weight `[out, in]`: `[n, out]`. `None` where there is no kernel for these
/// operands, or candle's product of many rows is as good.
pub(crate) fn project(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Option<Tensor>> {
    let many_rows = x.dim(0)? > PROJECTED_ROWS;
    if many_rows && !(x.dtype() == DType::BF16 && level()? == Level::Amx) {
        return Ok(None);
    }
    let mut operands = vec![x, weight];
    operands.extend(bias);
    by_dtype!(&operands, project_as(x, weight, bias))
}

/// `x W` for every head: x `[B, H, d]`, W `[H, d, r]` or, where it has a row for each output, `[H, r, d]`; returns
/// `[B, H, r]`, or `[B, H, r + D]` with a `tail` `[B, H, D]` behind it. `None` where there is no kernel for these
/// operands.
pub(crate) fn project_heads(
    x: &Tensor,
    weight: &Tensor,
    orientation: Orientation,
    tail: Option<&Tensor>,
) -> Result<Option<Tensor>> {
    let mut operands = vec![x, weight];
    operands.extend(tail);
    by_dtype!(&operands, project_heads_as(x, weight, orientation, tail))
}

/// `lhs rhs` over the last two axes, for few rows of `lhs`, where a general product would first copy `rhs`, which costs
/// as much as reading it: where its matrices lie transposed in memory, as keys do, and where it is of half precision.
/// `None` where there is no kernel for these operands.
pub(crate) fn few_rows_product(lhs: &Tensor, rhs: &Tensor) -> Result<Option<Tensor>> {
    let (&[ref outer @ .., m, k], &[ref same_outer @ .., same_k, n]) = (lhs.dims(), rhs.dims()) else {
        return Ok(None);
    };
    let orientation = match *rhs.stride() {
        [.., 1, _] if n > 1 => Orientation::Outputs,
        [.., 1] if rhs.dtype() != DType::F32 => Orientation::Inputs,
        _ => return Ok(None),
    };
    if m > FEW_ROWS || outer != same_outer || k != same_k || m * n * k == 0 {
        return Ok(None);
    }
    let lhs = &side_by_side(lhs)?;
    let (Some(lhs_at), Some(rhs_at)) = (group_stride(lhs), group_stride(rhs)) else {
        return Ok(None);
    };
    by_dtype!(
        &[lhs, rhs],
        few_rows_product_as(lhs, rhs, [lhs_at, rhs_at], orientation)
    )
}

/// From one matrix `[.., rows, columns]` to the next; `None` where they do not lie at one distance.
fn group_stride(x: &Tensor) -> Option<usize> {
    let matrices = x.rank() - 2;
    let outer = x.dims()[..matrices].iter().zip(&x.stride()[..matrices]);
    let mut outer = outer.filter(|(n, _)| **n != 1).rev();
    let Some((&n, &stride)) = outer.next() else {
        return Some(0); // there is but one
    };
    let mut next = n * stride;
    for (&n, &outer_stride) in outer {
        if outer_stride != next {
            return None;
        }
        next *= n;
    }
    Some(stride)
}

fn project_as<T: WithDType + Element>(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let ((rows, inputs), outputs) = (x.dims2()?, weight.dim(0)?);
    let (level, weight) = (level()?, side_by_side(weight)?);
    let bias = bias.map(Tensor::contiguous).transpose()?;
    let mut data = vec![T::default(); rows * outputs];
    let (x_of, weight_of) = (guard(x), guard(&weight));
    let bias = bias.as_ref().map(guard);
    let project = Project {
        x: Grouped {
            data: x_of.elements()?,
            group_stride: 0,
            row_stride: x.stride()[0],
        },
        weight: Grouped {
            data: weight_of.elements()?,
            group_stride: 0,
            row_stride: weight.stride()[0],
        },
        orientation: Orientation::Outputs,
        bias: bias.as_ref().map(Guard::elements).transpose()?,
        groups: 1,
        rows,
        inputs,
        outputs,
    };
    let mut out = Output {
        data: &mut data,
        group_stride: 0,
        row_stride: outputs,
    };
    attn_kernels::project::<T>(&project, level, &mut out)?;
    Ok(Tensor::from_vec(data, (rows, outputs), x.device())?)
}

fn project_heads_as<T: WithDType + Element>(
    x: &Tensor,
    weight: &Tensor,
    orientation: Orientation,
    tail: Option<&Tensor>,
) -> Result<Tensor> {
    let (b, h, inputs) = x.dims3()?;
    let (_, rows, columns) = weight.dims3()?;
    let outputs = match orientation {
        Orientation::Outputs => rows,
        Orientation::Inputs => columns,
    };
    let (x, weight) = (side_by_side(x)?, side_by_side(weight)?);
    let tail = tail.map(side_by_side).transpose()?;
    let width = outputs + tail.as_ref().map_or(Ok(0), |tail| tail.dim(2))?;
    let mut data = vec![T::default(); b * h * width];
    let (x_of, weight_of) = (guard(&x), guard(&weight));
    let project = Project {
        x: Grouped {
            data: x_of.elements()?,
            group_stride: x.stride()[1],
            row_stride: x.stride()[0],
        },
        weight: Grouped {
            data: weight_of.elements()?,
            group_stride: weight.stride()[0],
            row_stride: weight.stride()[1],
        },
        orientation,
        bias: None,
        groups: h,
        rows: b,
        inputs,
        outputs,
    };
    let mut out = Output {
        data: &mut data,
        group_stride: width,
        row_stride: h * width,
    };
    attn_kernels::project::<T>(&project, level()?, &mut out)?;
    if let Some(tail) = &tail {
        let tail_of = guard(tail);
        let from = tail_of.elements::<T>()?;
        for (at, row) in data.chunks_exact_mut(width).enumerate() {
            let first = at / h * tail.stride()[0] + at % h * tail.stride()[1];
            row[outputs..].copy_from_slice(&from[first..][..width - outputs]);
        }
    }
    Ok(Tensor::from_vec(data, (b, h, width), x.device())?)
}

fn few_rows_product_as<T: WithDType + Element>(
    lhs: &Tensor,
    rhs: &Tensor,
    [lhs_at, rhs_at]: [usize; 2],
    orientation: Orientation,
) -> Result<Tensor> {
    let mut shape = lhs.dims().to_vec();
    let (axis, outputs) = (lhs.rank() - 2, rhs.dim(D::Minus1)?);
    let (rows, inputs) = (shape[axis], shape[axis + 1]);
    let groups: usize = shape[..axis].iter().product();
    shape[axis + 1] = outputs;
    let mut data = vec![T::default(); groups * rows * outputs];
    let (lhs_of, rhs_of) = (guard(lhs), guard(rhs));
    let project = Project {
        x: Grouped {
            data: lhs_of.elements()?,
            group_stride: lhs_at,
            row_stride: lhs.stride()[axis],
        },
        weight: Grouped {
            data: rhs_of.elements()?,
            group_stride: rhs_at,
            row_stride: match orientation {
                Orientation::Outputs => rhs.stride()[axis + 1],
                Orientation::Inputs => rhs.stride()[axis],
            },
        },
        orientation,
        bias: None,
        groups,
        rows,
        inputs,
        outputs,
    };
    let mut out = Output {
        data: &mut data,
        group_stride: rows * outputs,
        row_stride: outputs,
    };
    attn_kernels::project::<T>(&project, level()?, &mut out)?;
    Ok(Tensor::from_vec(data, shape, lhs.device())?)
}
