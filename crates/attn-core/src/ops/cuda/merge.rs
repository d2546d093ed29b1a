//! The merge of training by a kernel, and its gradients.

use std::sync::{Arc, Mutex, PoisonError};

use attn_cuda::{CudaError, Loaded};
use attn_kernels::cuda::{MergeGradients, MergeOperands, MergePlan, MergeShape};
use candle_core::cuda::CudaDType;
use candle_core::cuda::cudarc::driver::DeviceRepr;
use candle_core::op::BackpropOp;
use candle_core::{
    CpuStorage, CudaDevice, CudaStorage, CustomOp3, DType, Device, Layout, Shape, Storage, Tensor,
};

use super::gpu::{Gpu, written};
use super::rows::laid_out;
use super::trial::merge::{MergeTrial, TRIAL_BATCH};
use super::{Asked, by_dtype, candle_dtype, noted, operands_dtype};
use crate::latent::GateTable;
use crate::ops::trials::{agree, bound};

/// How far gradients of the table may be from the other implementation's: they are f32 for every dtype, and sums over
/// tokens and sequences that cancel.
const TABLE_BOUND: f64 = 1e-4;

/// Partial sums `[B, T, r]` of gated latents in every block of tokens of sequences from their beginning, with gradients
/// where an operand has one: each token weighed by `sigmoid(c . u[j] + b[j])` of its block j. `None` off GPUs, and where
/// they are to be composed, which is noted.
///
/// Expects latents `[B, T, r]` of f32, bf16 or f16, and a table in f32 on the same device with a row for every block. The
/// sums are of the latents' dtype, rounded from sums in f32.
pub(crate) fn gated_sums(c: &Tensor, table: &GateTable) -> Option<Tensor> {
    let Device::Cuda(device) = c.device() else {
        return None;
    };
    noted("merge", sums_by_kernel(device, c, table))
}

fn sums_by_kernel(device: &CudaDevice, c: &Tensor, table: &GateTable) -> Asked<Tensor> {
    let call = MergeCall::of(c, table)?;
    let gpu = Gpu::of(device)?;
    let kernels = gpu.merge_kernels(&call)?;
    let operands = [
        laid_out(&c.contiguous()?)?,
        table.u.contiguous()?,
        table.b.contiguous()?,
    ];
    let sums = by_dtype!(call.shape.dtype, gpu.merged(&kernels, operands));
    let sums = sums.inspect_err(|refusal| {
        if refusal.is_final {
            let kernel = kernels.plan.forward.specialisation.clone();
            gpu.trials.refuse(kernel, &refusal.reason);
        }
    });
    gpu.state().settled(sums)
}

/// What kernels are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct MergeCall {
    shape: MergeShape,
    batch: usize,
    tokens: usize,
    has_gradients: bool,
}

impl MergeCall {
    fn of(c: &Tensor, table: &GateTable) -> Asked<Self> {
        let GateTable { u, b, stride } = table;
        let (batch, tokens, rank) = c.dims3()?;
        let dtype = operands_dtype(&[c])?;
        let is_taken = |x: &Tensor| x.dtype() == DType::F32 && x.device().same_device(c.device());
        if ![u, b].into_iter().all(is_taken) {
            return Err("its table is not in f32 on the same device".into());
        }
        let (rows, width) = u.dims2()?;
        if width != rank || b.dims1()? != rows || rows.saturating_mul(*stride) < tokens {
            return Err("its table has not a row for each block".into());
        }
        Ok(Self {
            shape: MergeShape {
                dtype,
                rank,
                stride: *stride,
            },
            batch,
            tokens,
            has_gradients: [c, u, b].into_iter().any(|x| x.track_op()),
        })
    }
}

/// The kernels of a call.
pub(super) struct MergeKernels {
    plan: MergePlan,
    forward: Loaded,
    /// Where a graph is kept: in the order of their launches.
    backward: Option<[Loaded; 2]>,
}

/// Kernels that may be used, or why not.
pub(super) type FoundMerge = std::result::Result<Arc<MergeKernels>, String>;

/// The merge in a graph; what it returns is there before candle asks for it, as attend's.
struct MergeOp {
    gpu: Arc<Gpu>,
    kernels: Arc<MergeKernels>,
    /// What the kernel wrote, until candle takes it.
    sums: Mutex<Option<CudaStorage>>,
}

