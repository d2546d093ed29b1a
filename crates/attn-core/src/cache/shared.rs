//! Slots that the hypotheses of a beam have in common: the prefix, stored once a sentence and read once a step.

use candle_core::Tensor;

use super::{Cache, Growth, SlotRows, reorder, unwritten};
use crate::error::{Error, Result};
use crate::route::select;

/// Closed slots of N sentences, each shared by a beam of sequences.
///
/// ```
/// use attn_core::grouped::GroupedConfig;
/// use attn_core::{Build, Cache, Capacity, Entry, LayerConfig, ModelDims, Params, Path, Values};
/// use candle_core::DType;
///
/// # let dims = ModelDims { d_model: 8, n_heads: 1, head_dim: 8 };
/// # let entry = Entry::new(1, 8, Values::Own(8));
/// # let geometry = GroupedConfig::new(&dims, entry, &Params::default())?.geometry();
/// let mut cache = Cache::new(&geometry, &Build::cpu(Path::Fused, DType::F32), 2, Capacity::Growing(16))?;
/// cache.fill(16, 42)?;
/// let bytes = cache.kv_bytes();
/// cache.share(4)?; // two sentences, four hypotheses each
/// let Some(shared) = cache.shared() else { panic!() };
/// assert_eq!((shared.beam(), shared.slots()), (4, &[16, 16][..]));
/// assert_eq!(shared.rows().keys.dims(), [2, 1, 16, 8]);
/// assert_eq!((cache.batch(), cache.kv_bytes()), (8, bytes)); // stored once a sentence
/// # Ok::<(), attn_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct SharedSlots {
    /// P slots of N sentences.
    rows: SlotRows,
    /// Slots of each sentence, at least one.
    slots: Vec<usize>,
    beam: usize,
}

impl SharedSlots {
    /// The slots, `[N, heads, P, width]` a tensor.
    pub fn rows(&self) -> &SlotRows {
        &self.rows
    }

    /// Slots of each sentence.
    pub fn slots(&self) -> &[usize] {
        &self.slots
    }

    /// Sequences that share a sentence's slots.
    pub fn beam(&self) -> usize {
        self.beam
    }

    /// Slots of all sentences.
    pub(super) fn total(&self) -> usize {
        self.slots.iter().sum()
    }

    pub(super) fn fewest(&self) -> usize {
        self.slots.iter().min().copied().unwrap_or(0)
    }

    pub(super) fn most(&self) -> usize {
        self.slots.iter().max().copied().unwrap_or(0)
    }

    /// Elements that the slots occupy, used or not.
    pub(super) fn elements(&self) -> usize {
        self.rows.elements()
    }

    pub(super) fn convert(&self, convert: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(Self {
            rows: self.rows.map(convert)?,
            ..self.clone()
        })
    }

    /// What is left where sequence i becomes what sequence `beams[i]` was: sentences may leave.
    pub(super) fn reordered(&self, beams: &[usize]) -> Result<Self> {
        let groups = beams.chunks(self.beam);
        let sentence = |group: &[usize]| {
            let first = group.first()? / self.beam;
            let is_whole = group.len() == self.beam && group.iter().all(|beam| beam / self.beam == first);
            is_whole.then_some(first)
        };
        let Some(from) = groups.map(sentence).collect::<Option<Vec<_>>>() else {
            return Err(Error::Shape {
                op: "reorder",
                expected: format!("beams of {} hypotheses that stay with their sentence", self.beam),
                got: beams.to_vec(),
            });
        };
        if from.iter().copied().eq(0..self.slots.len()) {
            return Ok(self.clone());
        }
        let rows: Vec<u32> = from.iter().map(|&row| row as u32).collect();
        Ok(Self {
            rows: self.rows.map(|t| select(t, &rows, 0))?,
            slots: from.iter().map(|&row| self.slots[row]).collect(),
            beam: self.beam,
        })
    }
}

