//! The two operations by native kernels: on the CPU, in f32, bf16 and f16, where no gradient is asked for.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Deref;

use attn_kernels::{
    Attend, Decode, Element, Entries, FEW_ROWS, Gate, Grouped, LatentsOut, Level, Orientation, Output, Place,
    Project, Rows, Turn,
};
use candle_core::{CpuStorage, D, DType, InplaceOp1, Layout, Storage, Tensor, WithDType};
use half::{bf16, f16};

use crate::error::{Error, Result};
use crate::latent::GateTable;
use crate::norm::Norm;
use crate::ops::attend::Parts;
use crate::ops::{self, AttendInput, DecodeInput};
use crate::rope::{Pairing, Rope};
use crate::route::has_kernels;

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
    let mut operands = vec![input.q];
    for entries in [&input.closed, &input.own].into_iter().flatten() {
        operands.extend(entries.operands());
    }
    by_dtype!(&operands, attend_as(input))
}

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

/// What MLA's and MTLA's cache entries are made of.
pub(crate) struct LatentsInput<'a> {
    /// `[B, T, r + Dr]`, as the down-projection wrote it.
    pub(crate) x: &'a Tensor,
    pub(crate) norm: &'a Norm,
    pub(crate) rope: &'a Rope,
    pub(crate) gate: Option<&'a GateTable>,
    /// Sums of open blocks `[B, r]`, f32.
    pub(crate) open: Option<&'a Tensor>,
    pub(crate) starts: &'a [usize],
}

impl LatentsInput<'_> {
    fn operands(&self) -> Vec<&Tensor> {
        let mut operands = vec![self.x, self.norm.weight()];
        operands.extend(self.norm.bias());
        operands
    }

    /// Whether what is f32 for every dtype of the layer is so, on the CPU and without gradients.
    fn has_plain_gate(&self) -> bool {
        let tables = self.gate.iter().flat_map(|gate| [&gate.u, &gate.b]);
        let mut wide: Vec<&Tensor> = tables.collect();
        wide.extend(self.open);
        wide.is_empty() || kernel_dtype(&wide) == Some(DType::F32)
    }
}

/// Latents `[B, T, r]`, merged where there is a gate, rope keys `[B, T, Dr]`, and the f32 sums of the last tokens'
/// blocks `[B, r]`.
pub(crate) type Latents = (Tensor, Tensor, Option<Tensor>);

/// `None` where there is no kernel for these operands.
pub(crate) fn latents(input: &LatentsInput) -> Result<Option<Latents>> {
    if !input.has_plain_gate() {
        return Ok(None);
    }
    by_dtype!(&input.operands(), latents_as(input))
}

/// Writes the entry of one token of every sequence to slot `slots[b]` of `keys` `[B, 1, C, r + Dr]`. Returns the f32
/// sums of its block; `None` where there is no kernel for these operands.
pub(crate) fn append(input: &LatentsInput, keys: &Tensor, slots: &[usize]) -> Result<Option<Option<Tensor>>> {
    if !input.has_plain_gate() {
        return Ok(None);
    }
    let mut operands = input.operands();
    operands.push(keys);
    by_dtype!(&operands, append_as(input, keys, slots))
}

/// Whether there are kernels for these operands, and for what comes of them.
pub(crate) fn takes(operands: &[&Tensor]) -> bool {
    matches!(
        kernel_dtype(operands),
        Some(DType::F32 | DType::BF16 | DType::F16)
    )
}

/// The dtype of operands that a kernel takes.
fn kernel_dtype(operands: &[&Tensor]) -> Option<DType> {
    let dtype = operands.first()?.dtype();
    let taken = operands
        .iter()
        .all(|x| has_kernels(x) && x.dtype() == dtype && !x.track_op());
    taken.then_some(dtype)
}

fn decode_as<T: WithDType + Element>(input: &DecodeInput) -> Result<Tensor> {
    let (b, h, _) = input.q.dims3()?;
    let value_dim = input.layout.width();
    let mut out = vec![T::default(); b * h * value_dim];
    run_decode::<T>(input, |decode, level| {
        attn_kernels::decode(decode, level, &mut out)
    })?;
    Ok(Tensor::from_vec(out, (b, h, value_dim), input.q.device())?)
}

/// A part of a softmax over a sequence's entries, to be joined with others.
pub(super) struct Part {
    /// `[B, H, Dv]`.
    pub(super) values: Vec<f32>,
    /// Logarithms of the sums of exponentials, `[B, H]`.
    pub(super) logs: Vec<f32>,
    /// Dv.
    pub(super) width: usize,
}

