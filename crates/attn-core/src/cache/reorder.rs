//! Sequences that change places: a beam's hypotheses, and a batch that grows to a beam or loses who has ended.

use attn_kernels::Reorder;
use candle_core::{CpuStorage, InplaceOp1, Layout, Tensor};

use super::{Cache, Growth, unwritten};
use crate::error::{Error, Result};
use crate::route::{has_kernels, select};

impl Cache {
    /// Makes sequence i what sequence `beams[i]` was; there may be more or fewer sequences than before.
    ///
    /// What stays is not moved, and what moves is only what is in use, in place where there are not more sequences than
    /// before. With the seed's habit all of it is copied. Shared slots stay where they are: the hypotheses of one
    /// sentence change places among each other.
    ///
    /// # Errors
    /// [`Error::Shape`] where a beam is out of range, or hypotheses that share slots leave their sentence.
    ///
    /// ```
    /// # use attn_core::grouped::GroupedConfig;
    /// # use attn_core::{Build, Cache, Capacity, Entry, LayerConfig, ModelDims, Params, Path, Values};
    /// # use candle_core::DType;
    /// # let dims = ModelDims { d_model: 8, n_heads: 1, head_dim: 8 };
    /// # let entry = Entry::new(1, 8, Values::Own(8));
    /// # let geometry = GroupedConfig::new(&dims, entry, &Params::default())?.geometry();
    /// let mut cache = Cache::new(&geometry, &Build::cpu(Path::Fused, DType::F32), 2, Capacity::Exact(4))?;
    /// cache.fill(3, 42)?;
    /// // The first hypothesis goes on twice, the second ends.
    /// cache.reorder(&[0, 0, 0])?;
    /// assert_eq!(cache.lens(), [3, 3, 3]);
    /// assert!(cache.reorder(&[3]).is_err());
    /// # Ok::<(), attn_core::Error>(())
    /// ```
    pub fn reorder(&mut self, beams: &[usize]) -> Result<()> {
        if beams.is_empty() || beams.iter().any(|&beam| beam >= self.batch()) {
            return Err(Error::Shape {
                op: "reorder",
                expected: format!("one or more beams below {}", self.batch()),
                got: beams.to_vec(),
            });
        }
        let shared = match &self.shared {
            Some(shared) => Some(shared.reordered(beams)?),
            None => None,
        };
        let used = self.slots();
        let rows: Vec<u32> = beams.iter().map(|&beam| beam as u32).collect();
        let by_copy = self.is_copied || self.growth == Growth::Concat;
        let reorder = |slots: &Tensor| match by_copy {
            true => select(slots, &rows, 0),
            false => moved(slots, beams, &used),
        };
        self.rows = self.rows.map(reorder)?;
        self.open = self
            .open
            .as_ref()
            .map(|open| select(open, &rows, 0))
            .transpose()?;
        self.lens = beams.iter().map(|&beam| self.lens[beam]).collect();
        self.shared = shared;
        self.mark = None;
        self.overwritten = None;
        if self.growth == Growth::Concat {
            self.cut()?;
        }
        Ok(())
    }
}

impl Cache {
    /// Ends a concatenated cache where its longest sequence does, which may be one that has left.
    fn cut(&mut self) -> Result<()> {
        let used = self.slots().into_iter().max().unwrap_or(0);
        if used < self.rows.len() {
            self.rows = self.rows.map(|slots| slots.narrow(2, 0, used)?.contiguous())?;
        }
        Ok(())
    }

    /// A cache of its own with copies of sequences `rows`.
    ///
    /// # Errors
    /// As [`reorder`](Self::reorder).
    pub fn select(&self, rows: &[usize]) -> Result<Self> {
        let mut selected = self.clone();
        selected.is_copied = true;
        selected.reorder(rows)?;
        selected.is_copied = self.is_copied;
        Ok(selected)
    }
}

/// Slots `[B, Hkv, C, width]` of which sequence i is what sequence `from[i]` was, `used` slots of each.
pub(super) fn moved(slots: &Tensor, from: &[usize], used: &[usize]) -> Result<Tensor> {
    let (b, heads, capacity, width) = slots.dims4()?;
    let most = used.iter().copied().max().unwrap_or(0);
    let n = from.len();
    let is_empty = slots.elem_count() == 0;
    if is_empty || !has_kernels(slots) {
        let rows: Vec<u32> = from.iter().map(|&row| row as u32).collect();
        if n > b || is_empty {
            return select(slots, &rows, 0);
        }
        let kept = slots.narrow(0, 0, n)?;
        if most > 0 {
            // Selected first: nothing that is overwritten is needed any more.
            kept.slice_set(&select(&slots.narrow(2, 0, most)?, &rows, 0)?, 2, 0)?;
        }
        return Ok(kept);
    }
    let mut all = slots.clone();
    let mut used: Vec<usize> = used.iter().map(|slots| slots * width).collect();
    if n > b {
        all = unwritten(n, heads, capacity, width, slots.dtype(), slots.device())?;
        if most > 0 {
            let old = slots.narrow(2, 0, most)?.contiguous()?;
            all.narrow(0, 0, b)?.slice_set(&old, 2, 0)?;
        }
        used.resize(n, 0);
    }
    all.inplace_op1(&InPlace { from, used: &used })?;
    Ok(all.narrow(0, 0, n)?)
}

/// The reordering of slots `[B, Hkv, C, width]` on the processor.
struct InPlace<'a> {
    from: &'a [usize],
    /// Elements in use of a head of each sequence.
    used: &'a [usize],
}

impl InplaceOp1 for InPlace<'_> {
    fn name(&self) -> &'static str {
        "reorder"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (&[_, heads, _, width], &[batch_stride, head_stride, row_stride, 1]) =
            (layout.dims(), layout.stride())
        else {
            candle_core::bail!("reorder takes slots whose elements lie side by side")
        };
        if row_stride != width {
            candle_core::bail!("reorder takes slots without gaps between them");
        }
        let input = Reorder {
            from: self.from,
            used: self.used,
            heads,
            batch_stride,
            head_stride,
        };
        let first = layout.start_offset();
        match storage {
            CpuStorage::F32(data) => attn_kernels::reorder(&input, &mut data[first..]),
            CpuStorage::F64(data) => attn_kernels::reorder(&input, &mut data[first..]),
            CpuStorage::BF16(data) => attn_kernels::reorder(&input, &mut data[first..]),
            CpuStorage::F16(data) => attn_kernels::reorder(&input, &mut data[first..]),
            _ => candle_core::bail!("reorder takes a cache of floats"),
        }
        .map_err(candle_core::Error::wrap)
    }
}
