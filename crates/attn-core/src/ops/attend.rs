//! Attend: causal attention of whole sequences, block-strided with a diagonal.

use candle_core::{D, DType, Tensor};

use crate::cache::accumulator_dtype;
use crate::error::{Error, Result};
use crate::ops::softmax::{Visible, softmax};

/// Queries per product: small enough that a chunk's scores stay in cache, and that little of what the causal
/// mask hides is computed.
const CHUNK: usize = 128;

/// A query's own key and value, seen by that query alone (MTLA: the partial sum of its open block).
#[derive(Debug, Clone, Copy)]
pub struct Own<'a> {
    /// `[B, Hkv, T, Dk]`.
    pub k: &'a Tensor,
    /// `[B, Hkv, T, Dv]`.
    pub v: &'a Tensor,
}

/// Operands of [`attend()`].
#[derive(Debug, Clone, Copy)]
pub struct AttendInput<'a> {
    /// `[B, H, T, Dk]`, the tokens at `start..start + T`.
    pub q: &'a Tensor,
    /// `[B, Hkv, N, Dk]`: one key per token, or per block of `stride` tokens, from the sequence's beginning.
    pub k: &'a Tensor,
    /// `[B, Hkv, N, Dv]`.
    pub v: &'a Tensor,
    /// The diagonal. Without it a query's own token is among the keys, and the stride is 1.
    pub own: Option<Own<'a>>,
    /// Position of the first query, anywhere in a block.
    pub start: usize,
    /// Temporal stride s.
    pub stride: usize,
    /// Factor of the scores.
    pub scale: f64,
}

/// Causal attention over keys of blocks, plus each query's own entry.
///
/// Query i sees key j iff block j closed before it, `j < floor(i / s)`, and its own entry; without own entries
/// (s = 1) it sees `j <= i`. Scores and sums are f32 (f64 for f64 operands); no `[T, T]` tensor is formed.
///
/// # Shapes
/// returns `[B, H, T, Dv]` of `q`'s dtype
///
/// # Cost
/// `2 H (Dk + Dv)` FLOPs per visible pair, `CHUNK` rows of scores at a time
///
/// # Errors
/// [`Error::Shape`] where heads are no multiple of KV heads, or keys are missing.
///
/// # Source
/// MTLA, arXiv 2505.13544, section 4.3 (stride-aware causal mask), as block-strided attention with a diagonal.
pub fn attend(input: &AttendInput) -> Result<Tensor> {
    let AttendInput {
        q,
        k,
        v,
        own,
        start,
        stride,
        scale,
    } = *input;
    let (b, h, t, d) = q.dims4()?;
    let (_, h_kv, n, _) = k.dims4()?;
    let d_v = v.dim(D::Minus1)?;
    let needed = if own.is_some() {
        (start + t - 1) / stride
    } else {
        start + t
    };
    if h % h_kv != 0 || n < needed || (own.is_none() && stride != 1) {
        return Err(Error::Shape {
            op: "attend",
            expected: format!(
                "{needed} keys, and heads {h} a multiple of KV heads, stride 1 without own entries"
            ),
            got: vec![b, h_kv, n, stride],
        });
    }
    let (dtype, g) = (q.dtype(), h / h_kv);
    let wide = accumulator_dtype(dtype);
    let heads = |x: &Tensor| widen(x, wide); // [B, Hkv, X, D] -> the same in f32
    let q = heads(q)?.reshape((b * h_kv, g, t, d))?;
    let k = heads(k)?.reshape((b * h_kv, n, d))?;
    let v = heads(v)?.reshape((b * h_kv, n, d_v))?;
    let own = match own {
        Some(own) => Some((
            heads(own.k)?.reshape((b * h_kv, 1, t, d))?,
            heads(own.v)?.reshape((b * h_kv, 1, t, d_v))?,
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
        let chunk = attend_chunk(&q, &k, &v, own, start + first, stride, scale)?;
        chunks.push(chunk);
    }
    let out = if chunks.len() == 1 {
        chunks.swap_remove(0)
    } else {
        Tensor::cat(&chunks, 2)?
    };
    Ok(out.reshape((b, h, t, d_v))?.to_dtype(dtype)?) // [B Hkv, G, T, Dv] -> [B, H, T, Dv]
}

/// One chunk of queries `[B Hkv, G, rows, Dk]` against the keys its last row sees.
fn attend_chunk(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    own: Option<(Tensor, Tensor)>,
    start: usize,
    stride: usize,
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
        None => (last + 1, Visible::Causal { tokens: rows, start }),
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
        let scores = q
            .reshape((bh, g * rows, d))?
            .matmul(&k.narrow(1, 0, seen)?.t()?)?;
        let weights = softmax(&scores, None, visible, scale)?;
        return Ok(weights
            .matmul(&v.narrow(1, 0, seen)?)?
            .reshape((bh, g, rows, d_v))?);
    };
    let own_v = own_v.broadcast_as((bh, g, rows, d_v))?;
    if seen == 0 {
        return Ok(own_v.contiguous()?);
    }
    let scores = q
        .reshape((bh, g * rows, d))?
        .matmul(&k.narrow(1, 0, seen)?.t()?)?;
    let weights = softmax(&scores, Some(&own_score), visible, scale)?; // [B Hkv, G rows, seen + 1]
    let closed = weights
        .narrow(2, 0, seen)?
        .matmul(&v.narrow(1, 0, seen)?)?
        .reshape((bh, g, rows, d_v))?;
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
