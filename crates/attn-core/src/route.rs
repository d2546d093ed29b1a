//! Which way an operation goes: a kernel of the processor's, or a composition of candle's operations that runs on any
//! device.
//!
//! ```
//! use attn_core::route::{has_kernels, without_kernels};
//! use candle_core::{DType, Device, Tensor};
//!
//! let x = Tensor::zeros((2, 2), DType::F32, &Device::Cpu)?;
//! assert!(!without_kernels(|| has_kernels(&x)));
//! # Ok::<(), candle_core::Error>(())
//! ```

use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{DType, Tensor};

use crate::error::Result;
use crate::ops::{batched, native};

/// Calls of [`without_kernels`] that are under way.
static WITHOUT_KERNELS: AtomicUsize = AtomicUsize::new(0);

/// Whether the processor's kernels take `x`: it is there, and nobody compares the other way with them.
///
/// ```
/// use attn_core::route::{has_kernels, without_kernels};
/// use candle_core::{DType, Device, Tensor};
///
/// let x = Tensor::zeros(4, DType::F32, &Device::Cpu)?;
/// without_kernels(|| assert!(!has_kernels(&x)));
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn has_kernels(x: &Tensor) -> bool {
    x.device().is_cpu() && WITHOUT_KERNELS.load(Ordering::Relaxed) == 0
}

/// Runs `work` with every operation as it is composed for a GPU, on the processor: how that way is tested where there is
/// no GPU. The whole process takes it meanwhile, since a layer's work goes to other threads.
///
/// ```
/// use attn_core::random_tensor;
/// use attn_core::route::{product, without_kernels};
/// use candle_core::{DType, Device};
///
/// let random = |stream| random_tensor(&[1, 5, 5], 7, stream, DType::F32, &Device::Cpu);
/// let (a, b) = (random(0)?, random(1)?);
/// let composed = without_kernels(|| product(&a, &b))?;
/// assert!((composed - product(&a, &b)?)?.abs()?.max_all()?.to_scalar::<f32>()? < 1e-5);
/// # Ok::<(), attn_core::Error>(())
/// ```
pub fn without_kernels<R>(work: impl FnOnce() -> R) -> R {
    struct Until;
    impl Drop for Until {
        fn drop(&mut self) {
            WITHOUT_KERNELS.fetch_sub(1, Ordering::Relaxed);
        }
    }
    WITHOUT_KERNELS.fetch_add(1, Ordering::Relaxed);
    let _until = Until;
    work()
}

/// `lhs rhs` over the last two axes.
///
/// The processor's product takes any strides within matrices; cuBLAS by way of candle takes matrices without gaps, as they
/// are or transposed, and others are copied for it, as many rows of half precision are on the processor, where candle
/// widens them.
///
/// # Errors
/// [`crate::Error::Candle`] where shapes do not fit.
///
/// ```
/// use attn_core::route::product;
/// use candle_core::{Device, Tensor};
///
/// let a = Tensor::new(&[[[1_f32, 2.0]]], &Device::Cpu)?; // [1, 1, 2]
/// let b = Tensor::new(&[[[3_f32], [4.0]]], &Device::Cpu)?; // [1, 2, 1]
/// assert_eq!(product(&a, &b)?.flatten_all()?.to_vec1::<f32>()?, [11.0]);
/// # Ok::<(), attn_core::Error>(())
/// ```
pub fn product(lhs: &Tensor, rhs: &Tensor) -> Result<Tensor> {
    if has_kernels(lhs) {
        if let Some(product) = native::few_rows_product(lhs, rhs)? {
            return Ok(product);
        }
        if let Some(product) = batched::product(lhs, rhs)? {
            return Ok(product);
        }
        if matches!(lhs.dtype(), DType::F32 | DType::F64) {
            return Ok(lhs.matmul(rhs)?);
        }
    }
    Ok(without_gaps(lhs)?.matmul(&without_gaps(rhs)?)?)
}

