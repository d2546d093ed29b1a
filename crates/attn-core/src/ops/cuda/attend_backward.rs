//! The gradients of attend by kernels: attend as candle's operation, and the launches behind it.

use std::sync::{Arc, Mutex, PoisonError};

use attn_cuda::{CudaError, Loaded};
use attn_kernels::cuda::{
    AttendBackwardOperands, AttendBackwardPlan, AttendGradients, Memory, Pass, Specialisation,
};
use candle_core::cuda::CudaDType;
use candle_core::cuda::cudarc::driver::{CudaSlice, DevicePtr, DeviceRepr};
use candle_core::{CpuStorage, CudaStorage, CustomOp3, Device, Layout, Shape, Tensor};

use super::attend::{AttendCall, AttendKernels, Operands, shape_of, untracked};
use super::gpu::{Gpu, Ready};
use super::rows::{laid_out, rows_of};
use super::trial::attend::{AttendTrial, GRADIENT_SLACK, TRIAL_BATCH, trial_shape};
use super::{Asked, by_dtype, candle_dtype};
use crate::ops::trials::{agree, bound};

/// The launches of the gradients, their kernels loaded.
pub(super) struct GradientKernels {
    plan: AttendBackwardPlan,
    /// One for each pass.
    kernels: Vec<Loaded>,
}

impl GradientKernels {
    /// Under which the verdict on all passes is kept: tiles of the others follow from what it is compiled for.
    fn specialisation(plan: &AttendBackwardPlan) -> Asked<Specialisation> {
        let mut passes = plan.passes.iter();
        let queries = passes.find(|pass| pass.pass == Pass::Queries);
        let queries = queries.ok_or("its plan has no pass for queries")?;
        Ok(queries.planned.specialisation.clone())
    }
}

/// Attend in a graph. What it returns is there before candle asks for it, so that a kernel that cannot be launched is
/// not candle's error: the graph gets the composition's operations then.
pub(super) struct AttendOp {
    gpu: Arc<Gpu>,
    kernels: Arc<AttendKernels>,
    /// What the kernel wrote, until candle takes it.
    out: Mutex<Option<CudaStorage>>,
    /// Logarithms of the sums of weights, `[B, H, T]`.
    lse: CudaSlice<f32>,
    /// Whether the entries are the queries' own.
    has_own: bool,
    nope_dim: Option<usize>,
    n_keys: usize,
    start: usize,
    scale: f32,
}

impl AttendOp {
    pub(super) fn new(
        gpu: Arc<Gpu>,
        kernels: Arc<AttendKernels>,
        operands: &Operands,
        out: CudaStorage,
        lse: CudaSlice<f32>,
    ) -> Self {
        Self {
            gpu,
            kernels,
            out: Mutex::new(Some(out)),
            lse,
            has_own: operands.own.is_some(),
            nope_dim: operands.nope_dim,
            n_keys: operands.n_keys,
            start: operands.start,
            scale: operands.scale,
        }
    }

    /// The operands again, as candle kept them.
    fn operands(&self, [q, first, second]: [&Tensor; 3]) -> Operands {
        let entries = Some([first.clone(), second.clone()]);
        let (closed, own) = match self.has_own {
            true => (None, entries),
            false => (entries, None),
        };
        Operands {
            q: q.clone(),
            closed,
            own,
            nope_dim: self.nope_dim,
            n_keys: self.n_keys,
            start: self.start,
            scale: self.scale,
        }
    }

    fn gradients(&self, of: [&Tensor; 3], out: &Tensor, grad: &Tensor) -> Asked<[Tensor; 3]> {
        let Some(kernels) = &self.kernels.backward else {
            return Err("its kernels were found without gradients".into());
        };
        let (gpu, operands) = (&self.gpu, self.operands(of));
        let gradients = by_dtype!(
            self.kernels.forward.dtype(),
            gpu.attend_gradients(kernels, &operands, out, &self.lse, grad)
        );
        let gradients = gradients.inspect_err(|refusal| {
            if let (true, Ok(kernel)) = (refusal.is_final, GradientKernels::specialisation(&kernels.plan)) {
                gpu.trials.refuse(kernel, &refusal.reason);
            }
        });
        gpu.state().settled(gradients)
    }
}

