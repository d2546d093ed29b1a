//! CUDA kernels: their sources, what a geometry makes of them, and how they are to be launched.
//!
//! Kernels are compiled at run time, for the geometry at hand alone: sizes of heads, ranks, strides and tiles are
//! constants of a [`Specialisation`], so that loops unroll and accumulators stay in registers. Nothing here needs a
//! CUDA library: `attn-cuda` compiles and launches. The same sources compile with a toolkit's compiler:
//! the example `kernel_grid` does that for a grid of geometries and reads registers and spills.
//!
//! No kernel was yet run on a GPU. `tests/cuda_models` has models of them, with their tiles, order of
//! sums and indexing, and holds them against the formulas; `tests/cuda_host` runs the sources themselves on the
//! host, threads and blocks in random order, with operands as a launcher gives them.
//!
//! | file | holds |
//! |---|---|
//! | `specialise.rs` | a kernel's source with the constants of a geometry, and the key of what is compiled from it |
//! | `machine.rs` | architectures, their limits, element types, sizes of a launch |
//! | `swizzle.rs` | where rows lie in shared memory |
//! | `splits.rs`, `streams.rs` | what decode kernels' plans have in common |
//! | `latent_decode.rs`, `grouped_decode.rs`, `few_heads_decode.rs` | decode, each with the name of its source |
//! | `advance.rs` | what a step begins with: positions counted, queries turned |
//! | `cache_update.rs`, `grouped_update.rs` | a token into the caches, the same |
//! | `attend.rs`, `attend_backward.rs` | attend, and its gradients |
//! | `merge.rs` | gate and partial sums of training, and their gradients |
//! | `read_all.rs` | memory read as fast as it gives |
//! | `operands.rs` | addresses with their sizes, held against a plan |
//! | `grid.rs` | geometries to compile for |

mod advance;
mod attend;
mod attend_backward;
mod cache_update;
mod few_heads_decode;
mod grid;
mod grouped_decode;
mod grouped_update;
mod latent_decode;
mod machine;
mod merge;
mod operands;
mod read_all;
mod specialise;
mod splits;
mod streams;
mod swizzle;

pub use advance::{ADVANCE, AdvanceOperands, AdvanceParams, AdvancePlan, AdvanceShape, Columns, Turn};
pub use attend::{ATTEND, AttendEntries, AttendOperands, AttendParams, AttendPlan, AttendShape, AttendTiles};
pub use attend_backward::{
    ATTEND_BACKWARD, AttendBackwardOperands, AttendBackwardParams, AttendBackwardPlan, AttendGradients,
    AttendWorkspace, GradientTiles, Pass, PlannedPass,
};
pub use cache_update::{CACHE_UPDATE, CacheUpdatePlan, CacheUpdateShape};
pub use few_heads_decode::{FEW_HEADS_DECODE, Lanes};
pub use grid::grid;
pub use grouped_decode::{GROUPED_DECODE, GroupedDecodeShape};
pub use grouped_update::{GROUPED_UPDATE, GroupedUpdatePlan, GroupedUpdateShape};
pub use latent_decode::{LATENT_DECODE, LatentDecodeShape};
pub use machine::{Arch, Dtype, Launch, Machine, Unsupported};
pub use merge::{MERGE, MergeGradients, MergeOperands, MergeParams, MergePlan, MergeShape};
pub use operands::{
    Cache, CacheUpdateOperands, CacheUpdateParams, DecodeOperands, DecodeParams, GroupedUpdateOperands,
    GroupedUpdateParams, Memory,
};
pub use read_all::{READ_ALL, ReadAllParams, ReadAllPlan};
pub use specialise::{Kernel, Planned, Specialisation};
pub use splits::range_of;
pub use streams::{DecodePlan, DecodeSizes, HEAD_TILE, Tiles, Workspace};
pub use swizzle::swizzled;
