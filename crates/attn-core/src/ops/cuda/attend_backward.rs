//! The gradients of attend by kernels: attend as candle's operation, and the launches behind it.

use std::sync::{Arc, Mutex, PoisonError};

use attn_kernels::cuda::{
    AttendBackwardOperands, AttendBackwardPlan, AttendGradients, CudaError, Loaded, Memory, Pass,
    Specialisation,
};
use candle_core::cuda::CudaDType;
use candle_core::cuda::cudarc::driver::{CudaSlice, DevicePtr, DeviceRepr};
use candle_core::op::BackpropOp;
use candle_core::{CpuStorage, CudaStorage, CustomOp3, Device, Layout, Shape, Storage, Tensor};

use super::attend::{AttendCall, AttendKernels, Operands, entries_of, shape_of, untracked};
use super::gpu::{Gpu, Ready, read, written, written_if_any};
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
        gradients.inspect_err(|refusal| {
            if let (true, Ok(kernel)) = (refusal.is_final, GradientKernels::specialisation(&kernels.plan)) {
                self.gpu.trials.refuse(kernel, &refusal.reason);
                self.gpu.state().attends.clear();
            }
        })
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
        let (plan, stream) = (&of.plan, &*self.stream);
        let [first, second] = operands.entries()?;
        let (grad, out) = (laid_out(grad)?, out.contiguous()?);
        let workspace = plan.workspace;
        // SAFETY: of each of them the kernels read only what they wrote before.
        let (mut rows, mut own_weights, mut shared_parts) = unsafe {
            (
                self.floats(2 * workspace.rows)?,
                self.floats(2 * workspace.own_weights)?,
                self.floats(workspace.shared_parts)?,
            )
        };
        // SAFETY: the kernels write all of each: a gradient for every query and entry.
        let (mut dq, mut d_first, mut d_second) = unsafe {
            (
                self.device.alloc::<T>(operands.q.elem_count())?,
                self.device.alloc::<T>(first.elem_count())?,
                self.device.alloc::<T>(second.elem_count())?,
            )
        };
        {
            let (q_of, q_layout) = operands.q.storage_and_layout();
            let entries_held = [first.storage_and_layout(), second.storage_and_layout()];
            let (out_of, out_layout) = out.storage_and_layout();
            let (grad_of, grad_layout) = grad.storage_and_layout();
            let (entries, _entries) = entries_of::<T>(&entries_held, operands.nope_dim, stream)?;
            let (q, _q) = read::<T>(&q_of, q_layout, stream)?;
            let (out, _out) = read::<T>(&out_of, out_layout, stream)?;
            let (grad, _grad) = read::<T>(&grad_of, grad_layout, stream)?;
            let (lse_address, _lse) = lse.device_ptr(stream);
            let (rows, _rows) = written_if_any(&mut rows, stream);
            let (own_weights, _own_weights) = written_if_any(&mut own_weights, stream);
            let (shared_parts, _shared_parts) = written_if_any(&mut shared_parts, stream);
            let (dq, _dq) = written(&mut dq, stream);
            let (d_first, _d_first) = written(&mut d_first, stream);
            let (d_second, _d_second) = written(&mut d_second, stream);
            let params = plan.params(&AttendBackwardOperands {
                q: rows_of(q, q_layout)?,
                closed: operands.closed.as_ref().map(|_| entries),
                own: operands.own.as_ref().map(|_| entries),
                start: operands.start,
                out,
                lse: Memory {
                    address: lse_address,
                    bytes: lse.num_bytes(),
                },
                grad: rows_of(grad, grad_layout)?,
                dq,
                entries: match operands.nope_dim {
                    None => AttendGradients::Apart {
                        k: d_first,
                        v: d_second,
                    },
                    Some(_) => AttendGradients::Joint {
                        kv: d_first,
                        shared: d_second,
                    },
                },
                rows,
                own_weights,
                shared_parts,
                scale: operands.scale,
            })?;
            for kernel in &of.kernels {
                // SAFETY: 1. The parameters are of the plan that all of these kernels were loaded for, and they are
                // launched in its order. 2. `params` held sizes and alignment of memory of this device against it;
                // operands live longer than the launches are made, and are freed in the stream's order. 3. Gradients and
                // workspace are this call's own, and the guards order operands with other streams.
                unsafe { kernel.launch(stream, &params) }?;
            }
        }
        let like = |x: &Tensor, gradient: CudaSlice<T>| {
            let gradient = Storage::Cuda(CudaStorage::wrap_cuda_slice(gradient, self.device.clone()));
            Tensor::from_storage(gradient, x.shape(), BackpropOp::none(), false)
        };
        Ok([
            like(&operands.q, dq),
            like(first, d_first),
            like(second, d_second),
        ])
    }

    /// Memory for so many f32, which may be none.
    ///
    /// # Safety
    /// 1. Nothing reads of it what was not written.
    unsafe fn floats(&self, n: usize) -> Asked<Option<CudaSlice<f32>>> {
        if n == 0 {
            return Ok(None); // an allocation of nothing is an error
        }
        // SAFETY: the caller's.
        Ok(Some(unsafe { self.stream.alloc::<f32>(n) }?))
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
