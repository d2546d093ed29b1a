//! Operands of CUDA kernels and what the formulas make of them, for the models of kernels and for their sources on the
//! host.
#![allow(dead_code)] // each test file uses its own part

pub mod attend;
pub mod merge;
pub mod update;

use attn_kernels::Element;
use attn_kernels::cuda::Dtype;

pub fn dtype<E: Element>() -> Dtype {
    match size_of::<E>() {
        4 => Dtype::F32,
        _ if E::from_f32(1e6).to_f32().is_finite() => Dtype::Bf16,
        _ => Dtype::F16,
    }
}
