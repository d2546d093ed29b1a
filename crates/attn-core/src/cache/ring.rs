//! Slots of a window: a ring in which slot n stands at n modulo its size, so that the newest takes the oldest's place.
//!
//! Attention over all of it needs no order, since positions are in the keys. Where caches grow by concatenation, as the
//! seed's do, it is not a ring: the slots are in order, and the oldest are cut off.

use candle_core::Tensor;

use super::{Cache, Growth, SlotRows, is_uniform};
use crate::error::{Error, Result};

/// What a rewind to a marked length has to put back.
#[derive(Debug, Clone)]
pub(super) struct Overwritten {
    /// The marked length of all sequences, in slots.
    mark: usize,
    /// Slots up to this one have what they took the place of in `rows`.
    end: usize,
    /// What stood in the places of slots `mark..end`, in runs from a place on.
    runs: Vec<(usize, SlotRows)>,
    /// All there was, where it is cut off and not written over.
    all: Option<SlotRows>,
}

impl Cache {
    /// Slots that a query sees at most, where there is a limit.
    pub fn window(&self) -> Option<usize> {
        self.window
    }

    /// The slots in use, the oldest first; views where none was written over. Sequences shorter than the longest have
    /// what lies behind their own.
    ///
    /// # Errors
    /// [`Error::Candle`] where memory runs out.
    pub fn chronological(&self) -> Result<SlotRows> {
        let used = self.slots().into_iter().max().unwrap_or(0);
        let rows = self.rows.narrow(0, used)?;
        let turns: Vec<usize> = match (self.window, self.growth) {
            (Some(window), Growth::Exact | Growth::Doubling) => {
                let turn = |&len: &usize| if len > window { len % window } else { 0 };
                self.lens.iter().map(turn).collect()
            }
            _ => return Ok(rows),
        };
        if turns.iter().all(|&turn| turn == 0) {
            return Ok(rows);
        }
        let turned = |rows: SlotRows, turn: usize| -> Result<SlotRows> {
            let turned = rows.map(|t| -> candle_core::Result<Tensor> {
                match turn {
                    0 => Ok(t.clone()),
                    _ => Tensor::cat(&[t.narrow(2, turn, used - turn)?, t.narrow(2, 0, turn)?], 2),
                }
            });
            Ok(turned?)
        };
        if is_uniform(&turns) {
            return turned(rows, turns[0]);
        }
        let sequences = turns.iter().enumerate();
        let sequences = sequences.map(|(b, &turn)| turned(rows.sequence(b)?, turn));
        let all = SlotRows::merge(&sequences.collect::<Result<Vec<_>>>()?, |parts| {
            Tensor::cat(parts, 0)
        })?;
        Ok(all.unwrap_or(rows))
    }

    /// Writes slots of which only the last are kept.
    pub(super) fn write_to_window(&mut self, first: &[usize], rows: &SlotRows, window: usize) -> Result<()> {
        if self.growth == Growth::Concat {
            return self.concatenate_to_window(first, rows, window);
        }
        let n = rows.len();
        let kept = n.min(window);
        let rows = rows.narrow(n - kept, kept)?;
        let first: Vec<usize> = first.iter().map(|slot| slot + n - kept).collect();
        self.keep_overwritten(&first, kept, window)?;
        if is_uniform(&first) {
            let Some(&slot) = first.first() else {
                return Ok(());
            };
            let place = slot % window;
            let before = kept.min(window - place);
            self.write_rows(&vec![place; first.len()], &rows.narrow(0, before)?)?;
            if before < kept {
                self.write_rows(&vec![0; first.len()], &rows.narrow(before, kept - before)?)?;
            }
            return Ok(());
        }
        for (b, slot) in first.iter().enumerate() {
            let (own, rows) = (self.rows.sequence(b)?, rows.sequence(b)?);
            let place = slot % window;
            let before = kept.min(window - place);
            for (slots, rows) in own.all().zip(rows.all()) {
                slots.slice_set(&rows.narrow(2, 0, before)?.contiguous()?, 2, place)?;
                if before < kept {
                    slots.slice_set(&rows.narrow(2, before, kept - before)?.contiguous()?, 2, 0)?;
                }
            }
        }
        Ok(())
    }

    /// A new tensor with slots at its end, and without as many of the oldest.
    fn concatenate_to_window(&mut self, first: &[usize], rows: &SlotRows, window: usize) -> Result<()> {
        let have = self.rows.len();
        if !is_uniform(first)
            || first
                .first()
                .is_some_and(|&slot| slot.min(window) != have && have > 0)
        {
            return Err(Error::Unsupported {
                what: "sequences of several lengths in a concatenated window".to_string(),
                remedy: "give each a cache of its own".to_string(),
            });
        }
        self.concatenate(rows)?;
        let longer = self.rows.len();
        if longer > window {
            self.rows = self
                .rows
                .map(|t| t.narrow(2, longer - window, window)?.contiguous())?;
        }
        Ok(())
    }

    /// What a mark of now has to remember.
    pub(super) fn mark_window(&self) -> Option<Overwritten> {
        self.window?;
        let mark = self.uniform_len()?.div_ceil(self.stride);
        Some(Overwritten {
            mark,
            end: mark,
            runs: Vec::new(),
            // Never written to again: it costs nothing.
            all: (self.growth == Growth::Concat).then(|| self.rows.clone()),
        })
    }

    /// Keeps what slots from `first` on will be written over, the first time that they are after a mark.
    fn keep_overwritten(&mut self, first: &[usize], n: usize, window: usize) -> Result<()> {
        let Some(kept) = &mut self.overwritten else {
            return Ok(());
        };
        // Below the mark it is another past than the one that was marked.
        if !is_uniform(first) || first.first().is_some_and(|&slot| slot < kept.mark) {
            self.overwritten = None;
            return Ok(());
        }
        let end = first.first().map_or(0, |slot| slot + n);
        // A place that was written to twice has what was marked already.
        let mut slot = kept.end.max(window);
        let last = end.min(kept.mark + window);
        while slot < last {
            let place = slot % window;
            let run = (last - slot).min(window - place);
            let rows = self.rows.narrow(place, run)?.map(Tensor::force_contiguous)?;
            kept.runs.push((place, rows));
            slot += run;
        }
        kept.end = kept.end.max(end);
        Ok(())
    }

    /// Puts back what a window had when it was of `tokens`.
    ///
    /// # Errors
    /// [`Error::Rewind`] where something was written over since and no mark has it.
    pub(super) fn restore_window(&mut self, tokens: usize) -> Result<()> {
        let Some(window) = self.window else {
            return Ok(());
        };
        let most = self.lens.iter().max().map_or(0, |len| len.div_ceil(self.stride));
        if most <= window {
            return Ok(()); // nothing was written over
        }
        let slots = tokens.div_ceil(self.stride);
        let marked = self.overwritten.as_ref().filter(|kept| kept.mark == slots);
        let Some(kept) = marked else {
            if tokens == 0 {
                return Ok(()); // nothing is left to see
            }
            return Err(Error::Rewind {
                requested: tokens,
                reason: format!("slots of its window of {window} were written over, mark it first"),
            });
        };
        if let Some(all) = &kept.all {
            self.rows = all.clone();
            return Ok(());
        }
        for (place, rows) in &kept.runs {
            self.write_rows(&vec![*place; self.lens.len()], rows)?;
        }
        Ok(())
    }
}
