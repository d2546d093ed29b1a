//! Work on a GPU, recorded once and launched again.

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::sync::Arc;

use candle_core::cuda::cudarc::driver::CudaGraph;
use candle_core::cuda::cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use candle_core::{Device, Tensor};

use super::Asked;
use super::gpu::{Gpu, Scratch};
use crate::error::{Error, Result};
use crate::ops::{fallbacks, fallbacks_since};
use crate::pool::in_pool;

/// A recorded piece of work with the memory that is its own. What else its launches read and write has to be where it
/// was: see [`Graph::record`].
pub(crate) struct Graph {
    graph: Recorded,
    /// What the work returned. A launch allocates it and the next one frees it, so that there is something to drop only
    /// after a launch.
    output: ManuallyDrop<Tensor>,
    is_launched: Cell<bool>,
    _scratch: Scratch,
    _kept: Vec<Tensor>,
}

/// A graph that goes to another thread with its owner.
struct Recorded(CudaGraph);

// SAFETY: the driver asks that nobody uses a graph from two threads at once, not that it stays on one; it is not `Sync`.
unsafe impl Send for Recorded {}

impl Drop for Graph {
    fn drop(&mut self) {
        if self.is_launched.get() {
            // SAFETY: nobody uses it after this.
            unsafe { ManuallyDrop::drop(&mut self.output) }
        }
    }
}

impl Graph {
    /// Records `work`. It is done once before, so that what is made on first use is there, and after that `undo` takes
    /// back what it changed; `recorded` takes back what it counted while nothing was done.
    ///
    /// # Safety
    /// 1. While the graph is launched, all memory that `work` reads or writes and did not allocate itself stays
    ///    allocated, and means the same.
    ///
    /// # Errors
    /// [`Error::Unsupported`] off GPUs, where the work is composed of candle's operations, which copy from the host, and
    /// where the driver refuses.
    pub(crate) unsafe fn record<S: Send>(
        device: &Device,
        state: &mut S,
        work: impl FnMut(&mut S) -> Result<Tensor> + Send,
        undo: impl FnOnce(&mut S) -> Result<()> + Send,
        recorded: impl FnOnce(&mut S) + Send,
    ) -> Result<Self> {
        let Device::Cuda(device) = device else {
            return Err(unsupported("it is the processor's".to_string()));
        };
        let gpu = Gpu::of(device).map_err(|refusal| unsupported(refusal.reason))?;
        // On one thread from here on: what candle's launches take from the host, shapes and strides, is copied when the
        // work is done once, and is the thread's.
        in_pool(|| Self::record_here(gpu, state, work, undo, recorded))
    }

    fn record_here<S>(
        gpu: Arc<Gpu>,
        state: &mut S,
        mut work: impl FnMut(&mut S) -> Result<Tensor>,
        undo: impl FnOnce(&mut S) -> Result<()>,
        recorded: impl FnOnce(&mut S),
    ) -> Result<Self> {
        let _copied_once = gpu.device.enable_cuda_graph_htod_cache();
        // Launches that are recorded have scratch of their own: others may outgrow theirs, and free it.
        let others = std::mem::take(&mut gpu.state().scratch);
        let made = Self::warmed(&gpu, state, &mut work, undo).and_then(|()| {
            gpu.state().kept = Some(Vec::new());
            let captured = Self::capture(&gpu, state, &mut work);
            recorded(state);
            let kept = gpu.state().kept.take().unwrap_or_default();
            let (graph, output) = captured.map_err(|refusal| unsupported(refusal.reason))?;
            Ok((graph, output, kept))
        });
        let scratch = std::mem::replace(&mut gpu.state().scratch, others);
        let (graph, output, kept) = made?;
        Ok(Self {
            graph: Recorded(graph),
            output: ManuallyDrop::new(output),
            is_launched: Cell::new(false),
            _scratch: scratch,
            _kept: kept,
        })
    }

    /// Does the work once as it is, kernels compiled and tried, tables sent.
    fn warmed<S>(
        gpu: &Gpu,
        state: &mut S,
        work: &mut impl FnMut(&mut S) -> Result<Tensor>,
        undo: impl FnOnce(&mut S) -> Result<()>,
    ) -> Result<()> {
        let before = fallbacks();
        drop(work(state)?);
        let composed = fallbacks_since(&before);
        undo(state)?;
        // After all that was queued: what comes next must not wait for it inside the recording.
        let waited = gpu.stream.synchronize();
        waited.map_err(|error| unsupported(error.to_string()))?;
        match composed.first() {
            None => Ok(()),
            Some(fallback) => Err(unsupported(format!(
                "{} is composed: {}",
                fallback.op, fallback.reason
            ))),
        }
    }

    fn capture<S>(
        gpu: &Gpu,
        state: &mut S,
        work: &mut impl FnMut(&mut S) -> Result<Tensor>,
    ) -> Asked<(CudaGraph, Tensor)> {
        // Relaxed: the pool's threads take part, and nobody else uses the device meanwhile.
        gpu.stream
            .begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED)?;
        let output = work(state).map(ManuallyDrop::new);
        // Whatever came of the work, the stream has to leave the recording.
        // Errors of tensors that were dropped meanwhile are taken first: the call would return them, and not end it.
        let dropped = gpu.stream.context().check_err();
        let ended = gpu
            .stream
            .end_capture(CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH);
        let output = output?;
        dropped?;
        let graph = ended?;
        let graph = graph.ok_or("the driver recorded nothing")?;
        graph.upload()?;
        Ok((graph, ManuallyDrop::into_inner(output)))
    }

    /// Queues the work once more.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with what the driver says.
    pub(crate) fn launch(&self) -> Result<()> {
        let launched = self.graph.0.launch();
        launched.map_err(|error| unsupported(error.to_string()))?;
        self.is_launched.set(true);
        Ok(())
    }

    /// What the last launch returned; the next one overwrites it.
    pub(crate) fn output(&self) -> Option<&Tensor> {
        self.is_launched.get().then_some(&*self.output)
    }
}

fn unsupported(reason: String) -> Error {
    Error::Unsupported {
        what: "a graph of this work".to_string(),
        remedy: reason,
    }
}
