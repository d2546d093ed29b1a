//! Grouped latent attention, an [`Attention`](attn_core::Attention) layer (Zadouri et al., arXiv 2505.21487).
//!
//! MLA with several latent heads: `c_i = norm(x W_r,i)` of rank `r / Hc` for each, and one rope key `k^R = RoPE(x W_kr)` for
//! all. Query head h reads the latent of its group alone, `k = [c_i W_UK, k^R]`, `v = c_i W_UV`, so that a decode step does
//! 1 / Hc of MLA's work and latent heads can live on different devices; with one it is MLA.
//! Cache: `r + Dr` elements per token and layer.
//!
//! ```
//! use attn_core::{Attention, Build, Capacity, LayerConfig, ModelDims, ParamValue, Params, Path, Weights};
//! use candle_core::{DType, Device, Tensor};
//!
//! let dims = ModelDims { d_model: 64, n_heads: 4, head_dim: 16 };
//! let params = Params::default().with("n_kv_heads", ParamValue::Int(2)).with("kv_rank", ParamValue::Int(32)).with("rope_dim", ParamValue::Int(8));
//! let config = attn_gla::VARIANT.configure(&dims, &params)?;
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
pub use forward::{Gla, GlaConfig};
