//! Operands in memory: heads and rows at any distance, the elements of a row side by side.

use crate::error::{Mismatch, at_least, product};

/// `[B, heads, N, D]` of which each row has its elements side by side.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a, E> {
    /// The elements from the first row on.
    pub data: &'a [E],
    /// From one sequence to the next.
    pub batch_stride: usize,
    /// From one head to the next; 0 where all heads share one.
    pub head_stride: usize,
    /// From one row to the next.
    pub row_stride: usize,
}

impl<'a, E> Rows<'a, E> {
    /// `[B, heads, N, D]` without gaps.
    pub fn head_major(data: &'a [E], heads: usize, rows: usize, dim: usize) -> Self {
        Self {
            data,
            batch_stride: heads * rows * dim,
            head_stride: rows * dim,
            row_stride: dim,
        }
    }

    /// The elements of a head from a row on.
    pub(crate) fn from(&self, sequence: usize, head: usize, row: usize) -> &'a [E] {
        &self.data[sequence * self.batch_stride + head * self.head_stride + row * self.row_stride..]
    }

    /// Every `stride`-th row, beginning with the last of the first so many.
    pub(crate) fn every(&self, stride: usize) -> Self {
        let first = ((stride - 1) * self.row_stride).min(self.data.len());
        Self {
            data: &self.data[first..],
            row_stride: stride * self.row_stride,
            ..*self
        }
    }

    /// Refuses what is too short for `[batch, heads, rows, dim]`.
    pub(crate) fn check(
        &self,
        op: &'static str,
        what: &'static str,
        [batch, heads, rows, dim]: [usize; 4],
    ) -> Result<(), Mismatch> {
        if batch == 0 || heads == 0 || rows == 0 {
            return Ok(());
        }
        let end = product(&[batch - 1, self.batch_stride])
            .saturating_add(product(&[heads - 1, self.head_stride]))
            .saturating_add(product(&[rows - 1, self.row_stride]))
            .saturating_add(dim);
        at_least(op, what, self.data.len(), end)
    }
}
