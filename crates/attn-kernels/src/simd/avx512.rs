//! Sixteen lanes of AVX-512.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::Simd;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512;

/// Coefficients of `2^f` between 0 and 1, from the fifth power down to the first; the constant is 1, so that the
/// largest weight is exactly 1. Fitted to the least relative error, 1.4e-7 with the rounding of f32.
const EXP2: [f32; 5] = [
    0.001_867_129_6,
    0.009_017_032,
    0.055_799_913,
    0.240_164_44,
    0.693_151_3,
];

/// `2^v` for v at most 0; 0 far below, and NaN stays NaN.
///
/// # Safety
/// The processor has AVX-512 F and DQ.
#[inline(always)]
pub(crate) unsafe fn exp2(v: __m512) -> __m512 {
    // SAFETY: the caller's.
    unsafe {
        // What is left above the next lower integer; 0 for -infinity.
        let f = _mm512_reduce_ps::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(v);
        let mut p = _mm512_set1_ps(EXP2[0]);
        for coefficient in &EXP2[1..] {
            p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(*coefficient));
        }
        let p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0));
        // Times two to the power of that integer.
        _mm512_scalef_ps(p, v)
    }
}

impl Simd for Avx512 {
    type V = __m512;
    const LANES: usize = 16;
    const ROWS: usize = 12;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::V {
        // SAFETY: the caller's.
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::V {
        // SAFETY: the caller's.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self::V {
        // A bf16 is the upper half of an f32.
        // SAFETY: the caller's.
        unsafe {
            let halves = _mm256_loadu_si256(from.cast());
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
        }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> Self::V {
        // SAFETY: the caller's.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, v: Self::V) {
        // SAFETY: the caller's.
        unsafe { _mm512_storeu_ps(to, v) }
    }

    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the caller's.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the caller's.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: the caller's.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: the caller's.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
        // The instruction returns its second operand where one of the two is NaN.
        // SAFETY: the caller's.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    unsafe fn exp(v: Self::V) -> Self::V {
        // SAFETY: the caller's.
        unsafe {
            let v = _mm512_mul_ps(v, _mm512_set1_ps(std::f32::consts::LOG2_E));
            exp2(v)
        }
    }

    #[inline(always)]
    unsafe fn sum(v: Self::V) -> f32 {
        // SAFETY: the caller's.
        unsafe { _mm512_reduce_add_ps(v) }
    }

    #[inline(always)]
    unsafe fn largest(v: Self::V) -> f32 {
        // SAFETY: the caller's.
        unsafe { _mm512_reduce_max_ps(v) }
    }

    /// Halves of two vectors are added into one, four times: 45 instructions instead of 16 times seven.
    #[inline(always)]
    unsafe fn sums(v: [Self::V; 16]) -> [f32; 16] {
        // SAFETY: the caller's.
        unsafe {
            let mut halves = [_mm512_setzero_ps(); 8];
            for i in 0..8 {
                let (a, b) = (v[i], v[i + 8]);
                let low = _mm512_shuffle_f32x4::<0x44>(a, b); // a0 a1 b0 b1, in blocks of four
                let high = _mm512_shuffle_f32x4::<0xee>(a, b); // a2 a3 b2 b3
                halves[i] = _mm512_add_ps(low, high);
            }
            let mut quarters = [_mm512_setzero_ps(); 4];
            for i in 0..4 {
                let (a, b) = (halves[i], halves[i + 4]);
                let even = _mm512_shuffle_f32x4::<0x88>(a, b); // a0 a2 b0 b2
                let odd = _mm512_shuffle_f32x4::<0xdd>(a, b); // a1 a3 b1 b3
                quarters[i] = _mm512_add_ps(even, odd); // of i, i + 8, i + 4, i + 12
            }
            let [a, b, c, d] = quarters;
            let even = _mm512_add_ps(_mm512_unpacklo_ps(a, c), _mm512_unpackhi_ps(a, c));
            let odd = _mm512_add_ps(_mm512_unpacklo_ps(b, d), _mm512_unpackhi_ps(b, d));
            let all = _mm512_add_ps(_mm512_unpacklo_ps(even, odd), _mm512_unpackhi_ps(even, odd));
            let mut sums = [0.0; 16];
            _mm512_storeu_ps(sums.as_mut_ptr(), _mm512_shuffle_f32x4::<0xd8>(all, all));
            sums
        }
    }
}