/// `x` as several products are to take it: a GPU's copy what has gaps, here once for all of them.
///
/// # Errors
/// [`crate::Error::Candle`] where memory runs out.
///
/// ```
/// use attn_core::route::for_products;
/// use candle_core::{DType, Device, Tensor};
///
/// // A view with gaps: the processor takes it as it is.
/// let view = Tensor::zeros((4, 8), DType::F32, &Device::Cpu)?.narrow(1, 2, 3)?;
/// assert_eq!(for_products(&view)?.dims(), [4, 3]);
/// # Ok::<(), attn_core::Error>(())
/// ```
pub fn for_products(x: &Tensor) -> Result<Tensor> {
    if has_kernels(x) {
        return Ok(x.clone());
    }
    without_gaps(x)
}

/// The same tensor where its matrices have no gaps and lie at one distance from each other, else a copy.
fn without_gaps(x: &Tensor) -> Result<Tensor> {
    let taken = match (x.dims(), x.stride()) {
        (&[.., rows, columns], &[ref outer @ .., row, column]) => {
            let is_dense = (row, column) == (columns, 1) || (row, column) == (1, rows);
            let is_even = match *outer {
                [first, second] => first == second * x.dims()[1],
                _ => outer.len() < 2,
            };
            is_dense && is_even
        }
        _ => false,
    };
    Ok(if taken { x.clone() } else { x.force_contiguous()? })
}

