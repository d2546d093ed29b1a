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
//!
//! ```
//! use attn_core::ops::{DecodeInput, decode, naive};
//! use attn_core::{Entry, SlotRows, Values, random_tensor};
//! use candle_core::{DType, Device};
//!
//! // Four query heads over two of keys and values, five slots of which three are in use.
//! let random = |shape: &[usize], stream| random_tensor(shape, 7, stream, DType::F32, &Device::Cpu);
//! let (q, keys, values) = (random(&[1, 4, 8], 0)?, random(&[1, 2, 5, 8], 1)?, random(&[1, 2, 5, 8], 2)?);
//! let input = DecodeInput {
//!     q: &q,
//!     rows: &SlotRows::keys_values(keys, values),
//!     entry: &Entry::new(2, 8, Values::Own(8)),
//!     slots: &[3],
//!     scale: 8_f64.powf(-0.5),
//! };
//! let gap = (decode(&input)?.to_dtype(DType::F64)? - naive::decode(&input, 0)?)?;
//! assert!(gap.abs()?.max_all()?.to_scalar::<f64>()? < 1e-5);
//! # Ok::<(), attn_core::Error>(())
//! ```

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
