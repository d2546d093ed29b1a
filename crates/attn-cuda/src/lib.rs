//! The kernels of [`attn_kernels::cuda`] on a device: compiled by NVRTC, kept on disk, launched. Sources, plans and
//! operands are there, and need no CUDA; without the feature `cuda` this crate is empty.
//!
//! | file | holds |
//! |---|---|
//! | `load.rs` | compiling, keeping and launching |
//! | `params.rs` | which structs kernels take |
//! | `reader.rs` | a buffer that is read as fast as memory gives it |
//!
//! Not yet run on a GPU.
#![cfg(feature = "cuda")]

mod load;
mod params;
mod reader;

pub use load::{CACHE_VARIABLE, CudaError, Kernels, Loaded};
pub use params::Params;
pub use reader::Reader;
