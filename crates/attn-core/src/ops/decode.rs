//! Decode: one query per sequence against its cached entries.

use candle_core::{D, DType, Tensor};

use crate::cache::{Cache, SlotRows};
use crate::error::{Error, Result};
use crate::geometry::Entry;
use crate::ops::{composite, cuda, native, prefixed};
use crate::phase::{Phase, timed};
use crate::route::product;

/// Operands of [`decode()`].
///
/// ```
/// use attn_core::{Entry, SlotRows, Values};
/// use attn_core::ops::DecodeInput;
/// use candle_core::{DType, Device, Tensor};
///
/// // MLA's: eight heads of absorbed queries, one head of latents whose first 16 columns are the values.
/// let q = Tensor::zeros((2, 8, 20), DType::F32, &Device::Cpu)?;
/// let keys = Tensor::zeros((2, 1, 64, 20), DType::F32, &Device::Cpu)?;
/// let input = DecodeInput {
///     q: &q,
///     rows: &SlotRows::keys(keys),
///     entry: &Entry::new(1, 20, Values::KeyPrefix(16)),
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
    /// C slots of each sequence, used or not.
    pub rows: &'a SlotRows,
    /// What a slot holds.
    pub entry: &'a Entry,
    /// Slots in use by each sequence; what lies beyond is never read.
    pub slots: &'a [usize],
    /// Factor of the scores.
    pub scale: f64,
}

impl DecodeInput<'_> {
    /// The tensors, queries first.
    pub(super) fn operands(&self) -> Vec<&Tensor> {
        std::iter::once(self.q).chain(self.rows.all()).collect()
    }

    /// Refuses tensors that are not of the entry's sizes.
    fn check_sizes(&self) -> Result<()> {
        let Self { q, rows, entry, .. } = *self;
        let width = |t: Option<&Tensor>| t.map(|t| t.dims()[t.dims().len() - 1]);
        let got = [
            width(Some(q)),
            width(Some(&rows.keys)),
            width(rows.values.as_ref()),
            width(rows.tail.as_ref()),
        ];
        let tail = (entry.tail > 0).then_some(entry.tail);
        let expected = [
            Some(entry.key),
            Some(entry.key_width()),
            entry.value_width(),
            tail,
        ];
        if got == expected && rows.keys.dim(1)? == entry.heads {
            return Ok(());
        }
        Err(Error::Shape {
            op: "decode",
            expected: format!(
                "{} heads, widths {expected:?} of queries, keys, values and a tail",
                entry.heads
            ),
            got: got.iter().flatten().copied().collect(),
        })
    }

    /// Slots `first..first + n` of sequence b with keys and values as the formulas have them, in f64 or another wide
    /// dtype: `[1, Hkv, n, Dk]` and `[1, Hkv, n, Dv]`, with factors those of every query head.
    pub(super) fn formed(&self, b: usize, n: usize, wide: DType) -> Result<[Tensor; 2]> {
        let rows = self
            .rows
            .sequence(b)?
            .narrow(0, n)?
            .map(|t| t.contiguous()?.to_dtype(wide))?;
        form(&rows, self.entry)
    }
}

