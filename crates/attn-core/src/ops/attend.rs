//! Attend: causal attention of whole sequences, block-strided with a diagonal.

use candle_core::{D, Tensor};

use crate::error::{Error, Result};
use crate::ops::{composite, cuda, gradient, native};
use crate::route::select;

/// Keys and values, one of each for every entry, token by token. Rows may lie anywhere, their elements side by side.
///
/// ```
/// use attn_core::ops::Entries;
/// use candle_core::{DType, Device, Tensor};
///
/// // What MLA's decompression writes: six tokens, two heads with Dn 8 and Dv 8, one rope key of 4.
/// let kv = Tensor::zeros((1, 6, 2, 8 + 8), DType::F32, &Device::Cpu)?;
/// let k_r = Tensor::zeros((1, 6, 4), DType::F32, &Device::Cpu)?;
/// let entries = Entries::Joint { kv: &kv, k_r: &k_r, nope_dim: 8 };
/// assert!(matches!(entries, Entries::Joint { nope_dim: 8, .. }));
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub enum Entries<'a> {
    /// Two tensors, whose heads share nothing.
    Apart {
        /// `[B, N, Hkv, Dk]`.
        k: &'a Tensor,
        /// `[B, N, Hkv, Dv]`.
        v: &'a Tensor,
    },
    /// As a projection of latents writes them, with the last columns of keys the same for all heads: MLA's rope key.
    Joint {
        /// `[B, N, Hkv, Dn + Dv]`.
        kv: &'a Tensor,
        /// `[B, N, Dr]`.
        k_r: &'a Tensor,
        /// Columns Dn of keys that each head has for itself.
        nope_dim: usize,
    },
}

/// Views of what entries are made of.
pub(super) struct Parts {
    /// `[B, N, Hkv, Dk]` without the shared columns.
    pub(super) k: Tensor,
    /// `[B, N, Dr]`.
    pub(super) shared: Option<Tensor>,
    /// `[B, N, Hkv, Dv]`.
    pub(super) v: Tensor,
}

impl Entries<'_> {
    /// The tensors.
    pub(super) fn operands(&self) -> [&Tensor; 2] {
        match *self {
            Self::Apart { k, v } => [k, v],
            Self::Joint { kv, k_r, .. } => [kv, k_r],
        }
    }

    /// Entries N and KV heads.
    pub(super) fn sizes(&self) -> Result<[usize; 2]> {
        let (_, n, h_kv, _) = self.operands()[0].dims4()?;
        Ok([n, h_kv])
    }

    pub(super) fn parts(&self) -> Result<Parts> {
        Ok(match *self {
            Self::Apart { k, v } => Parts {
                k: k.clone(),
                shared: None,
                v: v.clone(),
            },
            Self::Joint { kv, k_r, nope_dim } => Parts {
                k: kv.narrow(3, 0, nope_dim)?,
                shared: Some(k_r.clone()),
                v: kv.narrow(3, nope_dim, kv.dim(3)? - nope_dim)?,
            },
        })
    }

    /// Whole keys `[B, N, Hkv, Dk]` and values.
    pub(crate) fn joined(&self) -> Result<(Tensor, Tensor)> {
        let Parts { k, shared, v } = self.parts()?;
        let k = match shared {
            None => k,
            Some(shared) => {
                let (b, n, h_kv, _) = k.dims4()?;
                let shared = shared.unsqueeze(2)?.broadcast_as((b, n, h_kv, shared.dim(2)?))?;
                Tensor::cat(&[&k, &shared], D::Minus1)?
            }
        };
        Ok((k, v))
    }
}

