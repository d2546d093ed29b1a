//! The two operations as compositions of candle's: for f64, for gradients, for GPUs where there is no kernel, and to
//! compare the native kernels with.
//! Operands were checked by [`decode()`](super::decode()) and [`attend()`](super::attend()).
//!
//! ```
//! use attn_core::ops::{AttendInput, Entries, attend, composite};
//! use attn_core::random_tensor;
//! use candle_core::{DType, Device};
//!
//! let random = |stream| random_tensor(&[2, 7, 2, 8], 7, stream, DType::F32, &Device::Cpu);
//! let (q, k, v) = (random(0)?, random(1)?, random(2)?);
//! let entries = Entries::Apart { k: &k, v: &v };
//! let input = AttendInput { q: &q, closed: None, own: Some(entries), start: 0, stride: 3, window: None, scale: 0.3 };
//! let gap = (attend(&input)? - composite::attend(&input)?)?.abs()?.max_all()?.to_scalar::<f32>()?;
//! assert!(gap < 1e-5, "{gap}");
//! # Ok::<(), attn_core::Error>(())
//! ```

use candle_core::{D, DType, Tensor};

use crate::cache::accumulator_dtype;
use crate::error::{Error, Result};
use crate::ops::softmax::{Visible, softmax};
use crate::ops::{AttendInput, DecodeInput, form};
use crate::route::product;

/// Queries per product: small enough that a chunk's scores stay in cache, and that little of what the causal
/// mask hides is computed.
const CHUNK: usize = 128;

/// [`decode()`](super::decode()). Sequences of one length go through one batched product; ragged ones go one by one,
/// each at its own length.
///
/// # Errors
/// [`crate::Error::Candle`] where shapes do not fit.
///
/// ```
/// use attn_core::ops::{DecodeInput, composite, decode};
/// use attn_core::{Entry, SlotRows, Values, random_tensor};
/// use candle_core::{DType, Device};
///
/// let random = |shape: &[usize], stream| random_tensor(shape, 7, stream, DType::F32, &Device::Cpu);
/// let (q, keys) = (random(&[2, 4, 20], 0)?, random(&[2, 1, 9, 20], 1)?);
/// let (rows, entry) = (SlotRows::keys(keys), Entry::new(1, 20, Values::KeyPrefix(16)));
/// let input = DecodeInput { q: &q, rows: &rows, entry: &entry, slots: &[9, 4], scale: 0.3 };
/// let gap = (decode(&input)? - composite::decode(&input)?)?.abs()?.max_all()?.to_scalar::<f32>()?;
/// assert!(gap < 1e-5, "{gap}");
/// # Ok::<(), attn_core::Error>(())
/// ```
pub fn decode(input: &DecodeInput) -> Result<Tensor> {
    let DecodeInput {
        q,
        rows,
        entry,
        slots,
        scale,
    } = *input;
    let (b, h, d) = q.dims3()?;
    if slots.windows(2).any(|pair| pair[0] != pair[1]) {
        let outputs = (0..b)
            .map(|i| {
                decode(&DecodeInput {
                    q: &q.narrow(0, i, 1)?,
                    rows: &rows.sequence(i)?,
                    slots: &slots[i..=i],
                    ..*input
                })
            })
            .collect::<Result<Vec<_>>>()?;
        return Ok(Tensor::cat(&outputs, 0)?);
    }

    let (dtype, n) = (q.dtype(), slots[0]);
    let wide = accumulator_dtype(dtype);
    // Views where they need no other type: the batch stride is still that of the capacity.
    let used = rows.narrow(0, n)?.map(|t| t.to_dtype(wide))?;
    let [k, v] = form(&used, entry)?;
    let (h_kv, value_dim) = (k.dim(1)?, entry.values.width());
    let g = h / h_kv;
    let together = |x: &Tensor, width: usize| -> Result<Tensor> { Ok(x.reshape((b * h_kv, n, width))?) };
    let (k, v) = (together(&k, d)?, together(&v, value_dim)?);
    let q = q.to_dtype(wide)?.reshape((b * h_kv, g, d))?;
    // K q^T and not q K^T: on the CPU the product with the tall operand on the left is 2-3 times faster.
    let scores = product(&k, &q.t()?)?.t()?; // [B Hkv, n, G] -> [B Hkv, G, n]
    let weights = softmax(&scores, None, Visible::All, scale)?;
    Ok(product(&weights, &v)?
        .reshape((b, h, value_dim))?
        .to_dtype(dtype)?)
}

