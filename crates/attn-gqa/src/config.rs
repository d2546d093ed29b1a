//! The variant's settings, and the way from them to a layer.

use attn_core::grouped::{GROUPED_PARAMS, GroupedConfig};
use attn_core::settings::{N_KV_HEADS, kv_heads};
use attn_core::{Free, LayerConfig, ModelDims, ParamSpec, Params, Result, Variant};

use crate::cache::entry;

/// The registry entry.
pub static VARIANT: Variant = Variant {
    key: "gqa",
    title: "GQA",
    summary: "groups of query heads share a key and value head",
    paper: "2305.13245",
    cache_formula: "2 Hkv D L",
    params: PARAMS,
    // The cache depends on the KV heads alone; parameters and operations on all heads, in groups of the same size.
    free: Free {
        params: "n_heads",
        kv_bytes: "n_kv_heads",
        flops: "n_heads",
    },
    configure: |dims, params| Ok(Box::new(configure(dims, params)?) as Box<dyn LayerConfig>),
};

const PARAMS: &[ParamSpec] = &[N_KV_HEADS, GROUPED_PARAMS[0], GROUPED_PARAMS[1]];

/// The layer `dims` and `params` describe.
///
/// # Errors
/// [`attn_core::Error::Geometry`] where head counts or sizes do not fit.
pub fn configure(dims: &ModelDims, params: &Params) -> Result<GroupedConfig> {
    let n_kv_heads = kv_heads(dims, params)?;
    GroupedConfig::new(dims, entry(n_kv_heads, dims.head_dim), params)
}
