//! What enters a cache in a decode step: positions counted, queries turned, entries written.

use std::sync::Arc;

use attn_kernels::cuda::{
    AdvanceOperands, AdvancePlan, AdvanceShape, CacheUpdateOperands, CacheUpdatePlan, CacheUpdateShape,
    Columns, Dtype, GroupedUpdateOperands, GroupedUpdatePlan, GroupedUpdateShape, Memory, Turn,
};
use candle_core::cuda::CudaDType;
use candle_core::cuda::cudarc::driver::DeviceRepr;
use candle_core::{DType, Device, Tensor};

use super::ends::Ends;
use super::gpu::{Found, Gpu, Ready, cache_of};
use super::trial::{GroupedUpdateTrial, TurnTrial, UpdateTrial};
use super::{Asked, by_dtype, candle_dtype};
use crate::latent::GateTable;
use crate::norm::Norm;
use crate::ops::native;
use crate::ops::trials::{agree, bound};
use crate::rope::Rope;

/// Cosines and sines on a GPU, for `n_positions` positions.
pub(super) struct Angles {
    cos: Tensor,
    sin: Tensor,
    n_positions: usize,
}

impl Angles {
    pub(super) fn of(rope: &Rope, n_positions: usize, device: &Device) -> Asked<Self> {
        let [cos, sin] = rope.table(n_positions).on(device)?;
        Ok(Self {
            n_positions: cos.dim(0)?,
            cos,
            sin,
        })
    }

    pub(super) fn tensors(&self) -> [Tensor; 2] {
        [self.cos.clone(), self.sin.clone()]
    }
}

/// A token of every sequence on its way into a cache of latents.
pub(super) struct NewLatents<'a> {
    /// `[B, 1, r + Dr]`, as the down-projection wrote it.
    pub(super) x: &'a Tensor,
    pub(super) norm: &'a Norm,
    pub(super) gate: Option<&'a GateTable>,
    /// f32 sums of open blocks `[B, r]`, with a gate: read and written.
    pub(super) open: Option<&'a Tensor>,
    /// `[B, 1, C, r + Dr]`.
    pub(super) keys: &'a Tensor,
}

/// A token of every sequence on its way into caches of keys and values.
pub(super) struct NewHeads<'a> {
    /// `[B, 1, H Dk]`, `[B, 1, Hkv Dk]` and `[B, 1, Hkv Dv]`, as projections wrote them.
    pub(super) qkv: [&'a Tensor; 3],
    /// `[B, H, Dk]`, for the queries turned.
    pub(super) turned: &'a Tensor,
    /// `[B, Hkv, C, Dk]`.
    pub(super) keys: &'a Tensor,
    /// `[B, Hkv, C, Dv]`.
    pub(super) values: &'a Tensor,
}

impl Gpu {
    pub(super) fn advance_kernel(&self, shape: AdvanceShape, batch: usize) -> Found<AdvancePlan> {
        let ready = self.load(shape.plan(self.kernels.machine(), batch));
        let ready = ready.map_err(|refusal| refusal.reason)?;
        self.trials.verdict(ready.specialisation().clone(), || {
            self.try_advance(shape).map_err(|refusal| refusal.reason)
        })?;
        Ok(Arc::new(ready))
    }

    /// Holds counting and turning against the processor's.
    fn try_advance(&self, shape: AdvanceShape) -> Asked<()> {
        let trial = TurnTrial::new(shape)?;
        let ready = self.load(shape.plan(self.kernels.machine(), trial.lens.len()))?;
        let device = Device::Cuda(self.device.clone());
        let q = trial.q.to_device(&device)?;
        let turned = q.zeros_like()?;
        let mut ends = Ends::default();
        let angles = Angles::of(&trial.rope, trial.end(), &device)?;
        let columns = |x: &Tensor| by_dtype!(shape.dtype, self.columns(x, 0));
        let turn = match shape.n_heads {
            0 => None,
            _ => Some((columns(&q)?, columns(&turned)?)),
        };
        self.advance(&ready, ends.at(&self.stream, &trial.lens)?, turn, &angles)?;
        // Read back, and not taken from what the host counted.
        let newest: Vec<i32> = self.stream.clone_dtoh(ends.newest()?)?;
        if newest != trial.lens.iter().map(|&len| len as i32).collect::<Vec<_>>() {
            return Err(format!("it counted {newest:?} after {:?} tokens", trial.lens).into());
        }
        match shape.n_heads {
            0 => Ok(()),
            _ => Ok(agree(
                &turned,
                &trial.turned()?,
                bound(candle_dtype(shape.dtype)),
            )?),
        }
    }

