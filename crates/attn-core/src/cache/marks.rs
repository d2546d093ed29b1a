//! Lengths to come back to.

use candle_core::Tensor;

use super::{Cache, Growth, Mark};
use crate::error::{Error, Result};

impl Cache {
    /// Remembers the present lengths and open slots, so that [`rewind`](Self::rewind) can come back to them.
    ///
    /// # Errors
    /// [`Error::Candle`] where memory runs out.
    pub fn mark(&mut self) -> Result<()> {
        self.overwritten = self.mark_window();
        let Some(open) = &self.open else {
            return Ok(());
        };
        let row = |(b, &len): (usize, &usize)| -> Result<Option<Tensor>> {
            if len % self.stride == 0 {
                return Ok(None);
            }
            Ok(Some(
                self.keys()
                    .narrow(0, b, 1)?
                    .narrow(2, self.own(b, len / self.stride), 1)?
                    .force_contiguous()?,
            ))
        };
        let rows = self.lens.iter().enumerate().map(row).collect::<Result<_>>()?;
        self.mark = Some(Mark {
            lens: self.lens.clone(),
            open: open.copy()?, // a GPU adds to the sums where they are
            rows,
        });
        Ok(())
    }

    /// Takes every sequence back to `tokens`, the open slot included.
    ///
    /// A length that ends a block can always be restored; one inside a block only where it was marked, since
    /// merging overwrites.
    ///
    /// # Errors
    /// [`Error::Rewind`].
    pub fn rewind(&mut self, tokens: usize) -> Result<()> {
        if let Some(&len) = self.lens.iter().find(|&&len| len < tokens) {
            return Err(Error::Rewind {
                requested: tokens,
                reason: format!("a sequence holds only {len} tokens"),
            });
        }
        if let Some(shared) = &self.shared
            && tokens < shared.most() * self.stride
        {
            return Err(Error::Rewind {
                requested: tokens,
                reason: "sequences share slots beyond it".to_string(),
            });
        }
        let unmoved = self.lens.iter().all(|&len| len == tokens);
        if !unmoved {
            self.restore_window(tokens)?;
        }
        if !unmoved && tokens % self.stride != 0 && self.open.is_some() {
            let marked = self
                .mark
                .as_ref()
                .filter(|mark| mark.lens.iter().all(|&len| len == tokens));
            let Some(mark) = marked else {
                return Err(Error::Rewind {
                    requested: tokens,
                    reason: format!(
                        "it ends inside a block of {} and was not marked, rewind to a multiple or mark it first",
                        self.stride
                    ),
                });
            };
            match &self.open {
                // Where they are: a graph of a step has their address.
                Some(open) if !self.device.is_cpu() => open.slice_set(&mark.open, 0, 0)?,
                _ => self.open = Some(mark.open.copy()?),
            }
            let rows = mark.rows.clone();
            for (b, row) in rows.iter().enumerate() {
                if let Some(row) = row {
                    self.keys()
                        .narrow(0, b, 1)?
                        .slice_set(row, 2, self.own(b, tokens / self.stride))?;
                }
            }
        }
        self.lens.fill(tokens);
        if self.growth == Growth::Concat {
            let slots = self.slots().into_iter().max().unwrap_or(0);
            self.rows = self.rows.map(|t| t.narrow(2, 0, slots)?.contiguous())?;
        }
        Ok(())
    }
}