impl CustomOp3 for AttendOp {
    fn name(&self) -> &'static str {
        "attend"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        candle_core::bail!("the kernel of GPUs takes no operands of the processor's")
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(out) = out.take() else {
            candle_core::bail!("attend's output was taken before")
        };
        Ok((out, shape_of(&self.kernels.forward.plan).into()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        first: &Tensor,
        second: &Tensor,
        out: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        // The forward pass was the kernel's, so that nothing is left to compose: a launch that fails now is an error.
        let gradients = self.gradients([q, first, second], out, grad);
        let [dq, d_first, d_second] =
            gradients.map_err(|refusal| candle_core::Error::Msg(format!("attend: {}", refusal.reason)))?;
        // What nobody asked for would be added to zeros by candle.
        Ok((
            q.track_op().then_some(dq),
            first.track_op().then_some(d_first),
            second.track_op().then_some(d_second),
        ))
    }
}

impl Gpu {
    /// The kernels of all passes, loaded and tried.
    pub(super) fn find_gradients(&self, call: &AttendCall) -> std::result::Result<GradientKernels, String> {
        let found = self.load_gradients(call).map_err(|refusal| refusal.reason)?;
        let kernel = GradientKernels::specialisation(&found.plan).map_err(|refusal| refusal.reason)?;
        self.trials.verdict(kernel, || {
            self.try_gradients(&found.plan).map_err(|refusal| refusal.reason)
        })?;
        Ok(found)
    }

    fn load_gradients(&self, call: &AttendCall) -> Asked<GradientKernels> {
        let machine = self.kernels.machine();
        let plan = call
            .shape
            .plan_backward(machine, call.batch, call.tokens, call.n_keys);
        let plan = plan.map_err(CudaError::from)?;
        let kernels = plan
            .passes
            .iter()
            .map(|pass| self.kernels.load(&pass.planned))
            .collect::<std::result::Result<_, _>>()?;
        Ok(GradientKernels { plan, kernels })
    }

    /// Holds output, logarithms and gradients against those of the composition on the processor, in f32 of the same
    /// elements.
    fn try_gradients(&self, of: &AttendBackwardPlan) -> Asked<()> {
        let shape = trial_shape(&of.shape);
        let bound = GRADIENT_SLACK * bound(candle_dtype(shape.dtype));
        for lengths in AttendTrial::gradient_lengths(of) {
            let trial = AttendTrial::new(&shape, lengths)?;
            let expected = trial.gradients()?;
            let call = AttendCall {
                has_gradients: true,
                ..AttendCall::of(&trial.input())?
            };
            let forward = self.load(shape.plan(self.kernels.machine(), TRIAL_BATCH, lengths.tokens))?;
            let backward = self.load_gradients(&call)?;
            let on_gpu = trial.on(&Device::Cuda(self.device.clone()))?;
            let operands = Operands::of(&on_gpu.input())?;
            let got = by_dtype!(
                shape.dtype,
                self.trial_gradients(&forward, &backward, &operands, &on_gpu.grad)
            )?;
            for (got, expected) in got.iter().zip(&expected) {
                agree(got, expected, bound)?;
            }
        }
        Ok(())
    }

    fn trial_gradients<T: CudaDType + DeviceRepr>(
        &self,
        forward: &Ready<attn_kernels::cuda::AttendPlan>,
        backward: &GradientKernels,
        operands: &Operands,
        grad: &Tensor,
    ) -> Asked<[Tensor; 3]> {
        let (out, lse) = self.attend::<T>(forward, operands, true)?;
        let lse = lse.ok_or("attend returned no logarithms")?;
        let out = untracked(out, &forward.plan);
        self.attend_gradients::<T>(backward, operands, &out, &lse, grad)
    }