/// A part of [`decode`]; `None` where there is no kernel for these operands.
pub(super) fn decode_part(input: &DecodeInput) -> Result<Option<Part>> {
    let mut operands = vec![input.q, input.keys];
    operands.extend(input.values);
    by_dtype!(&operands, decode_part_as(input))
}

fn decode_part_as<T: WithDType + Element>(input: &DecodeInput) -> Result<Part> {
    let (b, h, _) = input.q.dims3()?;
    let width = input.layout.width();
    let (mut values, mut logs) = (vec![0_f32; b * h * width], vec![0_f32; b * h]);
    run_decode::<T>(input, |decode, level| {
        attn_kernels::decode_part(decode, level, &mut values, &mut logs)
    })?;
    Ok(Part { values, logs, width })
}

/// Gives the operands to a kernel.
fn run_decode<T: WithDType + Element>(
    input: &DecodeInput,
    kernel: impl FnOnce(&Decode<'_, T>, Level) -> std::result::Result<(), attn_kernels::Mismatch>,
) -> Result<()> {
    let DecodeInput {
        q,
        keys,
        values,
        layout,
        slots,
        scale,
    } = *input;
    let (_, h, key_dim) = q.dims3()?;
    let (level, value_dim) = (level()?, layout.width());
    let q = q.contiguous()?;
    let (q, keys_of) = (guard(&q), guard(keys));
    let values = values.map(guard);
    let decode = Decode {
        q: q.elements()?,
        keys: keys_of.rows()?,
        values: values.as_ref().map(Guard::rows).transpose()?,
        n_heads: h,
        n_kv_heads: keys.dim(1)?,
        key_dim,
        value_dim,
        slots,
        scale: scale as f32,
    };
    Ok(kernel(&decode, level)?)
}

fn attend_as<T: WithDType + Element>(input: &AttendInput) -> Result<Tensor> {
    let (batch, tokens, n_heads, key_dim) = input.q.dims4()?;
    let view = EntriesView::new;
    let (q, closed, own) = (
        side_by_side(input.q)?,
        input.closed.as_ref().map(view).transpose()?,
        input.own.as_ref().map(view).transpose()?,
    );
    let Some(entries) = closed.as_ref().or(own.as_ref()) else {
        return Err(Error::Shape {
            op: "attend",
            expected: "entries to attend to".to_string(),
            got: input.q.dims().to_vec(),
        });
    };
    let (level, value_dim) = (level()?, entries.v.dim(3)?);
    let shared_dim = entries.shared.as_ref().map_or(Ok(0), |shared| shared.dim(2))?;
    let n_kv_heads = entries.k.dim(2)?;
    let mut out = vec![T::default(); batch * tokens * n_heads * value_dim];
    let q = guard(&q);
    let closed = closed.as_ref().map(EntriesView::guard);
    let own = own.as_ref().map(EntriesView::guard);
    let attend = Attend {
        q: q.token_rows()?,
        closed: closed.as_ref().map(EntriesGuard::entries).transpose()?,
        own: own.as_ref().map(EntriesGuard::entries).transpose()?,
        shared_dim,
        batch,
        n_heads,
        n_kv_heads,
        tokens,
        n_keys: input.n_closed()?,
        key_dim,
        value_dim,
        start: input.start,
        stride: input.stride,
        scale: input.scale as f32,
    };
    attn_kernels::attend::<T>(&attend, level, &mut out, None)?;
    let shape = (batch, tokens, n_heads, value_dim);
    Ok(Tensor::from_vec(out, shape, input.q.device())?)
}

/// Entries whose rows have their elements side by side.
struct EntriesView {
    k: Tensor,
    shared: Option<Tensor>,
    v: Tensor,
}

impl EntriesView {
    fn new(entries: &ops::Entries) -> Result<Self> {
        let Parts { k, shared, v } = entries.parts()?;
        Ok(Self {
            k: side_by_side(&k)?,
            shared: shared.as_ref().map(side_by_side).transpose()?,
            v: side_by_side(&v)?,
        })
    }

    fn guard(&self) -> EntriesGuard<'_, impl Deref<Target = Storage> + '_> {
        EntriesGuard {
            k: guard(&self.k),
            shared: self.shared.as_ref().map(guard),
            v: guard(&self.v),
        }
    }
}

/// A tensor on the CPU, held while its elements are read. `S` is candle's guard of a storage, which has no public name.
pub(super) struct Guard<'a, S> {
    storage: S,
    layout: &'a Layout,
}

