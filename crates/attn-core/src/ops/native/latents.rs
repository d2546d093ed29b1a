//! Cache entries of MLA and MTLA in one pass: normalised, merged, turned, and written where they belong.

use std::cell::RefCell;
use std::marker::PhantomData;

use attn_kernels::{Element, Gate, Grouped, LatentsOut, Place, Turn};
use candle_core::{CpuStorage, DType, InplaceOp1, Layout, Tensor, WithDType};
use half::{bf16, f16};

use super::{Guard, by_dtype, guard, kernel_dtype, level, side_by_side};
use crate::error::Result;
use crate::latent::GateTable;
use crate::norm::Norm;
use crate::rope::{Pairing, Rope};

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
