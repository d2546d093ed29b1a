//! Multi-head temporal latent attention, an [`Attention`](attn_core::Attention) layer (MTLA, NeurIPS 2025, arXiv
//! 2505.13544).
//!
//! MLA whose latents are merged over blocks of s tokens: slot j holds the sum of `w_i c_i` over its block so far,
//! `w_i = sigmoid(fc_c(pe(j)) . fc_p(c_i))`, and the rope key of the block's newest token. Query i sees the closed
//! blocks before its own and its own block's partial sum, which makes training and decoding agree exactly.
//! Cache: `ceil(L / s) (r + Dr)` elements per layer.
//!
//! ```
//! use attn_core::{Attention, Build, Capacity, LayerConfig, ModelDims, ParamValue, Params, Path, Weights};
//! use candle_core::{DType, Device, Tensor};
//!
//! let dims = ModelDims { d_model: 64, n_heads: 4, head_dim: 16 };
//! let int = ParamValue::Int;
//! let params = Params::default().with("kv_rank", int(32)).with("rope_dim", int(8)).with("stride", int(2));
//! let config = attn_mtla::VARIANT.configure(&dims, &params)?;
//! let weights = Weights::seeded(&config.weight_specs(), 42)?;
//! let layer = config.build(&weights, &Build::cpu(Path::Fused, DType::F32))?;
//! let mut cache = layer.new_cache(1, Capacity::Exact(8))?;
//! for _ in 0..3 {
//!     let y = layer.decode(&Tensor::ones((1, 1, 64), DType::F32, &Device::Cpu)?, &mut cache)?;
//!     assert_eq!(y.dims(), [1, 1, 64]);
//! }
//! assert_eq!(cache.kv_bytes(), 2 * 4 * (32 + 8)); // three tokens, two slots
//! # Ok::<(), attn_core::Error>(())
//! ```
#![warn(missing_docs)]

mod cache;
mod config;
mod forward;
mod gate;
mod merging;
mod seedlike;
mod sums;

pub use cache::entry;
pub use config::{MtlaConfig, VARIANT, configure};
pub use forward::Mtla;
pub use merging::{Merging, SlotKey};
