//! The two operations as the formulas say them, one query at a time in f64: what `scope: op` is held against.

use attn_core::Result;
use candle_core::{DType, Tensor};

/// One query head against visible keys: `sum softmax(scale q k_j) v_j`.
fn attend_row(q: &[f64], entries: &[(&[f64], &[f64])], scale: f64) -> Vec<f64> {
    let scores: Vec<f64> = entries
        .iter()
        .map(|(k, _)| scale * q.iter().zip(*k).map(|(a, b)| a * b).sum::<f64>())
        .collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
    let total: f64 = weights.iter().sum();
    let width = entries.first().map_or(0, |(_, v)| v.len());
    (0..width)
        .map(|i| {
            weights
                .iter()
                .zip(entries)
                .map(|(w, (_, v))| w / total * v[i])
                .sum()
        })
        .collect()
}

/// The rows `[X, D]` of head `h` of sequence `b` of `[B, H, X, D]`.
fn rows(x: &Tensor, b: usize, h: usize) -> Result<Vec<Vec<f64>>> {
    Ok(x.narrow(0, b, 1)?
        .narrow(1, h, 1)?
        .to_dtype(DType::F64)?
        .squeeze(0)?
        .squeeze(0)?
        .to_vec2()?)
}

/// Decode of sequence `b`, `[1, H, Dv]`. `values` of `None` are the first `d_v` columns of the keys.
pub(crate) fn decode(
    q: &Tensor,
    keys: &Tensor,
    values: Option<&Tensor>,
    d_v: usize,
    slots: usize,
    scale: f64,
    b: usize,
) -> Result<Tensor> {
    let (h, h_kv) = (q.dim(1)?, keys.dim(1)?);
    let used = keys.narrow(2, 0, slots)?;
    let used_values = values.map(|v| v.narrow(2, 0, slots)).transpose()?;
    let q = q.unsqueeze(2)?;
    let mut out = Vec::with_capacity(h * d_v);
    for head in 0..h {
        let q = rows(&q, b, head)?;
        let k = rows(&used, b, head / (h / h_kv))?;
        let v = match &used_values {
            Some(values) => rows(values, b, head / (h / h_kv))?,
            None => k.iter().map(|k| k[..d_v].to_vec()).collect(),
        };
        let entries: Vec<_> = k
            .iter()
            .zip(&v)
            .map(|(k, v)| (k.as_slice(), v.as_slice()))
            .collect();
        out.extend(attend_row(&q[0], &entries, scale));
    }
    Ok(Tensor::from_vec(out, (1, h, d_v), keys.device())?)
}

/// Attend of query `i` of sequence `b`, `[1, H, 1, Dv]`: the blocks closed before it and its own entry, or without
/// own entries every key up to it.
pub(crate) fn attend(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    own: Option<&(Tensor, Tensor)>,
    stride: usize,
    scale: f64,
    (b, i): (usize, usize),
) -> Result<Tensor> {
    let (h, h_kv, d_v) = (q.dim(1)?, k.dim(1)?, v.dim(3)?);
    let seen = if own.is_some() { i / stride } else { i + 1 };
    let mut out = Vec::with_capacity(h * d_v);
    for head in 0..h {
        let kv = head / (h / h_kv);
        let q = rows(&q.narrow(2, i, 1)?, b, head)?;
        let (mut k, mut v) = (
            rows(&k.narrow(2, 0, seen)?, b, kv)?,
            rows(&v.narrow(2, 0, seen)?, b, kv)?,
        );
        if let Some((own_k, own_v)) = own {
            k.extend(rows(&own_k.narrow(2, i, 1)?, b, kv)?);
            v.extend(rows(&own_v.narrow(2, i, 1)?, b, kv)?);
        }
        let entries: Vec<_> = k
            .iter()
            .zip(&v)
            .map(|(k, v)| (k.as_slice(), v.as_slice()))
            .collect();
        out.extend(attend_row(&q[0], &entries, scale));
    }
    Ok(Tensor::from_vec(out, (1, h, 1, d_v), q.device())?)
}
