//! The variant's settings, and the way from them to a layer.

use attn_core::{Error, Free, LayerConfig, ModelDims, ParamKind, ParamSpec, Params, Result, Variant};

use crate::forward::SkeletonConfig;

/// The registry entry.
pub static VARIANT: Variant = Variant {
    key: "skeleton",
    title: "SKELETON",
    summary: "what it does differently, in one line",
    paper: "",
    cache_formula: "2 H D L",
    params: &PARAMS,
    // What a sweep with `fair` may change to match it to another variant: a setting, or a size of the model.
    free: Free {
        params: "head_dim",
        kv_bytes: "head_dim",
        flops: "head_dim",
    },
    configure: |dims, params| Ok(Box::new(configure(dims, params)?) as Box<dyn LayerConfig>),
};

/// Its settings. Names that exist (`n_kv_heads`, `kv_rank`, `rope_dim`, `stride`) have columns in rows.
const PARAMS: [ParamSpec; 1] = [ParamSpec {
    name: "rope_theta",
    kind: ParamKind::Float,
    default: "10000",
    help: "base of the rotary embedding",
    symbol: "",
}];

/// The layer `dims` and `params` describe.
///
/// # Errors
/// [`Error::Geometry`] where the head size is odd.
pub fn configure(dims: &ModelDims, params: &Params) -> Result<SkeletonConfig> {
    if dims.head_dim % 2 != 0 {
        let message = format!(
            "rope turns pairs of elements, so head_dim {} must be even",
            dims.head_dim
        );
        return Err(Error::geometry(&["head_dim"], message));
    }
    Ok(SkeletonConfig {
        dims: *dims,
        rope_theta: params.float("rope_theta", 10_000.0)?,
    })
}