impl Cache {
    /// Turns each sequence into `beam` hypotheses that share its closed slots: sequences `i beam .. (i + 1) beam` are
    /// those of sequence i. An open slot, which a hypothesis goes on to write, each has for itself; where a sequence has
    /// no closed slot, or slots are those of a window, there is nothing to share, and all are copied.
    ///
    /// # Errors
    /// [`Error::Shape`] where `beam` is 0, [`Error::Unsupported`] where slots are shared already.
    pub fn share(&mut self, beam: usize) -> Result<()> {
        self.check_unshared("another beam")?;
        if beam == 0 {
            return Err(Error::Shape {
                op: "share",
                expected: "one or more hypotheses".to_string(),
                got: vec![beam],
            });
        }
        let closed: Vec<usize> = self.lens.iter().map(|len| len / self.stride).collect();
        let (b, n) = (self.batch(), self.batch() * beam);
        let beams: Vec<usize> = (0..n).map(|i| i / beam).collect();
        let (most, fewest) = (closed.iter().max(), closed.iter().min());
        if self.window.is_some() {
            return self.reorder(&beams); // hypotheses would write over what they share
        }
        let (Some(&most), Some(&fewest @ 1..)) = (most, fewest) else {
            return self.reorder(&beams);
        };
        // Open slots stand right behind the closed ones.
        let own: Vec<usize> = self
            .slots()
            .iter()
            .zip(&closed)
            .map(|(slots, closed)| slots - closed)
            .collect();
        let capacity = match self.growth {
            Growth::Concat => own.iter().max().copied().unwrap_or(0),
            Growth::Exact | Growth::Doubling => self.rows.len() - fewest,
        };
        let in_common = self.rows.map(|slots| -> Result<Tensor> {
            let (_, heads, _, width) = slots.dims4()?;
            let in_common = unwritten(b, heads, most, width, slots.dtype(), slots.device())?;
            in_common.slice_set(&slots.narrow(2, 0, most)?.contiguous()?, 2, 0)?;
            Ok(in_common)
        })?;
        let apart = self.rows.map(|slots| -> Result<Tensor> {
            let (_, heads, _, width) = slots.dims4()?;
            let first = unwritten(b, heads, capacity, width, slots.dtype(), slots.device())?;
            for (i, (&closed, &own)) in closed.iter().zip(&own).enumerate() {
                if own > 0 {
                    let open = slots.narrow(0, i, 1)?.narrow(2, closed, own)?.contiguous()?;
                    first.narrow(0, i, 1)?.slice_set(&open, 2, 0)?;
                }
            }
            reorder::moved(&first, &beams, &own)
        })?;
        let rows: Vec<u32> = beams.iter().map(|&row| row as u32).collect();
        self.open = self
            .open
            .as_ref()
            .map(|open| select(open, &rows, 0))
            .transpose()?;
        self.lens = beams.iter().map(|&row| self.lens[row]).collect();
        self.rows = apart;
        self.mark = None;
        self.shared = Some(SharedSlots {
            rows: in_common,
            slots: closed,
            beam,
        });
        Ok(())
    }

    /// Slots that sequences have in common, where they do.
    pub fn shared(&self) -> Option<&SharedSlots> {
        self.shared.as_ref()
    }

    /// Refuses what takes slots of all sequences to lie side by side.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where sequences share slots.
    pub fn check_unshared(&self, what: &str) -> Result<()> {
        if self.shared.is_none() {
            return Ok(());
        }
        Err(Error::Unsupported {
            what: format!("{what} over a shared prefix"),
            remedy: "copy the prefix to its hypotheses instead".to_string(),
        })
    }

    /// Where slot `slot` of sequence b is among its own.
    pub(super) fn own(&self, b: usize, slot: usize) -> usize {
        match &self.shared {
            Some(shared) => slot.saturating_sub(shared.slots[b / shared.beam]),
            None => slot,
        }
    }

    /// Where one slot of every sequence is among its own.
    pub fn own_slots(&self, slots: &[usize]) -> Vec<usize> {
        slots
            .iter()
            .enumerate()
            .map(|(b, &slot)| self.own(b, slot))
            .collect()
    }
}
