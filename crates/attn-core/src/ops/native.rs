//! The two operations by native kernels: on the CPU, in f32, bf16 and f16, where no gradient is asked for.

use attn_kernels::{
    Attend, Decode, Element, FEW_ROWS, Grouped, Level, Orientation, Output, Own, Project, Rows,
};
use candle_core::{CpuStorage, DType, Layout, Storage, Tensor, WithDType};
use half::{bf16, f16};

use crate::error::{Error, Result};
use crate::ops::{AttendInput, DecodeInput};

/// The instructions that the kernels use: those of the processor, or what `ATTN_CPU_LEVEL` lowers them to.
///
/// # Errors
/// [`Error::Unsupported`] where it names no level.
pub fn level() -> Result<Level> {
    Level::current().map_err(|error| Error::Unsupported {
        what: format!("{} `{}`", attn_kernels::LEVEL_VARIABLE, error.0),
        remedy: "name portable, avx2, avx512 or amx, or nothing for the level of the processor".to_string(),
    })
}

/// Calls a function for the elements that the operands are of; `None` where there is no kernel for them.
macro_rules! by_dtype {
    ($operands:expr, $run:ident($($argument:expr),+)) => {
        match kernel_dtype($operands) {
            Some(DType::F32) => $run::<f32>($($argument),+).map(Some),
            Some(DType::BF16) => $run::<bf16>($($argument),+).map(Some),
            Some(DType::F16) => $run::<f16>($($argument),+).map(Some),
            _ => Ok(None),
        }
    };
}

/// `None` where there is no kernel for these operands.
pub(super) fn decode(input: &DecodeInput) -> Result<Option<Tensor>> {
    let mut operands = vec![input.q, input.keys];
    operands.extend(input.values);
    by_dtype!(&operands, decode_as(input))
}

/// `None` where there is no kernel for these operands.
pub(super) fn attend(input: &AttendInput) -> Result<Option<Tensor>> {
    let mut operands = vec![input.q, input.k, input.v];
    operands.extend(input.own.iter().flat_map(|own| [own.k, own.v]));
    by_dtype!(&operands, attend_as(input))
}

/// `x W^T + b` of rows `[n, in]` and a weight `[out, in]`: `[n, out]`. `None` where there is no kernel for these
/// operands, or candle's product of many rows is as good.
pub(crate) fn project(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Option<Tensor>> {
    let many_rows = x.dim(0)? > FEW_ROWS;
    if many_rows && !(x.dtype() == DType::BF16 && level()? == Level::Amx) {
        return Ok(None);
    }
    let mut operands = vec![x, weight];
    operands.extend(bias);
    by_dtype!(&operands, project_as(x, weight, bias))
}

/// `x W` for every head: x `[B, H, d]`, W `[H, d, r]` or, where it has a row for each output, `[H, r, d]`; returns
/// `[B, H, r]`. `None` where there is no kernel for these operands.
pub(crate) fn project_heads(x: &Tensor, weight: &Tensor, orientation: Orientation) -> Result<Option<Tensor>> {
    by_dtype!(&[x, weight], project_heads_as(x, weight, orientation))
}

/// The dtype of operands that a kernel takes.
fn kernel_dtype(operands: &[&Tensor]) -> Option<DType> {
    let dtype = operands.first()?.dtype();
    let taken = operands
        .iter()
        .all(|x| x.device().is_cpu() && x.dtype() == dtype && !x.track_op());
    taken.then_some(dtype)
}

/// Runs `work` on the elements of a tensor and their layout.
fn with_elements<T: WithDType, R>(x: &Tensor, work: impl FnOnce(&[T], &Layout) -> Result<R>) -> Result<R> {
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        return Err(Error::Unsupported {
            what: "a native kernel off the CPU".to_string(),
            remedy: "move its operands there".to_string(),
        });
    };
    work(elements::<T>(storage)?, layout)
}

fn elements<T: WithDType>(storage: &CpuStorage) -> Result<&[T]> {
    Ok(storage.as_slice::<T>()?)
}

/// `[B, Hkv, C, D]` as the kernel reads it: only the last axis must have no gaps.
fn rows<'a, T>(elements: &'a [T], layout: &Layout) -> Result<Rows<'a, T>> {
    let &[batch_stride, head_stride, row_stride, 1] = layout.stride() else {
        return Err(Error::Shape {
            op: "decode",
            expected: "a cache whose entries lie side by side".to_string(),
            got: layout.stride().to_vec(),
        });
    };
    Ok(Rows {
        data: &elements[layout.start_offset()..],
        batch_stride,
        head_stride,
        row_stride,
    })
}

fn decode_as<T: WithDType + Element>(input: &DecodeInput) -> Result<Tensor> {
    let DecodeInput {
        q,
        keys,
        values,
        layout,
        slots,
        scale,
    } = *input;
    let (b, h, key_dim) = q.dims3()?;
    let (level, value_dim) = (level()?, layout.width());
    let q = q.contiguous()?;
    let mut out = vec![T::default(); b * h * value_dim];
    with_elements::<T, _>(&q, |q, q_layout| {
        with_elements::<T, _>(keys, |keys_all, keys_layout| {
            let run = |values: Option<Rows<'_, T>>, out: &mut [T]| {
                let decode = Decode {
                    q: &q[q_layout.start_offset()..],
                    keys: rows(keys_all, keys_layout)?,
                    values,
                    n_heads: h,
                    n_kv_heads: keys.dim(1)?,
                    key_dim,
                    value_dim,
                    slots,
                    scale: scale as f32,
                };
                attn_kernels::decode(&decode, level, out).map_err(Error::from)
            };
            match values {
                None => run(None, &mut out),
                Some(values) => {
                    with_elements::<T, _>(values, |all, layout| run(Some(rows(all, layout)?), &mut out))
                }
            }
        })
    })?;
    Ok(Tensor::from_vec(out, (b, h, value_dim), q.device())?)
}

