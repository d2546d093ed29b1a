//! The cache update by a kernel.

use std::cell::RefCell;
use std::sync::Arc;

use attn_kernels::cuda::{CacheUpdateOperands, CacheUpdatePlan, CacheUpdateShape, Workspace};
use candle_core::cuda::CudaDType;
use candle_core::cuda::cudarc::driver::{CudaSlice, DeviceRepr};
use candle_core::op::BackpropOp;
use candle_core::{CpuStorage, CudaDevice, CudaStorage, Device, InplaceOp1, Layout, Storage, Tensor};

use super::gpu::{
    Found, Gpu, Ready, Scratch, State, as_positions, at_beginning, part_of, read, written, written_if_any,
};
use super::trial::UpdateTrial;
use super::{Asked, Refusal, by_dtype, candle_dtype, kernel_dtype, noted};
use crate::error::Result;
use crate::latent::GateTable;
use crate::norm::Norm;
use crate::ops::native::{self, LatentsInput};
use crate::ops::trials::{agree, bound};
use crate::rope::{Pairing, Rope};

/// The kernel that adds a token of every sequence to a cache of latents.
pub(crate) struct CacheUpdate {
    gpu: Arc<Gpu>,
    kernel: Arc<Ready<CacheUpdatePlan>>,
}

impl CacheUpdate {
    /// That for tokens `x` `[B, 1, M]` and a cache's keys `[B, 1, C, r + Dr]`; `None` off GPUs, and where the update is
    /// to be composed, which is noted.
    pub(crate) fn of(
        x: &Tensor,
        norm: &Norm,
        rope: &Rope,
        gate: Option<&GateTable>,
        keys: &Tensor,
    ) -> Option<Self> {
        let Device::Cuda(device) = x.device() else {
            return None;
        };
        noted("cache update", Self::find(device, x, norm, rope, gate, keys))
    }

    fn find(
        device: &CudaDevice,
        x: &Tensor,
        norm: &Norm,
        rope: &Rope,
        gate: Option<&GateTable>,
        keys: &Tensor,
    ) -> Asked<Self> {
        let mut operands = vec![x, norm.weight(), keys];
        operands.extend(norm.bias());
        let rank = norm.weight().dim(0)?;
        let shape = CacheUpdateShape {
            dtype: kernel_dtype(&operands)?,
            rank,
            rope_dim: keys.dim(3)?.saturating_sub(rank),
            stride: gate.map(|gate| gate.stride),
            layer_norm: norm.bias().is_some(),
            halves: rope.pairing() == Pairing::Halves,
        };
        let (gpu, batch) = (Gpu::of(device)?, x.dim(0)?);
        let mut state = gpu.state();
        let State { updates, scratch, .. } = &mut *state;
        let kernel = updates
            .entry((shape, batch))
            .or_insert_with(|| gpu.update_kernel(scratch, shape, batch))
            .clone()?;
        drop(state);
        Ok(Self { gpu, kernel })
    }

    /// Writes the entries; returns the f32 sums of their blocks `[B, r]` where there is a gate. `None`, and nothing
    /// changed that is read, where it is to be composed after all, which is noted.
    pub(crate) fn run(&self, input: &LatentsInput, keys: &Tensor) -> Result<Option<Option<Tensor>>> {
        let Self { gpu, kernel } = self;
        let mut state = gpu.state();
        let State { updates, scratch, .. } = &mut *state;
        let written = by_dtype!(kernel.dtype(), gpu.update(scratch, kernel, input, keys));
        let written = written.inspect_err(|refusal| {
            if refusal.is_final {
                gpu.trials
                    .refuse(kernel.specialisation().clone(), &refusal.reason);
                updates.insert(
                    (kernel.plan.shape, kernel.plan.batch),
                    Err(refusal.reason.clone()),
                );
            }
        });
        Ok(noted("cache update", written))
    }
}

impl Gpu {
    fn update_kernel(
        &self,
        scratch: &mut Scratch,
        shape: CacheUpdateShape,
        batch: usize,
    ) -> Found<CacheUpdatePlan> {
        let ready = self.load(shape.plan(self.kernels.machine(), batch));
        let ready = ready.map_err(|refusal| refusal.reason)?;
        self.trials.verdict(ready.specialisation().clone(), || {
            self.try_update(scratch, shape).map_err(|refusal| refusal.reason)
        })?;
        Ok(Arc::new(ready))
    }

