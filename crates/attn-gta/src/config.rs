//! The variant's settings, and the way from them to a layer.

use attn_core::settings::{self, BIAS, N_KV_HEADS, ROPE_THETA};
use attn_core::{Error, Free, LayerConfig, ModelDims, ParamKind, ParamSpec, Params, Result, Variant};

use crate::forward::GtaConfig;

/// The registry entry.
pub static VARIANT: Variant = Variant {
    key: "gta",
    title: "GTA",
    summary: "groups of query heads share one state that is key and value",
    paper: "2505.21487",
    cache_formula: "(Hkv D + Dr) L",
    params: PARAMS,
    // As of GQA: the cache depends on the KV heads alone, the rest on all heads.
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
        name: "rope_dim",
        kind: ParamKind::Int { min: 2 },
        default: "head_dim / 2",
        help: "rope size Dr of the one key all heads share",
        symbol: "",
    },
    BIAS,
    ROPE_THETA,
];

/// The layer `dims` and `params` describe.
///
/// # Errors
/// [`Error::Geometry`] where head counts or sizes do not fit.
pub fn configure(dims: &ModelDims, params: &Params) -> Result<GtaConfig> {
    let rope_dim = params.int("rope_dim", dims.head_dim / 2)?;
    if rope_dim % 2 != 0 || rope_dim == 0 || rope_dim >= dims.head_dim {
        return Err(Error::geometry(
            &["rope_dim", "head_dim"],
            format!(
                "rope turns pairs of elements of a key of head_dim {}, so rope_dim {rope_dim} must be even and smaller",
                dims.head_dim
            ),
        ));
    }
    Ok(GtaConfig {
        dims: *dims,
        n_kv_heads: settings::kv_heads(dims, params)?,
        rope_dim,
        bias: settings::bias(params)?,
        rope_theta: settings::rope_theta(params)?,
    })
}
