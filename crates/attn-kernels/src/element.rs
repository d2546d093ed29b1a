//! f32, bf16 and f16 in memory: what kernels load and store.

use half::{bf16, f16};

use crate::operations::Operations;
use crate::simd::Simd;

/// An element of a cache. Implemented for f32, bf16 and f16.
pub trait Element: Operations + Copy + Default + Send + Sync + 'static {
    /// Whether it is f32 itself, so that no copy is needed to compute with it.
    #[doc(hidden)]
    const IS_F32: bool;

    /// Whether it is bf16, for which there are tiles.
    #[doc(hidden)]
    const IS_BF16: bool;

    /// Its value.
    fn to_f32(self) -> f32;

    /// The nearest one.
    fn from_f32(value: f32) -> Self;

    /// As many as a vector holds.
    ///
    /// # Safety
    /// `from` is valid for `S::LANES` elements, and the processor has the instructions of `S`.
    #[doc(hidden)]
    unsafe fn load<S: Simd>(from: *const Self) -> S::V;

    /// The first `n`, the others zero.
    ///
    /// # Safety
    /// `from` is valid for `n` elements, `n` is at most `S::LANES`, and the processor has the instructions of `S`.
    #[doc(hidden)]
    #[inline(always)]
    unsafe fn load_part<S: Simd>(from: *const Self, n: usize) -> S::V {
        let mut whole = [Self::default(); 16];
        // SAFETY: `n` elements can be read, and as many written since no vector has more than 16 lanes.
        unsafe {
            std::ptr::copy_nonoverlapping(from, whole.as_mut_ptr(), n);
            Self::load::<S>(whole.as_ptr())
        }
    }
}

impl Element for f32 {
    const IS_F32: bool = true;
    const IS_BF16: bool = false;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(from: *const Self) -> S::V {
        // SAFETY: the caller's.
        unsafe { S::load(from) }
    }
}

macro_rules! halves {
    ($($half:ty: $load:ident, $is_bf16:literal;)+) => {$(
        impl Element for $half {
            const IS_F32: bool = false;
            const IS_BF16: bool = $is_bf16;

            #[inline(always)]
            fn to_f32(self) -> f32 {
                Self::to_f32(self)
            }

            #[inline(always)]
            fn from_f32(value: f32) -> Self {
                Self::from_f32(value)
            }

            #[inline(always)]
            unsafe fn load<S: Simd>(from: *const Self) -> S::V {
                // SAFETY: the caller's.
                unsafe { S::$load(from) }
            }
        }
    )+};
}

halves! {
    bf16: load_bf16, true;
    f16: load_f16, false;
}
