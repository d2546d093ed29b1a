//! Products of batches of matrices on the processor, shared among threads by matrix, as BLAS libraries do it. candle
//! multiplies one matrix after another, each on all threads: a decode step has matrices so small that its threads then
//! spend their time meeting.

use candle_core::{DType, Layout, Tensor, WithDType};
use gemm::Parallelism;
use num_traits::{One, Zero};
use rayon::prelude::*;

use crate::error::Result;
use crate::ops::native::guard;

/// `lhs rhs` over the last two axes; `None` where there are fewer matrices than threads, where all are multiplied with
/// the same one (candle makes that one product), and where gradients are asked for.
pub(crate) fn product(lhs: &Tensor, rhs: &Tensor) -> Result<Option<Tensor>> {
    if lhs.track_op() || rhs.track_op() || lhs.dtype() != rhs.dtype() {
        return Ok(None);
    }
    match lhs.dtype() {
        DType::F32 => product_as::<f32>(lhs, rhs),
        DType::F64 => product_as::<f64>(lhs, rhs),
        _ => Ok(None),
    }
}

/// Where a batch's matrices lie.
struct Matrices<'a> {
    layout: &'a Layout,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrices<'a> {
    fn new(layout: &'a Layout) -> Option<Self> {
        match *layout.stride() {
            [.., row_stride, column_stride] => Some(Self {
                layout,
                row_stride,
                column_stride,
            }),
            _ => None,
        }
    }

    /// The first element of each, from that of the first on.
    fn firsts(&self) -> Vec<usize> {
        let outer = self.layout.dims().len() - 2;
        let mut firsts = vec![0];
        for (&n, &stride) in self.layout.dims()[..outer].iter().zip(self.layout.stride()) {
            firsts = firsts
                .iter()
                .flat_map(|first| (0..n).map(move |i| first + i * stride))
                .collect();
        }
        firsts
    }

    fn is_one_for_all(&self) -> bool {
        let outer = self.layout.dims().len() - 2;
        self.layout.stride()[..outer].iter().all(|&stride| stride == 0)
    }

    /// One beyond the last element of a matrix from its first.
    fn extent(&self, rows: usize, columns: usize) -> usize {
        (rows - 1) * self.row_stride + (columns - 1) * self.column_stride + 1
    }
}

fn product_as<T: WithDType + Zero + One>(lhs: &Tensor, rhs: &Tensor) -> Result<Option<Tensor>> {
    let (&[ref outer @ .., m, k], &[ref same_outer @ .., same_k, n]) = (lhs.dims(), rhs.dims()) else {
        return Ok(None);
    };
    let batch: usize = outer.iter().product();
    if outer != same_outer || k != same_k || m * n * k == 0 || batch < rayon::current_num_threads().max(2) {
        return Ok(None);
    }
    let (Some(a), Some(b)) = (Matrices::new(lhs.layout()), Matrices::new(rhs.layout())) else {
        return Ok(None);
    };
    if b.is_one_for_all() {
        return Ok(None);
    }
    let (lhs_of, rhs_of) = (guard(lhs), guard(rhs));
    let (lhs_data, rhs_data) = (lhs_of.elements::<T>()?, rhs_of.elements::<T>()?);
    let (lhs_firsts, rhs_firsts) = (a.firsts(), b.firsts());
    let mut out = vec![T::zero(); batch * m * n];
    out.par_chunks_mut(m * n)
        .zip(lhs_firsts.par_iter().zip(&rhs_firsts))
        .for_each(|(out, (&lhs, &rhs))| {
            let (lhs, rhs) = (
                &lhs_data[lhs..][..a.extent(m, k)],
                &rhs_data[rhs..][..b.extent(k, n)],
            );
            // SAFETY: the slices hold every element that the sizes and strides reach, `out` `m * n` of them.
            unsafe {
                gemm::gemm(
                    m,
                    n,
                    k,
                    out.as_mut_ptr(),
                    1,
                    n as isize,
                    false,
                    lhs.as_ptr(),
                    a.column_stride as isize,
                    a.row_stride as isize,
                    rhs.as_ptr(),
                    b.column_stride as isize,
                    b.row_stride as isize,
                    T::zero(),
                    T::one(),
                    false,
                    false,
                    false,
                    Parallelism::None,
                );
            }
        });
    let shape: Vec<usize> = outer.iter().copied().chain([m, n]).collect();
    Ok(Some(Tensor::from_vec(out, shape, lhs.device())?))
}
