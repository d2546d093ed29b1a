//! Attend by a kernel; where a graph is kept, with the logarithms that its gradients start from.
//!
//! Operands are read where they lie: token by token as projections write them, or as a cache has them. Keys and values
//! side by side stay so, and the rope key that all heads share stays one; only rows that begin where vectors do not are
//! copied.

use std::sync::Arc;

use attn_kernels::cuda::{AttendEntries, AttendOperands, AttendPlan, AttendShape, Machine, Specialisation};
use candle_core::cuda::CudaDType;
use candle_core::cuda::cudarc::driver::{CudaSlice, DeviceRepr};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, Device, Storage, Tensor};

use super::attend_backward::{AttendOp, GradientKernels};
use super::gpu::{Gpu, Ready, written};
use super::rows::{from_column, laid_out, rows_of};
use super::trial::attend::{AttendTrial, TRIAL_BATCH, trial_shape};
use super::{Asked, by_dtype, candle_dtype, noted, operands_dtype};
use crate::error::Result;
use crate::ops::trials::{agree, bound};
use crate::ops::{AttendInput, Entries, composite};

/// Causal attention by a kernel: `[B, T, H, Dv]`, with a gradient where an operand has one. `None` off GPUs, and where it
/// is to be composed, which is noted.
///
/// Expects what [`attend()`](crate::ops::attend()) checked: entries for all that the last query sees, heads that are a
/// multiple of KV heads. Operands are of one dtype on one device; closed and own entries, where there are both, of one
/// kind and the same sizes. With gradients there is one kind of entries, and a sequence from its beginning where they are
/// own ones. Everything else is refused, and so composed.
pub(in crate::ops) fn attend(input: &AttendInput) -> Result<Option<Tensor>> {
    let Device::Cuda(device) = input.q.device() else {
        return Ok(None);
    };
    Ok(noted("attend", attend_by_kernel(device, input)))
}

fn attend_by_kernel(device: &CudaDevice, input: &AttendInput) -> Asked<Tensor> {
    let call = AttendCall::of(input)?;
    let gpu = Gpu::of(device)?;
    let kernels = gpu.attend_kernels(&call)?;
    // Not before there is a kernel: what it does not take is not copied for it.
    let operands = Operands::of(input)?;
    let out = by_dtype!(call.shape.dtype, gpu.attended(&kernels, operands));
    gpu.state().settled(out)
}

/// What kernels are asked for: all that depends on shapes alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AttendCall {
    pub(super) shape: AttendShape,
    pub(super) batch: usize,
    pub(super) tokens: usize,
    pub(super) n_keys: usize,
    pub(super) has_gradients: bool,
}

/// Sizes of entries, which closed and own ones share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct EntrySizes {
    batch: usize,
    n_kv_heads: usize,
    key_dim: usize,
    shared_dim: usize,
    value_dim: usize,
}

impl EntrySizes {
    fn of(entries: &Entries) -> Asked<Self> {
        let (batch, n, n_kv_heads, width) = entries.operands()[0].dims4()?;
        let (shared_dim, of_head, value_dim, beside) = match *entries {
            Entries::Apart { v, .. } => {
                let (b, m, heads, value_dim) = v.dims4()?;
                (0, width, value_dim, (b, m, heads))
            }
            Entries::Joint { k_r, nope_dim, .. } => {
                let (b, m, shared_dim) = k_r.dims3()?;
                (
                    shared_dim,
                    nope_dim,
                    width.saturating_sub(nope_dim),
                    (b, m, n_kv_heads),
                )
            }
        };
        if beside != (batch, n, n_kv_heads) {
            return Err("its keys and values are not as many".into());
        }
        Ok(Self {
            batch,
            n_kv_heads,
            key_dim: of_head + shared_dim,
            shared_dim,
            value_dim,
        })
    }
}

