//! A device's kernels, and the memory that launches need beside their operands.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use attn_cuda::{CudaError, Kernels, Loaded, Params};
use attn_kernels::cuda::{
    AdvancePlan, AdvanceShape, AttendShape, Cache, CacheUpdatePlan, CacheUpdateShape, DecodePlan, Dtype,
    GroupedUpdatePlan, GroupedUpdateShape, Memory, MergeShape, Planned, Specialisation, Unsupported,
    Workspace,
};
use candle_core::cuda::cudarc::driver::{
    CudaSlice, CudaStream, DevicePtr, DevicePtrMut, DeviceRepr, DeviceSlice, SyncOnDrop,
};
use candle_core::cuda::{CudaDType, DeviceId};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, Layout, Shape, Storage, Tensor};

use super::attend::FoundAttend;
use super::decode::DecodeShape;
use super::merge::FoundMerge;
use super::{Asked, Refusal};
use crate::error::Result;
use crate::ops::trials::Trials;

/// A plan with its kernel, loaded.
pub(super) struct Ready<P> {
    pub(super) plan: P,
    pub(super) kernel: Loaded,
}

impl<P: AsRef<Planned>> Ready<P> {
    pub(super) fn specialisation(&self) -> &Specialisation {
        &self.plan.as_ref().specialisation
    }

    pub(super) fn dtype(&self) -> Dtype {
        self.specialisation().dtype
    }
}

/// A kernel that may be used, or why not.
pub(super) type Found<P> = std::result::Result<Arc<Ready<P>>, String>;

/// A device of candle's, which is one stream of a GPU: kernels, and the memory that they need beside operands. One
/// launch after the other uses it, in the stream's order.
pub(super) struct Gpu {
    pub(super) device: CudaDevice,
    pub(super) stream: Arc<CudaStream>,
    pub(super) kernels: Kernels,
    pub(super) trials: Trials<Specialisation>,
    state: Mutex<State>,
}

/// A device's kernels, or why there are none.
type Made = std::result::Result<Arc<Gpu>, String>;

#[derive(Default)]
pub(super) struct State {
    /// By shape and batch, with the entries that the plan is for.
    pub(super) decodes: HashMap<(DecodeShape, usize), (usize, Found<DecodePlan>)>,
    pub(super) advances: HashMap<(AdvanceShape, usize), Found<AdvancePlan>>,
    pub(super) updates: HashMap<(CacheUpdateShape, usize), Found<CacheUpdatePlan>>,
    pub(super) grouped_updates: HashMap<(GroupedUpdateShape, usize), Found<GroupedUpdatePlan>>,
    /// By shape, batch and whether there are gradients, with the tokens and keys that the plans are for.
    pub(super) attends: HashMap<(AttendShape, usize, bool), ([usize; 2], FoundAttend)>,
    /// The same, with the tokens.
    pub(super) merges: HashMap<(MergeShape, usize, bool), (usize, FoundMerge)>,
    pub(super) scratch: Scratch,
    /// While a graph is recorded: tensors of its launches that nobody else may keep as long as it.
    pub(super) kept: Option<Vec<Tensor>>,
}

impl State {
    /// Keeps tensors for a graph, where one is recorded.
    pub(super) fn keep(&mut self, tensors: impl IntoIterator<Item = Tensor>) {
        if let Some(kept) = &mut self.kept {
            kept.extend(tensors);
        }
    }

    /// What came of launches. Where a kernel is at fault all are asked for again, and it will not be given.
    pub(super) fn settled<T>(&mut self, done: Asked<T>) -> Asked<T> {
        done.inspect_err(|refusal| {
            if refusal.is_final {
                self.decodes.clear();
                self.advances.clear();
                self.updates.clear();
                self.grouped_updates.clear();
                self.attends.clear();
                self.merges.clear();
                self.scratch = Scratch::default(); // its tickets may no longer be zero
            }
        })
    }
}

/// Memory that launches share.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) partial: Option<CudaSlice<f32>>,
    pub(super) partial_sums: Option<CudaSlice<f32>>,
    /// Zeros between launches.
    pub(super) tickets: Option<CudaSlice<u32>>,
    /// The positions that were sent last: layers of a step have the same.
    pub(super) positions: Option<(Vec<i32>, CudaSlice<i32>)>,
}

impl Scratch {
    /// Makes room for a launch.
    pub(super) fn reserve(&mut self, gpu: &Gpu, workspace: Workspace) -> Asked<()> {
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
        Ok(())
    }

