//! Grouped-tied attention, an [`Attention`](attn_core::Attention) layer (Zadouri et al., arXiv 2505.21487).
//!
//! Keys and values of a group of heads are one state `u = x W_kv` of D: the value is all of it, the key its first `D - Dr`
//! columns and then a rope key `k^R = RoPE(x W_kr)` that all heads share. `softmax(q k^T / sqrt(D)) v` per query head,
//! whose last Dr columns are turned.
//! Cache: `Hkv D + Dr` elements per token and layer, about half of GQA's.
//!
//! ```
//! use attn_core::{Attention, Build, Capacity, LayerConfig, ModelDims, ParamValue, Params, Path, Weights};
//! use candle_core::{DType, Device, Tensor};
//!
//! let dims = ModelDims { d_model: 64, n_heads: 4, head_dim: 16 };
//! let params = Params::default().with("n_kv_heads", ParamValue::Int(2));
//! let config = attn_gta::VARIANT.configure(&dims, &params)?;
//! let weights = Weights::seeded(&config.weight_specs(), 42)?;
//! let layer = config.build(&weights, &Build::cpu(Path::Fused, DType::F32))?;
//! let mut cache = layer.new_cache(1, Capacity::Exact(8))?;
//! let y = layer.decode(&Tensor::ones((1, 1, 64), DType::F32, &Device::Cpu)?, &mut cache)?;
//! assert_eq!(y.dims(), [1, 1, 64]);
//! assert_eq!(cache.kv_bytes(), 4 * (2 * 16 + 8));
//! # Ok::<(), attn_core::Error>(())
//! ```
#![warn(missing_docs)]

mod cache;
mod config;
mod forward;

pub use cache::entry;
pub use config::{VARIANT, configure};
pub use forward::{Gta, GtaConfig};
