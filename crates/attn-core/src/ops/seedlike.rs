//! The pieces of the seed's formulation that the compact one does without: expanded heads, dense masks.
//!
//! ```
//! use attn_core::ops::seedlike::{dense_attention, dense_mask};
//! use attn_core::random_tensor;
//! use candle_core::{DType, Device};
//!
//! let random = |stream| random_tensor(&[1, 2, 5, 8], 7, stream, DType::F32, &Device::Cpu);
//! let mask = dense_mask(5, |query, key| key <= query, DType::F32, &Device::Cpu)?;
//! let out = dense_attention(&random(0)?, &random(1)?, &random(2)?, Some(&mask), 0.3)?;
//! assert_eq!(out.dims(), [1, 2, 5, 8]);
//! # Ok::<(), attn_core::Error>(())
//! ```

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
///
/// ```
/// use attn_core::ops::seedlike::expand_heads;
/// use candle_core::{Device, Tensor};
///
/// let two = Tensor::new(&[[[[1_f32]], [[2.0]]]], &Device::Cpu)?; // [1, 2, 1, 1]
/// let four = expand_heads(&two, 4)?;
/// assert_eq!(four.flatten_all()?.to_vec1::<f32>()?, [1.0, 1.0, 2.0, 2.0]);
/// # Ok::<(), attn_core::Error>(())
/// ```
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
///
/// ```
/// use attn_core::ops::seedlike::dense_mask;
/// use candle_core::{DType, Device};
///
/// let causal = dense_mask(2, |query, key| key <= query, DType::F32, &Device::Cpu)?;
/// assert_eq!(causal.to_vec2::<f32>()?, [[0.0, -1e9], [0.0, 0.0]]);
/// # Ok::<(), attn_core::Error>(())
/// ```
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
///
/// ```
/// use attn_core::ops::seedlike::{dense_mask, masked_softmax};
/// use candle_core::{DType, Device, Tensor};
///
/// let causal = dense_mask(2, |query, key| key <= query, DType::F32, &Device::Cpu)?;
/// let scores = Tensor::zeros((1, 1, 2, 2), DType::F32, &Device::Cpu)?;
/// let weights = masked_softmax(&scores, Some(&causal), 1.0)?;
/// assert_eq!(weights.flatten_all()?.to_vec1::<f32>()?, [1.0, 0.0, 0.5, 0.5]);
/// # Ok::<(), attn_core::Error>(())
/// ```
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
///
/// ```
/// use attn_core::ops::seedlike::dense_attention;
/// use attn_core::random_tensor;
/// use candle_core::{DType, Device};
///
/// // Four query heads over two of keys, one query over five entries: no mask is needed.
/// let random = |heads, t, stream| random_tensor(&[1, heads, t, 8], 7, stream, DType::F32, &Device::Cpu);
/// let out = dense_attention(&random(4, 1, 0)?, &random(2, 5, 1)?, &random(2, 5, 2)?, None, 0.3)?;
/// assert_eq!(out.dims(), [1, 4, 1, 8]);
/// # Ok::<(), attn_core::Error>(())
/// ```
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
