//! CUDA kernels in plain Rust: the same tiles, indexing and order of sums, so that these are found wrong without a GPU.

pub mod attend;
pub mod attend_backward;
pub mod cache_update;
pub mod combine;
pub mod few_heads;
pub mod grouped_update;
pub mod merge;
pub mod streams;
pub mod tiles;
pub mod warp;
