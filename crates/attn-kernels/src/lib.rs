//! The two operations behind every attention variant as native CPU kernels: [`decode`](decode()), one query per
//! sequence against its cached entries, and [`attend`](attend()), causal attention of whole sequences, block-strided
//! with a diagonal. Beside them [`project`](project()), rows through a weight, and [`latents`](latents()), the cache
//! entries of MLA and MTLA. [`cuda`] has kernels for GPUs.
//!
//! Operands are slices; tensors, gradients and devices are the caller's. Caches are f32, bf16 or f16, scores and sums
//! always f32. What a processor can do is found at run time ([`Level`]); every level gives the same result up to the
//! order of its sums, and one level at one number of threads gives the same bits from run to run.
//!
//! | file | holds |
//! |---|---|
//! | `level.rs` | which instructions are used, and who says so |
//! | `simd.rs`, `simd/` | a vector of f32, for each level |
//! | `element.rs`, `rows.rs` | f32, bf16 and f16, and operands, in memory |
//! | `operations.rs` | the operations over each of these types |
//! | `memory.rs`, `scratch.rs`, `places.rs` | memory that is kept, that is used again, and that tasks share |
//! | `tile.rs`, `softmax.rs` | products of small blocks in registers, and what stands between two of them |
//! | `amx.rs` | products of bf16 in tiles |
//! | `reorder.rs` | sequences of a cache that change places |
//! | `cuda.rs`, `cuda/` | kernels for GPUs: sources, plans and launches |
//! | `decode.rs`, `attend.rs`, `project.rs`, `latents.rs` | the operations; `tiles.rs` below them has what AMX does otherwise |

#[cfg(target_arch = "x86_64")]
mod amx;
mod attend;
pub mod cuda;
mod decode;
mod element;
mod error;
mod latents;
mod level;
mod memory;
mod operations;
mod places;
mod project;
mod reorder;
mod rows;
mod scratch;
mod simd;
mod softmax;
mod tile;

pub use attend::{Attend, Backward, Entries, EntryGradients, Gradients, attend, attend_backward};
pub use decode::{Decode, Factors, Tail, decode, decode_part};
pub use element::Element;
pub use error::Mismatch;
pub use latents::{Gate, Latents, LatentsOut, Norm, Place, Turn, latents};
pub use level::{LEVEL_VARIABLE, Level, UnknownLevel};
pub use memory::keep_freed_memory;
pub use project::{FEW_ROWS, Grouped, Orientation, Output, Project, project};
pub use reorder::{Reorder, reorder};
pub use rows::Rows;
