//! The two operations as the formulas say them, one query at a time in f64: the reference the others are held
//! against. Slow on purpose; nothing is shared with [`decode()`](super::decode()) and [`attend()`](super::attend())
//! but the operands.
//!
//! ```
//! use attn_core::ops::{DecodeInput, naive};
//! use attn_core::{Entry, SlotRows, Values};
//! use candle_core::{Device, Tensor};
//!
//! // One head, two slots with scores 0 and ln 3: weights of 1/4 and 3/4.
//! let q = Tensor::new(&[[[1_f64]]], &Device::Cpu)?;
//! let keys = Tensor::new(&[[[[0_f64], [3_f64.ln()]]]], &Device::Cpu)?;
//! let values = Tensor::new(&[[[[0_f64], [8.0]]]], &Device::Cpu)?;
//! let (rows, entry) = (SlotRows::keys_values(keys, values), Entry::new(1, 1, Values::Own(1)));
//! let input = DecodeInput { q: &q, rows: &rows, entry: &entry, slots: &[2], scale: 1.0 };
//! let output = naive::decode(&input, 0)?.flatten_all()?.to_vec1::<f64>()?;
//! assert!((output[0] - 6.0).abs() < 1e-12);
//! # Ok::<(), attn_core::Error>(())
//! ```

use candle_core::{DType, Tensor};

use crate::error::{Error, Result};
use crate::ops::{AttendInput, DecodeInput};

/// [`decode()`](super::decode()) of sequence `b` alone.
///
/// # Shapes
/// returns `[1, H, Dv]`, f64
///
/// # Errors
/// [`crate::Error::Candle`] where shapes do not fit.
///
/// ```
/// use attn_core::ops::{DecodeInput, naive};
/// use attn_core::{Entry, SlotRows, Values, random_tensor};
/// use candle_core::{DType, Device};
///
/// let random = |shape: &[usize], stream| random_tensor(shape, 7, stream, DType::BF16, &Device::Cpu);
/// let (q, keys) = (random(&[2, 4, 20], 0)?, random(&[2, 1, 9, 20], 1)?);
/// let (rows, entry) = (SlotRows::keys(keys), Entry::new(1, 20, Values::KeyPrefix(16)));
/// let input = DecodeInput { q: &q, rows: &rows, entry: &entry, slots: &[9, 4], scale: 0.3 };
/// let second = naive::decode(&input, 1)?;
/// assert_eq!((second.dims(), second.dtype()), (&[1, 4, 16][..], DType::F64)); // whatever the operands are of
/// # Ok::<(), attn_core::Error>(())
/// ```
pub fn decode(input: &DecodeInput, b: usize) -> Result<Tensor> {
    let (h, n) = (input.q.dim(1)?, input.slots[b]);
    let q = input.q.unsqueeze(2)?;
    let [k, v] = input.formed(b, n, DType::F64)?;
    let group = h / k.dim(1)?;
    let heads = (0..h).map(|head| {
        let q = rows(&q, b, head)?;
        let (k, v) = (rows(&k, 0, head / group)?, rows(&v, 0, head / group)?);
        Ok(one_query(&q[0], &k, &v, input.scale))
    });
    let heads = heads.collect::<Result<Vec<_>>>()?;
    Ok(Tensor::new(heads, input.q.device())?.unsqueeze(0)?)
}

/// [`attend()`](super::attend()) of query `t` of sequence `b` alone.
///
/// # Shapes
/// returns `[1, 1, H, Dv]`, f64
///
/// # Errors
/// [`crate::Error::Candle`] where shapes do not fit.
///
/// ```
/// use attn_core::ops::{AttendInput, Entries, naive};
/// use attn_core::random_tensor;
/// use candle_core::{DType, Device};
///
/// let random = |stream| random_tensor(&[1, 4, 1, 8], 7, stream, DType::F64, &Device::Cpu);
/// let (q, k, v) = (random(0)?, random(1)?, random(2)?);
/// let closed = Some(Entries::Apart { k: &k, v: &v });
/// let input = AttendInput { q: &q, closed, own: None, start: 0, stride: 1, window: None, scale: 0.3 };
/// let first = naive::attend(&input, 0, 0)?;
/// assert!((first - v.narrow(1, 0, 1)?)?.abs()?.max_all()?.to_scalar::<f64>()? < 1e-12);
/// # Ok::<(), attn_core::Error>(())
/// ```
pub fn attend(input: &AttendInput, b: usize, t: usize) -> Result<Tensor> {
    let [Some((k_all, v_all)), own] = input.joined()? else {
        return Err(Error::Shape {
            op: "attend",
            expected: "entries to attend to".to_string(),
            got: input.q.dims().to_vec(),
        });
    };
    let (h, h_kv, i) = (input.q.dim(2)?, k_all.dim(2)?, input.start + t);
    let seen = if own.is_some() { i / input.stride } else { i + 1 };
    let passed = input.window.map_or(0, |window| seen.saturating_sub(window));
    let narrow = |x: &Tensor, first, n| x.narrow(1, first, n)?.transpose(1, 2); // [B, heads, n, D]
    let heads = (0..h).map(|head| {
        let kv = head / (h / h_kv);
        let q = rows(&narrow(input.q, t, 1)?, b, head)?;
        let mut k = rows(&narrow(&k_all, passed, seen - passed)?, b, kv)?;
        let mut v = rows(&narrow(&v_all, passed, seen - passed)?, b, kv)?;
        if let Some((own_k, own_v)) = &own {
            k.extend(rows(&narrow(own_k, t, 1)?, b, kv)?);
            v.extend(rows(&narrow(own_v, t, 1)?, b, kv)?);
        }
        Ok(one_query(&q[0], &k, &v, input.scale))
    });
    let heads = heads.collect::<Result<Vec<_>>>()?;
    Ok(Tensor::new(heads, input.q.device())?.unsqueeze(0)?.unsqueeze(0)?)
}

/// `sum_j softmax(scale q k_j) v_j`.
fn one_query(q: &[f64], k: &[Vec<f64>], v: &[Vec<f64>], scale: f64) -> Vec<f64> {
    let score = |k: &Vec<f64>| scale * q.iter().zip(k).map(|(a, b)| a * b).sum::<f64>();
    let scores: Vec<f64> = k.iter().map(score).collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut out = vec![0.0; v.first().map_or(0, Vec::len)];
    for (weight, v) in weights.iter().zip(v) {
        out.iter_mut()
            .zip(v)
            .for_each(|(out, v)| *out += weight / total * v);
    }
    out
}

/// The rows `[X, D]` of head `h` of sequence `b` of `[B, H, X, D]`.
fn rows(x: &Tensor, b: usize, h: usize) -> Result<Vec<Vec<f64>>> {
    if x.dim(2)? == 0 {
        return Ok(Vec::new()); // an empty view may begin beyond the end, which candle does not expect
    }
    let head = x.narrow(0, b, 1)?.narrow(1, h, 1)?.squeeze(0)?.squeeze(0)?;
    Ok(head.to_dtype(DType::F64)?.to_vec2()?)
}
