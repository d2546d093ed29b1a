//! The cache of one layer: slots, lengths and, for MTLA, the open slot.
//!
//! One type serves every variant: what differs is the [`Entry`] (how wide, whether V is a prefix of K, what heads
//! share), the stride (tokens to a slot), a window (slots that are kept) and whether an f32 accumulator stands beside
//! the open slot. Slots are kept head by head, `[B, Hkv, slots, width]`, so that each head's keys are one matrix in memory.
//!
//! ```
//! use attn_core::grouped::GroupedConfig;
//! use attn_core::{Build, Cache, Capacity, Entry, LayerConfig, ModelDims, Params, Path, SlotRows, Values, random_tensor};
//! use candle_core::{DType, Device};
//!
//! let dims = ModelDims { d_model: 32, n_heads: 4, head_dim: 8 };
//! let entry = Entry::new(1, 8, Values::Own(8));
//! let mqa = GroupedConfig::new(&dims, entry, &Params::default())?.geometry();
//! let mut cache = Cache::new(&mqa, &Build::cpu(Path::Fused, DType::F32), 2, Capacity::Exact(4))?;
//! let token = random_tensor(&[2, 1, 1, 8], 7, 0, DType::F32, &Device::Cpu)?; // [B, Hkv, n, D]
//! cache.write(&[0, 0], &SlotRows::keys_values(token.clone(), token))?;
//! cache.advance(1);
//! assert_eq!((cache.lens(), cache.slots()), (&[1, 1][..], vec![1, 1]));
//! assert_eq!(cache.kv_bytes(), 2 * (8 + 8) * 4); // the formula at this length
//! assert_eq!(cache.kv_allocated_bytes(), 4 * cache.kv_bytes()); // and at the capacity
//! # Ok::<(), attn_core::Error>(())
//! ```

mod marks;
mod parts;
mod place;
mod reorder;
mod ring;
mod rows;
mod shared;

use candle_core::{DType, Device, Tensor};

use self::place::{is_uniform, unwritten, write_rows};
use self::ring::Overwritten;
pub use self::rows::SlotRows;
pub use self::shared::SharedSlots;
use crate::error::{Error, Result};
use crate::geometry::{Entry, Geometry};
use crate::habits::Habit;
use crate::ops::cuda::Ends;
use crate::variant::Build;
use crate::weights::random_tensor;

