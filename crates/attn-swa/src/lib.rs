//! Sliding-window attention, an [`Attention`](attn_core::Attention) layer (Mistral 7B, Jiang et al., arXiv 2310.06825; Longformer,
//! Beltagy et al., arXiv 2004.05150).
//!
//! Grouped-query attention in which token i sees tokens `i - W < j <= i` alone: `softmax(q k^T / sqrt(D)) v` over the last
//! W, RoPE on all D elements of q and k. The cache is a ring of W slots, whose oldest is written over.
//! Cache: `2 Hkv D min(L, W)` elements per layer.
//!
//! ```
//! use attn_core::{Attention, Build, Capacity, LayerConfig, ModelDims, ParamValue, Params, Path, Weights};
//! use candle_core::{DType, Device, Tensor};
//!
//! let dims = ModelDims { d_model: 64, n_heads: 4, head_dim: 16 };
//! let params = Params::default().with("n_kv_heads", ParamValue::Int(2)).with("window", ParamValue::Int(4));
//! let config = attn_swa::VARIANT.configure(&dims, &params)?;
//! let weights = Weights::seeded(&config.weight_specs(), 42)?;
//! let layer = config.build(&weights, &Build::cpu(Path::Fused, DType::F32))?;
//! let mut cache = layer.new_cache(1, Capacity::Exact(8))?;
//! let y = layer.decode(&Tensor::ones((1, 1, 64), DType::F32, &Device::Cpu)?, &mut cache)?;
//! assert_eq!(y.dims(), [1, 1, 64]);
//! assert_eq!(cache.kv_bytes(), 4 * (2 * 2 * 16));
//! # Ok::<(), attn_core::Error>(())
//! ```
#![warn(missing_docs)]

mod cache;
mod config;
mod forward;

pub use cache::entry;
pub use config::{VARIANT, configure};
pub use forward::Swa;