/// [`attend()`](super::attend()), `CHUNK` rows of scores at a time.
///
/// # Errors
/// [`crate::Error::Candle`] where shapes do not fit.
///
/// ```
/// use attn_core::ops::{AttendInput, Entries, composite};
/// use attn_core::random_tensor;
/// use candle_core::{DType, Device};
///
/// let random = |stream| random_tensor(&[1, 4, 1, 8], 7, stream, DType::F64, &Device::Cpu);
/// let (q, k, v) = (random(0)?, random(1)?, random(2)?);
/// let closed = Some(Entries::Apart { k: &k, v: &v });
/// let input = AttendInput { q: &q, closed, own: None, start: 0, stride: 1, window: None, scale: 0.3 };
/// // The first token sees itself alone: its output is its value.
/// let first = composite::attend(&input)?.narrow(1, 0, 1)?;
/// assert!((first - v.narrow(1, 0, 1)?)?.abs()?.max_all()?.to_scalar::<f64>()? < 1e-12);
/// # Ok::<(), attn_core::Error>(())
/// ```
pub fn attend(input: &AttendInput) -> Result<Tensor> {
    let AttendInput {
        q,
        start,
        stride,
        window,
        scale,
        ..
    } = *input;
    let [Some((k, v)), own] = input.joined()? else {
        return Err(Error::Shape {
            op: "attend",
            expected: "entries to attend to".to_string(),
            got: q.dims().to_vec(),
        });
    };
    let (b, t, h, d) = q.dims4()?;
    let (_, n, h_kv, _) = k.dims4()?;
    let d_v = v.dim(D::Minus1)?;
    let (dtype, g) = (q.dtype(), h / h_kv);
    let wide = accumulator_dtype(dtype);
    let heads = |x: &Tensor| widen(&x.transpose(1, 2)?, wide); // [B, X, Hkv, D] -> [B, Hkv, X, D] in f32
    if n == 0
        && let Some((_, own_v)) = own
    {
        // Nothing is closed yet: every query sees itself alone.
        let own_v = own_v.unsqueeze(3)?.broadcast_as((b, t, h_kv, g, d_v))?;
        return Ok(own_v.reshape((b, t, h, d_v))?);
    }
    let q = heads(q)?.reshape((b * h_kv, g, t, d))?;
    let k = heads(&k)?.reshape((b * h_kv, n, d))?;
    let v = heads(&v)?.reshape((b * h_kv, n, d_v))?;
    let own = match own {
        Some((own_k, own_v)) => Some((
            heads(&own_k)?.reshape((b * h_kv, 1, t, d))?,
            heads(&own_v)?.reshape((b * h_kv, 1, t, d_v))?,
        )),
        None => None,
    };

    let mut chunks = Vec::with_capacity(t.div_ceil(CHUNK));
    for first in (0..t).step_by(CHUNK) {
        let rows = CHUNK.min(t - first);
        let q = q.narrow(2, first, rows)?.contiguous()?; // [B Hkv, G, rows, Dk]
        let own = match &own {
            Some((k, v)) => Some((k.narrow(2, first, rows)?, v.narrow(2, first, rows)?)),
            None => None,
        };
        let chunk = attend_chunk(
            &q,
            &k,
            &v,
            own,
            start + first,
            [stride, window.unwrap_or(usize::MAX)],
            scale,
        )?;
        chunks.push(chunk);
    }
    let out = if chunks.len() == 1 {
        chunks.swap_remove(0)
    } else {
        Tensor::cat(&chunks, 2)?
    };
    // [B Hkv, G, T, Dv] -> [B, T, H, Dv]
    Ok(out.reshape((b, h, t, d_v))?.transpose(1, 2)?.to_dtype(dtype)?)
}

/// One chunk of queries `[B Hkv, G, rows, Dk]` against the keys its last row sees.
fn attend_chunk(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    own: Option<(Tensor, Tensor)>,
    start: usize,
    [stride, window]: [usize; 2],
    scale: f64,
) -> Result<Tensor> {
    let (bh, g, rows, d) = q.dims4()?;
    let d_v = v.dim(D::Minus1)?;
    let last = start + rows - 1;
    let (seen, visible) = match own {
        Some(_) => (
            last / stride,
            Visible::ClosedBlocks {
                tokens: rows,
                start,
                stride,
            },
        ),
        None => (
            last + 1,
            Visible::Causal {
                tokens: rows,
                start,
                window,
            },
        ),
    };
    let own = match own {
        Some((k, v)) => {
            let k = k.broadcast_as((bh, g, rows, d))?;
            let score = (q * k)?.sum_keepdim(D::Minus1)?.reshape((bh, g * rows, 1))?;
            Some((score, v))
        }
        None => None,
    };
    let Some((own_score, own_v)) = own else {
        let scores = product(&q.reshape((bh, g * rows, d))?, &k.narrow(1, 0, seen)?.t()?)?;
        let weights = softmax(&scores, None, visible, scale)?;
        return Ok(product(&weights, &v.narrow(1, 0, seen)?)?.reshape((bh, g, rows, d_v))?);
    };
    let own_v = own_v.broadcast_as((bh, g, rows, d_v))?;
    if seen == 0 {
        return Ok(own_v.contiguous()?);
    }
    let scores = product(&q.reshape((bh, g * rows, d))?, &k.narrow(1, 0, seen)?.t()?)?;
    let weights = softmax(&scores, Some(&own_score), visible, scale)?; // [B Hkv, G rows, seen + 1]
    let closed =
        product(&weights.narrow(2, 0, seen)?, &v.narrow(1, 0, seen)?)?.reshape((bh, g, rows, d_v))?;
    let diagonal = weights
        .narrow(2, seen, 1)?
        .reshape((bh, g, rows, 1))?
        .broadcast_mul(&own_v)?;
    Ok((closed + diagonal)?)
}

/// f32 (or f64) operands: half precision is widened, which costs a copy and keeps scores exact.
pub(super) fn widen(x: &Tensor, wide: DType) -> Result<Tensor> {
    Ok(x.to_dtype(wide)?.contiguous()?)
}
