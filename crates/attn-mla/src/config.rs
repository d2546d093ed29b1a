//! The variant's settings, and the way from them to a layer.

use attn_core::latent::{LATENT_PARAMS, LatentConfig};
use attn_core::{Free, LayerConfig, ModelDims, Params, Result, Variant};

use crate::forward::MlaConfig;

/// The registry entry.
pub static VARIANT: Variant = Variant {
    key: "mla",
    title: "MLA",
    summary: "one low-rank latent and one rope key per token, shared by all heads",
    paper: "2405.04434",
    cache_formula: "(r + Dr) L",
    params: &LATENT_PARAMS,
    // The rank is what the variant trades.
    free: Free::by("kv_rank"),
    configure: |dims, params| Ok(Box::new(configure(dims, params)?) as Box<dyn LayerConfig>),
};

/// The layer `dims` and `params` describe.
///
/// # Errors
/// [`attn_core::Error::Geometry`] where the rope size is odd.
pub fn configure(dims: &ModelDims, params: &Params) -> Result<MlaConfig> {
    Ok(MlaConfig(LatentConfig::new(dims, params)?))
}