impl CustomOp3 for MergeOp {
    fn name(&self) -> &'static str {
        "gated-sums"
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
        c: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sums) = sums.take() else {
            candle_core::bail!("the sums were taken before")
        };
        Ok((sums, c.shape().clone()))
    }

    fn bwd(
        &self,
        c: &Tensor,
        u: &Tensor,
        b: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let Self { gpu, kernels, .. } = self;
        let dtype = kernels.plan.shape.dtype;
        let gradients = by_dtype!(dtype, gpu.merge_gradients(kernels, [c, u, b], grad));
        let gradients = gradients.inspect_err(|refusal| {
            if refusal.is_final {
                let [latents, _] = &kernels.plan.backward;
                gpu.trials.refuse(latents.specialisation.clone(), &refusal.reason);
            }
        });
        let gradients = gpu.state().settled(gradients);
        let [dc, du, db] =
            gradients.map_err(|refusal| candle_core::Error::Msg(format!("merge: {}", refusal.reason)))?;
        // What nobody asked for would be added to zeros by candle.
        Ok((
            c.track_op().then_some(dc),
            u.track_op().then_some(du),
            b.track_op().then_some(db),
        ))
    }
}

impl Gpu {
    /// Those of a call, which are found once for each shape until the number of tokens changes.
    fn merge_kernels(&self, call: &MergeCall) -> FoundMerge {
        let mut state = self.state();
        let key = (call.shape, call.batch, call.has_gradients);
        match state.merges.get(&key) {
            Some((tokens, found)) if *tokens == call.tokens => found.clone(),
            _ => {
                let found = self.find_merge(call).map(Arc::new);
                state.merges.insert(key, (call.tokens, found.clone()));
                found
            }
        }
    }

    fn find_merge(&self, call: &MergeCall) -> std::result::Result<MergeKernels, String> {
        let found = self.load_merge(call).map_err(|refusal| refusal.reason)?;
        let kernel = &found.plan.forward.specialisation;
        self.trials.verdict(kernel.clone(), || {
            self.try_merge(&call.shape, false)
                .map_err(|refusal| refusal.reason)
        })?;
        if call.has_gradients {
            let [latents, _] = &found.plan.backward;
            self.trials.verdict(latents.specialisation.clone(), || {
                self.try_merge(&call.shape, true)
                    .map_err(|refusal| refusal.reason)
            })?;
        }
        Ok(found)
    }

    fn load_merge(&self, call: &MergeCall) -> Asked<MergeKernels> {
        let plan = call.shape.plan(self.kernels.machine(), call.batch, call.tokens);
        let plan = plan.map_err(CudaError::from)?;
        let forward = self.kernels.load(&plan.forward)?;
        let backward = match call.has_gradients {
            true => {
                let [latents, tables] = &plan.backward;
                Some([self.kernels.load(latents)?, self.kernels.load(tables)?])
            }
            false => None,
        };
        Ok(MergeKernels {
            plan,
            forward,
            backward,
        })
    }

    /// Holds the sums, or their gradients, against those of candle's operations on the processor.
    fn try_merge(&self, shape: &MergeShape, has_gradients: bool) -> Asked<()> {
        for tokens in MergeTrial::tokens(shape) {
            let trial = MergeTrial::new(shape, tokens)?;
            let expected = trial.expected()?;
            let on_gpu = trial.on(&Device::Cuda(self.device.clone()))?;
            let kernels = self.load_merge(&MergeCall {
                shape: *shape,
                batch: TRIAL_BATCH,
                tokens,
                has_gradients,
            })?;
            let operands = [&on_gpu.c, &on_gpu.table.u, &on_gpu.table.b];
            let bound = bound(candle_dtype(shape.dtype));
            if !has_gradients {
                let sums = by_dtype!(shape.dtype, self.merge(&kernels, operands))?;
                let sums = self.wrap(sums, on_gpu.c.shape());
                agree(&sums, &expected.sums, bound)?;
                continue;
            }
            let got = by_dtype!(
                shape.dtype,
                self.merge_gradients(&kernels, operands, &on_gpu.grad)
            )?;
            let bounds = [bound, TABLE_BOUND, TABLE_BOUND];
            for ((got, expected), bound) in got.iter().zip(&expected.gradients).zip(bounds) {
                agree(got, expected, bound)?;
            }
        }
        Ok(())
    }

    /// The sums, in their graph where there is one.
    fn merged<T: CudaDType + DeviceRepr>(
        self: &Arc<Self>,
        kernels: &Arc<MergeKernels>,
        operands: [Tensor; 3],
    ) -> Asked<Tensor> {
        let [c, u, b] = operands.each_ref();
        let sums = self.merge::<T>(kernels, [c, u, b])?;
        if kernels.backward.is_none() {
            return Ok(self.wrap(sums, c.shape()));
        }
        let op = MergeOp {
            gpu: self.clone(),
            kernels: kernels.clone(),
            sums: Mutex::new(Some(sums)),
        };
        Ok(c.apply_op3(u, b, op)?)
    }

    /// What a kernel wrote, out of any graph.
    fn wrap(&self, storage: CudaStorage, shape: &Shape) -> Tensor {
        Tensor::from_storage(Storage::Cuda(storage), shape.clone(), BackpropOp::none(), false)
    }

