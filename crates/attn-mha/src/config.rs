//! The variant's settings, and the way from them to a layer.

use attn_core::grouped::{GROUPED_PARAMS, GroupedConfig};
use attn_core::{Free, LayerConfig, ModelDims, ParamSpec, Params, Result, Variant};

use crate::cache::entry;

/// The registry entry.
pub static VARIANT: Variant = Variant {
    key: "mha",
    title: "MHA",
    summary: "every query head has its own keys and values",
    paper: "1706.03762",
    cache_formula: "2 H D L",
    params: PARAMS,
    // Heads of the same size: more of them is more of everything.
    free: Free::by("n_heads"),
    configure: |dims, params| Ok(Box::new(configure(dims, params)?) as Box<dyn LayerConfig>),
};

const PARAMS: &[ParamSpec] = &GROUPED_PARAMS;

/// The layer `dims` and `params` describe.
///
/// # Errors
/// [`attn_core::Error::Geometry`] where head counts or sizes do not fit.
pub fn configure(dims: &ModelDims, params: &Params) -> Result<GroupedConfig> {
    GroupedConfig::new(dims, entry(dims.n_heads, dims.head_dim), params)
}
