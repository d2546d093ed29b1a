//! A vector of f32. Kernels are written once over [`Simd`] and compiled for every level.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use half::{bf16, f16};

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::{Avx512, exp2};
pub(crate) use portable::Portable;

/// Vectors of f32 and what kernels do with them.
///
/// # Safety
/// Every method needs the processor to have the instructions of the implementation. Those that take pointers need
/// them to be valid for `LANES` elements; no alignment is asked for.
#[allow(clippy::missing_safety_doc, reason = "said above for all of them")]
pub trait Simd: Copy + Send + Sync + 'static {
    /// A vector.
    type V: Copy;
    /// Its elements, at most 16.
    const LANES: usize;
    /// Rows of a tile of a product whose columns are two vectors wide: as many as there are registers for.
    const ROWS: usize;

    unsafe fn splat(value: f32) -> Self::V;
    unsafe fn load(from: *const f32) -> Self::V;
    unsafe fn load_bf16(from: *const bf16) -> Self::V;
    unsafe fn load_f16(from: *const f16) -> Self::V;
    unsafe fn store(to: *mut f32, v: Self::V);
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    /// `a b + c`, rounded once where the processor can.
    unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger; a NaN in `b` is kept.
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// `e^v` for v at most 0, to a few units in the last place where the result is not small: the error grows with -v,
    /// to 5e-6 of the result at -80. 0 far below; NaN stays NaN.
    unsafe fn exp(v: Self::V) -> Self::V;
    /// Of all elements.
    unsafe fn sum(v: Self::V) -> f32;
    /// Of all elements, NaN or not.
    unsafe fn largest(v: Self::V) -> f32;

    /// The sums of 16 vectors.
    #[inline(always)]
    unsafe fn sums(vs: [Self::V; 16]) -> [f32; 16] {
        let mut sums = [0.0; 16];
        for (sum, v) in sums.iter_mut().zip(vs) {
            // SAFETY: the caller's.
            *sum = unsafe { Self::sum(v) };
        }
        sums
    }
}

/// Coefficients of `e^r` between -ln 2 / 2 and ln 2 / 2, from the highest power down to r^2.
///
/// # Source
/// Cephes, `expf`: relative error about 2e-7.
#[cfg(target_arch = "x86_64")]
const EXP: [f32; 6] = [
    1.987_569_1e-4,
    1.398_2e-3,
    8.333_452e-3,
    4.166_579_6e-2,
    1.666_666_6e-1,
    0.5,
];
/// ln 2 in two parts, the first of few bits, so that n times it is exact.
#[cfg(target_arch = "x86_64")]
const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
