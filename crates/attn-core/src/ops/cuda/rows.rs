//! Operands of whole sequences, which lie token by token.

use attn_kernels::cuda::{Cache, Memory};
use candle_core::{Layout, Tensor};

use super::Asked;
use crate::error::Result;

/// Bytes that rows begin at multiples of. Allocations do at more.
const ALIGN_BYTES: usize = 16;

/// The same tensor where the elements of a row lie side by side and rows begin where vectors do, else a copy.
pub(super) fn laid_out(x: &Tensor) -> Result<Tensor> {
    let is_aligned = |elements: usize| elements * x.dtype().size_in_bytes() % ALIGN_BYTES == 0;
    let is_taken = match strides(x.layout()).as_slice() {
        [distances @ .., 1] => {
            is_aligned(x.layout().start_offset()) && distances.iter().all(|&it| is_aligned(it))
        }
        _ => false,
    };
    Ok(if is_taken {
        x.clone()
    } else {
        x.force_contiguous()?
    })
}

/// Rows `[B, N, heads, D]`, or `[B, N, D]` that all heads share.
pub(super) fn rows_of(memory: Memory, layout: &Layout) -> Asked<Cache> {
    let (batch_stride, row_stride, head_stride) = match *strides(layout) {
        [batch, row, head, 1] => (batch, row, head),
        [batch, row, 1] => (batch, row, 0),
        _ => return Err("it has rows whose elements lie apart".into()),
    };
    Ok(Cache {
        memory,
        batch_stride,
        head_stride,
        row_stride,
    })
}

/// The same rows from a column on, elements having so many bytes.
pub(super) fn from_column(rows: Cache, column: usize, bytes: usize) -> Cache {
    let skipped = (column * bytes).min(rows.memory.bytes);
    Cache {
        memory: Memory {
            address: rows.memory.address + skipped as u64,
            bytes: rows.memory.bytes - skipped,
        },
        ..rows
    }
}

/// A layout's strides, 0 along axes of one: nothing is read at those, whatever a view left in them.
fn strides(layout: &Layout) -> Vec<usize> {
    let axes = layout.dims().iter().zip(layout.stride());
    let mut strides: Vec<usize> = axes
        .map(|(&n, &stride)| if n == 1 { 0 } else { stride })
        .collect();
    if let (Some(last), Some(1)) = (strides.last_mut(), layout.dims().last()) {
        *last = 1;
    }
    strides
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    fn zeros(shape: &[usize]) -> Tensor {
        Tensor::zeros(shape, DType::BF16, &Device::Cpu).unwrap()
    }

    /// Whether a view is read where it lies.
    fn is_read_in_place(x: &Tensor) -> bool {
        let taken = laid_out(x).unwrap();
        assert!(rows_of(Memory::NONE, taken.layout()).is_ok());
        taken.layout() == x.layout()
    }

    #[test]
    fn views_whose_rows_are_whole_vectors_are_not_copied() {
        // As projections write them, and as caches have them.
        assert!(is_read_in_place(&zeros(&[2, 5, 4, 24])));
        assert!(is_read_in_place(
            &zeros(&[2, 4, 9, 24])
                .narrow(2, 0, 5)
                .unwrap()
                .transpose(1, 2)
                .unwrap()
        ));
        // A rope key in entries of a cache.
        assert!(is_read_in_place(&zeros(&[2, 5, 40]).narrow(2, 24, 16).unwrap()));
        // One token of a sequence, however far it is to a next one.
        assert!(is_read_in_place(&zeros(&[1, 5, 20]).narrow(1, 0, 1).unwrap()));
    }

    #[test]
    fn views_whose_rows_begin_anywhere_are_copied() {
        assert!(!is_read_in_place(&zeros(&[2, 5, 40]).narrow(2, 4, 16).unwrap()));
        assert!(!is_read_in_place(&zeros(&[2, 5, 20]).narrow(2, 0, 16).unwrap()));
        assert!(!is_read_in_place(&zeros(&[2, 5, 16, 4]).transpose(2, 3).unwrap()));
        // A gradient that is one number.
        let one = zeros(&[1]).broadcast_as((2, 5, 4, 8)).unwrap();
        assert!(!is_read_in_place(&one));
    }

    #[test]
    fn values_are_columns_of_what_a_projection_wrote() {
        let kv = zeros(&[2, 5, 4, 24]);
        let memory = Memory {
            address: 256,
            bytes: 2 * 5 * 4 * 24 * 2,
        };
        let rows = rows_of(memory, kv.layout()).ok().unwrap();
        let values = from_column(rows, 16, 2);
        assert_eq!(
            [values.batch_stride, values.row_stride, values.head_stride],
            [5 * 4 * 24, 4 * 24, 24]
        );
        assert_eq!(
            (values.memory.address, values.memory.bytes),
            (256 + 32, memory.bytes - 32)
        );
    }
}