pub(super) fn guard(x: &Tensor) -> Guard<'_, impl Deref<Target = Storage> + '_> {
    let (storage, layout) = x.storage_and_layout();
    Guard { storage, layout }
}

/// Entries, held while they are read.
struct EntriesGuard<'a, S> {
    k: Guard<'a, S>,
    shared: Option<Guard<'a, S>>,
    v: Guard<'a, S>,
}

impl<S: Deref<Target = Storage>> EntriesGuard<'_, S> {
    fn entries<T: WithDType>(&self) -> Result<Entries<'_, T>> {
        Ok(Entries {
            k: self.k.token_rows()?,
            shared: self.shared.as_ref().map(Guard::token_rows).transpose()?,
            v: self.v.token_rows()?,
        })
    }
}

impl<S: Deref<Target = Storage>> Guard<'_, S> {
    /// The elements from the first on.
    pub(super) fn elements<T: WithDType>(&self) -> Result<&[T]> {
        let Storage::Cpu(storage) = &*self.storage else {
            return Err(Error::Unsupported {
                what: "a native kernel off the CPU".to_string(),
                remedy: "move its operands there".to_string(),
            });
        };
        // An empty view may begin beyond the end.
        Ok(storage
            .as_slice::<T>()?
            .get(self.layout.start_offset()..)
            .unwrap_or_default())
    }

    /// `[B, heads, N, D]`, of which only the last axis must have no gaps.
    fn rows<T: WithDType>(&self) -> Result<Rows<'_, T>> {
        match *self.layout.stride() {
            [batch, head, row, 1] => self.rows_at([batch, head, row]),
            _ => self.refuse(),
        }
    }

    /// `[B, N, heads, D]`, or `[B, N, D]` that all heads share.
    pub(super) fn token_rows<T: WithDType>(&self) -> Result<Rows<'_, T>> {
        match *self.layout.stride() {
            [batch, row, head, 1] => self.rows_at([batch, head, row]),
            [batch, row, 1] => self.rows_at([batch, 0, row]),
            _ => self.refuse(),
        }
    }

    fn rows_at<T: WithDType>(&self, strides: [usize; 3]) -> Result<Rows<'_, T>> {
        let [batch_stride, head_stride, row_stride] = strides;
        Ok(Rows {
            data: self.elements()?,
            batch_stride,
            head_stride,
            row_stride,
        })
    }

    fn refuse<T>(&self) -> Result<T> {
        Err(Error::Shape {
            op: "a native kernel",
            expected: "rows whose elements lie side by side".to_string(),
            got: self.layout.stride().to_vec(),
        })
    }
}