    /// Launches the sums.
    ///
    /// Expects operands without gaps, latents of dtype `T` where vectors begin.
    fn merge<T: CudaDType + DeviceRepr>(
        &self,
        of: &MergeKernels,
        [c, u, b]: [&Tensor; 3],
    ) -> Asked<CudaStorage> {
        // SAFETY: the kernel writes all of it.
        let mut sums = unsafe { self.device.alloc::<T>(c.elem_count()) }?;
        let params = of.plan.params(&MergeOperands {
            c: self.dense::<T>(c)?,
            u: self.dense::<f32>(u)?,
            b: self.dense::<f32>(b)?,
            sums: Some(written(&mut sums, &self.stream).0),
            gradients: None,
        })?;
        // SAFETY: 1. The parameters are of the plan that the kernel was loaded for. 2. `params` held sizes and alignment
        // of memory of this device against it; operands are freed in the stream's order. 3. The sums are this call's own,
        // and all work on this device goes through one stream.
        unsafe { of.forward.launch(&self.stream, &params) }?;
        Ok(CudaStorage::wrap_cuda_slice(sums, self.device.clone()))
    }

    /// Launches the gradients: of latents, table and biases, in their shapes.
    ///
    /// Expects the operands of [`Gpu::merge`], and the gradient of what it returned in any layout.
    fn merge_gradients<T: CudaDType + DeviceRepr>(
        &self,
        of: &MergeKernels,
        [c, u, b]: [&Tensor; 3],
        grad: &Tensor,
    ) -> Asked<[Tensor; 3]> {
        let Some(kernels) = &of.backward else {
            return Err("its kernels were found without gradients".into());
        };
        let grad = laid_out(&grad.contiguous()?)?;
        let plan = &of.plan;
        let blocks = plan.tokens.div_ceil(plan.shape.stride);
        let dc = self.unwritten::<T>(c.shape())?;
        let du = self.of_table(u, blocks)?;
        let db = self.of_table(b, blocks)?;
        let of_logits = self.unwritten::<f32>((plan.batch, plan.tokens))?;
        let params = plan.params(&MergeOperands {
            c: self.dense::<T>(c)?,
            u: self.dense::<f32>(u)?,
            b: self.dense::<f32>(b)?,
            sums: None,
            gradients: Some(MergeGradients {
                sums: self.dense::<T>(&grad)?,
                c: self.dense::<T>(&dc)?,
                u: self.dense::<f32>(&du)?,
                b: self.dense::<f32>(&db)?,
                of_logits: self.dense::<f32>(&of_logits)?,
            }),
        })?;
        for kernel in kernels {
            // SAFETY: 1. The parameters are of the plan that both kernels were loaded for, and they are launched in its
            // order. 2. `params` held sizes and alignment of memory of this device against it; operands are freed in the
            // stream's order. 3. Gradients and what is between the launches are this call's own, and all work on this
            // device goes through one stream.
            unsafe { kernel.launch(&self.stream, &params) }?;
        }
        Ok([dc, du, db])
    }

    /// Memory for the gradients of a table, of which so many rows are written: zeros where it has more, for blocks that no
    /// token is in.
    fn of_table(&self, table: &Tensor, written: usize) -> Asked<Tensor> {
        Ok(match table.dim(0)? == written {
            true => self.unwritten::<f32>(table.shape())?,
            false => table.zeros_like()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use attn_kernels::cuda::Dtype;
    use candle_core::Var;

    fn table(blocks: usize, rank: usize, dtype: DType) -> GateTable {
        GateTable {
            u: Tensor::zeros((blocks, rank), dtype, &Device::Cpu).unwrap(),
            b: Tensor::zeros(blocks, dtype, &Device::Cpu).unwrap(),
            stride: 2,
        }
    }

    #[test]
    fn a_call_is_what_shapes_say_and_others_are_refused() {
        let c = Tensor::zeros((3, 5, 8), DType::F16, &Device::Cpu).unwrap();
        let call = MergeCall::of(&c, &table(4, 8, DType::F32)).ok().unwrap();
        let expected = MergeCall {
            shape: MergeShape {
                dtype: Dtype::F16,
                rank: 8,
                stride: 2,
            },
            batch: 3,
            tokens: 5,
            has_gradients: false,
        };
        assert_eq!(call, expected);
        let var = Var::from_tensor(&c).unwrap();
        assert!(MergeCall::of(&var, &table(3, 8, DType::F32)).is_ok_and(|call| call.has_gradients));
        let reason = |c: &Tensor, table| MergeCall::of(c, &table).err().unwrap().reason;
        assert!(reason(&c, table(2, 8, DType::F32)).contains("a row for each block"));
        assert!(reason(&c, table(3, 6, DType::F32)).contains("a row for each block"));
        assert!(reason(&c, table(3, 8, DType::F16)).contains("in f32"));
        let wide = c.to_dtype(DType::F64).unwrap();
        assert_eq!(
            reason(&wide, table(3, 8, DType::F32)),
            "no kernel for GPUs takes f64"
        );
    }
}
