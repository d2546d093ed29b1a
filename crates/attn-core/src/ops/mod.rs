//! The two operations every variant is made of.
//!
//! [`decode()`]: one query per sequence against L cached entries. [`attend()`]: causal attention of whole sequences,
//! block-strided with a diagonal where a variant merges along time. Both take grouped heads as they are (H / Hkv query
//! heads share a KV head, nothing is expanded), and compute in f32 or f64. On the CPU, in f32, bf16 and f16, they run as
//! native kernels at the [`level()`] of the processor, attend with its gradients too. On a GPU both have kernels for the
//! same, and a self-check before the first use of each. In f64, and for decode with gradients, both are the
//! [`composite`] of candle's operations; where that stands in for a GPU's kernel, [`fallbacks()`] says why. [`naive`] is
//! the reference of both, [`seedlike`] has the pieces of the seed's formulation that these replace.
//!
//! Operands are `[B, H, T, D]`, in memory head by head or token by token.

mod attend;
pub(crate) mod batched;
pub mod composite;
#[cfg_attr(not(feature = "cuda"), path = "no_cuda.rs")]
pub(crate) mod cuda;
mod decode;
mod fallback;
mod gradient;
pub mod naive;
pub(crate) mod native;
mod prefixed;
pub mod seedlike;
mod softmax;
#[cfg(any(feature = "cuda", test))]
mod trials;

pub use attend::{AttendInput, Entries, attend};
pub use decode::{DecodeInput, decode, decode_cached, form};
pub use fallback::{Fallback, fallbacks, fallbacks_since};
pub use native::level;
pub use softmax::{Visible, softmax};
