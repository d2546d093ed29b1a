//! Where slots are in memory: how it begins, and how rows get there.

use candle_core::{CpuStorage, DType, Device, Shape, Storage, Tensor};
use half::{bf16, f16};

use crate::error::Result;

/// Bytes of a cache line.
const LINE_BYTES: usize = 64;

/// Slots that nothing was written to: NaN, so that no kernel reads one unnoticed.
pub(super) fn unwritten(
    batch: usize,
    heads: usize,
    slots: usize,
    width: usize,
    dtype: DType,
    device: &Device,
) -> Result<Tensor> {
    let shape = (batch, heads, slots, width);
    let elements = batch * heads * slots * width;
    if elements == 0 || !device.is_cpu() {
        return full_of_nan(shape.into(), dtype, device);
    }
    // From a cache line on: kernels load rows of whole lines, and one that crosses a line takes twice as long.
    let all = full_of_nan(
        (elements + LINE_BYTES / dtype.size_in_bytes()).into(),
        dtype,
        device,
    )?;
    let first = to_next_line(&all)?;
    Ok(all.narrow(0, first, elements)?.reshape(shape)?)
}

fn full_of_nan(shape: Shape, dtype: DType, device: &Device) -> Result<Tensor> {
    if shape.elem_count() == 0 {
        return Ok(Tensor::zeros(shape, dtype, device)?); // a GPU fills no empty tensors
    }
    // In its own type at once: a detour through f32 would need three times the memory for a moment.
    Ok(match dtype {
        DType::BF16 => Tensor::full(bf16::NAN, shape, device)?,
        DType::F16 => Tensor::full(f16::NAN, shape, device)?,
        DType::F64 => Tensor::full(f64::NAN, shape, device)?,
        _ => Tensor::full(f32::NAN, shape, device)?.to_dtype(dtype)?,
    }
    .contiguous()?)
}

/// Elements of a tensor on the CPU up to the next cache line.
fn to_next_line(t: &Tensor) -> Result<usize> {
    let (storage, layout) = t.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        return Ok(0);
    };
    let first = layout.start_offset();
    Ok(match storage {
        CpuStorage::BF16(data) => data[first..].as_ptr().align_offset(LINE_BYTES),
        CpuStorage::F16(data) => data[first..].as_ptr().align_offset(LINE_BYTES),
        CpuStorage::F32(data) => data[first..].as_ptr().align_offset(LINE_BYTES),
        CpuStorage::F64(data) => data[first..].as_ptr().align_offset(LINE_BYTES),
        _ => 0,
    })
}

/// Writes rows `[B, heads, n, width]` to n slots of each sequence from `first[b]` on.
pub(super) fn write_rows(slots: &Tensor, first: &[usize], uniform: bool, rows: &Tensor) -> Result<()> {
    let rows = rows.contiguous()?;
    if uniform {
        slots.slice_set(&rows, 2, first.first().copied().unwrap_or(0))?;
    } else {
        for (b, &slot) in first.iter().enumerate() {
            slots
                .narrow(0, b, 1)?
                .slice_set(&rows.narrow(0, b, 1)?, 2, slot)?;
        }
    }
    Ok(())
}

/// Whether all sequences are at the same slot.
pub(super) fn is_uniform(first: &[usize]) -> bool {
    first.windows(2).all(|pair| pair[0] == pair[1])
}