impl AttendCall {
    pub(super) fn of(input: &AttendInput) -> Asked<Self> {
        if input.window.is_some() {
            return Err("its queries see a window, which kernels of GPUs do not know".into());
        }
        let kinds: Vec<&Entries> = [&input.closed, &input.own].into_iter().flatten().collect();
        let mut operands = vec![input.q];
        kinds
            .iter()
            .for_each(|entries| operands.extend(entries.operands()));
        let dtype = operands_dtype(&operands)?;
        let has_gradients = operands.iter().any(|x| x.track_op());
        let (batch, tokens, n_heads, key_dim) = input.q.dims4()?;
        let sizes = kinds.iter().map(|entries| EntrySizes::of(entries));
        let sizes = sizes.collect::<Asked<Vec<_>>>()?;
        let [first, others @ ..] = sizes.as_slice() else {
            return Err("there are no entries".into());
        };
        if others.iter().any(|other| other != first) {
            return Err("its closed entries and its own ones are not of the same sizes".into());
        }
        if (first.batch, first.key_dim) != (batch, key_dim) {
            return Err("its keys are not those of its queries".into());
        }
        if let Some(own) = &input.own {
            if own.sizes()?[0] != tokens {
                return Err("its own entries are not one for each query".into());
            }
            // Their gradients would go to more tensors than an operation has, or to entries that are not given.
            if has_gradients && (input.closed.is_some() || input.start > 0) {
                return Err("own entries have gradients from a sequence's beginning alone".into());
            }
        }
        Ok(Self {
            shape: AttendShape {
                dtype,
                n_heads,
                n_kv_heads: first.n_kv_heads,
                key_dim,
                shared_dim: first.shared_dim,
                value_dim: first.value_dim,
                stride: input.own.as_ref().map(|_| input.stride),
            },
            batch,
            tokens,
            n_keys: input.n_closed()?,
            has_gradients,
        })
    }
}

/// Operands as the kernels take them, entries as keys and values or as both side by side and the shared columns.
#[derive(Debug, Clone)]
pub(super) struct Operands {
    pub(super) q: Tensor,
    pub(super) closed: Option<[Tensor; 2]>,
    pub(super) own: Option<[Tensor; 2]>,
    /// Columns of keys that heads do not share, where keys and values are side by side.
    pub(super) nope_dim: Option<usize>,
    pub(super) n_keys: usize,
    pub(super) start: usize,
    pub(super) scale: f32,
}

impl Operands {
    pub(super) fn of(input: &AttendInput) -> Asked<Self> {
        let entries = |of: &Option<Entries>| -> Asked<Option<[Tensor; 2]>> {
            let Some(of) = of else {
                return Ok(None);
            };
            let [first, second] = of.operands();
            Ok(Some([laid_out(first)?, laid_out(second)?]))
        };
        Ok(Self {
            q: laid_out(input.q)?,
            closed: entries(&input.closed)?,
            own: entries(&input.own)?,
            nope_dim: match input.closed.or(input.own) {
                Some(Entries::Joint { nope_dim, .. }) => Some(nope_dim),
                _ => None,
            },
            n_keys: input.n_closed()?,
            start: input.start,
            scale: input.scale as f32,
        })
    }

    /// The entries, where there is one kind of them.
    pub(super) fn entries(&self) -> Asked<&[Tensor; 2]> {
        match (&self.closed, &self.own) {
            (Some(entries), None) | (None, Some(entries)) => Ok(entries),
            _ => Err("it has entries of two kinds, or none".into()),
        }
    }
}

/// The kernels of a call.
pub(super) struct AttendKernels {
    pub(super) forward: Ready<AttendPlan>,
    /// Where a graph is kept.
    pub(super) backward: Option<GradientKernels>,
}

/// Kernels that may be used, or why not.
pub(super) type FoundAttend = std::result::Result<Arc<AttendKernels>, String>;

/// A plan of these sizes with that very kernel. How many queries its blocks have depends on how busy they keep the
/// machine, and so on the sizes: machines that are always busy or never have them all.
pub(super) fn plan_with(
    kernel: &Specialisation,
    machine: Machine,
    shape: &AttendShape,
    [batch, tokens]: [usize; 2],
) -> Option<AttendPlan> {
    let machines = [1, usize::MAX].map(|multiprocessors| Machine {
        multiprocessors,
        ..machine
    });
    let plans = machines
        .into_iter()
        .filter_map(|machine| shape.plan(machine, batch, tokens).ok());
    plans
        .into_iter()
        .find(|plan| plan.planned.specialisation == *kernel)
}

