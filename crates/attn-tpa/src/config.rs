//! The variant's settings, and the way from them to a layer.

use attn_core::settings::{ROPE_THETA, check_rope, rope_theta};
use attn_core::{
    Error, Factors, Free, LayerConfig, ModelDims, ParamKind, ParamSpec, Params, Result, Variant,
};

use crate::forward::TpaConfig;

/// The registry entry.
pub static VARIANT: Variant = Variant {
    key: "tpa",
    title: "TPA",
    summary: "keys and values of all heads are sums of a few outer products",
    paper: "2501.06425",
    cache_formula: "(Rk + Rv)(H + D) L",
    params: &PARAMS,
    // Products are few: heads and their size are finer.
    free: Free {
        params: "q_factors",
        kv_bytes: "head_dim",
        flops: "head_dim",
    },
    configure: |dims, params| Ok(Box::new(configure(dims, params)?) as Box<dyn LayerConfig>),
};

const PARAMS: [ParamSpec; 4] = [
    ParamSpec {
        name: "k_factors",
        kind: ParamKind::Int { min: 1 },
        default: "2",
        help: "outer products Rk that keys are a sum of",
        symbol: "Rk",
    },
    ParamSpec {
        name: "v_factors",
        kind: ParamKind::Int { min: 1 },
        default: "2",
        help: "outer products Rv that values are a sum of",
        symbol: "Rv",
    },
    ParamSpec {
        name: "q_factors",
        kind: ParamKind::Int { min: 0 },
        default: "6",
        help: "outer products Rq that queries are a sum of, 0 for one plain projection",
        symbol: "Rq",
    },
    ROPE_THETA,
];

/// The layer `dims` and `params` describe.
///
/// # Errors
/// [`Error::Geometry`] where the head size is odd, or there are more products than kernels take.
pub fn configure(dims: &ModelDims, params: &Params) -> Result<TpaConfig> {
    check_rope("head_dim", dims.head_dim)?;
    let factors = |name: &'static str| -> Result<usize> {
        match params.int(name, 2)? {
            n if n <= Factors::MOST => Ok(n),
            n => Err(Error::geometry(
                &[name],
                format!(
                    "{n} outer products are more than {}, the most that a slot is read with",
                    Factors::MOST
                ),
            )),
        }
    };
    Ok(TpaConfig {
        dims: *dims,
        k_factors: factors("k_factors")?,
        v_factors: factors("v_factors")?,
        q_factors: params.int("q_factors", 6)?,
        rope_theta: rope_theta(params)?,
    })
}