/// The same tensor, or a copy where the elements of a row lie apart.
pub(super) fn side_by_side(x: &Tensor) -> Result<Tensor> {
    Ok(if x.stride().last() == Some(&1) {
        x.clone()
    } else {
        x.contiguous()?
    })
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

fn latents_as<T: WithDType + Element>(input: &LatentsInput) -> Result<Latents> {
    let (b, t, width) = input.x.dims3()?;
    let rank = input.norm.weight().dim(0)?;
    let rope_dim = width - rank;
    // Latents of all sequences, then their keys: two tensors of one piece of memory.
    let mut data = vec![T::default(); b * t * width];
    let first =
        |before: usize, each: usize| -> Vec<usize> { (0..b).map(|i| before + i * t * each).collect() };
    let (c, k_r) = (first(0, rank), first(b * t * rank, rope_dim));
    let mut last = vec![0f32; if input.gate.is_some() { b * rank } else { 0 }];
    run_latents::<T>(
        input,
        &mut LatentsOut {
            data: &mut data,
            c: Place {
                first: &c,
                row_stride: rank,
            },
            k_r: Place {
                first: &k_r,
                row_stride: rope_dim,
            },
            last: input.gate.is_some().then_some(last.as_mut_slice()),
        },
    )?;
    let device = input.x.device();
    let all = Tensor::from_vec(data, b * t * width, device)?;
    let c = all.narrow(0, 0, b * t * rank)?.reshape((b, t, rank))?;
    let k_r = all
        .narrow(0, b * t * rank, b * t * rope_dim)?
        .reshape((b, t, rope_dim))?;
    let last = match input.gate {
        Some(_) => Some(Tensor::from_vec(last, (b, rank), device)?),
        None => None,
    };
    Ok((c, k_r, last))
}

fn append_as<T: WithDType + Element + InPlace>(
    input: &LatentsInput,
    keys: &Tensor,
    slots: &[usize],
) -> Result<Option<Tensor>> {
    let (b, rank) = (slots.len(), input.norm.weight().dim(0)?);
    let last = vec![0f32; if input.gate.is_some() { b * rank } else { 0 }];
    let entries = AppendEntries::<T> {
        input,
        slots,
        rank,
        last: RefCell::new(last),
        of: PhantomData,
    };
    keys.inplace_op1(&entries)?;
    Ok(match input.gate {
        Some(_) => Some(Tensor::from_vec(
            entries.last.into_inner(),
            (b, rank),
            keys.device(),
        )?),
        None => None,
    })
}

/// Elements of a storage to write to, which candle's trait does not give.
trait InPlace: Sized {
    fn elements_of(storage: &mut CpuStorage) -> candle_core::Result<&mut [Self]>;
}

macro_rules! in_place {
    ($($t:ty, $variant:ident;)+) => {$(
        impl InPlace for $t {
            fn elements_of(storage: &mut CpuStorage) -> candle_core::Result<&mut [Self]> {
                match storage {
                    CpuStorage::$variant(elements) => Ok(elements),
                    _ => candle_core::bail!("a cache of another dtype than its entries"),
                }
            }
        }
    )+};
}

in_place! {
    f32, F32;
    bf16, BF16;
    f16, F16;
}

/// Writes entries into a cache in place.
struct AppendEntries<'a, T> {
    input: &'a LatentsInput<'a>,
    slots: &'a [usize],
    rank: usize,
    last: RefCell<Vec<f32>>,
    of: PhantomData<T>,
}

impl<T: WithDType + Element + InPlace> InplaceOp1 for AppendEntries<'_, T> {
    fn name(&self) -> &'static str {
        "append"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let &[batch_stride, _, row_stride, 1] = layout.stride() else {
            candle_core::bail!("append takes a cache whose entries lie side by side")
        };
        let data = T::elements_of(storage)?;
        let place = |(b, slot): (usize, &usize)| layout.start_offset() + b * batch_stride + slot * row_stride;
        let c: Vec<usize> = self.slots.iter().enumerate().map(place).collect();
        let k_r: Vec<usize> = c.iter().map(|first| first + self.rank).collect();
        let mut last = self.last.borrow_mut();
        let mut out = LatentsOut {
            data,
            c: Place {
                first: &c,
                row_stride,
            },
            k_r: Place {
                first: &k_r,
                row_stride,
            },
            last: self.input.gate.is_some().then_some(last.as_mut_slice()),
        };
        run_latents::<T>(self.input, &mut out).map_err(candle_core::Error::wrap)
    }
}

fn run_latents<T: WithDType + Element>(input: &LatentsInput, out: &mut LatentsOut<'_, T>) -> Result<()> {
    let (_, tokens, width) = input.x.dims3()?;
    let x = side_by_side(input.x)?;
    let rank = input.norm.weight().dim(0)?;
    let end = input.starts.iter().max().map_or(0, |start| start + tokens);
    let table = input.rope.table(end);
    let (weight, bias) = (guard(input.norm.weight()), input.norm.bias().map(guard));
    let gate = input
        .gate
        .map(|gate| (guard(&gate.u), guard(&gate.b), gate.stride));
    let (x_of, open) = (guard(&x), input.open.map(guard));
    let gate = match &gate {
        None => None,
        Some((u, b, stride)) => Some(Gate {
            u: u.elements()?,
            b: b.elements()?,
            stride: *stride,
            open: open.as_ref().map(Guard::elements).transpose()?,
        }),
    };
    let latents = attn_kernels::Latents {
        x: Grouped {
            data: x_of.elements()?,
            group_stride: x.stride()[0],
            row_stride: x.stride()[1],
        },
        norm: attn_kernels::Norm {
            weight: weight.elements()?,
            bias: bias.as_ref().map(Guard::elements).transpose()?,
            eps: input.norm.eps() as f32,
        },
        turn: Turn {
            cos: table.cos(),
            sin: table.sin(),
            halves: input.rope.pairing() == Pairing::Halves,
        },
        gate,
        starts: input.starts,
        tokens,
        rank,
        rope_dim: width - rank,
    };
    Ok(attn_kernels::latents(&latents, level()?, out)?)
}
