//! What every attention variant shares: the [`Attention`] trait, geometry, caches, RoPE, the two operations
//! every variant is made of, and the cost model.
//!
//! Two operations serve every variant: [`ops::decode()`] (one query per sequence against a cache) and
//! [`ops::attend()`] (causal attention of whole sequences, block-strided with a diagonal for MTLA). A variant is
//! its projections, its cache and its view of these two.
//!
//! ```
//! use attn_core::grouped::GroupedConfig;
//! use attn_core::{Build, Capacity, Entry, LayerConfig, ModelDims, Params, Path, Values, Weights};
//! use candle_core::{DType, Device, Tensor};
//!
//! // GQA by hand: four query heads, two keys and values. The variants' crates do no more than this.
//! let dims = ModelDims { d_model: 64, n_heads: 4, head_dim: 16 };
//! let entry = Entry::new(2, 16, Values::Own(16));
//! let config = GroupedConfig::new(&dims, entry, &Params::default())?;
//! let weights = Weights::seeded(&config.weight_specs(), 42)?;
//! let layer = config.build(&weights, &Build::cpu(Path::Fused, DType::F32))?;
//!
//! let mut cache = layer.new_cache(1, Capacity::Exact(8))?;
//! let token = Tensor::ones((1, 1, 64), DType::F32, &Device::Cpu)?;
//! assert_eq!(layer.decode(&token, &mut cache)?.dims(), [1, 1, 64]);
//! assert_eq!(cache.kv_bytes(), 4 * 2 * 2 * 16); // 2 Hkv D elements of four bytes
//! # Ok::<(), attn_core::Error>(())
//! ```

pub mod attention;
pub mod cache;
pub mod cost;
pub mod error;
pub mod geometry;
pub mod grouped;
pub mod habits;
pub mod latent;
pub mod linear;
pub mod model_cost;
pub mod norm;
pub mod ops;
pub mod phase;
pub mod pool;
pub mod projected;
pub mod replay;
pub mod rope;
pub mod route;
pub mod settings;
pub mod variant;
pub mod weights;
pub mod workload;

pub use attention::{Attention, Queries};
pub use attn_kernels::keep_freed_memory;
pub use cache::{Cache, Capacity, SlotRows};
pub use cost::{Cost, Scope};
pub use error::{Error, Result};
pub use geometry::{Entry, Factors, Geometry, ProjectionMacs, Values};
pub use habits::{Habit, Habits};
pub use model_cost::{DecoderKind, ModelShape, Prefix};
pub use pool::{in_pool, join};
pub use projected::{Projected, Projections};
pub use replay::{Replay, Stepper};
pub use variant::{
    Build, Free, LayerConfig, ModelDims, ParamKind, ParamSpec, ParamValue, Params, Path, Variant,
};
pub use weights::{WeightSpec, Weights, random_tensor, random_unit};
pub use workload::Workload;