/// How much a cache is to hold.
///
/// ```
/// use attn_core::grouped::GroupedConfig;
/// use attn_core::{Build, Cache, Capacity, Entry, Error, LayerConfig, ModelDims, Params, Path, Values};
/// use candle_core::DType;
///
/// # let dims = ModelDims { d_model: 32, n_heads: 4, head_dim: 8 };
/// # let entry = Entry::new(1, 8, Values::Own(8));
/// # let geometry = GroupedConfig::new(&dims, entry, &Params::default())?.geometry();
/// let build = Build::cpu(Path::Fused, DType::F32);
/// let mut exact = Cache::new(&geometry, &build, 1, Capacity::Exact(4))?;
/// assert!(matches!(exact.reserve(5), Err(Error::CacheFull { capacity: 4, requested: 5 })));
/// let mut growing = Cache::new(&geometry, &build, 1, Capacity::Growing(4))?;
/// growing.reserve(5)?;
/// assert_eq!(growing.kv_allocated_bytes(), geometry.kv_bytes(1, 8, 4)); // doubled
/// # Ok::<(), attn_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capacity {
    /// Exactly so many tokens a sequence; more is an error. What a timed case asks for.
    Exact(usize),
    /// So many to begin with, doubling where that is not enough.
    Growing(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Growth {
    Exact,
    Doubling,
    /// The seed's way: a new tensor, by concatenation, whenever a slot is added.
    Concat,
}

/// Slots and lengths of `batch` sequences.
///
/// ```
/// use attn_core::latent::LatentConfig;
/// use attn_core::{Build, Cache, Capacity, Entry, Error, ModelDims, ParamValue, Params, Path, Values};
/// use candle_core::DType;
///
/// // MTLA with s = 2: three tokens are two slots, the second of them open.
/// let dims = ModelDims { d_model: 32, n_heads: 4, head_dim: 8 };
/// let params = Params::default().with("kv_rank", ParamValue::Int(16)).with("rope_dim", ParamValue::Int(4));
/// let entry = Entry::new(1, 16 + 4, Values::KeyPrefix(16));
/// let geometry = LatentConfig::new(&dims, &params)?.geometry(entry, 2, 0, 0);
/// let mut cache = Cache::new(&geometry, &Build::cpu(Path::Fused, DType::F32), 1, Capacity::Exact(8))?;
/// cache.fill(3, 42)?; // random entries, and the length marked
/// assert_eq!((cache.uniform_len(), cache.slots()), (Some(3), vec![2]));
/// assert!(cache.values().is_none() && cache.open().is_some());
/// assert_eq!(cache.keys().dims(), [1, 1, 4, 20]); // [B, Hkv, slots, r + Dr]
/// // Whole blocks can be left again; a length within one only where it was marked.
/// cache.rewind(2)?;
/// assert!(matches!(cache.rewind(1), Err(Error::Rewind { .. })));
/// # Ok::<(), attn_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Cache {
    rows: SlotRows,
    /// f32 sums of the open slots `[B, r]`; the slots themselves hold them rounded.
    open: Option<Tensor>,
    lens: Vec<usize>,
    /// The lengths on a GPU, once a step has asked for them there.
    ends: Ends,
    mark: Option<Mark>,
    /// What was written over in a window since it was marked.
    overwritten: Option<Overwritten>,
    /// Slots that several sequences have in common.
    shared: Option<SharedSlots>,
    entry: Entry,
    stride: usize,
    /// Slots at most: the last ones, the oldest being written over.
    window: Option<usize>,
    growth: Growth,
    /// Whether sequences change places by a copy of everything, as the seed's do.
    is_copied: bool,
    dtype: DType,
    device: Device,
}

/// What a rewind into the middle of a block needs.
#[derive(Debug, Clone)]
struct Mark {
    lens: Vec<usize>,
    open: Tensor,
    /// The open slot's row of every sequence that has one, `[1, Hkv, 1, key]` each.
    rows: Vec<Option<Tensor>>,
}

/// A cache as a step on a GPU has it.
#[cfg(feature = "cuda")]
pub(crate) struct OnDevice<'a> {
    pub(crate) keys: &'a Tensor,
    pub(crate) values: Option<&'a Tensor>,
    /// Whether every head has its keys and values for itself, and they are all kept.
    pub(crate) is_plain: bool,
    pub(crate) open: Option<&'a Tensor>,
    pub(crate) stride: usize,
    pub(crate) lens: &'a [usize],
    pub(crate) ends: &'a mut Ends,
}

impl Cache {
    /// An empty cache, filled with NaN so that reading what was never written shows.
    ///
    /// # Errors
    /// [`Error::Candle`] where memory runs out.
    pub fn new(geometry: &Geometry, build: &Build, batch: usize, capacity: Capacity) -> Result<Self> {
        let (growth, tokens) = match capacity {
            _ if build.has(Habit::Cat) => (Growth::Concat, 0),
            Capacity::Exact(tokens) => (Growth::Exact, tokens),
            Capacity::Growing(tokens) => (Growth::Doubling, tokens),
        };
        let entry = geometry.entry;
        let (dtype, device) = (build.dtype, build.device.clone());
        let open = match geometry.state_elements {
            0 => None,
            width => Some(Tensor::zeros((batch, width), accumulator_dtype(dtype), &device)?),
        };
        Ok(Self {
            rows: SlotRows::unwritten(&entry, batch, geometry.slots(tokens), dtype, &device)?,
            open,
            lens: vec![0; batch],
            ends: Ends::default(),
            mark: None,
            overwritten: None,
            shared: None,
            entry,
            stride: geometry.stride,
            window: geometry.window,
            growth,
            is_copied: build.has(Habit::ReorderCopy),
            dtype,
            device,
        })
    }