    /// Counts a token of every sequence, and turns its queries where there are any.
    pub(super) fn advance(
        &self,
        ready: &Ready<AdvancePlan>,
        positions: Memory,
        turn: Option<(Columns, Columns)>,
        angles: &Angles,
    ) -> Asked<()> {
        let turn = match turn {
            None => None,
            Some((q, turned)) => Some(Turn {
                q,
                turned,
                cos: self.memory::<f32>(&angles.cos)?,
                sin: self.memory::<f32>(&angles.sin)?,
                n_positions: angles.n_positions,
            }),
        };
        let params = ready.plan.params(&AdvanceOperands { positions, turn })?;
        // SAFETY: 1. The parameters are of the plan that the kernel was loaded for. 2. `params` held sizes of memory of
        // this device against it, which is freed in the stream's order. 3. Positions and turned queries are this step's.
        unsafe { self.launch(ready, &params) }
    }

    /// The columns of `[B, H, D]` from `first` on.
    pub(super) fn columns<T: CudaDType>(&self, x: &Tensor, first: usize) -> Asked<Columns> {
        let &[batch_stride, head_stride, 1] = x.stride() else {
            return Err("its queries have columns that lie apart".into());
        };
        let whole = self.memory::<T>(x)?;
        let skipped = first * size_of::<T>();
        Ok(Columns {
            memory: Memory {
                address: whole.address + skipped as u64,
                bytes: whole.bytes.saturating_sub(skipped),
            },
            batch_stride,
            head_stride,
        })
    }

    pub(super) fn update_kernel(&self, shape: CacheUpdateShape, batch: usize) -> Found<CacheUpdatePlan> {
        let ready = self.load(shape.plan(self.kernels.machine(), batch));
        let ready = ready.map_err(|refusal| refusal.reason)?;
        self.trials.verdict(ready.specialisation().clone(), || {
            self.try_update(shape).map_err(|refusal| refusal.reason)
        })?;
        Ok(Arc::new(ready))
    }

    /// Holds the cache update against the processor's kernel: tokens that open a block, continue one and close one.
    fn try_update(&self, shape: CacheUpdateShape) -> Asked<()> {
        let trial = UpdateTrial::new(shape)?;
        let ready = self.load(shape.plan(self.kernels.machine(), trial.starts.len()))?;
        let device = Device::Cuda(self.device.clone());
        let on_gpu = trial.on(&device)?;
        let end = trial.starts.iter().max().map_or(0, |start| start + 1);
        let angles = Angles::of(&trial.rope, end, &device)?;
        let lens: Vec<usize> = trial.starts.iter().map(|start| start + 1).collect();
        let mut ends = Ends::default();
        let positions = ends.at(&self.stream, &lens)?;
        let new = NewLatents {
            x: &on_gpu.x,
            norm: &on_gpu.norm,
            gate: on_gpu.gate.as_ref(),
            open: on_gpu.open.as_ref(),
            keys: &on_gpu.keys,
        };
        by_dtype!(shape.dtype, self.update(&ready, &new, positions, &angles))?;
        let expected = native::append(&trial.input(), &trial.keys, &trial.slots())?;
        let expected = expected.ok_or("the processor has no kernel to compare with")?;
        let bound = bound(candle_dtype(shape.dtype));
        agree(&on_gpu.keys, &trial.keys, bound)?;
        match (&on_gpu.open, expected) {
            (Some(sums), Some(expected)) => Ok(agree(sums, &expected, bound)?),
            (None, None) => Ok(()),
            _ => Err("sums of blocks where there is no gate, or none where there is one".into()),
        }
    }

    /// Writes the entry of the token at every sequence's position into a cache of latents.
    pub(super) fn update<T: CudaDType + DeviceRepr>(
        &self,
        ready: &Ready<CacheUpdatePlan>,
        new: &NewLatents,
        positions: Memory,
        angles: &Angles,
    ) -> Asked<()> {
        let (_, _, capacity, width) = new.keys.dims4()?;
        let &[cache_stride, _, row_stride, 1] = new.keys.stride() else {
            return Err("its cache has entries whose elements lie apart".into());
        };
        if row_stride != width {
            return Err("its cache has gaps between entries".into());
        }
        let &[x_stride, _, 1] = new.x.stride() else {
            return Err("its latents have elements that lie apart".into());
        };
        let mut n_positions = angles.n_positions;
        let gate = match (new.gate, new.open) {
            (Some(gate), Some(open)) => {
                n_positions = n_positions.min(gate.u.dim(0)? * gate.stride);
                let [u, b] = [&gate.u, &gate.b].map(|table| self.dense::<f32>(table));
                Some([u?, b?, self.dense::<f32>(open)?])
            }
            _ => None,
        };
        let params = ready.plan.params(&CacheUpdateOperands {
            x: self.memory::<T>(new.x)?,
            x_stride,
            weight: self.dense::<T>(new.norm.weight())?,
            bias: new.norm.bias().map(|bias| self.dense::<T>(bias)).transpose()?,
            cos: self.memory::<f32>(&angles.cos)?,
            sin: self.memory::<f32>(&angles.sin)?,
            n_positions,
            gate,
            cache: self.memory::<T>(new.keys)?,
            cache_stride,
            positions,
            capacity,
            eps: new.norm.eps() as f32,
        })?;
        // SAFETY: 1. The parameters are of the plan that the kernel was loaded for. 2. `params` held sizes of memory of
        // this device against it, which is freed in the stream's order. 3. The cache and its sums are the caller's, who
        // has the cache borrowed for writing.
        unsafe { self.launch(ready, &params) }
    }

