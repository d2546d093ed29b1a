//! The variant's settings, and the way from them to a layer.

use attn_core::grouped::GROUPED_PARAMS;
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
    ParamSpec {
        name: "n_kv_heads",
        kind: ParamKind::Int { min: 1 },
        default: "required",
        help: "KV heads Hkv, a divisor of n_heads",
        symbol: "Hkv",
    },
    ParamSpec {
        name: "rope_dim",
        kind: ParamKind::Int { min: 2 },
        default: "head_dim / 2",
        help: "rope size Dr of the one key all heads share",
        symbol: "",
    },
    GROUPED_PARAMS[0],
    GROUPED_PARAMS[1],
];

/// The layer `dims` and `params` describe.
///
/// # Errors
/// [`Error::Geometry`] where head counts or sizes do not fit.
pub fn configure(dims: &ModelDims, params: &Params) -> Result<GtaConfig> {
    let n_kv_heads = params.int("n_kv_heads", dims.n_heads)?;
    if dims.n_heads % n_kv_heads != 0 {
        return Err(Error::geometry(
            &["n_heads", "n_kv_heads"],
            format!(
                "{} query heads cannot share {n_kv_heads} KV heads evenly, n_heads must be a multiple of n_kv_heads",
                dims.n_heads
            ),
        ));
    }
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
        n_kv_heads,
        rope_dim,
        bias: params.bool("bias", true)?,
        rope_theta: params.float("rope_theta", 10_000.0)?,
    })
}
