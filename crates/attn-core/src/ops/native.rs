//! The two operations by native kernels: on the CPU, in f32, bf16 and f16, where no gradient is asked for.

mod latents;
mod project;

use std::ops::Deref;

use attn_kernels::{Attend, Decode, Element, Entries, Factors, Level, Rows, Tail};
use candle_core::{DType, Layout, Storage, Tensor, WithDType};
use half::{bf16, f16};

pub(crate) use self::latents::{LatentsInput, append, latents};
pub(crate) use self::project::{few_rows_product, project, project_heads};
use crate::error::{Error, Result};
use crate::ops::attend::Parts;
use crate::ops::{self, AttendInput, DecodeInput};
use crate::route::has_kernels;

/// The instructions that the kernels use: those of the processor, or what `ATTN_CPU_LEVEL` lowers them to.
///
/// # Errors
/// [`Error::Unsupported`] where it names no level.
///
/// ```
/// // One of portable, avx2, avx512 and amx.
/// println!("{:?}", attn_core::ops::level()?);
/// # Ok::<(), attn_core::Error>(())
/// ```
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

use by_dtype;

/// `None` where there is no kernel for these operands.
pub(super) fn decode(input: &DecodeInput) -> Result<Option<Tensor>> {
    by_dtype!(&input.operands(), decode_as(input))
}

/// `None` where there is no kernel for these operands.
pub(super) fn attend(input: &AttendInput) -> Result<Option<Tensor>> {
    let mut operands = vec![input.q];
    for entries in [&input.closed, &input.own].into_iter().flatten() {
        operands.extend(entries.operands());
    }
    by_dtype!(&operands, attend_as(input))
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
    let value_dim = input.entry.values.width();
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
    by_dtype!(&input.operands(), decode_part_as(input))
}

fn decode_part_as<T: WithDType + Element>(input: &DecodeInput) -> Result<Part> {
    let (b, h, _) = input.q.dims3()?;
    let width = input.entry.values.width();
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
        rows,
        entry,
        slots,
        scale,
    } = *input;
    let (_, h, key_dim) = q.dims3()?;
    let level = level()?;
    let q = q.contiguous()?;
    let (q, keys) = (guard(&q), guard(&rows.keys));
    let (values, tail) = (rows.values.as_ref().map(guard), rows.tail.as_ref().map(guard));
    let tail = tail.as_ref().map(|tail| -> Result<Tail<'_, T>> {
        Ok(Tail {
            rows: tail.rows()?,
            dim: entry.tail,
        })
    });
    let decode = Decode {
        q: q.elements()?,
        keys: keys.rows()?,
        values: values.as_ref().map(Guard::rows).transpose()?,
        tail: tail.transpose()?,
        factors: entry.factors.map(|factors| Factors {
            heads: factors.heads,
            keys: factors.keys,
            values: factors.values,
        }),
        n_heads: h,
        n_kv_heads: entry.heads,
        key_dim,
        value_dim: entry.values.width(),
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
        window: input.window.unwrap_or(usize::MAX),
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