    pub(super) fn grouped_update_kernel(
        &self,
        shape: GroupedUpdateShape,
        batch: usize,
    ) -> Found<GroupedUpdatePlan> {
        let ready = self.load(shape.plan(self.kernels.machine(), batch));
        let ready = ready.map_err(|refusal| refusal.reason)?;
        self.trials.verdict(ready.specialisation().clone(), || {
            self.try_grouped_update(shape).map_err(|refusal| refusal.reason)
        })?;
        Ok(Arc::new(ready))
    }

    /// Holds the grouped update against the processor's rotation, and rows put where they belong.
    fn try_grouped_update(&self, shape: GroupedUpdateShape) -> Asked<()> {
        let trial = GroupedUpdateTrial::new(shape)?;
        let ready = self.load(shape.plan(self.kernels.machine(), trial.lens.len()))?;
        let device = Device::Cuda(self.device.clone());
        let on_gpu = trial.on(&device)?;
        let [q, k, v] = &on_gpu.qkv;
        let turned = Tensor::zeros(&trial.turned_dims(), q.dtype(), &device)?;
        let angles = Angles::of(&trial.rope, trial.end(), &device)?;
        let lens: Vec<usize> = trial.lens.iter().map(|len| len + 1).collect();
        let mut ends = Ends::default();
        let positions = ends.at(&self.stream, &lens)?;
        let new = NewHeads {
            qkv: [q, k, v],
            turned: &turned,
            keys: &on_gpu.keys,
            values: &on_gpu.values,
        };
        by_dtype!(shape.dtype, self.grouped_update(&ready, &new, positions, &angles))?;
        let bound = bound(candle_dtype(shape.dtype));
        let [expected, keys, values] = trial.expected()?;
        agree(&turned, &expected, bound)?;
        agree(&on_gpu.keys, &keys, bound)?;
        Ok(agree(&on_gpu.values, &values, bound)?)
    }

    /// Turns queries and keys of the token at every sequence's position, and writes keys and values into the caches.
    pub(super) fn grouped_update<T: CudaDType + DeviceRepr>(
        &self,
        ready: &Ready<GroupedUpdatePlan>,
        new: &NewHeads,
        positions: Memory,
        angles: &Angles,
    ) -> Asked<()> {
        let mut qkv = [Memory::NONE; 3];
        let mut qkv_strides = [0; 3];
        for (i, x) in new.qkv.into_iter().enumerate() {
            let &[stride, _, 1] = x.stride() else {
                return Err("its projections have elements that lie apart".into());
            };
            (qkv[i], qkv_strides[i]) = (self.memory::<T>(x)?, stride);
        }
        let params = ready.plan.params(&GroupedUpdateOperands {
            qkv,
            qkv_strides,
            turned: self.dense::<T>(new.turned)?,
            keys: cache_of(self.memory::<T>(new.keys)?, new.keys.layout())?,
            values: cache_of(self.memory::<T>(new.values)?, new.values.layout())?,
            cos: self.memory::<f32>(&angles.cos)?,
            sin: self.memory::<f32>(&angles.sin)?,
            n_positions: angles.n_positions,
            positions,
            capacity: new.keys.dim(2)?.min(new.values.dim(2)?),
        })?;
        // SAFETY: 1. The parameters are of the plan that the kernel was loaded for. 2. `params` held sizes of memory of
        // this device against it, which is freed in the stream's order. 3. The caches are the caller's, who has them
        // borrowed for writing, and the turned queries are this step's.
        unsafe { self.launch(ready, &params) }
    }
}

/// The kernels' name of a tensor's dtype, where it is what they add sums in.
pub(super) fn is_f32(x: Option<&Tensor>) -> bool {
    x.is_none_or(|x| x.dtype() == DType::F32)
}