impl Gpu {
    /// Those of a call, which are found once for each shape until its lengths change.
    fn attend_kernels(&self, call: &AttendCall) -> FoundAttend {
        let mut state = self.state();
        let key = (call.shape, call.batch, call.has_gradients);
        let lengths = [call.tokens, call.n_keys];
        match state.attends.get(&key) {
            Some((known, found)) if *known == lengths => found.clone(),
            _ => {
                let found = self.find_attend(call).map(Arc::new);
                state.attends.insert(key, (lengths, found.clone()));
                found
            }
        }
    }

    fn find_attend(&self, call: &AttendCall) -> std::result::Result<AttendKernels, String> {
        let plan = call.shape.plan(self.kernels.machine(), call.batch, call.tokens);
        let forward = self.load(plan).map_err(|refusal| refusal.reason)?;
        self.trials.verdict(forward.specialisation().clone(), || {
            self.try_attend(&forward).map_err(|refusal| refusal.reason)
        })?;
        let backward = match call.has_gradients {
            true => Some(self.find_gradients(call)?),
            false => None,
        };
        Ok(AttendKernels { forward, backward })
    }

    /// Holds a kernel against the composition of candle's operations on the processor.
    fn try_attend(&self, of: &Ready<AttendPlan>) -> Asked<()> {
        let shape = trial_shape(&of.plan.shape);
        for lengths in AttendTrial::lengths(&of.plan) {
            let trial = AttendTrial::new(&shape, lengths)?;
            let sizes = [TRIAL_BATCH, lengths.tokens];
            let plan = plan_with(of.specialisation(), self.kernels.machine(), &shape, sizes)
                .ok_or("no plan of small operands has its tiles")?;
            let ready = Ready {
                kernel: self.kernels.load(&plan.planned)?,
                plan,
            };
            let expected = composite::attend(&trial.input())?;
            let on_gpu = trial.on(&Device::Cuda(self.device.clone()))?;
            let operands = Operands::of(&on_gpu.input())?;
            let (got, _) = by_dtype!(shape.dtype, self.attend(&ready, &operands, false))?;
            let got = untracked(got, &ready.plan);
            agree(&got, &expected, bound(candle_dtype(shape.dtype)))?;
        }
        Ok(())
    }

    /// The tensor, in its graph where there is one.
    fn attended<T: CudaDType + DeviceRepr>(
        self: &Arc<Self>,
        kernels: &Arc<AttendKernels>,
        operands: Operands,
    ) -> Asked<Tensor> {
        let keeps_graph = kernels.backward.is_some();
        let (out, lse) = self.attend::<T>(&kernels.forward, &operands, keeps_graph)?;
        let Some(lse) = lse else {
            return Ok(untracked(out, &kernels.forward.plan));
        };
        let [first, second] = operands.entries()?;
        let op = AttendOp::new(self.clone(), kernels.clone(), &operands, out, lse);
        Ok(operands.q.apply_op3(first, second, op)?)
    }

