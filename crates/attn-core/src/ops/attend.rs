//! Attend: causal attention of whole sequences, block-strided with a diagonal.

use candle_core::{D, Tensor};

use crate::error::{Error, Result};
use crate::ops::{composite, gradient, native};

/// Keys and values, one of each for every entry. Rows may lie anywhere, their elements side by side.
#[derive(Debug, Clone, Copy)]
pub struct Entries<'a> {
    /// The columns of keys that each head has for itself, `[B, Hkv, N, Dk - Ds]`.
    pub k: &'a Tensor,
    /// The last columns of keys, `[B, N, Ds]`, where all heads share them: MLA's rope key.
    pub shared: Option<&'a Tensor>,
    /// `[B, Hkv, N, Dv]`.
    pub v: &'a Tensor,
}

impl<'a> Entries<'a> {
    /// Entries whose heads share nothing: `[B, Hkv, N, Dk]` and `[B, Hkv, N, Dv]`.
    pub fn new(k: &'a Tensor, v: &'a Tensor) -> Self {
        Self { k, shared: None, v }
    }

    /// Whole keys `[B, Hkv, N, Dk]` and values.
    pub(super) fn joined(&self) -> Result<(Tensor, Tensor)> {
        let k = match self.shared {
            None => self.k.clone(),
            Some(shared) => {
                let (b, h_kv, n, _) = self.k.dims4()?;
                let shared = shared.unsqueeze(1)?.broadcast_as((b, h_kv, n, shared.dim(2)?))?;
                Tensor::cat(&[self.k, &shared], D::Minus1)?
            }
        };
        Ok((k, self.v.clone()))
    }
}

/// Operands of [`attend()`].
#[derive(Debug, Clone, Copy)]
pub struct AttendInput<'a> {
    /// `[B, H, T, Dk]`, the tokens at `start..start + T`.
    pub q: &'a Tensor,
    /// One entry per token, or per block of `stride` tokens, from the sequence's beginning. `None` where they are
    /// those of `own` that close a block, `start` being 0.
    pub closed: Option<Entries<'a>>,
    /// The diagonal: a query's own key and value, seen by that query alone (MTLA: the partial sum of its open block).
    /// Without it a query's own token is among the closed entries, and the stride is 1.
    pub own: Option<Entries<'a>>,
    /// Position of the first query, anywhere in a block.
    pub start: usize,
    /// Temporal stride s.
    pub stride: usize,
    /// Factor of the scores, above 0.
    pub scale: f64,
}

impl AttendInput<'_> {
    /// Closed entries N.
    pub(super) fn n_closed(&self) -> Result<usize> {
        Ok(match (&self.closed, &self.own) {
            (Some(closed), _) => closed.k.dim(2)?,
            (None, Some(own)) if self.start == 0 => own.k.dim(2)? / self.stride,
            (None, _) => 0,
        })
    }

    /// Keys and values of closed entries and of own ones, as tensors of their own.
    pub(super) fn joined(&self) -> Result<[Option<(Tensor, Tensor)>; 2]> {
        let own = self.own.as_ref().map(Entries::joined).transpose()?;
        let closed = match (&self.closed, &own) {
            (Some(closed), _) => Some(closed.joined()?),
            (None, Some((k, v))) => {
                let ends: Vec<u32> = (1..=self.n_closed()?)
                    .map(|j| (j * self.stride - 1) as u32)
                    .collect();
                let ends = Tensor::new(ends, k.device())?;
                Some((
                    k.contiguous()?.index_select(&ends, 2)?,
                    v.contiguous()?.index_select(&ends, 2)?,
                ))
            }
            (None, None) => None,
        };
        Ok([closed, own])
    }
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
        closed,
        own,
        start,
        stride,
        ..
    } = *input;
    let (b, h, t, _) = q.dims4()?;
    let n = if stride == 0 { 0 } else { input.n_closed()? };
    let h_kv = match closed.or(own) {
        Some(entries) => entries.k.dim(1)?,
        None => 0,
    };
    let needed = match own {
        Some(_) if stride > 0 => (start + t).saturating_sub(1) / stride,
        _ => start + t,
    };
    if h_kv == 0 || h % h_kv != 0 || n < needed || (own.is_none() && stride != 1) {
        return Err(Error::Shape {
            op: "attend",
            expected: format!(
                "{needed} keys, and heads {h} a multiple of KV heads, stride 1 without own entries"
            ),
            got: vec![b, h_kv, n, stride],
        });
    }
    if let Some(out) = native::attend(input)? {
        return Ok(out);
    }
    match gradient::attend(input)? {
        Some(out) => Ok(out),
        None => composite::attend(input),
    }
}
