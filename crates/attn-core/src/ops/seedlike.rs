//! The pieces of the seed's formulation that the compact one does without: expanded heads, dense masks.

use candle_core::{D, DType, Device, Tensor};

use crate::cache::accumulator_dtype;
use crate::error::Result;
use crate::ops::softmax::{Visible, softmax};
use crate::route::product;

/// What the seed adds to a score to hide it.
const HIDDEN: f64 = -1e9;

/// Repeats every KV head for its H / Hkv query heads (`repeat_interleave`).
///
/// # Shapes
/// `[B, Hkv, L, D]` -> `[B, H, L, D]`
///
/// # Errors
/// [`crate::Error::Candle`] where memory runs out.
pub fn expand_heads(x: &Tensor, h: usize) -> Result<Tensor> {
    let (b, h_kv, l, d) = x.dims4()?;
    if h == h_kv {
        return Ok(x.clone());
    }
    let expanded = x.unsqueeze(2)?.broadcast_as((b, h_kv, h / h_kv, l, d))?;
    Ok(expanded.contiguous()?.reshape((b, h, l, d))?)
}

/// A dense additive mask `[T, T]`: 0 where `visible(query, key)`, -1e9 elsewhere.
///
/// # Errors
/// [`crate::Error::Candle`] where memory runs out.
pub fn dense_mask(
    t: usize,
    visible: impl Fn(usize, usize) -> bool,
    dtype: DType,
    device: &Device,
) -> Result<Tensor> {
    let mask: Vec<f64> = (0..t * t)
        .map(|i| if visible(i / t, i % t) { 0.0 } else { HIDDEN })
        .collect();
    Ok(Tensor::from_vec(mask, (t, t), device)?.to_dtype(dtype)?)
}

/// `softmax(scale scores + mask)` over `[B, H, T, L]` scores, in f32 or wider.
///
/// # Errors
/// [`crate::Error::Candle`] where memory runs out.
pub fn masked_softmax(scores: &Tensor, mask: Option<&Tensor>, scale: f64) -> Result<Tensor> {
    let (b, h, t, l) = scores.dims4()?;
    let scores = (scores * scale)?;
    let scores = match mask {
        Some(mask) => scores.broadcast_add(mask)?,
        None => scores,
    };
    let dtype = scores.dtype();
    let scores = scores
        .reshape((b * h, t, l))?
        .to_dtype(accumulator_dtype(dtype))?;
    Ok(softmax(&scores, None, Visible::All, 1.0)?
        .to_dtype(dtype)?
        .reshape((b, h, t, l))?)
}

/// Dense attention: every score, a mask added, softmax, values. Query heads of one KV head are one product.
///
/// # Shapes
/// - `q`: `[B, H, T, D]`; `k`, `v`: `[B, Hkv, L, D]`; `mask`: `[T, L]`
/// - returns `[B, H, T, Dv]`
///
/// # Errors
/// [`crate::Error::Candle`] where shapes do not fit.
pub fn dense_attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    mask: Option<&Tensor>,
    scale: f64,
) -> Result<Tensor> {
    let ((b, h, t, d), (_, h_kv, l, _)) = (q.dims4()?, k.dims4()?);
    let group = h / h_kv * t;
    let k = k.contiguous()?.transpose(D::Minus2, D::Minus1)?;
    let q = q.contiguous()?.reshape((b, h_kv, group, d))?;
    let scores = product(&q, &k)?.reshape((b, h, t, l))?;
    let weights = masked_softmax(&scores, mask, scale)?.reshape((b, h_kv, group, l))?;
    Ok(product(&weights, &v.contiguous()?)?.reshape((b, h, t, v.dim(3)?))?)
}
