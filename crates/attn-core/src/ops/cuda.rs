//! Decode and the cache update on a GPU, by the kernels of [`attn_kernels::cuda`].
//!
//! A kernel is compiled for the geometry that asks for it, and held against the processor's implementation on small
//! operands of ragged lengths before it is used. What has no kernel, does not compile, does not agree or cannot be
//! launched is composed of candle's operations, and noted ([`fallbacks`](super::fallbacks())).
//!
//! Not yet run on a GPU.

mod trial;

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use attn_kernels::cuda::{
    Cache, CacheUpdateOperands, CacheUpdatePlan, CacheUpdateShape, CudaError, DecodeOperands, DecodePlan,
    Dtype, GroupedDecodeShape, Kernels, LatentDecodeShape, Loaded, Machine, Memory, Planned, Specialisation,
    Unsupported, Workspace,
};
use candle_core::cuda::cudarc::driver::{
    CudaSlice, CudaStream, DevicePtr, DevicePtrMut, DeviceRepr, DeviceSlice, SyncOnDrop,
};
use candle_core::cuda::{CudaDType, DeviceId};
use candle_core::op::BackpropOp;
use candle_core::{CpuStorage, CudaDevice, CudaStorage, DType, Device, InplaceOp1, Layout, Storage, Tensor};
use half::{bf16, f16};

use self::trial::{DecodeTrial, UpdateTrial};
use crate::error::Result;
use crate::latent::GateTable;
use crate::norm::Norm;
use crate::ops::fallback::note;
use crate::ops::native::{self, LatentsInput};
use crate::ops::trials::{Trials, agree, bound};
use crate::ops::{AttendInput, DecodeInput, composite};
use crate::rope::{Pairing, Rope};

/// Seed of a trial's operands.
const SEED: u64 = 42;

/// Lengths of a trial's sequences in entries: one, some tiles and a part of one, and enough for many splits.
const TRIAL_SLOTS: [usize; 3] = [1, 131, 577];

/// Entries that a trial's cache has room for; what no sequence has written is NaN.
const TRIAL_CAPACITY: usize = 600;

/// Entries that a plan of a trial is made for: with few there is one split, with many there are as many as there may be.
const TRIAL_HINTS: [usize; 2] = [1, 1 << 20];

/// Lengths for which one plan serves: the number of splits changes slowly.
const HINT_STEP: usize = 256;

/// Calls a function for the elements of a kernel.
macro_rules! by_dtype {
    ($dtype:expr, $object:ident.$run:ident($($argument:expr),+)) => {
        match $dtype {
            Dtype::F32 => $object.$run::<f32>($($argument),+),
            Dtype::Bf16 => $object.$run::<bf16>($($argument),+),
            Dtype::F16 => $object.$run::<f16>($($argument),+),
        }
    };
}

/// Why a kernel did not compute something.
struct Refusal {
    reason: String,
    /// Whether the kernel is at fault, and not the operands at hand: it is not asked again.
    is_final: bool,
}

impl Refusal {
    fn once(reason: impl Display) -> Self {
        // A backtrace or a compiler's log follows in other lines.
        let text = reason.to_string();
        Self {
            reason: text.lines().next().unwrap_or_default().to_string(),
            is_final: false,
        }
    }
}

impl From<CudaError> for Refusal {
    fn from(error: CudaError) -> Self {
        Self {
            is_final: !matches!(error, CudaError::Mismatch(_)),
            ..Self::once(error)
        }
    }
}

macro_rules! refuse_once {
    ($($error:ty),+) => {$(
        impl From<$error> for Refusal {
            fn from(error: $error) -> Self {
                Self::once(error)
            }
        }
    )+};
}

refuse_once!(
    candle_core::Error,
    crate::Error,
    attn_kernels::Mismatch,
    candle_core::cuda::cudarc::driver::result::DriverError,
    String,
    &str
);

type Asked<T> = std::result::Result<T, Refusal>;

/// `None` off GPUs, and where it is to be composed, which is noted.
pub(super) fn decode(input: &DecodeInput) -> Result<Option<Tensor>> {
    let Device::Cuda(device) = input.q.device() else {
        return Ok(None);
    };
    Ok(noted("decode", decode_by_kernel(device, input)))
}

/// `None`: there is no kernel yet. Where one will be called; on a GPU its absence is noted.
pub(super) fn attend(input: &AttendInput) -> Result<Option<Tensor>> {
    if input.q.device().is_cuda() {
        note("attend", "there is no kernel for GPUs yet");
    }
    Ok(None)
}

