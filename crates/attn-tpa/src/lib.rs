//! Tensor product attention, an [`Attention`](attn_core::Attention) layer (Zhang et al., arXiv 2501.06425).
//!
//! Queries, keys and values of all heads are sums of outer products of two projections of the token:
//! `k[h] = 1 / R sum_r a_r[h] b_r` with `a_r` in R^H and `b_r` in R^D, RoPE on the `b_r` of q and k;
//! `softmax(q k^T / sqrt(D)) v` per head. The cache holds the factors, and decoding forms neither keys nor values.
//! Cache: `(Rk + Rv) (H + D)` elements per token and layer.
//!
//! ```
//! use attn_core::{Attention, Build, Capacity, LayerConfig, ModelDims, ParamValue, Params, Path, Weights};
//! use candle_core::{DType, Device, Tensor};
//!
//! let dims = ModelDims { d_model: 64, n_heads: 4, head_dim: 16 };
//! let params = Params::default().with("k_factors", ParamValue::Int(2)).with("v_factors", ParamValue::Int(1));
//! let config = attn_tpa::VARIANT.configure(&dims, &params)?;
//! let weights = Weights::seeded(&config.weight_specs(), 42)?;
//! let layer = config.build(&weights, &Build::cpu(Path::Fused, DType::F32))?;
//! let mut cache = layer.new_cache(1, Capacity::Exact(8))?;
//! let y = layer.decode(&Tensor::ones((1, 1, 64), DType::F32, &Device::Cpu)?, &mut cache)?;
//! assert_eq!(y.dims(), [1, 1, 64]);
//! assert_eq!(cache.kv_bytes(), 4 * ((2 + 1) * (4 + 16)));
//! # Ok::<(), attn_core::Error>(())
//! ```
#![warn(missing_docs)]

mod cache;
mod config;
mod forward;

pub use cache::entry;
pub use config::{VARIANT, configure};
pub use forward::{Tpa, TpaConfig};
