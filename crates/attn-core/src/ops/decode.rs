//! Decode: one query per sequence against its cached entries.

use candle_core::{D, Tensor};

use crate::cache::accumulator_dtype;
use crate::error::{Error, Result};
use crate::geometry::Values;
use crate::ops::softmax::{Visible, softmax};

/// Operands of [`decode()`].
#[derive(Debug, Clone, Copy)]
pub struct DecodeInput<'a> {
    /// `[B, H, Dk]`.
    pub q: &'a Tensor,
    /// `[B, Hkv, C, Dk]`, the cache's keys, used or not.
    pub keys: &'a Tensor,
    /// `[B, Hkv, C, Dv]`; `None` where values are the first columns of the keys.
    pub values: Option<&'a Tensor>,
    /// Width and place of the values.
    pub layout: Values,
    /// Slots in use by each sequence; what lies beyond is never read.
    pub slots: &'a [usize],
    /// Factor of the scores.
    pub scale: f64,
}

/// `softmax(scale q K^T) V` over each sequence's slots in use.
///
/// The H / Hkv query heads of a KV head share one pass over it. Sequences of one length go through one batched
/// product; ragged ones go one by one, each at its own length. Scores and sums are f32 (f64 for f64 caches).
///
/// # Shapes
/// returns `[B, H, Dv]` of `q`'s dtype
///
/// # Cost
/// `2 H (Dk + Dv)` FLOPs per slot; reads each slot once
///
/// # Errors
/// [`Error::Shape`] where lengths or heads do not fit.
pub fn decode(input: &DecodeInput) -> Result<Tensor> {
    let DecodeInput {
        q,
        keys,
        values,
        layout,
        slots,
        scale,
    } = *input;
    let (b, h, d) = q.dims3()?;
    let (_, h_kv, capacity, _) = keys.dims4()?;
    if slots.len() != b || h % h_kv != 0 || slots.iter().any(|&n| n == 0 || n > capacity) {
        return Err(Error::Shape {
            op: "decode",
            expected: format!("{b} lengths in 1..={capacity}, and heads {h} a multiple of KV heads {h_kv}"),
            got: slots.to_vec(),
        });
    }
    if slots.windows(2).any(|pair| pair[0] != pair[1]) {
        let rows = (0..b)
            .map(|i| {
                let values = values.map(|v| v.narrow(0, i, 1)).transpose()?;
                decode(&DecodeInput {
                    q: &q.narrow(0, i, 1)?,
                    keys: &keys.narrow(0, i, 1)?,
                    values: values.as_ref(),
                    slots: &slots[i..=i],
                    ..*input
                })
            })
            .collect::<Result<Vec<_>>>()?;
        return Ok(Tensor::cat(&rows, 0)?);
    }

    let (dtype, n, g) = (q.dtype(), slots[0], h / h_kv);
    let wide = accumulator_dtype(dtype);
    // [B, Hkv, C, D] -> [B Hkv, n, D]: a view, the batch stride still that of the capacity.
    let used = |x: &Tensor| -> Result<Tensor> {
        let width = x.dim(D::Minus1)?;
        Ok(x.reshape((b * h_kv, capacity, width))?
            .narrow(1, 0, n)?
            .to_dtype(wide)?)
    };
    let k = used(keys)?;
    let v = match values {
        Some(values) => used(values)?,
        None => k.narrow(2, 0, layout.width())?,
    };
    let q = q.to_dtype(wide)?.reshape((b * h_kv, g, d))?;
    // K q^T and not q K^T: on the CPU the product with the tall operand on the left is 2-3 times faster.
    let scores = k.matmul(&q.t()?)?.t()?; // [B Hkv, n, G] -> [B Hkv, G, n]
    let weights = softmax(&scores, None, Visible::All, scale)?;
    Ok(weights
        .matmul(&v)?
        .reshape((b, h, layout.width()))?
        .to_dtype(dtype)?)
}