    /// Launches the kernel. Returns `[B, T, H, Dv]`, and where they are asked for the logarithms `[B, H, T]`.
    ///
    /// Expects operands that are laid out ([`laid_out`]), of the plan's sizes and dtype `T`.
    pub(super) fn attend<T: CudaDType + DeviceRepr>(
        &self,
        ready: &Ready<AttendPlan>,
        operands: &Operands,
        has_lse: bool,
    ) -> Asked<(CudaStorage, Option<CudaSlice<f32>>)> {
        let plan = &ready.plan;
        let lines = plan.batch * plan.shape.n_heads * plan.tokens;
        // SAFETY: the kernel writes all of both.
        let mut out = unsafe { self.device.alloc::<T>(lines * plan.shape.value_dim) }?;
        let mut lse = match has_lse {
            // SAFETY: the same.
            true => Some(unsafe { self.stream.alloc::<f32>(lines) }?),
            false => None,
        };
        let entries = |of: &Option<[Tensor; 2]>| {
            let entries = of.as_ref().map(|of| self.entries::<T>(of, operands.nope_dim));
            entries.transpose()
        };
        let params = plan.params(&AttendOperands {
            q: rows_of(self.memory::<T>(&operands.q)?, operands.q.layout())?,
            closed: entries(&operands.closed)?,
            own: entries(&operands.own)?,
            n_keys: operands.n_keys,
            start: operands.start,
            out: written(&mut out, &self.stream).0,
            lse: lse.as_mut().map(|lse| written(lse, &self.stream).0),
            scale: operands.scale,
        })?;
        // SAFETY: 1. The parameters are of the plan that the kernel was loaded for. 2. `params` held sizes and alignment
        // of memory of this device against it; operands are freed in the stream's order. 3. The output and the logarithms
        // are this call's own, and all work on this device goes through one stream.
        unsafe { self.launch(ready, &params) }?;
        Ok((CudaStorage::wrap_cuda_slice(out, self.device.clone()), lse))
    }

    /// Entries as a kernel takes them, of [`Operands`]'s two tensors.
    pub(super) fn entries<T: CudaDType>(
        &self,
        [first, second]: &[Tensor; 2],
        nope_dim: Option<usize>,
    ) -> Asked<AttendEntries> {
        let first = rows_of(self.memory::<T>(first)?, first.layout())?;
        let second = rows_of(self.memory::<T>(second)?, second.layout())?;
        Ok(match nope_dim {
            None => AttendEntries {
                k: first,
                shared: None,
                v: second,
            },
            Some(nope_dim) => AttendEntries {
                k: first,
                shared: Some(second),
                v: from_column(first, nope_dim, size_of::<T>()),
            },
        })
    }
}

/// What a kernel wrote, out of any graph.
pub(super) fn untracked(out: CudaStorage, plan: &AttendPlan) -> Tensor {
    Tensor::from_storage(Storage::Cuda(out), shape_of(plan), BackpropOp::none(), false)
}

