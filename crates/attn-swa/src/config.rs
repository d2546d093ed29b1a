//! The variant's settings, and the way from them to a layer.

use attn_core::grouped::{GROUPED_PARAMS, GroupedConfig};
use attn_core::settings::{N_KV_HEADS, kv_heads};
use attn_core::{Free, LayerConfig, ModelDims, ParamKind, ParamSpec, Params, Result, Variant};

use crate::cache::entry;

/// The registry entry.
pub static VARIANT: Variant = Variant {
    key: "swa",
    title: "SWA",
    summary: "grouped heads that see a sliding window of tokens",
    paper: "2310.06825",
    cache_formula: "2 Hkv D min(L, W)",
    params: PARAMS,
    // Beyond the window the cache is what the window is.
    free: Free {
        params: "n_heads",
        kv_bytes: "n_kv_heads",
        flops: "n_heads",
    },
    configure: |dims, params| Ok(Box::new(configure(dims, params)?) as Box<dyn LayerConfig>),
};

const PARAMS: &[ParamSpec] = &[
    N_KV_HEADS,
    ParamSpec {
        name: "window",
        kind: ParamKind::Int { min: 1 },
        default: "required",
        help: "tokens W that a token sees, itself among them",
        symbol: "W",
    },
    GROUPED_PARAMS[0],
    GROUPED_PARAMS[1],
];

/// The layer `dims` and `params` describe.
///
/// # Errors
/// [`attn_core::Error::Geometry`] where head counts or sizes do not fit.
pub fn configure(dims: &ModelDims, params: &Params) -> Result<GroupedConfig> {
    let n_kv_heads = kv_heads(dims, params)?;
    Ok(GroupedConfig {
        window: Some(params.required_int("window")?),
        ..GroupedConfig::new(dims, entry(n_kv_heads, dims.head_dim), params)?
    })
}
