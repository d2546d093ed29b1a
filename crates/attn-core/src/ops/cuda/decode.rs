//! Decode by a kernel.

use std::sync::Arc;

use attn_kernels::cuda::{
    DecodeOperands, DecodePlan, Dtype, GroupedDecodeShape, LatentDecodeShape, Machine, Memory, Unsupported,
};
use candle_core::cuda::CudaDType;
use candle_core::cuda::cudarc::driver::DeviceRepr;
use candle_core::{CudaDevice, Device, Tensor};

use super::gpu::{Found, Gpu, Ready, Scratch, State, as_positions, at_beginning, cache_of, written_if_any};
use super::trial::{DecodeTrial, TRIAL_HINTS, TRIAL_SLOTS};
use super::{Asked, by_dtype, candle_dtype, kernel_dtype, noted};
use crate::error::Result;
use crate::ops::trials::{agree, bound};
use crate::ops::{DecodeInput, composite};

/// Lengths for which one plan serves: the number of splits changes slowly.
const HINT_STEP: usize = 256;

/// `None` off GPUs, and where it is to be composed, which is noted.
pub(in crate::ops) fn decode(input: &DecodeInput) -> Result<Option<Tensor>> {
    let Device::Cuda(device) = input.q.device() else {
        return Ok(None);
    };
    Ok(noted("decode", decode_by_kernel(device, input)))
}

fn decode_by_kernel(device: &CudaDevice, input: &DecodeInput) -> Asked<Tensor> {
    let shape = DecodeShape::of(input, kernel_dtype(&input.operands())?)?;
    let gpu = Gpu::of(device)?;
    let mut state = gpu.state();
    let longest = input.slots.iter().max().copied().unwrap_or(0);
    let kernel = gpu.decode_kernel_for(
        &mut state,
        shape,
        input.slots.len(),
        longest.next_multiple_of(HINT_STEP),
    )?;
    let done = by_dtype!(
        kernel.dtype(),
        gpu.decode_slots(&mut state.scratch, &kernel, input)
    );
    state.settled(done)
}

/// What a decode launch reads beside positions.
pub(super) struct Sources<'a> {
    /// `[B, H, Dk]`.
    pub(super) q: &'a Tensor,
    /// `[B, Hkv, C, Dk]`.
    pub(super) keys: &'a Tensor,
    /// `[B, Hkv, C, Dv]`, where they are not the first columns of the keys.
    pub(super) values: Option<&'a Tensor>,
    pub(super) scale: f64,
}

/// What a decode kernel is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum DecodeShape {
    /// Values are the first columns of one head's keys.
    Latent(LatentDecodeShape),
    /// All others.
    Grouped(GroupedDecodeShape),
}

impl DecodeShape {
    pub(super) fn of(input: &DecodeInput, dtype: Dtype) -> Asked<Self> {
        let (_, n_heads, key_dim) = input.q.dims3()?;
        if !input.entry.is_plain() {
            return Err("slots have a tail or factors, which kernels of GPUs do not read".into());
        }
        let (n_kv_heads, value_dim) = (input.entry.heads, input.entry.values.width());
        Ok(match (&input.rows.values, n_kv_heads) {
            (None, 1) if value_dim <= key_dim => Self::Latent(LatentDecodeShape {
                dtype,
                n_heads,
                rank: value_dim,
                rope_dim: key_dim - value_dim,
                stride: 1, // lengths are given in entries
            }),
            _ => Self::Grouped(GroupedDecodeShape {
                dtype,
                n_heads,
                n_kv_heads,
                key_dim,
                value_dim,
            }),
        })
    }

    /// Tokens of an entry.
    fn stride(&self) -> usize {
        match self {
            Self::Latent(shape) => shape.stride,
            Self::Grouped(_) => 1,
        }
    }

    pub(super) fn plan(
        &self,
        machine: Machine,
        batch: usize,
        slots: usize,
    ) -> std::result::Result<DecodePlan, Unsupported> {
        match self {
            Self::Latent(shape) => shape.plan(machine, batch, slots),
            Self::Grouped(shape) => shape.plan(machine, batch, slots),
        }
    }
}

impl Gpu {
    /// The kernel for sequences of about so many entries, or why there is none.
    pub(super) fn decode_kernel_for(
        &self,
        state: &mut State,
        shape: DecodeShape,
        batch: usize,
        slots: usize,
    ) -> Asked<Arc<Ready<DecodePlan>>> {
        let State { decodes, scratch, .. } = state;
        let known = decodes
            .get(&(shape, batch))
            .filter(|(for_slots, _)| *for_slots == slots);
        let kernel = match known {
            Some((_, kernel)) => kernel.clone(),
            None => {
                let kernel = self.decode_kernel(scratch, shape, batch, slots);
                decodes.insert((shape, batch), (slots, kernel.clone()));
                kernel
            }
        };
        Ok(kernel?)
    }

