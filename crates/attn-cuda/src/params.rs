//! Which struct each kernel takes.

use attn_kernels::cuda::{
    AdvanceParams, AttendBackwardParams, AttendParams, CacheUpdateParams, DecodeParams, GroupedUpdateParams,
    MergeParams, ReadAllParams,
};
use cudarc::driver::DeviceRepr;

/// Parameters of a kernel, one struct by value.
///
/// # Safety
/// 1. The type is plain numbers in C's layout, that of the parameter of every kernel named in [`Params::KERNELS`].
pub unsafe trait Params: Copy {
    /// Entry points that take it.
    const KERNELS: &'static [&'static str];
}

// SAFETY: `Decode` of `combine.cuh` has the same fields in the same order, and a static assertion on its size.
unsafe impl Params for DecodeParams {
    const KERNELS: &'static [&'static str] = &["latent_decode", "grouped_decode", "few_heads_decode"];
}

// SAFETY: `Advance` of `advance.cu` has the same fields in the same order, and a static assertion on its size.
unsafe impl Params for AdvanceParams {
    const KERNELS: &'static [&'static str] = &["advance"];
}

// SAFETY: `CacheUpdate` of `cache_update.cu` has the same fields in the same order, and a static assertion on its size.
unsafe impl Params for CacheUpdateParams {
    const KERNELS: &'static [&'static str] = &["cache_update"];
}

// SAFETY: `GroupedUpdate` of `grouped_update.cu` has the same fields in the same order, and a static assertion on its
// size.
unsafe impl Params for GroupedUpdateParams {
    const KERNELS: &'static [&'static str] = &["grouped_update"];
}

// SAFETY: `Attend` of `attend.cu` has the same fields in the same order, and a static assertion on its size.
unsafe impl Params for AttendParams {
    const KERNELS: &'static [&'static str] = &["attend"];
}

// SAFETY: `AttendBackward` of `attend_backward.cu` has the same fields in the same order, and a static assertion on its
// size.
unsafe impl Params for AttendBackwardParams {
    const KERNELS: &'static [&'static str] = &["attend_backward"];
}

// SAFETY: `Merge` of `merge.cu` has the same fields in the same order, and a static assertion on its size.
unsafe impl Params for MergeParams {
    const KERNELS: &'static [&'static str] = &["merge"];
}

// SAFETY: `ReadAll` of `read_all.cu` has the same fields in the same order, and a static assertion on its size.
unsafe impl Params for ReadAllParams {
    const KERNELS: &'static [&'static str] = &["read_all"];
}

/// Parameters as the driver takes them.
#[repr(transparent)]
pub(crate) struct Argument<P>(pub P);

// SAFETY: `Params` says that it is plain numbers in C's layout.
unsafe impl<P: Params> DeviceRepr for Argument<P> {}
