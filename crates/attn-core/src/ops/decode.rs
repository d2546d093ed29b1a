//! Decode: one query per sequence against its cached entries.

use candle_core::Tensor;

use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::geometry::Values;
use crate::ops::{composite, cuda, native, prefixed};
use crate::phase::{Phase, timed};

/// Operands of [`decode()`].
///
/// ```
/// use attn_core::Values;
/// use attn_core::ops::DecodeInput;
/// use candle_core::{DType, Device, Tensor};
///
/// // MLA's: eight heads of absorbed queries, one head of latents whose first 16 columns are the values.
/// let q = Tensor::zeros((2, 8, 20), DType::F32, &Device::Cpu)?;
/// let keys = Tensor::zeros((2, 1, 64, 20), DType::F32, &Device::Cpu)?;
/// let input = DecodeInput {
///     q: &q,
///     keys: &keys,
///     values: None,
///     layout: Values::KeyPrefix(16),
///     slots: &[64, 10], // each sequence at its own length
///     scale: 12_f64.powf(-0.5),
/// };
/// assert_eq!(attn_core::ops::decode(&input)?.dims(), [2, 8, 16]);
/// # Ok::<(), attn_core::Error>(())
/// ```
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
///
/// ```
/// use attn_core::Values;
/// use attn_core::ops::{DecodeInput, decode};
/// use candle_core::{DType, Device, Tensor};
///
/// // Scores that are all the same: the mean of the values in use, 1 and 3.
/// let q = Tensor::zeros((1, 1, 2), DType::F32, &Device::Cpu)?;
/// let keys = Tensor::ones((1, 1, 3, 2), DType::F32, &Device::Cpu)?;
/// let values = Tensor::new(&[[[[1_f32], [3.0], [f32::NAN]]]], &Device::Cpu)?;
/// let input = DecodeInput {
///     q: &q,
///     keys: &keys,
///     values: Some(&values),
///     layout: Values::Own(1),
///     slots: &[2], // the third was never written
///     scale: 1.0,
/// };
/// assert_eq!(decode(&input)?.flatten_all()?.to_vec1::<f32>()?, [2.0]);
/// # Ok::<(), attn_core::Error>(())
/// ```
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
///
/// ```
/// use attn_core::ops::decode_cached;
/// use attn_core::grouped::GroupedConfig;
/// use attn_core::{Build, Cache, Capacity, Entry, LayerConfig, ModelDims, Params, Path, Values, random_tensor};
/// use candle_core::{DType, Device};
///
/// # let dims = ModelDims { d_model: 32, n_heads: 4, head_dim: 8 };
/// # let entry = Entry { heads: 1, key: 8, values: Values::Own(8) };
/// # let mqa = GroupedConfig::new(&dims, entry, &Params::default())?.geometry();
/// let mut cache = Cache::new(&mqa, &Build::cpu(Path::Fused, DType::F32), 2, Capacity::Exact(16))?;
/// cache.fill(16, 42)?;
/// let q = random_tensor(&[2, 4, 8], 7, 0, DType::F32, &Device::Cpu)?;
/// assert_eq!(decode_cached(&q, &cache, 8_f64.powf(-0.5))?.dims(), [2, 4, 8]);
/// # Ok::<(), attn_core::Error>(())
/// ```
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
