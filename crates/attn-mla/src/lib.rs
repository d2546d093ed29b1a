//! Multi-head latent attention, an [`Attention`](attn_core::Attention) layer (DeepSeek-V2, arXiv 2405.04434).
//!
//! `c = norm(x W_r)` and one rope key `k^R = RoPE(x W_kr)` for all heads are all a cache holds of a token;
//! scores are `(q_nope W_UK) c + q_rope k^R` times `(Dn + Dr)^-1/2`, values `W_UV c`. Whole sequences decompress
//! `c` into keys and values, decoding absorbs `W_UK` and `W_UV` and reads only `c`.
//! Cache: `r + Dr` elements per token and layer.
//!
//! ```
//! use attn_core::{Attention, Build, Capacity, LayerConfig, ModelDims, ParamValue, Params, Path, Weights};
//! use candle_core::{DType, Device, Tensor};
//!
//! let dims = ModelDims { d_model: 64, n_heads: 4, head_dim: 16 };
//! let params = Params::default().with("kv_rank", ParamValue::Int(32)).with("rope_dim", ParamValue::Int(8));
//! let config = attn_mla::VARIANT.configure(&dims, &params)?;
//! let weights = Weights::seeded(&config.weight_specs(), 42)?;
//! let layer = config.build(&weights, &Build::cpu(Path::Fused, DType::F32))?;
//! let mut cache = layer.new_cache(1, Capacity::Exact(8))?;
//! let y = layer.decode(&Tensor::ones((1, 1, 64), DType::F32, &Device::Cpu)?, &mut cache)?;
//! assert_eq!(y.dims(), [1, 1, 64]);
//! assert_eq!(cache.kv_bytes(), 4 * (32 + 8));
//! # Ok::<(), attn_core::Error>(())
//! ```
#![warn(missing_docs)]

mod cache;
mod config;
mod forward;

pub use cache::entry;
pub use config::{VARIANT, configure};
pub use forward::{Mla, MlaConfig};