fn attend_as<T: WithDType + Element>(input: &AttendInput) -> Result<Tensor> {
    let AttendInput {
        q,
        k,
        v,
        own,
        start,
        stride,
        scale,
    } = *input;
    let (batch, n_heads, tokens, key_dim) = q.dims4()?;
    let (_, n_kv_heads, n_keys, _) = k.dims4()?;
    let (level, value_dim) = (level()?, v.dim(3)?);
    let mut out = vec![T::default(); batch * n_heads * tokens * value_dim];
    let mut operands = vec![q.contiguous()?, k.contiguous()?, v.contiguous()?];
    if let Some(own) = own {
        operands.extend([own.k.contiguous()?, own.v.contiguous()?]);
    }
    let guards: Vec<_> = operands.iter().map(Tensor::storage_and_layout).collect();
    let mut slices = Vec::with_capacity(guards.len());
    for (storage, layout) in &guards {
        let Storage::Cpu(storage) = &**storage else {
            continue;
        };
        slices.push(&elements::<T>(storage)?[layout.start_offset()..]);
    }
    let (q, k, v, own) = match slices.as_slice() {
        [q, k, v] => (*q, *k, *v, None),
        [q, k, v, own_k, own_v] => (*q, *k, *v, Some(Own { k: own_k, v: own_v })),
        _ => {
            return Err(Error::Unsupported {
                what: "a native kernel off the CPU".to_string(),
                remedy: "move its operands there".to_string(),
            });
        }
    };
    let attend = Attend {
        q,
        k,
        v,
        own,
        batch,
        n_heads,
        n_kv_heads,
        tokens,
        n_keys,
        key_dim,
        value_dim,
        start,
        stride,
        scale: scale as f32,
    };
    attn_kernels::attend(&attend, level, &mut out)?;
    Ok(Tensor::from_vec(
        out,
        (batch, n_heads, tokens, value_dim),
        input.q.device(),
    )?)
}

fn project_as<T: WithDType + Element>(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let ((rows, inputs), outputs) = (x.dims2()?, weight.dim(0)?);
    let (level, weight) = (level()?, weight.contiguous()?);
    let mut data = vec![T::default(); rows * outputs];
    with_elements::<T, _>(x, |x, x_layout| {
        with_elements::<T, _>(&weight, |weight, weight_layout| {
            let run = |bias: Option<&[T]>, data: &mut [T]| {
                let project = Project {
                    x: Grouped {
                        data: &x[x_layout.start_offset()..],
                        group_stride: 0,
                        row_stride: inputs,
                    },
                    weight: Grouped {
                        data: &weight[weight_layout.start_offset()..],
                        group_stride: 0,
                        row_stride: inputs,
                    },
                    orientation: Orientation::Outputs,
                    bias,
                    groups: 1,
                    rows,
                    inputs,
                    outputs,
                };
                let mut out = Output {
                    data,
                    group_stride: 0,
                    row_stride: outputs,
                };
                attn_kernels::project(&project, level, &mut out).map_err(Error::from)
            };
            match bias {
                None => run(None, &mut data),
                Some(bias) => with_elements::<T, _>(&bias.contiguous()?, |bias, layout| {
                    run(Some(&bias[layout.start_offset()..]), &mut data)
                }),
            }
        })
    })?;
    Ok(Tensor::from_vec(data, (rows, outputs), x.device())?)
}

fn project_heads_as<T: WithDType + Element>(
    x: &Tensor,
    weight: &Tensor,
    orientation: Orientation,
) -> Result<Tensor> {
    let (b, h, inputs) = x.dims3()?;
    let (_, rows, columns) = weight.dims3()?;
    let outputs = match orientation {
        Orientation::Outputs => rows,
        Orientation::Inputs => columns,
    };
    let level = level()?;
    let gapless = |x: &Tensor| -> Result<Tensor> {
        Ok(if x.stride().last() == Some(&1) {
            x.clone()
        } else {
            x.contiguous()?
        })
    };
    let (x, weight) = (gapless(x)?, gapless(weight)?);
    let mut data = vec![T::default(); b * h * outputs];
    with_elements::<T, _>(&x, |elements, layout| {
        let x = Grouped {
            data: &elements[layout.start_offset()..],
            group_stride: layout.stride()[1],
            row_stride: layout.stride()[0],
        };
        with_elements::<T, _>(&weight, |elements, layout| {
            let project = Project {
                x,
                weight: Grouped {
                    data: &elements[layout.start_offset()..],
                    group_stride: layout.stride()[0],
                    row_stride: layout.stride()[1],
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
                group_stride: outputs,
                row_stride: h * outputs,
            };
            attn_kernels::project(&project, level, &mut out).map_err(Error::from)
        })
    })?;
    Ok(Tensor::from_vec(data, (b, h, outputs), x.device())?)
}