/// Operands of [`attend()`].
///
/// ```
/// use attn_core::ops::{AttendInput, Entries, attend};
/// use attn_core::random_tensor;
/// use candle_core::{DType, Device};
///
/// // Plain causal attention: a query's own token is among the closed entries, the stride is 1.
/// let random = |stream| random_tensor(&[1, 6, 2, 8], 7, stream, DType::F32, &Device::Cpu);
/// let (q, k, v) = (random(0)?, random(1)?, random(2)?);
/// let input = AttendInput {
///     q: &q,
///     closed: Some(Entries::Apart { k: &k, v: &v }),
///     own: None,
///     start: 0,
///     stride: 1,
///     window: None,
///     scale: 8_f64.powf(-0.5),
/// };
/// assert_eq!(attend(&input)?.dims(), [1, 6, 2, 8]);
/// # Ok::<(), attn_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct AttendInput<'a> {
    /// `[B, T, H, Dk]`, the tokens at `start..start + T`.
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
    /// Entries that a query sees at most, the last ones, its own token's among them; for a stride of 1 without own
    /// entries. `None`: all.
    pub window: Option<usize>,
    /// Factor of the scores, above 0.
    pub scale: f64,
}

impl AttendInput<'_> {
    /// Closed entries N.
    pub(super) fn n_closed(&self) -> Result<usize> {
        Ok(match (&self.closed, &self.own) {
            (Some(closed), _) => closed.sizes()?[0],
            (None, Some(own)) if self.start == 0 => own.sizes()?[0] / self.stride,
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
                Some((select(k, &ends, 1)?, select(v, &ends, 1)?))
            }
            (None, None) => None,
        };
        Ok([closed, own])
    }
}

/// Causal attention over keys of blocks, plus each query's own entry.
///
/// Query i sees key j iff block j closed before it, `j < floor(i / s)`, and its own entry; without own entries
/// (s = 1) it sees `j <= i`, with a window `i - window < j <= i`. Scores and sums are f32 (f64 for f64 operands); no `[T, T]` tensor is formed.
///
/// # Shapes
/// returns `[B, T, H, Dv]` of `q`'s dtype
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
///
/// ```
/// use attn_core::ops::{AttendInput, Entries, attend, naive};
/// use attn_core::random_tensor;
/// use candle_core::{DType, Device};
///
/// // Blocks of two with a diagonal: entries are the partial sums of all six tokens, those that close a block are its
/// // slots.
/// let random = |stream| random_tensor(&[1, 6, 2, 8], 7, stream, DType::F32, &Device::Cpu);
/// let (q, k, v) = (random(0)?, random(1)?, random(2)?);
/// let input = AttendInput {
///     q: &q,
///     closed: None,
///     own: Some(Entries::Apart { k: &k, v: &v }),
///     start: 0,
///     stride: 2,
///     window: None,
///     scale: 8_f64.powf(-0.5),
/// };
/// let last = attend(&input)?.narrow(1, 5, 1)?.to_dtype(DType::F64)?;
/// let gap = (last - naive::attend(&input, 0, 5)?)?.abs()?.max_all()?.to_scalar::<f64>()?;
/// assert!(gap < 1e-5, "{gap}");
/// # Ok::<(), attn_core::Error>(())
/// ```
pub fn attend(input: &AttendInput) -> Result<Tensor> {
    let AttendInput {
        q,
        closed,
        own,
        start,
        stride,
        ..
    } = *input;
    let (b, t, h, _) = q.dims4()?;
    let n = if stride == 0 { 0 } else { input.n_closed()? };
    let h_kv = match closed.or(own) {
        Some(entries) => entries.sizes()?[1],
        None => 0,
    };
    let needed = match own {
        Some(_) if stride > 0 => (start + t).saturating_sub(1) / stride,
        _ => start + t,
    };
    let has_window = input.window.is_some();
    let is_wrong = (own.is_none() && stride != 1) || (own.is_some() && has_window) || input.window == Some(0);
    if h_kv == 0 || h % h_kv != 0 || n < needed || is_wrong {
        return Err(Error::Shape {
            op: "attend",
            expected: format!(
                "{needed} keys, and heads {h} a multiple of KV heads, stride 1 without own entries, no window with them"
            ),
            got: vec![b, h_kv, n, stride],
        });
    }
    if let Some(out) = native::attend(input)? {
        return Ok(out);
    }
    if let Some(out) = gradient::attend(input)? {
        return Ok(out);
    }
    match cuda::attend(input)? {
        Some(out) => Ok(out),
        None => composite::attend(input),
    }
}