/// Keys `[B, Hkv, n, Dk]` and values `[B, Hkv, n, Dv]` of slots, with factors those of every query head: what the formulas
/// are about, and what no kernel forms.
///
/// # Errors
/// [`Error::Candle`] where the slots are not of the entry's sizes.
///
/// ```
/// use attn_core::ops::form;
/// use attn_core::{Entry, SlotRows, Values};
/// use candle_core::{DType, Device, Tensor};
///
/// // Two heads whose states are value and key in one, but for two columns of keys that both share.
/// let entry = Entry::new(2, 8, Values::KeyPrefix(8)).with_tail(2);
/// let rows = SlotRows {
///     keys: Tensor::zeros((1, 2, 5, 8), DType::F32, &Device::Cpu)?,
///     values: None,
///     tail: Some(Tensor::ones((1, 1, 5, 2), DType::F32, &Device::Cpu)?),
/// };
/// let [keys, values] = form(&rows, &entry)?;
/// assert_eq!((keys.dims(), values.dims()), (&[1, 2, 5, 8][..], &[1, 2, 5, 8][..]));
/// assert_eq!(keys.sum_all()?.to_scalar::<f32>()?, 2.0 * 5.0 * 2.0);
/// # Ok::<(), attn_core::Error>(())
/// ```
pub fn form(rows: &SlotRows, entry: &Entry) -> Result<[Tensor; 2]> {
    let v_width = entry.values.width();
    if let (Some(factors), Some(values)) = (entry.factors, &rows.values) {
        let sum = |t: &Tensor, products: usize, dim: usize| -> Result<Tensor> {
            let (b, _, n, _) = t.dims4()?;
            let t = t.reshape((b * n, products, dim + factors.heads))?;
            // [B n, H, R] x [B n, R, D]
            let per_head = t.narrow(2, dim, factors.heads)?.transpose(1, 2)?.contiguous()?;
            let sums = product(&per_head, &t.narrow(2, 0, dim)?.contiguous()?)?;
            Ok(sums.reshape((b, n, factors.heads, dim))?.transpose(1, 2)?)
        };
        return Ok([
            sum(&rows.keys, factors.keys, entry.key)?,
            sum(values, factors.values, v_width)?,
        ]);
    }
    let own = rows.keys.narrow(3, 0, entry.key - entry.tail)?;
    let keys = match &rows.tail {
        None => own,
        Some(tail) => {
            let (b, heads, n, _) = own.dims4()?;
            let tail = tail.broadcast_as((b, heads, n, entry.tail))?;
            Tensor::cat(&[&own, &tail], D::Minus1)?
        }
    };
    let values = match &rows.values {
        Some(values) => values.clone(),
        None => rows.keys.narrow(3, 0, v_width)?,
    };
    Ok([keys, values])
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
/// `2 H` times [`Entry::macs`] FLOPs per slot, `2 H (Dk + Dv)` where keys and values are stored; reads each slot once
///
/// # Errors
/// [`Error::Shape`] where lengths, heads or sizes do not fit; [`Error::Unsupported`] where `ATTN_CPU_LEVEL` names no level.
///
/// ```
/// use attn_core::{Entry, SlotRows, Values};
/// use attn_core::ops::{DecodeInput, decode};
/// use candle_core::{DType, Device, Tensor};
///
/// // Scores that are all the same: the mean of the values in use, 1 and 3.
/// let q = Tensor::zeros((1, 1, 2), DType::F32, &Device::Cpu)?;
/// let keys = Tensor::ones((1, 1, 3, 2), DType::F32, &Device::Cpu)?;
/// let values = Tensor::new(&[[[[1_f32], [3.0], [f32::NAN]]]], &Device::Cpu)?;
/// let input = DecodeInput {
///     q: &q,
///     rows: &SlotRows::keys_values(keys, values),
///     entry: &Entry::new(1, 2, Values::Own(1)),
///     slots: &[2], // the third was never written
///     scale: 1.0,
/// };
/// assert_eq!(decode(&input)?.flatten_all()?.to_vec1::<f32>()?, [2.0]);
/// # Ok::<(), attn_core::Error>(())
/// ```
pub fn decode(input: &DecodeInput) -> Result<Tensor> {
    let DecodeInput { q, rows, slots, .. } = *input;
    let (b, h, _) = q.dims3()?;
    let (_, h_kv, capacity, _) = rows.keys.dims4()?;
    input.check_sizes()?;
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
/// # let entry = Entry::new(1, 8, Values::Own(8));
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
            rows: cache.rows(),
            entry: cache.entry(),
            slots: &cache.slots(),
            scale,
        };
        match cache.shared() {
            Some(shared) => prefixed::decode(&input, shared),
            None => decode(&input),
        }
    })
}
