//! Operations on a GPU, by the kernels of [`attn_kernels::cuda`]: decode and its steps, attend and the merge of training
//! with their gradients.
//!
//! A kernel is compiled for the geometry that asks for it, and held against the processor's implementation on small
//! operands of ragged lengths before it is used. What has no kernel, does not compile, does not agree or cannot be
//! launched is composed of candle's operations, and noted ([`fallbacks`](super::fallbacks())).
//!
//! Not yet run on a GPU.

mod attend;
mod attend_backward;
mod decode;
mod ends;
mod gpu;
mod graph;
mod merge;
mod products;
mod rows;
mod step;
mod trial;
mod update;

use std::fmt::Display;

use attn_cuda::CudaError;
use attn_kernels::cuda::Dtype;
use candle_core::{DType, Tensor};

pub(super) use self::attend::attend;
pub(super) use self::decode::decode;
pub(crate) use self::ends::Ends;
pub(crate) use self::graph::Graph;
pub(crate) use self::merge::gated_sums;
pub(crate) use self::step::{GroupedStep, GroupedToken, LatentStep, LatentToken};
use crate::ops::fallback::note;

/// Calls a function for the elements of a kernel.
macro_rules! by_dtype {
    ($dtype:expr, $object:ident.$run:ident($($argument:expr),+)) => {
        match $dtype {
            attn_kernels::cuda::Dtype::F32 => $object.$run::<f32>($($argument),+),
            attn_kernels::cuda::Dtype::Bf16 => $object.$run::<half::bf16>($($argument),+),
            attn_kernels::cuda::Dtype::F16 => $object.$run::<half::f16>($($argument),+),
        }
    };
}
use by_dtype;

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

fn noted<T>(op: &'static str, asked: Asked<T>) -> Option<T> {
    asked.map_err(|refusal| note(op, &refusal.reason)).ok()
}

/// The kernel's name of the dtype that all operands share, out of any graph.
fn kernel_dtype(operands: &[&Tensor]) -> Asked<Dtype> {
    if operands.iter().any(|x| x.track_op()) {
        return Err("its kernel has no gradients".into());
    }
    operands_dtype(operands)
}

/// The kernel's name of the dtype that all operands share, on one device.
fn operands_dtype(operands: &[&Tensor]) -> Asked<Dtype> {
    let first = operands.first().ok_or("there are no operands")?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

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
