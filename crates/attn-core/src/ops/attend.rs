//! Attend: causal attention of whole sequences, block-strided with a diagonal.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::ops::{composite, native};

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
/// `2 H (Dk + Dv)` FLOPs per visible pair, a block of scores at a time
///
/// # Errors
/// [`Error::Shape`] where heads are no multiple of KV heads, or keys are missing; [`Error::Unsupported`] where
/// `ATTN_CPU_LEVEL` names no level.
///
/// # Source
/// MTLA, arXiv 2505.13544, section 4.3 (stride-aware causal mask), as block-strided attention with a diagonal.
pub fn attend(input: &AttendInput) -> Result<Tensor> {
    let AttendInput {
        q,
        k,
        own,
        start,
        stride,
        ..
    } = *input;
    let (b, h, t, _) = q.dims4()?;
    let (_, h_kv, n, _) = k.dims4()?;
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
    match native::attend(input)? {
        Some(out) => Ok(out),
        None => composite::attend(input),
    }
}
