//! The two operations every variant is made of, in plain candle code.
//!
//! [`decode()`]: one query per sequence against L cached entries. [`attend()`]: causal attention of whole
//! sequences, block-strided with a diagonal where a variant merges along time. Both take grouped heads as they
//! are (H / Hkv query heads share a KV head, nothing is expanded), compute in f32 or f64, and are
//! differentiable. [`naive`] is the reference of both. [`seedlike`] has the pieces of the seed's formulation that these replace.
//!
//! Operands are head-major, `[B, H, T, D]`: each head is one matrix product.

mod attend;
mod decode;
pub mod naive;
pub mod seedlike;
mod softmax;

pub use attend::{AttendInput, Own, attend};
pub use decode::{DecodeInput, decode};
pub use softmax::{Visible, softmax};
