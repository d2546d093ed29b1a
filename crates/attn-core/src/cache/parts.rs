//! Caches made of caches: one for each sequence, all of them together, and the same in another build.

use candle_core::{DType, Device, Tensor};

use super::{Cache, Growth, SlotRows, accumulator_dtype};
use crate::error::Result;
use crate::habits::Habit;
use crate::variant::Build;

impl Cache {
    /// One cache per sequence, copied.
    ///
    /// # Errors
    /// [`crate::Error::Candle`] where memory runs out, [`crate::Error::Unsupported`] where sequences share slots.
    pub fn split(&self) -> Result<Vec<Self>> {
        self.check_unshared("a cache for each sequence")?;
        (0..self.batch())
            .map(|b| {
                let mut part = self.clone();
                part.rows = self.rows.sequence(b)?.map(Tensor::force_contiguous)?;
                part.open = self
                    .open
                    .as_ref()
                    .map(|o| o.narrow(0, b, 1)?.force_contiguous())
                    .transpose()?;
                part.lens = vec![self.lens[b]];
                part.mark = None;
                part.overwritten = None;
                if part.growth == Growth::Concat {
                    // A concatenated cache ends where its sequence does.
                    let slots = part.at_most(self.lens[b].div_ceil(self.stride));
                    part.rows = part.rows.map(|t| t.narrow(2, 0, slots)?.contiguous())?;
                }
                Ok(part)
            })
            .collect()
    }

    /// Puts one cache per sequence together again, shorter ones padded with NaN.
    ///
    /// # Errors
    /// [`crate::Error::Candle`] where memory runs out.
    pub fn join(&mut self, parts: &[Self]) -> Result<()> {
        let slots = parts.iter().map(|part| part.rows.len()).max().unwrap_or(0);
        let mut parts = parts.to_vec();
        for part in &mut parts {
            if part.rows.len() < slots {
                part.extend(slots)?;
            }
        }
        let rows: Vec<SlotRows> = parts.iter().map(|part| part.rows.clone()).collect();
        if let Some(rows) = SlotRows::merge(&rows, |parts| Tensor::cat(parts, 0)?.contiguous())? {
            self.rows = rows;
        }
        let open: Vec<&Tensor> = parts.iter().filter_map(|part| part.open.as_ref()).collect();
        if !open.is_empty() {
            self.open = Some(Tensor::cat(&open, 0)?.contiguous()?);
        }
        self.lens = parts.iter().flat_map(|part| part.lens.iter().copied()).collect();
        self.mark = None;
        self.overwritten = None;
        Ok(())
    }

    /// The same entries in another element type, for a layer of another build: how a reference in f64 gets
    /// to see the very cache that is measured. Only the slots in use are copied.
    ///
    /// # Errors
    /// [`crate::Error::Candle`] where memory runs out.
    ///
    /// ```
    /// # use attn_core::grouped::GroupedConfig;
    /// # use attn_core::{Build, Cache, Capacity, Entry, LayerConfig, ModelDims, Params, Path, Values};
    /// # use candle_core::DType;
    /// # let dims = ModelDims { d_model: 8, n_heads: 1, head_dim: 8 };
    /// # let entry = Entry::new(1, 8, Values::Own(8));
    /// # let geometry = GroupedConfig::new(&dims, entry, &Params::default())?.geometry();
    /// let mut cache = Cache::new(&geometry, &Build::cpu(Path::Fused, DType::BF16), 1, Capacity::Exact(64))?;
    /// cache.fill(5, 42)?;
    /// let wide = cache.convert(&Build::cpu(Path::Fused, DType::F64))?;
    /// assert_eq!((wide.keys().dtype(), wide.lens()), (DType::F64, &[5][..]));
    /// assert_eq!(wide.keys().dims(), [1, 1, 5, 8]); // the slots in use alone
    /// # Ok::<(), attn_core::Error>(())
    /// ```
    pub fn convert(&self, build: &Build) -> Result<Self> {
        let mut cache = self.clone();
        let by_concatenation = build.has(Habit::Cat);
        let rows = match by_concatenation {
            true => self.chronological()?, // there the oldest slot is the first
            false => self.first(self.slots().into_iter().max().unwrap_or(0))?,
        };
        cache.rows = rows.map(|t| moved(&t.contiguous()?, build.dtype, &build.device))?;
        let accumulator = accumulator_dtype(build.dtype);
        cache.open = self
            .open
            .as_ref()
            .map(|open| moved(open, accumulator, &build.device))
            .transpose()?;
        cache.shared = (self.shared.as_ref())
            .map(|shared| shared.convert(|t| moved(t, build.dtype, &build.device)))
            .transpose()?;
        cache.mark = None;
        cache.overwritten = None;
        cache.dtype = build.dtype;
        cache.device = build.device.clone();
        cache.growth = match by_concatenation {
            true => Growth::Concat,
            false => Growth::Doubling,
        };
        cache.is_copied = build.has(Habit::ReorderCopy);
        Ok(cache)
    }
}

/// In another element type and on another device, converted on the processor's side: a GPU converts no empty tensors.
fn moved(t: &Tensor, dtype: DType, device: &Device) -> Result<Tensor> {
    Ok(match device {
        Device::Cpu => t.to_device(device)?.to_dtype(dtype)?,
        _ => t.to_dtype(dtype)?.to_device(device)?,
    })
}
