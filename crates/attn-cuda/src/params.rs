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

macro_rules! params {
    ($($params:ty: $kernels:expr;)+) => {$(
        // SAFETY: the struct in the kernel's source has the same fields in the same order, and a static assertion on its
        // size.
        unsafe impl Params for $params {
            const KERNELS: &'static [&'static str] = &$kernels;
        }
    )+};
}

params! {
    DecodeParams: ["latent_decode", "grouped_decode", "few_heads_decode"]; // `Decode` of `combine.cuh`
    AdvanceParams: ["advance"];
    CacheUpdateParams: ["cache_update"];
    GroupedUpdateParams: ["grouped_update"];
    AttendParams: ["attend"];
    AttendBackwardParams: ["attend_backward"];
    MergeParams: ["merge"];
    ReadAllParams: ["read_all"];
}

/// Parameters as the driver takes them.
#[repr(transparent)]
pub(crate) struct Argument<P>(pub P);

// SAFETY: `Params` says that it is plain numbers in C's layout.
unsafe impl<P: Params> DeviceRepr for Argument<P> {}