    /// Sequences B.
    pub fn batch(&self) -> usize {
        self.lens.len()
    }

    /// Tokens each sequence holds.
    pub fn lens(&self) -> &[usize] {
        &self.lens
    }

    /// The length all sequences share, `None` where they differ.
    pub fn uniform_len(&self) -> Option<usize> {
        let first = *self.lens.first()?;
        self.lens.iter().all(|&len| len == first).then_some(first)
    }

    /// Slots in use by each sequence: `ceil(L / s)` and no more than the window, without those it shares.
    pub fn slots(&self) -> Vec<usize> {
        let slots = self
            .lens
            .iter()
            .map(|len| self.at_most(len.div_ceil(self.stride)));
        slots.enumerate().map(|(b, slot)| self.own(b, slot)).collect()
    }

    /// What one slot holds.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// All slots, used or not. Those that sequences share are apart ([`shared`](Self::shared)); those of a window stand in
    /// the order of their numbers modulo its size.
    pub fn rows(&self) -> &SlotRows {
        &self.rows
    }

    /// Keys of all slots, used or not: `[B, Hkv, slots, key_width]`.
    pub fn keys(&self) -> &Tensor {
        &self.rows.keys
    }

    /// The first `n` slots of every sequence.
    ///
    /// # Errors
    /// [`Error::Candle`] where there are fewer.
    pub fn first(&self, n: usize) -> Result<SlotRows> {
        self.rows.narrow(0, n)
    }

    /// Values of all slots `[B, Hkv, slots, value_width]`; `None` where they are the first columns of the keys.
    pub fn values(&self) -> Option<&Tensor> {
        self.rows.values.as_ref()
    }

