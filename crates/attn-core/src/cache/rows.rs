//! The tensors that slots are made of.

use candle_core::{DType, Device, Tensor};

use super::unwritten;
use crate::error::Result;
use crate::geometry::Entry;

/// n slots of every sequence, `[B, heads, n, width]` a tensor; widths are those of the [`Entry`].
///
/// ```
/// use attn_core::{Build, Cache, Capacity, Entry, LayerConfig, ModelDims, Params, Path, SlotRows, Values};
/// use attn_core::grouped::GroupedConfig;
/// use candle_core::{DType, Device, Tensor};
///
/// # let dims = ModelDims { d_model: 32, n_heads: 4, head_dim: 8 };
/// # let entry = Entry::new(2, 8, Values::Own(8));
/// # let geometry = GroupedConfig::new(&dims, entry, &Params::default())?.geometry();
/// let mut cache = Cache::new(&geometry, &Build::cpu(Path::Fused, DType::F32), 1, Capacity::Exact(4))?;
/// let two = Tensor::ones((1, 2, 2, 8), DType::F32, &Device::Cpu)?; // two slots of two heads
/// cache.write(&[0], &SlotRows::keys_values(two.clone(), two))?;
/// cache.advance(2);
/// assert_eq!(cache.first(2)?.keys.sum_all()?.to_scalar::<f32>()?, 32.0);
/// # Ok::<(), attn_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct SlotRows {
    /// What each KV head has for its keys, `[B, Hkv, n, key_width]`: keys, keys that hold values, or their factors.
    pub keys: Tensor,
    /// Values or their factors `[B, Hkv, n, value_width]`; `None` where they are the first columns of the keys.
    pub values: Option<Tensor>,
    /// Columns of keys that all heads have in common, `[B, 1, n, tail]`.
    pub tail: Option<Tensor>,
}

impl SlotRows {
    /// Slots of keys alone.
    pub fn keys(keys: Tensor) -> Self {
        Self {
            keys,
            values: None,
            tail: None,
        }
    }

    /// Slots of keys and values.
    pub fn keys_values(keys: Tensor, values: Tensor) -> Self {
        Self {
            keys,
            values: Some(values),
            tail: None,
        }
    }

    /// Slots that nothing was written to: NaN.
    pub(super) fn unwritten(
        entry: &Entry,
        batch: usize,
        slots: usize,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let rows = |heads, width| unwritten(batch, heads, slots, width, dtype, device);
        Ok(Self {
            keys: rows(entry.heads, entry.key_width())?,
            values: entry
                .value_width()
                .map(|width| rows(entry.heads, width))
                .transpose()?,
            tail: (entry.tail > 0).then(|| rows(1, entry.tail)).transpose()?,
        })
    }

    /// The tensors that there are.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Tensor> {
        [Some(&self.keys), self.values.as_ref(), self.tail.as_ref()]
            .into_iter()
            .flatten()
    }

    /// Each tensor through a function.
    pub(crate) fn map<E>(&self, mut f: impl FnMut(&Tensor) -> Result<Tensor, E>) -> Result<Self, E> {
        Ok(Self {
            keys: f(&self.keys)?,
            values: self.values.as_ref().map(&mut f).transpose()?,
            tail: self.tail.as_ref().map(&mut f).transpose()?,
        })
    }

    /// Each tensor of several with the others in its place through a function; what the first has, all have.
    pub(crate) fn merge<E>(
        parts: &[Self],
        mut f: impl FnMut(&[&Tensor]) -> Result<Tensor, E>,
    ) -> Result<Option<Self>, E> {
        let Some(first) = parts.first() else {
            return Ok(None);
        };
        let mut of = |part: fn(&Self) -> Option<&Tensor>| {
            part(first)
                .is_some()
                .then(|| f(&parts.iter().filter_map(part).collect::<Vec<_>>()))
                .transpose()
        };
        let keys = of(|part| Some(&part.keys))?;
        let (values, tail) = (of(|part| part.values.as_ref())?, of(|part| part.tail.as_ref())?);
        Ok(keys.map(|keys| Self { keys, values, tail }))
    }

    /// Slots n.
    pub(crate) fn len(&self) -> usize {
        self.keys.dims()[2]
    }

    /// Slots `first..first + n`, views.
    pub(crate) fn narrow(&self, first: usize, n: usize) -> Result<Self> {
        Ok(self.map(|t| t.narrow(2, first, n))?)
    }

    /// Sequence b, a view.
    pub(crate) fn sequence(&self, b: usize) -> Result<Self> {
        Ok(self.map(|t| t.narrow(0, b, 1))?)
    }

    /// Elements, used or not.
    pub(super) fn elements(&self) -> usize {
        self.all().map(Tensor::elem_count).sum()
    }
}
