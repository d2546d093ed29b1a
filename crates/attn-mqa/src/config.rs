//! The variant's settings, and the way from them to a layer.

use attn_core::grouped::{GROUPED_PARAMS, GroupedConfig};
use attn_core::{Free, LayerConfig, ModelDims, ParamSpec, Params, Result, Variant};

use crate::cache::entry;

/// The registry entry.
pub static VARIANT: Variant = Variant {
    key: "mqa",
    title: "MQA",
    summary: "all query heads share one key and value head",
    paper: "1911.02150",
    cache_formula: "2 D L",
    params: PARAMS,
    // One KV head is cached whatever the query heads are: only its size changes the cache.
    free: Free {
        params: "n_heads",
        kv_bytes: "head_dim",
        flops: "n_heads",
    },
    configure: |dims, params| Ok(Box::new(configure(dims, params)?) as Box<dyn LayerConfig>),
};

const PARAMS: &[ParamSpec] = &GROUPED_PARAMS;

/// The layer `dims` and `params` describe.
///
/// # Errors
/// [`attn_core::Error::Geometry`] where head counts or sizes do not fit.
pub fn configure(dims: &ModelDims, params: &Params) -> Result<GroupedConfig> {
    GroupedConfig::new(dims, entry(dims.head_dim), params)
}
