//! Settings that several variants have: the same names, so that a sweep sets them once and rows have one column, and the
//! same checks.
//!
//! ```
//! use attn_core::settings::{N_KV_HEADS, kv_heads};
//! use attn_core::{ModelDims, ParamValue, Params};
//!
//! let dims = ModelDims { d_model: 64, n_heads: 4, head_dim: 16 };
//! let heads = |n| kv_heads(&dims, &Params::default().with(N_KV_HEADS.name, ParamValue::Int(n)));
//! assert_eq!(heads(2)?, 2);
//! assert!(heads(3).is_err());
//! # Ok::<(), attn_core::Error>(())
//! ```

use crate::error::{Error, Result};
use crate::variant::{ModelDims, ParamKind, ParamSpec, Params};

/// KV heads Hkv, which groups of query heads share.
///
/// ```
/// assert!(attn_core::settings::N_KV_HEADS.is_required());
/// ```
pub const N_KV_HEADS: ParamSpec = ParamSpec {
    name: "n_kv_heads",
    kind: ParamKind::Int { min: 1 },
    default: "required",
    help: "KV heads Hkv, a divisor of n_heads",
    symbol: "Hkv",
};

/// Whether projections have biases.
///
/// ```
/// assert_eq!(attn_core::settings::BIAS.default, "true");
/// ```
pub const BIAS: ParamSpec = ParamSpec {
    name: "bias",
    kind: ParamKind::Bool,
    default: "true",
    help: "whether projections have biases",
    symbol: "",
};

/// Base of the rotary embedding.
///
/// ```
/// assert_eq!(attn_core::settings::ROPE_THETA.default, "10000");
/// ```
pub const ROPE_THETA: ParamSpec = ParamSpec {
    name: "rope_theta",
    kind: ParamKind::Float,
    default: "10000",
    help: "base of the rotary embedding",
    symbol: "",
};

/// What [`N_KV_HEADS`] is among `params`.
///
/// # Errors
/// [`Error::ParamValue`] where it is missing, else as [`check_kv_heads`].
///
/// ```
/// use attn_core::{ModelDims, ParamValue, Params, settings};
///
/// let dims = ModelDims { d_model: 64, n_heads: 4, head_dim: 16 };
/// let params = Params::default().with("n_kv_heads", ParamValue::Int(2));
/// assert_eq!(settings::kv_heads(&dims, &params)?, 2);
/// assert!(settings::kv_heads(&dims, &Params::default()).is_err());
/// # Ok::<(), attn_core::Error>(())
/// ```
pub fn kv_heads(dims: &ModelDims, params: &Params) -> Result<usize> {
    let n_kv_heads = params.required_int(N_KV_HEADS.name)?;
    check_kv_heads(dims, n_kv_heads)?;
    Ok(n_kv_heads)
}

/// What [`BIAS`] is among `params`.
///
/// # Errors
/// [`Error::ParamValue`] where it is no yes or no.
///
/// ```
/// assert!(attn_core::settings::bias(&attn_core::Params::default())?);
/// # Ok::<(), attn_core::Error>(())
/// ```
pub fn bias(params: &Params) -> Result<bool> {
    params.bool(BIAS.name, true)
}

/// What [`ROPE_THETA`] is among `params`.
///
/// # Errors
/// [`Error::ParamValue`] where it is no number.
///
/// ```
/// assert_eq!(attn_core::settings::rope_theta(&attn_core::Params::default())?, 10_000.0);
/// # Ok::<(), attn_core::Error>(())
/// ```
pub fn rope_theta(params: &Params) -> Result<f64> {
    params.float(ROPE_THETA.name, 10_000.0)
}

/// Checks that every KV head serves as many query heads.
///
/// # Errors
/// [`Error::Geometry`] where H is no multiple of Hkv.
///
/// ```
/// use attn_core::ModelDims;
/// use attn_core::settings::check_kv_heads;
///
/// let dims = ModelDims { d_model: 64, n_heads: 4, head_dim: 16 };
/// assert!(check_kv_heads(&dims, 2).is_ok());
/// let error = check_kv_heads(&dims, 3).unwrap_err();
/// assert!(error.to_string().contains("n_heads must be a multiple of n_kv_heads"));
/// ```
pub fn check_kv_heads(dims: &ModelDims, n_kv_heads: usize) -> Result<()> {
    if n_kv_heads > 0 && dims.n_heads.is_multiple_of(n_kv_heads) {
        return Ok(());
    }
    Err(Error::geometry(
        &["n_heads", N_KV_HEADS.name],
        format!(
            "{} query heads cannot share {n_kv_heads} KV heads evenly, n_heads must be a multiple of n_kv_heads",
            dims.n_heads
        ),
    ))
}

/// Checks that the columns rope turns are pairs; `name` is the size that says how many they are.
///
/// # Errors
/// [`Error::Geometry`] where `dim` is odd.
///
/// ```
/// use attn_core::settings::check_rope;
///
/// assert!(check_rope("head_dim", 64).is_ok());
/// let error = check_rope("rope_dim", 7).unwrap_err();
/// assert_eq!(error.to_string(), "impossible geometry: rope turns pairs of elements, so rope_dim 7 must be even");
/// ```
pub fn check_rope(name: &'static str, dim: usize) -> Result<()> {
    if dim.is_multiple_of(2) {
        return Ok(());
    }
    Err(Error::geometry(
        &[name],
        format!("rope turns pairs of elements, so {name} {dim} must be even"),
    ))
}