    fn decode_kernel(
        &self,
        scratch: &mut Scratch,
        shape: DecodeShape,
        batch: usize,
        slots: usize,
    ) -> Found<DecodePlan> {
        let ready = self.load(shape.plan(self.kernels.machine(), batch, slots));
        let ready = ready.map_err(|refusal| refusal.reason)?;
        self.trials.verdict(ready.specialisation().clone(), || {
            self.try_decode(scratch, shape).map_err(|refusal| {
                *scratch = Scratch::default();
                refusal.reason
            })
        })?;
        Ok(Arc::new(ready))
    }

    /// Holds a decode kernel against the composition of candle's operations on the processor: with one split and with
    /// many, and with those twice, since the first launch leaves tickets for the second.
    fn try_decode(&self, scratch: &mut Scratch, shape: DecodeShape) -> Asked<()> {
        let batch = TRIAL_SLOTS.len();
        let stride = shape.stride();
        // In a slot's first token and in later ones.
        let newest = TRIAL_SLOTS
            .iter()
            .enumerate()
            .map(|(i, slots)| (slots - 1) * stride + i % stride);
        let positions = as_positions(newest)?;
        for hint in TRIAL_HINTS {
            let ready = self.load(shape.plan(self.kernels.machine(), batch, hint))?;
            let trial = DecodeTrial::new(ready.plan.sizes, candle_dtype(ready.dtype()))?;
            let expected = composite::decode(&trial.input())?;
            let on_gpu = trial.on(&Device::Cuda(self.device.clone()))?;
            let sources = Sources::of(&on_gpu.input());
            for _ in 0..2 {
                let positions = scratch.positions(self, positions.clone())?;
                let got = by_dtype!(ready.dtype(), self.decode(scratch, &ready, &sources, positions))?;
                agree(&got, &expected, bound(candle_dtype(ready.dtype())))?;
            }
        }
        Ok(())
    }

    /// Launches a decode kernel at lengths of the host's.
    fn decode_slots<T: CudaDType + DeviceRepr>(
        &self,
        scratch: &mut Scratch,
        ready: &Ready<DecodePlan>,
        input: &DecodeInput,
    ) -> Asked<Tensor> {
        let newest = as_positions(input.slots.iter().map(|slots| slots.saturating_sub(1)))?;
        let positions = scratch.positions(self, newest)?;
        self.decode::<T>(scratch, ready, &Sources::of(input), positions)
    }

    /// Launches a decode kernel: `[B, H, Dv]`.
    pub(super) fn decode<T: CudaDType + DeviceRepr>(
        &self,
        scratch: &mut Scratch,
        ready: &Ready<DecodePlan>,
        sources: &Sources,
        positions: Memory,
    ) -> Asked<Tensor> {
        let sizes = ready.plan.sizes;
        scratch.reserve(self, ready.plan.workspace)?;
        let out = self.unwritten::<T>((sizes.batch, sizes.n_heads, sizes.value_dim))?;
        let q = at_beginning(sources.q)?;
        // Where values are columns of the keys of several heads, they are read as a cache of their own.
        let values = sources.values.unwrap_or(sources.keys);
        let cache = |x: &Tensor| cache_of(self.memory::<T>(x)?, x.layout());
        let params = ready.plan.params(&DecodeOperands {
            q: self.memory::<T>(&q)?,
            keys: cache(sources.keys)?,
            values: sizes.apart.then(|| cache(values)).transpose()?,
            out: self.memory::<T>(&out)?,
            positions,
            partial: written_if_any(&mut scratch.partial, &self.stream).0,
            partial_sums: written_if_any(&mut scratch.partial_sums, &self.stream).0,
            tickets: written_if_any(&mut scratch.tickets, &self.stream).0,
            capacity: sources.keys.dim(2)?,
            scale: sources.scale as f32,
        })?;
        // SAFETY: 1. The parameters are of the plan that the kernel was loaded for. 2. `params` held sizes and alignment
        // of memory of this device against it, which is freed in the stream's order. 3. Scratch is borrowed, so that
        // nobody else launches with it, and tickets are zeros: from their allocation, and after each launch.
        unsafe { self.launch(ready, &params) }?;
        Ok(out)
    }
}

impl<'a> Sources<'a> {
    fn of(input: &DecodeInput<'a>) -> Self {
        Self {
            q: input.q,
            keys: &input.rows.keys,
            values: input.rows.values.as_ref(),
            scale: input.scale,
        }
    }
}