    /// Whether the cache is of `batch` sequences.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn check_batch(&self, batch: usize) -> Result<()> {
        if batch == self.batch() {
            return Ok(());
        }
        Err(Error::Shape {
            op: "cache",
            expected: format!("{} sequences", self.batch()),
            got: vec![batch],
        })
    }

    /// Runs `step` on each sequence by itself, `x` split alike, and puts outputs and cache together again: for
    /// calls that ragged lengths would otherwise force into masks.
    ///
    /// # Errors
    /// Those of `step`; the cache is then as it was.
    ///
    /// ```
    /// # use attn_core::grouped::GroupedConfig;
    /// # use attn_core::{Build, Cache, Capacity, Entry, LayerConfig, ModelDims, Params, Path, Values};
    /// # use candle_core::{DType, Device, Tensor};
    /// # let dims = ModelDims { d_model: 8, n_heads: 1, head_dim: 8 };
    /// # let entry = Entry::new(1, 8, Values::Own(8));
    /// # let geometry = GroupedConfig::new(&dims, entry, &Params::default())?.geometry();
    /// let mut cache = Cache::new(&geometry, &Build::cpu(Path::Fused, DType::F32), 3, Capacity::Exact(4))?;
    /// let x = Tensor::zeros((3, 2, 8), DType::F32, &Device::Cpu)?;
    /// let y = cache.each_sequence(&x, |x, cache| {
    ///     assert_eq!((x.dims(), cache.batch()), (&[1, 2, 8][..], 1));
    ///     Ok(x.clone())
    /// })?;
    /// assert_eq!(y.dims(), [3, 2, 8]);
    /// # Ok::<(), attn_core::Error>(())
    /// ```
    pub fn each_sequence(
        &mut self,
        x: &Tensor,
        mut step: impl FnMut(&Tensor, &mut Self) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let mut parts = self.split()?;
        let mut outputs = Vec::with_capacity(parts.len());
        for (b, part) in parts.iter_mut().enumerate() {
            outputs.push(step(&x.narrow(0, b, 1)?, part)?);
        }
        self.join(&parts)?;
        Ok(Tensor::cat(&outputs, 0)?)
    }

    /// f32 (f64 for an f64 cache) sums of the open slots `[B, r]`, where the variant merges.
    ///
    /// A row means something only while its sequence's length is no multiple of the stride.
    pub fn open(&self) -> Option<&Tensor> {
        self.open.as_ref()
    }

    /// Bytes of the entries in use: the papers' formula at each sequence's length.
    pub fn kv_bytes(&self) -> u64 {
        let own: usize = self.slots().iter().sum();
        let slots = own + self.shared.as_ref().map_or(0, SharedSlots::total);
        (slots * self.entry.elements() * self.dtype.size_in_bytes()) as u64
    }

    /// Bytes the slots occupy, used or not.
    pub fn kv_allocated_bytes(&self) -> u64 {
        let elements = self.rows.elements() + self.shared.as_ref().map_or(0, SharedSlots::elements);
        (elements * self.dtype.size_in_bytes()) as u64
    }

    /// Bytes kept beside the slots: open-slot accumulators and lengths, O(B r).
    pub fn kv_state_bytes(&self) -> u64 {
        let open = self
            .open
            .as_ref()
            .map_or(0, |t| t.elem_count() * t.dtype().size_in_bytes());
        (open + 8 * self.lens.len()) as u64
    }

    /// Makes room for `tokens` in every sequence.
    ///
    /// # Errors
    /// [`Error::CacheFull`] where the capacity is exact and smaller.
    pub fn reserve(&mut self, tokens: usize) -> Result<()> {
        let have = self.rows.len();
        let in_common = self.shared.as_ref().map_or(0, SharedSlots::fewest);
        let need = self
            .at_most(tokens.div_ceil(self.stride))
            .saturating_sub(in_common);
        if need <= have {
            return Ok(());
        }
        match self.growth {
            Growth::Exact => Err(Error::CacheFull {
                capacity: (have + in_common) * self.stride,
                requested: tokens,
            }),
            Growth::Concat => Ok(()),
            Growth::Doubling => self.extend(self.at_most(need.max(2 * have))),
        }
    }

    /// Writes n consecutive slots of every sequence, from slot `first[b]` on.
    ///
    /// # Errors
    /// [`Error::CacheFull`] or a shape error.
    pub fn write(&mut self, first: &[usize], rows: &SlotRows) -> Result<()> {
        let n = rows.len();
        let last = first.iter().max().map_or(0, |slot| slot + n);
        self.reserve(last * self.stride)?;
        if let Some(window) = self.window
            && (last > window || self.growth == Growth::Concat)
        {
            return self.write_to_window(first, rows, window);
        }
        let first = &self.own_slots(first);
        let end = first.iter().max().map_or(0, |slot| slot + n);
        let have = self.rows.len(); // after room was made
        if self.growth == Growth::Concat && is_uniform(first) && first.first() == Some(&have) {
            return self.concatenate(rows);
        }
        if self.growth == Growth::Concat && end > have {
            self.extend(end)?;
        }
        self.write_rows(first, rows)
    }

    /// A new tensor with slots at its end.
    fn concatenate(&mut self, rows: &SlotRows) -> Result<()> {
        let both = [self.rows.clone(), rows.clone()];
        if let Some(longer) = SlotRows::merge(&both, |parts| Tensor::cat(parts, 2)?.contiguous())? {
            self.rows = longer;
        }
        Ok(())
    }

    /// Writes slots where they are, from `first[b]` on.
    fn write_rows(&self, first: &[usize], rows: &SlotRows) -> Result<()> {
        let uniform = is_uniform(first);
        for (slots, rows) in self.rows.all().zip(rows.all()) {
            write_rows(slots, first, uniform, rows)?;
        }
        Ok(())
    }

    /// As many slots as there may be of so many.
    fn at_most(&self, slots: usize) -> usize {
        self.window.map_or(slots, |window| window.min(slots))
    }

    /// Counts `tokens` more in every sequence, after their slots were written.
    pub fn advance(&mut self, tokens: usize) {
        for len in &mut self.lens {
            *len += tokens;
        }
    }

    /// What a step on a GPU reads and writes, the lengths among it.
    #[cfg(feature = "cuda")]
    pub(crate) fn on_device(&mut self) -> OnDevice<'_> {
        OnDevice {
            keys: &self.rows.keys,
            values: self.rows.values.as_ref(),
            is_plain: self.entry.is_plain() && self.window.is_none(),
            open: self.open.as_ref(),
            stride: self.stride,
            lens: &self.lens,
            ends: &mut self.ends,
        }
    }

    /// Sends lengths to a GPU, where it does not have them already.
    pub(crate) fn send_lens(&mut self) -> Result<()> {
        self.ends.send(&self.device, &self.lens)
    }

    /// Takes back what steps counted that were recorded, and not done: lengths are `lens`, here and on the GPU.
    pub(crate) fn uncount(&mut self, lens: &[usize]) {
        self.lens = lens.to_vec();
        self.ends.stand_for(lens);
    }

    /// Counts a step that a GPU did by itself, its own lengths counted with it.
    pub(crate) fn count_replayed(&mut self) {
        self.advance(1);
        self.ends.stand_for(&self.lens);
    }

    /// Whether every sequence has room for `tokens` more where the cache lies.
    pub(crate) fn has_room(&self, tokens: usize) -> bool {
        let end = self.lens.iter().max().map_or(0, |len| len + tokens);
        self.shared.is_none() && end.div_ceil(self.stride) <= self.rows.len()
    }

    /// Sets the open-slot sums `[B, r]`.
    pub fn set_open(&mut self, open: Tensor) {
        self.open = Some(open);
    }

    /// Gives every sequence `tokens` random entries of unit variance, and marks that length.
    ///
    /// # Errors
    /// [`Error::CacheFull`], and [`Error::Unsupported`] where sequences share slots.
    pub fn fill(&mut self, tokens: usize, seed: u64) -> Result<()> {
        self.check_unshared("filling")?;
        let (batch, heads) = (self.batch(), self.entry.heads);
        // Of a window the last ones, which are all there is.
        let end = tokens.div_ceil(self.stride);
        let slots = self.at_most(end);
        self.lens.fill(0);
        self.overwritten = None;
        if slots > 0 {
            let random = |heads: usize, width: usize, stream: u64| {
                let shape = [batch, heads, slots, width];
                random_tensor(&shape, seed, stream, self.dtype, &self.device)
            };
            let rows = SlotRows {
                keys: random(heads, self.entry.key_width(), 1)?,
                values: (self.entry.value_width())
                    .map(|width| random(heads, width, 2))
                    .transpose()?,
                tail: (self.entry.tail > 0)
                    .then(|| random(1, self.entry.tail, 3))
                    .transpose()?,
            };
            if self.growth == Growth::Concat {
                self.rows = self.rows.narrow(0, 0)?;
            }
            self.write(&vec![end - slots; batch], &rows)?;
            if let Some(open) = &self.open {
                // The open slot holds its sums rounded, so the sums are any values that round to it.
                // Copied: a view would keep all of the random entries alive beside the slots.
                let last = (rows.keys)
                    .narrow(2, slots - 1, 1)?
                    .narrow(3, 0, open.dim(1)?)?
                    .force_contiguous()?;
                self.open = Some(last.reshape(open.dims())?.to_dtype(open.dtype())?);
            }
        }
        self.advance(tokens);
        self.mark()
    }

    fn extend(&mut self, slots: usize) -> Result<()> {
        self.rows = self.rows.map(|t| -> Result<Tensor> {
            let (b, heads, have, width) = t.dims4()?;
            let tail = unwritten(b, heads, slots - have, width, t.dtype(), t.device())?;
            Ok(Tensor::cat(&[t, &tail], 2)?.contiguous()?)
        })?;
        Ok(())
    }
}

/// What sums are kept in: wide enough that a block's sum does not depend on the cache's element type.
pub(crate) fn accumulator_dtype(dtype: DType) -> DType {
    if dtype == DType::F64 {
        DType::F64
    } else {
        DType::F32
    }
}