fn noted<T>(op: &'static str, asked: Asked<T>) -> Option<T> {
    asked.map_err(|refusal| note(op, &refusal.reason)).ok()
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

/// What a decode kernel is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum DecodeShape {
    /// Values are the first columns of one head's keys.
    Latent(LatentDecodeShape),
    /// All others.
    Grouped(GroupedDecodeShape),
}

impl DecodeShape {
    fn of(input: &DecodeInput, dtype: Dtype) -> Asked<Self> {
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

    fn plan(
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

/// The kernel's name of the dtype that all operands share, on a GPU and out of any graph.
fn kernel_dtype(operands: &[&Tensor]) -> Asked<Dtype> {
    let first = operands.first().ok_or("there are no operands")?;
    if operands.iter().any(|x| x.track_op()) {
        return Err("no kernel for GPUs has gradients".into());
    }
    if operands
        .iter()
        .any(|x| x.dtype() != first.dtype() || !x.device().same_device(first.device()))
    {
        return Err("its operands are of several dtypes or devices".into());
    }
    match first.dtype() {
        DType::F32 => Ok(Dtype::F32),
        DType::BF16 => Ok(Dtype::Bf16),
        DType::F16 => Ok(Dtype::F16),
        dtype => Err(Refusal::once(format!(
            "no kernel for GPUs takes {}",
            dtype.as_str()
        ))),
    }
}

fn candle_dtype(dtype: Dtype) -> DType {
    match dtype {
        Dtype::F32 => DType::F32,
        Dtype::Bf16 => DType::BF16,
        Dtype::F16 => DType::F16,
    }
}

/// A plan with its kernel, loaded.
struct Ready<P> {
    plan: P,
    kernel: Loaded,
}

impl<P: AsRef<Planned>> Ready<P> {
    fn specialisation(&self) -> &Specialisation {
        &self.plan.as_ref().specialisation
    }

    fn dtype(&self) -> Dtype {
        self.specialisation().dtype
    }
}

/// A kernel that may be used, or why not.
type Found<P> = std::result::Result<Arc<Ready<P>>, String>;

/// A device of candle's, which is one stream of a GPU: kernels, and the memory that they need beside operands. One
/// launch after the other uses it, in the stream's order.
struct Gpu {
    device: CudaDevice,
    stream: Arc<CudaStream>,
    kernels: Kernels,
    trials: Trials<Specialisation>,
    state: Mutex<State>,
}

/// A device's kernels, or why there are none.
type Made = std::result::Result<Arc<Gpu>, String>;

#[derive(Default)]
struct State {
    /// By shape and batch, with the entries that the plan is for.
    decodes: HashMap<(DecodeShape, usize), (usize, Found<DecodePlan>)>,
    updates: HashMap<(CacheUpdateShape, usize), Found<CacheUpdatePlan>>,
    scratch: Scratch,
}

/// Memory that launches share.
#[derive(Default)]
struct Scratch {
    partial: Option<CudaSlice<f32>>,
    partial_sums: Option<CudaSlice<f32>>,
    /// Zeros between launches.
    tickets: Option<CudaSlice<u32>>,
    /// The positions that were sent last: layers of a step have the same.
    positions: Option<(Vec<i32>, CudaSlice<i32>)>,
}

impl Scratch {
    /// Makes room for a launch, and sends positions where they are not those of the last one.
    fn reserve(&mut self, gpu: &Gpu, workspace: Workspace, positions: Vec<i32>) -> Asked<()> {
        let is_short = |have: Option<usize>, need: usize| have.unwrap_or(0) < need;
        // What is replaced is freed in the stream's order, after the kernels that use it.
        if is_short(
            self.partial.as_ref().map(DeviceSlice::len),
            workspace.partial_floats,
        ) {
            // SAFETY: a kernel reads of it only what the same launch wrote.
            self.partial = Some(unsafe { gpu.stream.alloc(workspace.partial_floats) }?);
        }
        if is_short(
            self.partial_sums.as_ref().map(DeviceSlice::len),
            2 * workspace.partial_sums,
        ) {
            // SAFETY: the same.
            self.partial_sums = Some(unsafe { gpu.stream.alloc(2 * workspace.partial_sums) }?);
        }
        if is_short(self.tickets.as_ref().map(DeviceSlice::len), workspace.tickets) {
            self.tickets = Some(gpu.stream.alloc_zeros(workspace.tickets)?);
        }
        if self
            .positions
            .as_ref()
            .is_none_or(|(known, _)| *known != positions)
        {
            let sent = gpu.stream.clone_htod(&positions)?;
            self.positions = Some((positions, sent));
        }
        Ok(())
    }
}

/// Numbers as kernels take positions.
fn as_positions(of: impl Iterator<Item = usize>) -> Asked<Vec<i32>> {
    of.map(|position| i32::try_from(position).map_err(Refusal::once))
        .collect()
}

/// Memory that is written by a launch. The guard orders it with other streams while the launch is made.
fn written<'a, T: DeviceRepr>(
    slice: &'a mut CudaSlice<T>,
    stream: &'a CudaStream,
) -> (Memory, SyncOnDrop<'a>) {
    let bytes = slice.len() * size_of::<T>();
    let (address, guard) = slice.device_ptr_mut(stream);
    (Memory { address, bytes }, guard)
}

/// The same of memory that may not be needed.
fn written_if_any<'a, T: DeviceRepr>(
    slice: &'a mut Option<CudaSlice<T>>,
    stream: &'a CudaStream,
) -> (Memory, Option<SyncOnDrop<'a>>) {
    match slice {
        None => (Memory::NONE, None),
        Some(slice) => {
            let (memory, guard) = written(slice, stream);
            (memory, Some(guard))
        }
    }
}

/// A tensor's memory from its first element on, which a launch reads. The guard orders it with other streams while the
/// launch is made.
fn read<'a, T: CudaDType + 'a>(
    storage: &'a Storage,
    layout: &Layout,
    stream: &'a CudaStream,
) -> Asked<(Memory, SyncOnDrop<'a>)> {
    let Storage::Cuda(storage) = storage else {
        return Err("an operand is not on the GPU".into());
    };
    let slice = storage.as_cuda_slice::<T>()?;
    let (address, guard) = slice.device_ptr(stream);
    Ok((
        part_of(address, slice.len(), layout.start_offset(), size_of::<T>()),
        guard,
    ))
}

/// Memory of `len` elements from the one at `offset` on.
fn part_of(address: u64, len: usize, offset: usize, bytes: usize) -> Memory {
    Memory {
        address: address + (offset * bytes) as u64,
        bytes: len.saturating_sub(offset) * bytes,
    }
}

/// A tensor without gaps that begins where an allocation does, which is aligned for every kernel.
fn at_beginning(x: &Tensor) -> Result<Tensor> {
    Ok(match x.layout().start_offset() {
        0 => x.contiguous()?,
        _ => x.force_contiguous()?,
    })
}

/// A cache `[B, heads, C, D]`, entries side by side.
fn cache_of(memory: Memory, layout: &Layout) -> Asked<Cache> {
    let &[batch_stride, head_stride, row_stride, 1] = layout.stride() else {
        return Err("its cache has entries whose elements lie apart".into());
    };
    Ok(Cache {
        memory,
        batch_stride,
        head_stride,
        row_stride,
    })
}

impl Gpu {
    /// That of a device, made when it is first asked for.
    fn of(device: &CudaDevice) -> Asked<Arc<Self>> {
        static GPUS: Mutex<Vec<(DeviceId, Made)>> = Mutex::new(Vec::new());
        let mut gpus = GPUS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = gpus.iter().find(|(id, _)| *id == device.id()) {
            return Ok(known.clone()?);
        }
        let stream = device.cuda_stream();
        let made = Kernels::new(stream.context()).map(|kernels| {
            Arc::new(Self {
                device: device.clone(),
                stream,
                kernels,
                trials: Trials::default(),
                state: Mutex::default(),
            })
        });
        let made = made.map_err(|error| Refusal::from(error).reason);
        gpus.push((device.id(), made.clone()));
        Ok(made?)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A launch that panicked has left tickets that may not be zero.
        self.state.lock().unwrap_or_else(|poisoned| {
            self.state.clear_poison();
            let mut state = poisoned.into_inner();
            state.scratch = Scratch::default();
            state
        })
    }

    fn load<P: AsRef<Planned>>(&self, plan: std::result::Result<P, Unsupported>) -> Asked<Ready<P>> {
        let plan = plan.map_err(CudaError::from)?;
        let kernel = self.kernels.load(plan.as_ref())?;
        Ok(Ready { plan, kernel })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_kernel_takes_is_refused_with_its_reason() {
        let x = Tensor::zeros(2, DType::F64, &Device::Cpu).unwrap();
        let reason = |operands: &[&Tensor]| kernel_dtype(operands).err().unwrap().reason;
        assert_eq!(reason(&[&x]), "no kernel for GPUs takes f64");
        let half = x.to_dtype(DType::BF16).unwrap();
        assert!(reason(&[&half, &x]).contains("several dtypes"));
        let var = candle_core::Var::from_tensor(&half).unwrap();
        assert!(reason(&[var.as_tensor()]).contains("gradients"));
    }
}
