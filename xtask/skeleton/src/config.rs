//! The variant's settings, and the way from them to a layer.

use attn_core::settings::{ROPE_THETA, check_rope, rope_theta};
use attn_core::{Free, LayerConfig, ModelDims, Params, Result, Variant};

use crate::forward::SkeletonConfig;

/// The registry entry.
pub static VARIANT: Variant = Variant {
    key: "skeleton",
    title: "SKELETON",
    summary: "what it does differently, in one line",
    paper: "",
    cache_formula: "2 H D L",
    // Those that exist (`attn_core::settings`, `kv_rank`, `rope_dim`, `stride`) have columns in rows.
    params: &[ROPE_THETA],
    // What a sweep with `fair` may change to match it to another variant: a setting, or a size of the model.
    free: Free::by("head_dim"),
    configure: |dims, params| Ok(Box::new(configure(dims, params)?) as Box<dyn LayerConfig>),
};

/// The layer `dims` and `params` describe.
///
/// # Errors
/// [`attn_core::Error::Geometry`] where the head size is odd.
pub fn configure(dims: &ModelDims, params: &Params) -> Result<SkeletonConfig> {
    check_rope("head_dim", dims.head_dim)?;
    Ok(SkeletonConfig {
        dims: *dims,
        rope_theta: rope_theta(params)?,
    })
}
