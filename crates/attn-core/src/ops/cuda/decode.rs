//! Decode by a kernel.

use std::sync::Arc;

use attn_kernels::cuda::{
    DecodeOperands, DecodePlan, Dtype, GroupedDecodeShape, LatentDecodeShape, Machine, Unsupported,
};
use candle_core::cuda::CudaDType;
use candle_core::cuda::cudarc::driver::DeviceRepr;
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, Device, Storage, Tensor};

use super::gpu::{
    Found, Gpu, Ready, Scratch, State, as_positions, at_beginning, cache_of, read, written, written_if_any,
};
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
    let mut operands = vec![input.q, input.keys];
    operands.extend(input.values);
    let shape = DecodeShape::of(input, kernel_dtype(&operands)?)?;
    let gpu = Gpu::of(device)?;
    let mut state = gpu.state();
    let State { decodes, scratch, .. } = &mut *state;
    let (batch, longest) = (input.slots.len(), input.slots.iter().max().copied().unwrap_or(0));
    let hint = longest.next_multiple_of(HINT_STEP);
    let known = decodes
        .get(&(shape, batch))
        .filter(|(for_slots, _)| *for_slots == hint);
    let kernel = match known {
        Some((_, kernel)) => kernel.clone(),
        None => {
            let kernel = gpu.decode_kernel(scratch, shape, batch, hint);
            decodes.insert((shape, batch), (hint, kernel.clone()));
            kernel
        }
    }?;
    let out = by_dtype!(kernel.dtype(), gpu.decode(scratch, &kernel, input));
    out.inspect_err(|refusal| {
        if refusal.is_final {
            gpu.trials
                .refuse(kernel.specialisation().clone(), &refusal.reason);
            decodes.insert((shape, batch), (hint, Err(refusal.reason.clone())));
            *scratch = Scratch::default(); // its tickets may no longer be zero
        }
    })
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
        let (n_kv_heads, value_dim) = (input.keys.dim(1)?, input.layout.width());
        Ok(match (input.values, n_kv_heads) {
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
        for hint in TRIAL_HINTS {
            let ready = self.load(shape.plan(self.kernels.machine(), batch, hint))?;
            let trial = DecodeTrial::new(ready.plan.sizes, candle_dtype(ready.dtype()))?;
            let expected = composite::decode(&trial.input())?;
            let on_gpu = trial.on(&Device::Cuda(self.device.clone()))?;
            for _ in 0..2 {
                let got = by_dtype!(ready.dtype(), self.decode(scratch, &ready, &on_gpu.input()))?;
                agree(&got, &expected, bound(candle_dtype(ready.dtype())))?;
            }
        }
        Ok(())
    }

    /// Launches a decode kernel.
    fn decode<T: CudaDType + DeviceRepr>(
        &self,
        scratch: &mut Scratch,
        ready: &Ready<DecodePlan>,
        input: &DecodeInput,
    ) -> Asked<Tensor> {
        let (sizes, stream) = (ready.plan.sizes, &*self.stream);
        let positions = as_positions(input.slots.iter().map(|slots| slots.saturating_sub(1)))?;
        scratch.reserve(self, ready.plan.workspace, positions)?;
        let Scratch {
            partial,
            partial_sums,
            tickets,
            positions: Some((_, positions)),
        } = scratch
        else {
            return Err("its positions were not sent".into());
        };
        let shape = (sizes.batch, sizes.n_heads, sizes.value_dim);
        // SAFETY: the kernel writes all of it.
        let mut out = unsafe {
            self.device
                .alloc::<T>(sizes.batch * sizes.n_heads * sizes.value_dim)
        }?;
        {
            let q = at_beginning(input.q)?;
            let (q_of, q_layout) = q.storage_and_layout();
            let (keys_of, keys_layout) = input.keys.storage_and_layout();
            // Where values are columns of the keys of several heads, they are read as a cache of their own.
            let (values_of, values_layout) = input.values.unwrap_or(input.keys).storage_and_layout();
            let (q, _q) = read::<T>(&q_of, q_layout, stream)?;
            let (keys, _keys) = read::<T>(&keys_of, keys_layout, stream)?;
            let (values, _values) = read::<T>(&values_of, values_layout, stream)?;
            let (partial, _partial) = written_if_any(partial, stream);
            let (partial_sums, _partial_sums) = written_if_any(partial_sums, stream);
            let (tickets, _tickets) = written_if_any(tickets, stream);
            let (positions, _positions) = written(positions, stream);
            let (out, _out) = written(&mut out, stream);
            let params = ready.plan.params(&DecodeOperands {
                q,
                keys: cache_of(keys, keys_layout)?,
                values: sizes.apart.then(|| cache_of(values, values_layout)).transpose()?,
                out,
                positions,
                partial,
                partial_sums,
                tickets,
                capacity: input.keys.dim(2)?,
                scale: input.scale as f32,
            })?;
            // SAFETY: 1. The parameters are of the plan that the kernel was loaded for. 2. `params` held sizes and
            // alignment of memory of this device against it; operands live longer than the launch is made, and are
            // freed in the stream's order. 3. Scratch is borrowed, so that nobody else launches with it, the guards
            // order operands with other streams, and tickets are zeros: from their allocation, and after each launch.
            unsafe { ready.kernel.launch(stream, &params) }?;
        }
        let out = Storage::Cuda(CudaStorage::wrap_cuda_slice(out, self.device.clone()));
        Ok(Tensor::from_storage(out, shape, BackpropOp::none(), false))
    }
}
