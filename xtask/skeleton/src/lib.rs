//! SKELETON, an [`Attention`](attn_core::Attention) layer (authors, arXiv number).
//!
//! The formula, in the letters of ARCHITECTURE.md. Cache: its elements per token and layer.
//!
//! ```
//! use attn_core::{Attention, Build, Capacity, LayerConfig, ModelDims, Params, Path, Weights};
//! use candle_core::{DType, Device, Tensor};
//!
//! let dims = ModelDims { d_model: 64, n_heads: 4, head_dim: 16 };
//! let config = attn_skeleton::VARIANT.configure(&dims, &Params::default())?;
//! let weights = Weights::seeded(&config.weight_specs(), 42)?;
//! let layer = config.build(&weights, &Build::cpu(Path::Fused, DType::F32))?;
//! let mut cache = layer.new_cache(1, Capacity::Exact(8))?;
//! let y = layer.decode(&Tensor::ones((1, 1, 64), DType::F32, &Device::Cpu)?, &mut cache)?;
//! assert_eq!(y.dims(), [1, 1, 64]);
//! # Ok::<(), attn_core::Error>(())
//! ```
#![warn(missing_docs)]

mod cache;
mod config;
mod forward;

pub use cache::entry;
pub use config::{VARIANT, configure};
pub use forward::{SkeletonConfig, SkeletonProjections};
