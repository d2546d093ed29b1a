//! What every attention variant shares: the [`Attention`] trait, geometry, caches, RoPE, the two operations
//! every variant is made of, and the cost model.
//!
//! Two operations serve every variant: [`ops::decode()`] (one query per sequence against a cache) and
//! [`ops::attend()`] (causal attention of whole sequences, block-strided with a diagonal for MTLA). A variant is
//! its projections, its cache and its view of these two.

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