    /// Holds the cache update against the processor's kernel: tokens that open a block, continue one and close one.
    fn try_update(&self, scratch: &mut Scratch, shape: CacheUpdateShape) -> Asked<()> {
        let trial = UpdateTrial::new(shape)?;
        let ready = self.load(shape.plan(self.kernels.machine(), trial.starts.len()))?;
        let on_gpu = trial.on(&Device::Cuda(self.device.clone()))?;
        let sums = by_dtype!(
            ready.dtype(),
            self.update(scratch, &ready, &on_gpu.input(), &on_gpu.keys)
        )?;
        let expected = native::append(&trial.input(), &trial.keys, &trial.slots())?;
        let expected = expected.ok_or("the processor has no kernel to compare with")?;
        let bound = bound(candle_dtype(shape.dtype));
        agree(&on_gpu.keys, &trial.keys, bound)?;
        match (sums, expected) {
            (Some(sums), Some(expected)) => Ok(agree(&sums, &expected, bound)?),
            (None, None) => Ok(()),
            _ => Err("sums of blocks where there is no gate, or none where there is one".into()),
        }
    }

    /// Launches the cache update.
    fn update<T: CudaDType + DeviceRepr>(
        &self,
        scratch: &mut Scratch,
        ready: &Ready<CacheUpdatePlan>,
        input: &LatentsInput,
        keys: &Tensor,
    ) -> Asked<Option<Tensor>> {
        let rank = ready.plan.shape.rank;
        let sums = match input.gate {
            None => None,
            Some(_) => Some(self.sums_of(input.open, ready.plan.batch * rank)?),
        };
        let none = Workspace {
            partial_floats: 0,
            partial_sums: 0,
            tickets: 0,
        };
        scratch.reserve(self, none, as_positions(input.starts.iter().copied())?)?;
        let launch = UpdateLaunch {
            gpu: self,
            ready,
            input,
            state: RefCell::new((scratch, sums, None)),
            of: std::marker::PhantomData::<T>,
        };
        let written = keys.inplace_op1(&launch);
        let (_, sums, refusal) = launch.state.into_inner();
        match refusal {
            Some(refusal) => return Err(refusal),
            None => written?,
        }
        let wrap = |sums| {
            let sums = Storage::Cuda(CudaStorage::wrap_cuda_slice(sums, self.device.clone()));
            Tensor::from_storage(sums, (ready.plan.batch, rank), BackpropOp::none(), false)
        };
        Ok(sums.map(wrap))
    }

    /// A copy of open blocks' sums, which the kernel adds to: a cache's mark keeps those of before.
    fn sums_of(&self, open: Option<&Tensor>, elements: usize) -> Asked<CudaSlice<f32>> {
        let Some(open) = open else {
            return Ok(self.stream.alloc_zeros(elements)?);
        };
        let open = open.contiguous()?;
        let (storage, layout) = open.storage_and_layout();
        let Storage::Cuda(storage) = &*storage else {
            return Err("the sums of open blocks are not on the GPU".into());
        };
        let (first, slice) = (layout.start_offset(), storage.as_cuda_slice::<f32>()?);
        let slice = slice
            .try_slice(first..first + elements)
            .ok_or("the sums of open blocks are not of this batch")?;
        // SAFETY: all of it is written by the copy.
        let mut copy = unsafe { self.stream.alloc::<f32>(elements) }?;
        self.stream.memcpy_dtod(&slice, &mut copy)?;
        Ok(copy)
    }
}

/// The cache update as candle's operation on a storage that it may change.
struct UpdateLaunch<'a, T> {
    gpu: &'a Gpu,
    ready: &'a Ready<CacheUpdatePlan>,
    input: &'a LatentsInput<'a>,
    /// Scratch, sums of open blocks, and why it was not launched: candle gives a shared reference and takes its own
    /// errors alone.
    state: RefCell<UpdateState<'a>>,
    of: std::marker::PhantomData<T>,
}

type UpdateState<'a> = (&'a mut Scratch, Option<CudaSlice<f32>>, Option<Refusal>);