    /// Launches all passes. Returns the gradients of the queries and of the two tensors of entries, in their shapes.
    ///
    /// Expects operands that are laid out, entries of one kind, what [`Gpu::attend`] returned for them, and the gradient
    /// of that in any layout.
    fn attend_gradients<T: CudaDType + DeviceRepr>(
        &self,
        of: &GradientKernels,
        operands: &Operands,
        out: &Tensor,
        lse: &CudaSlice<f32>,
        grad: &Tensor,
    ) -> Asked<[Tensor; 3]> {
        let plan = &of.plan;
        let [first, second] = operands.entries()?;
        let grad = laid_out(grad)?;
        let workspace = plan.workspace;
        // Of each of them kernels read only what they wrote before.
        let rows = self.floats(2 * workspace.rows)?;
        let own_weights = self.floats(2 * workspace.own_weights)?;
        let shared_parts = self.floats(workspace.shared_parts)?;
        // A gradient for every query and entry.
        let dq = self.unwritten::<T>(operands.q.shape())?;
        let (d_first, d_second) = (
            self.unwritten::<T>(first.shape())?,
            self.unwritten::<T>(second.shape())?,
        );
        let entries = self.entries::<T>(&[first.clone(), second.clone()], operands.nope_dim)?;
        let (of_first, of_second) = (self.dense::<T>(&d_first)?, self.dense::<T>(&d_second)?);
        let params = plan.params(&AttendBackwardOperands {
            q: rows_of(self.memory::<T>(&operands.q)?, operands.q.layout())?,
            closed: operands.closed.as_ref().map(|_| entries),
            own: operands.own.as_ref().map(|_| entries),
            start: operands.start,
            out: self.dense::<T>(out)?,
            lse: Memory {
                address: lse.device_ptr(&self.stream).0,
                bytes: lse.num_bytes(),
            },
            grad: rows_of(self.memory::<T>(&grad)?, grad.layout())?,
            dq: self.dense::<T>(&dq)?,
            entries: match operands.nope_dim {
                None => AttendGradients::Apart {
                    k: of_first,
                    v: of_second,
                },
                Some(_) => AttendGradients::Joint {
                    kv: of_first,
                    shared: of_second,
                },
            },
            rows: self.memory_if_any(&rows)?,
            own_weights: self.memory_if_any(&own_weights)?,
            shared_parts: self.memory_if_any(&shared_parts)?,
            scale: operands.scale,
        })?;
        for kernel in &of.kernels {
            // SAFETY: 1. The parameters are of the plan that all of these kernels were loaded for, and they are launched
            // in its order. 2. `params` held sizes and alignment of memory of this device against it; operands are freed
            // in the stream's order. 3. Gradients and workspace are this call's own, and all work on this device goes
            // through one stream.
            unsafe { kernel.launch(&self.stream, &params) }?;
        }
        Ok([dq, d_first, d_second])
    }

    /// So many f32 that are yet to be written, which may be none.
    fn floats(&self, n: usize) -> Asked<Option<Tensor>> {
        match n {
            0 => Ok(None), // an allocation of nothing is an error
            _ => Ok(Some(self.unwritten::<f32>(n)?)),
        }
    }

    fn memory_if_any(&self, x: &Option<Tensor>) -> Asked<Memory> {
        match x {
            None => Ok(Memory::NONE),
            Some(x) => self.dense::<f32>(x),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use attn_kernels::cuda::{Arch, AttendShape, Dtype, Machine};

    /// The verdict on a trial holds for the call that asked for it: the same kernels, whatever the lengths and heads.
    #[test]
    fn trials_of_gradients_are_of_the_kernels_of_the_call() {
        let machine = Machine::usual(Arch::Sm90a);
        for dtype in Dtype::ALL {
            for (key_dim, shared_dim, value_dim) in [(64, 0, 64), (96, 32, 64), (192, 64, 128), (256, 0, 256)]
            {
                for stride in [None, Some(1), Some(2), Some(100)] {
                    let shape = AttendShape {
                        dtype,
                        n_heads: 32,
                        n_kv_heads: 8,
                        key_dim,
                        shared_dim,
                        value_dim,
                        stride,
                    };
                    let n_keys = 4096 / stride.unwrap_or(1);
                    let plan = shape.plan_backward(machine, 8, 4096, n_keys).unwrap();
                    let specialisations = |plan: &AttendBackwardPlan| -> Vec<Specialisation> {
                        let passes = plan.passes.iter();
                        passes.map(|pass| pass.planned.specialisation.clone()).collect()
                    };
                    let small = trial_shape(&shape);
                    let trials: Vec<_> = AttendTrial::gradient_lengths(&plan)
                        .into_iter()
                        .map(|lengths| {
                            let n_keys = lengths.n_keys(&small);
                            let plan = small.plan_backward(machine, TRIAL_BATCH, lengths.tokens, n_keys);
                            specialisations(&plan.unwrap())
                        })
                        .collect();
                    for wanted in specialisations(&plan) {
                        assert!(trials.iter().flatten().any(|tried| *tried == wanted));
                    }
                }
            }
        }
    }
}
