//! Decode: one query per sequence against its cached entries.

use candle_core::Tensor;

use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::geometry::Values;
use crate::ops::{composite, cuda, native, prefixed};
use crate::phase::{Phase, timed};

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
/// The H / Hkv query heads of a KV head share one pass over it, each sequence at its own length. Scores and sums are
/// f32 (f64 for f64 caches).
///
/// # Shapes
/// returns `[B, H, Dv]` of `q`'s dtype
///
/// # Cost
/// `2 H (Dk + Dv)` FLOPs per slot; reads each slot once
///
/// # Errors
/// [`Error::Shape`] where lengths or heads do not fit; [`Error::Unsupported`] where `ATTN_CPU_LEVEL` names no level.
pub fn decode(input: &DecodeInput) -> Result<Tensor> {
    let DecodeInput { q, keys, slots, .. } = *input;
    let (b, h, _) = q.dims3()?;
    let (_, h_kv, capacity, _) = keys.dims4()?;
    if slots.len() != b || h % h_kv != 0 || slots.iter().any(|&n| n == 0 || n > capacity) {
        return Err(Error::Shape {
            op: "decode",
            expected: format!("{b} lengths in 1..={capacity}, and heads {h} a multiple of KV heads {h_kv}"),
            got: slots.to_vec(),
        });
    }
    if let Some(out) = native::decode(input)? {
        return Ok(out);
    }
    match cuda::decode(input)? {
        Some(out) => Ok(out),
        None => composite::decode(input),
    }
}

/// [`decode()`] of one query per sequence against all its slots in `cache`, those it shares with others included: these
/// are read once for all who share them.
///
/// # Shapes
/// - `q`: `[B, H, Dk]`
/// - returns `[B, H, Dv]`
///
/// # Errors
/// As [`decode()`].
pub fn decode_cached(q: &Tensor, cache: &Cache, scale: f64) -> Result<Tensor> {
    timed(Phase::Attention, || {
        let input = DecodeInput {
            q,
            keys: cache.keys(),
            values: cache.values(),
            layout: cache.entry().values,
            slots: &cache.slots(),
            scale,
        };
        match cache.shared() {
            Some(shared) => prefixed::decode(&input, shared),
            None => decode(&input),
        }
    })
}