/// Of the output.
pub(super) fn shape_of(plan: &AttendPlan) -> (usize, usize, usize, usize) {
    (plan.batch, plan.tokens, plan.shape.n_heads, plan.shape.value_dim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use attn_kernels::cuda::{Arch, Dtype};
    use candle_core::{DType, Var};

    fn zeros(shape: &[usize]) -> Tensor {
        Tensor::zeros(shape, DType::BF16, &Device::Cpu).unwrap()
    }

    fn reason(input: &AttendInput) -> String {
        AttendCall::of(input).err().unwrap().reason
    }

    #[test]
    fn a_call_is_what_shapes_say() {
        let (q, kv, k_r) = (zeros(&[2, 5, 4, 24]), zeros(&[2, 5, 4, 32]), zeros(&[2, 5, 8]));
        let own = Entries::Joint {
            kv: &kv,
            k_r: &k_r,
            nope_dim: 16,
        };
        let input = AttendInput {
            q: &q,
            closed: None,
            own: Some(own),
            start: 0,
            stride: 2,
            window: None,
            scale: 1.0,
        };
        let expected = AttendCall {
            shape: AttendShape {
                dtype: Dtype::Bf16,
                n_heads: 4,
                n_kv_heads: 4,
                key_dim: 24,
                shared_dim: 8,
                value_dim: 16,
                stride: Some(2),
            },
            batch: 2,
            tokens: 5,
            n_keys: 2,
            has_gradients: false,
        };
        assert!(AttendCall::of(&input).is_ok_and(|call| call == expected));
        let closed = AttendInput {
            closed: Some(own),
            own: None,
            stride: 1,
            ..input
        };
        let call = AttendCall::of(&closed).ok().unwrap();
        assert_eq!((call.shape.stride, call.n_keys), (None, 5));
        let operands = Operands::of(&input).ok().unwrap();
        assert_eq!((operands.nope_dim, operands.n_keys), (Some(16), 2));
        assert!(operands.entries().is_ok());
    }

    #[test]
    fn what_has_no_kernel_is_refused_with_its_reason() {
        let (q, k, v) = (zeros(&[2, 5, 4, 16]), zeros(&[2, 5, 2, 16]), zeros(&[2, 5, 2, 8]));
        let own = Entries::Apart { k: &k, v: &v };
        let input = AttendInput {
            q: &q,
            closed: None,
            own: Some(own),
            start: 0,
            stride: 2,
            window: None,
            scale: 1.0,
        };
        assert!(AttendCall::of(&input).is_ok());
        let half = q.to_dtype(DType::F16).unwrap();
        assert!(reason(&AttendInput { q: &half, ..input }).contains("several dtypes"));
        let wide = zeros(&[2, 5, 4, 24]);
        assert!(reason(&AttendInput { q: &wide, ..input }).contains("not those of its queries"));
        let short = zeros(&[2, 3, 4, 16]);
        assert!(reason(&AttendInput { q: &short, ..input }).contains("one for each query"));
        let v = zeros(&[2, 4, 2, 8]);
        let own = Some(Entries::Apart { k: &k, v: &v });
        assert!(reason(&AttendInput { own, ..input }).contains("not as many"));
        let (kv, k_r) = (zeros(&[2, 9, 2, 24]), zeros(&[2, 9, 0]));
        let closed = Some(Entries::Joint {
            kv: &kv,
            k_r: &k_r,
            nope_dim: 8,
        });
        assert!(reason(&AttendInput { closed, ..input }).contains("same sizes"));
    }

    #[test]
    fn gradients_of_own_entries_begin_with_the_sequence() {
        let q = Var::from_tensor(&zeros(&[2, 5, 4, 16])).unwrap();
        let (k, v) = (zeros(&[2, 5, 2, 16]), zeros(&[2, 5, 2, 8]));
        let entries = Entries::Apart { k: &k, v: &v };
        let own = AttendInput {
            q: q.as_tensor(),
            closed: None,
            own: Some(entries),
            start: 0,
            stride: 2,
            window: None,
            scale: 1.0,
        };
        assert!(AttendCall::of(&own).is_ok_and(|call| call.has_gradients));
        let later = AttendInput { start: 1, ..own };
        assert!(reason(&later).contains("beginning alone"));
        let closed = Some(entries);
        assert!(reason(&AttendInput { closed, ..own }).contains("beginning alone"));
        let plain = AttendInput {
            closed,
            own: None,
            stride: 1,
            ..own
        };
        assert!(AttendCall::of(&plain).is_ok());
    }

    /// Whatever a plan's sizes made of its tiles, there is a trial of the same kernel.
    #[test]
    fn every_kernel_has_a_plan_of_small_operands() {
        for arch in Arch::ALL {
            let machine = Machine::usual(arch);
            for dtype in Dtype::ALL {
                for (key_dim, value_dim) in
                    [(64, 64), (96, 64), (128, 128), (192, 128), (256, 256), (136, 40)]
                {
                    for (n_heads, batch, tokens) in [(1, 1, 1), (8, 1, 300), (8, 4, 512), (32, 8, 4096)] {
                        let shape = AttendShape {
                            dtype,
                            n_heads,
                            n_kv_heads: 1,
                            key_dim,
                            shared_dim: 8,
                            value_dim,
                            stride: Some(2),
                        };
                        let Ok(plan) = shape.plan(machine, batch, tokens) else {
                            continue;
                        };
                        let kernel = &plan.planned.specialisation;
                        for lengths in AttendTrial::lengths(&plan) {
                            let sizes = [TRIAL_BATCH, lengths.tokens];
                            let found = plan_with(kernel, machine, &trial_shape(&shape), sizes);
                            assert!(found.is_some(), "{}", kernel.describe());
                        }
                    }
                }
            }
        }
    }
}