impl<T: CudaDType + DeviceRepr> UpdateLaunch<'_, T> {
    fn launch(
        &self,
        scratch: &mut Scratch,
        sums: &mut Option<CudaSlice<f32>>,
        cache: &mut CudaStorage,
        layout: &Layout,
    ) -> Asked<()> {
        let Self {
            gpu, ready, input, ..
        } = self;
        let stream = &*gpu.stream;
        let &[cache_stride, _, row_stride, 1] = layout.stride() else {
            return Err("its cache has entries whose elements lie apart".into());
        };
        let (_, _, capacity, width) = layout.shape().dims4()?;
        if row_stride != width {
            return Err("its cache has gaps between entries".into());
        }
        let Some((_, positions)) = &mut scratch.positions else {
            return Err("its positions were not sent".into());
        };
        let end = input.starts.iter().max().map_or(0, |start| start + 1);
        let [cos, sin] = input.rope.table(end).on(input.x.device())?;
        let mut n_positions = cos.dim(0)?;

        let (x, weight) = (at_beginning(input.x)?, at_beginning(input.norm.weight())?);
        let bias = input.norm.bias().map(at_beginning).transpose()?;
        let gate = match input.gate {
            None => None,
            Some(gate) => {
                n_positions = n_positions.min(gate.u.dim(0)? * gate.stride);
                Some((at_beginning(&gate.u)?, at_beginning(&gate.b)?))
            }
        };
        if n_positions < end {
            return Err("its tables end before the token".into());
        }

        let (x_of, x_layout) = x.storage_and_layout();
        let (weight_of, weight_layout) = weight.storage_and_layout();
        let bias_of = bias.as_ref().map(Tensor::storage_and_layout);
        let (cos_of, cos_layout) = cos.storage_and_layout();
        let (sin_of, sin_layout) = sin.storage_and_layout();
        let gate_of = gate
            .as_ref()
            .map(|(u, b)| (u.storage_and_layout(), b.storage_and_layout()));

        let bias = bias_of
            .as_ref()
            .map(|(storage, layout)| read::<T>(storage, layout, stream));
        let bias = bias.transpose()?;
        let (open, _open) = written_if_any(sums, stream);
        let gate = match &gate_of {
            None => None,
            Some(((u, u_layout), (b, b_layout))) => Some((
                read::<f32>(u, u_layout, stream)?,
                read::<f32>(b, b_layout, stream)?,
            )),
        };
        let (x, _x) = read::<T>(&x_of, x_layout, stream)?;
        let (weight, _weight) = read::<T>(&weight_of, weight_layout, stream)?;
        let (cos, _cos) = read::<f32>(&cos_of, cos_layout, stream)?;
        let (sin, _sin) = read::<f32>(&sin_of, sin_layout, stream)?;
        let (positions, _positions) = written(positions, stream);
        let slice = cache.as_cuda_slice_mut::<T>()?;
        let (whole, _cache) = written(slice, stream);
        let elements = whole.bytes / size_of::<T>();
        let params = ready.plan.params(&CacheUpdateOperands {
            x,
            x_stride: width,
            weight,
            bias: bias.as_ref().map(|(bias, _)| *bias),
            cos,
            sin,
            n_positions,
            gate: gate.as_ref().map(|((u, _), (b, _))| [*u, *b, open]),
            cache: part_of(whole.address, elements, layout.start_offset(), size_of::<T>()),
            cache_stride,
            positions,
            capacity,
            eps: input.norm.eps() as f32,
        })?;
        // SAFETY: 1. The parameters are of the plan that the kernel was loaded for. 2. `params` held the sizes of memory
        // of this device against it; operands live longer than the launch is made, and are freed in the stream's order.
        // 3. The cache's storage and the sums are borrowed for writing, and the guards order operands with other streams.
        unsafe { ready.kernel.launch(stream, &params) }?;
        Ok(())
    }
}

impl<T: CudaDType + DeviceRepr> InplaceOp1 for UpdateLaunch<'_, T> {
    fn name(&self) -> &'static str {
        "cache-update"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout) -> candle_core::Result<()> {
        candle_core::bail!("the kernel of GPUs takes no cache of the processor's")
    }

    fn cuda_fwd(&self, cache: &mut CudaStorage, layout: &Layout) -> candle_core::Result<()> {
        let (scratch, sums, refusal) = &mut *self.state.borrow_mut();
        *refusal = self.launch(scratch, sums, cache, layout).err();
        Ok(())
    }
}