/// Rows `rows` of `x` along `dim`, in that order.
///
/// A GPU's kernels cannot be launched for no elements, so that no rows are no launch.
///
/// # Errors
/// [`crate::Error::Candle`] where a row is out of range.
///
/// ```
/// use attn_core::route::select;
/// use candle_core::{Device, Tensor};
///
/// let x = Tensor::new(&[[0_f32, 1.0, 2.0]], &Device::Cpu)?;
/// assert_eq!(select(&x, &[2, 0], 1)?.to_vec2::<f32>()?, [[2.0, 0.0]]);
/// assert_eq!(select(&x, &[], 1)?.dims(), [1, 0]);
/// # Ok::<(), attn_core::Error>(())
/// ```
pub fn select(x: &Tensor, rows: &[u32], dim: usize) -> Result<Tensor> {
    let mut dims = x.dims().to_vec();
    if let Some(n) = dims.get_mut(dim) {
        *n = rows.len();
    }
    if dims.contains(&0) {
        return Ok(Tensor::zeros(dims, x.dtype(), x.device())?);
    }
    let rows = Tensor::new(rows, x.device())?;
    Ok(x.contiguous()?.index_select(&rows, dim)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::random_tensor;
    use candle_core::Device;

    /// What candle's CUDA backend takes of a left and of a right operand (`gemm_config`, candle-core 0.11.1).
    fn cublas_takes(x: &Tensor) -> bool {
        let [.., rows, columns] = *x.dims() else {
            return false;
        };
        let [ref outer @ .., row, column] = *x.stride() else {
            return false;
        };
        let dense = (column == 1 || columns == 1) && (row == columns || rows == 1);
        let transposed = (column == rows || columns == 1) && (row == 1 || rows == 1);
        let even = match *outer {
            [first, second] => first == second * x.dims()[1] || x.dims()[0] == 1 || x.dims()[1] == 1,
            _ => outer.len() < 2,
        };
        (dense || transposed) && even
    }

    #[test]
    fn products_get_operands_that_cublas_takes() -> Result<()> {
        let x = Tensor::rand(-1f32, 1f32, (2, 3, 4, 5), &Device::Cpu)?;
        let views = [
            x.clone(),
            x.t()?,
            x.narrow(3, 1, 3)?,
            x.narrow(2, 1, 2)?,
            x.narrow(1, 0, 2)?,
            x.transpose(1, 2)?,
            x.narrow(0, 1, 1)?.squeeze(0)?,
            x.narrow(2, 0, 1)?,
            x.narrow(3, 0, 1)?,
            x.permute((3, 1, 0, 2))?,
            x.narrow(2, 0, 1)?.narrow(3, 0, 1)?,
        ];
        for view in views {
            let laid_out = without_gaps(&view)?;
            assert!(cublas_takes(&laid_out), "{:?} {:?}", view.dims(), view.stride());
            let gap = (laid_out - &view)?.abs()?.sum_all()?.to_scalar::<f32>()?;
            assert_eq!(gap, 0.0);
        }
        // What is taken is not copied.
        for view in [x.t()?, x.narrow(0, 1, 1)?] {
            assert_eq!(without_gaps(&view)?.stride(), view.stride());
        }
        Ok(())
    }

    /// Operands as the layers have them: keys transposed, views of a wider cache, heads folded, one matrix for all.
    #[test]
    fn every_way_gives_the_product() -> Result<()> {
        for dtype in [DType::F64, DType::F32, DType::BF16, DType::F16] {
            let random = |shape: &[usize], stream| random_tensor(shape, 7, stream, dtype, &Device::Cpu);
            for (rows, batch) in [(1, 5), (3, 1), (16, 4), (17, 6), (40, 2)] {
                let wide = random(&[batch, 3, 33, 24], 1)?;
                let keys = wide.narrow(3, 4, 16)?; // [B, 3, 33, 16]
                let q = random(&[batch, rows, 3, 16], 2)?.transpose(1, 2)?;
                let weights = random(&[batch, 3, rows, 33], 3)?;
                let folded = |x: &Tensor| x.contiguous()?.flatten(0, 1);
                let pairs = [
                    (q.clone(), keys.t()?),
                    (folded(&q)?, folded(&keys)?.t()?),
                    (weights.clone(), keys.clone()),
                    (folded(&weights)?, folded(&keys)?),
                    (
                        q.narrow(1, 1, 1)?.squeeze(1)?,
                        keys.narrow(1, 2, 1)?.squeeze(1)?.t()?,
                    ),
                    (
                        folded(&q)?,
                        keys.narrow(0, 0, 1)?
                            .narrow(1, 0, 1)?
                            .flatten(0, 1)?
                            .broadcast_as((3 * batch, 33, 16))?
                            .t()?,
                    ),
                ];
                for (lhs, rhs) in pairs {
                    let exact = lhs.to_dtype(DType::F64)?.contiguous()?;
                    let exact = exact.matmul(&rhs.to_dtype(DType::F64)?.contiguous()?)?;
                    let y = product(&lhs, &rhs)?;
                    assert_eq!((y.dims(), y.dtype()), (exact.dims(), dtype));
                    let gap = (y.to_dtype(DType::F64)? - &exact)?
                        .abs()?
                        .max_all()?
                        .to_scalar::<f64>()?;
                    let scale = exact.abs()?.max_all()?.to_scalar::<f64>()?;
                    let tolerance = match dtype {
                        DType::F64 => 1e-14,
                        DType::F32 => 1e-6,
                        DType::F16 => 1e-3,
                        _ => 8e-3,
                    };
                    assert!(
                        gap <= tolerance * scale,
                        "{dtype:?} {:?} {:?}: {gap}",
                        lhs.layout(),
                        rhs.layout()
                    );
                }
            }
        }
        Ok(())
    }

    #[test]
    fn rows_are_selected_and_none_are_no_work() -> Result<()> {
        let x = Tensor::arange(0f32, 6.0, &Device::Cpu)?.reshape((2, 3))?;
        assert_eq!(
            select(&x, &[2, 0], 1)?.to_vec2::<f32>()?,
            [[2.0, 0.0], [5.0, 3.0]]
        );
        assert_eq!(select(&x, &[], 1)?.dims(), [2, 0]);
        let empty = Tensor::zeros((2, 0, 3), DType::BF16, &Device::Cpu)?;
        assert_eq!(select(&empty, &[1], 0)?.dims(), [1, 0, 3]);
        Ok(())
    }
}
