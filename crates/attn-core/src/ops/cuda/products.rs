//! Products of every head with a matrix of its own, read and written where they lie: candle's take matrices that lie side
//! by side and write new ones.

use std::ffi::c_void;

use attn_kernels::cuda::{Dtype, Memory};
use candle_core::cuda::cudarc::cublas::result;
use candle_core::cuda::cudarc::cublas::sys::{
    cublasComputeType_t, cublasGemmAlgo_t, cublasOperation_t, cudaDataType_t,
};

use super::gpu::Gpu;
use super::{Asked, Refusal};

/// A matrix of every head, elements of a row side by side. Distances are in elements.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrices {
    /// From the first element of the first head on.
    pub(super) memory: Memory,
    /// From one row to the next.
    pub(super) row_stride: usize,
    /// From one head to the next.
    pub(super) head_stride: usize,
}

/// Sizes of a product `[rows, inner] x [inner, columns]` of every head.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) heads: usize,
    pub(super) rows: usize,
    pub(super) inner: usize,
    pub(super) columns: usize,
}

impl Matrices {
    /// Refuses memory that ends before the last of `[heads, rows, columns]` elements.
    fn check(&self, [heads, rows, columns]: [usize; 3], bytes: usize) -> Asked<()> {
        let last = heads.saturating_sub(1) * self.head_stride + rows.saturating_sub(1) * self.row_stride;
        if (last + columns) * bytes > self.memory.bytes || columns > self.row_stride {
            return Err("an operand of its products is too short".into());
        }
        Ok(())
    }
}

impl Gpu {
    /// `out[h] = x[h] w[h]`, or `x[h] w[h]^T` where `w` is `[columns, inner]`; sums are f32.
    pub(super) fn products(
        &self,
        dtype: Dtype,
        sizes: Sizes,
        x: Matrices,
        (w, transposed): (Matrices, bool),
        out: Matrices,
    ) -> Asked<()> {
        let Sizes {
            heads,
            rows,
            inner,
            columns,
        } = sizes;
        let bytes = dtype.bytes();
        x.check([heads, rows, inner], bytes)?;
        out.check([heads, rows, columns], bytes)?;
        let (of_w, operation) = match transposed {
            true => ([heads, columns, inner], cublasOperation_t::CUBLAS_OP_T),
            false => ([heads, inner, columns], cublasOperation_t::CUBLAS_OP_N),
        };
        w.check(of_w, bytes)?;
        let int = |n: usize| i32::try_from(n).map_err(Refusal::once);
        let kind = match dtype {
            Dtype::F32 => cudaDataType_t::CUDA_R_32F,
            Dtype::Bf16 => cudaDataType_t::CUDA_R_16BF,
            Dtype::F16 => cudaDataType_t::CUDA_R_16F,
        };
        let address = |of: &Matrices| of.memory.address as *mut c_void;
        let (one, zero) = (1.0_f32, 0.0_f32);
        let blas = self.device.cublas_handle();
        // cuBLAS counts down columns, where ours are side by side: out^T = w^T x^T.
        // SAFETY: the matrices lie within memory of this device, as checked above, and nobody else writes them until
        // later work of this stream, which is the handle's; the factors are f32 as the type of computation says.
        unsafe {
            result::gemm_strided_batched_ex(
                *blas.handle(),
                operation,
                cublasOperation_t::CUBLAS_OP_N,
                int(columns)?,
                int(rows)?,
                int(inner)?,
                (&raw const one).cast(),
                address(&w),
                kind,
                int(w.row_stride)?,
                w.head_stride as i64,
                address(&x),
                kind,
                int(x.row_stride)?,
                x.head_stride as i64,
                (&raw const zero).cast(),
                address(&out),
                kind,
                int(out.row_stride)?,
                out.head_stride as i64,
                int(heads)?,
                cublasComputeType_t::CUBLAS_COMPUTE_32F,
                cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        }
        .map_err(Refusal::once)
    }
}
