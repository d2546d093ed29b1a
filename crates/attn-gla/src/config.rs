//! The variant's settings, and the way from them to a layer.

use attn_core::latent::{LATENT_PARAMS, LatentConfig};
use attn_core::settings::{N_KV_HEADS, check_kv_heads};
use attn_core::{Error, Free, LayerConfig, ModelDims, ParamSpec, Params, Result, Variant};

use crate::forward::GlaConfig;

/// The registry entry.
pub static VARIANT: Variant = Variant {
    key: "gla",
    title: "GLA",
    summary: "groups of query heads share a low-rank latent, and all one rope key",
    paper: "2505.21487",
    cache_formula: "(r + Dr) L",
    params: &PARAMS,
    // The rank is what the variant trades.
    free: Free::by("kv_rank"),
    configure: |dims, params| Ok(Box::new(configure(dims, params)?) as Box<dyn LayerConfig>),
};

const PARAMS: [ParamSpec; 10] = {
    let mut all = [ParamSpec {
        default: "2",
        help: "latent heads Hc, a divisor of n_heads and of kv_rank",
        symbol: "Hc",
        ..N_KV_HEADS
    }; 10];
    let mut i = 0;
    while i < LATENT_PARAMS.len() {
        all[i + 1] = LATENT_PARAMS[i];
        i += 1;
    }
    all
};

/// The layer `dims` and `params` describe.
///
/// # Errors
/// [`Error::Geometry`] where the rope size is odd, or latent heads do not divide query heads and rank.
pub fn configure(dims: &ModelDims, params: &Params) -> Result<GlaConfig> {
    let latent = LatentConfig::new(dims, params)?;
    let n_latents = params.int("n_kv_heads", 2)?;
    check_kv_heads(dims, n_latents)?;
    if latent.kv_rank % n_latents != 0 {
        return Err(Error::geometry(
            &["kv_rank", "n_kv_heads"],
            format!(
                "rank {} cannot be split evenly between {n_latents} latent heads, kv_rank must be a multiple of n_kv_heads",
                latent.kv_rank
            ),
        ));
    }
    Ok(GlaConfig(LatentConfig { n_latents, ..latent }))
}