    /// Positions on the device, sent where they are not those of the last launch.
    pub(super) fn positions(&mut self, gpu: &Gpu, positions: Vec<i32>) -> Asked<Memory> {
        if self
            .positions
            .as_ref()
            .is_none_or(|(known, _)| *known != positions)
        {
            let sent = gpu.stream.clone_htod(&positions)?;
            self.positions = Some((positions, sent));
        }
        let (_, sent) = self.positions.as_mut().ok_or("its positions were not sent")?;
        Ok(written(sent, &gpu.stream).0)
    }
}

/// Numbers as kernels take positions.
pub(super) fn as_positions(of: impl Iterator<Item = usize>) -> Asked<Vec<i32>> {
    of.map(|position| i32::try_from(position).map_err(Refusal::once))
        .collect()
}

/// Memory that is written by a launch. The guard orders it with other streams while the launch is made.
pub(super) fn written<'a, T: DeviceRepr>(
    slice: &'a mut CudaSlice<T>,
    stream: &'a CudaStream,
) -> (Memory, SyncOnDrop<'a>) {
    let bytes = slice.len() * size_of::<T>();
    let (address, guard) = slice.device_ptr_mut(stream);
    (Memory { address, bytes }, guard)
}

/// The same of memory that may not be needed.
pub(super) fn written_if_any<'a, T: DeviceRepr>(
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
pub(super) fn read<'a, T: CudaDType + 'a>(
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
pub(super) fn part_of(address: u64, len: usize, offset: usize, bytes: usize) -> Memory {
    Memory {
        address: address + (offset * bytes) as u64,
        bytes: len.saturating_sub(offset) * bytes,
    }
}

/// A tensor without gaps that begins where an allocation does, which is aligned for every kernel.
pub(super) fn at_beginning(x: &Tensor) -> Result<Tensor> {
    Ok(match x.layout().start_offset() {
        0 => x.contiguous()?,
        _ => x.force_contiguous()?,
    })
}

/// A cache `[B, heads, C, D]`, entries side by side.
pub(super) fn cache_of(memory: Memory, layout: &Layout) -> Asked<Cache> {
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
    pub(super) fn of(device: &CudaDevice) -> Asked<Arc<Self>> {
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

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // A launch that panicked has left tickets that may not be zero.
        self.state.lock().unwrap_or_else(|poisoned| {
            self.state.clear_poison();
            let mut state = poisoned.into_inner();
            state.scratch = Scratch::default();
            state
        })
    }

    pub(super) fn load<P: AsRef<Planned>>(
        &self,
        plan: std::result::Result<P, Unsupported>,
    ) -> Asked<Ready<P>> {
        let plan = plan.map_err(CudaError::from)?;
        let kernel = self.kernels.load(plan.as_ref())?;
        Ok(Ready { plan, kernel })
    }

    /// A tensor's memory from its first element on. All work on this device goes through one stream, so that whoever
    /// reads, writes or frees it next does so after a launch that is made now.
    pub(super) fn memory<T: CudaDType>(&self, x: &Tensor) -> Asked<Memory> {
        let (storage, layout) = x.storage_and_layout();
        let (memory, _) = read::<T>(&storage, layout, &self.stream)?;
        Ok(memory)
    }

    /// The same of a tensor without gaps.
    pub(super) fn dense<T: CudaDType>(&self, x: &Tensor) -> Asked<Memory> {
        if !x.is_contiguous() {
            return Err("an operand has gaps".into());
        }
        self.memory::<T>(x)
    }

    /// A tensor that is yet to be written, all of it.
    pub(super) fn unwritten<T: CudaDType + DeviceRepr>(&self, shape: impl Into<Shape>) -> Asked<Tensor> {
        let shape = shape.into();
        // SAFETY: who asks has a launch write it before anybody reads it.
        let slice = unsafe { self.device.alloc::<T>(shape.elem_count()) }?;
        let storage = Storage::Cuda(CudaStorage::wrap_cuda_slice(slice, self.device.clone()));
        Ok(Tensor::from_storage(storage, shape, BackpropOp::none(), false))
    }

    /// Launches a kernel; one that is refused is not used again.
    ///
    /// # Safety
    /// As [`Loaded::launch`].
    pub(super) unsafe fn launch<P: AsRef<Planned>, Q: Params>(
        &self,
        ready: &Ready<P>,
        params: &Q,
    ) -> Asked<()> {
        // SAFETY: the caller's.
        let launched = unsafe { ready.kernel.launch(&self.stream, params) };
        launched.map_err(Refusal::from).inspect_err(|refusal| {
            if refusal.is_final {
                self.trials
                    .refuse(ready.specialisation().clone(), &refusal.reason);
            }
        })
    }
}
