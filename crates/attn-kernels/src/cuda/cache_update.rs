//! Cache update: the entry of one token of every sequence of MLA and MTLA. `cuda/cache_update.cu` has the formula.

use super::machine::{Dtype, Launch, Machine, Unsupported};
use super::specialise::{Kernel, Planned, Specialisation};

/// The source.
pub static CACHE_UPDATE: Kernel = Kernel {
    name: "cache_update",
    text: include_str!("../../cuda/cache_update.cu"),
    is_hot: true,
};

/// Sequences of a block, a warp each. Few, so that a small batch is spread over multiprocessors.
const WARPS: usize = 4;

/// Elements of a latent that a lane keeps in registers at most.
const MOST_PER_LANE: usize = 64;

/// What the kernel is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheUpdateShape {
    /// Of `x`, weights and cache.
    pub dtype: Dtype,
    /// r.
    pub rank: usize,
    /// Dr.
    pub rope_dim: usize,
    /// Tokens s that are merged by the gate; `None` without one, where every token has an entry.
    pub stride: Option<usize>,
    /// LayerNorm, and not RMSNorm.
    pub layer_norm: bool,
    /// Whether pairs are `(i, i + Dr / 2)`, and not `(2 i, 2 i + 1)`.
    pub halves: bool,
}

/// The kernel, and what its operands are held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheUpdatePlan {
    /// Kernel and launch.
    pub planned: Planned,
    /// What it is compiled for.
    pub shape: CacheUpdateShape,
    /// Sequences B.
    pub batch: usize,
}

impl AsRef<Planned> for CacheUpdatePlan {
    fn as_ref(&self) -> &Planned {
        &self.planned
    }
}

impl CacheUpdateShape {
    /// The kernel and its launch for a batch of `batch` sequences.
    ///
    /// # Errors
    /// [`Unsupported`] for odd rope keys, a stride of 0, and latents that do not fit a warp's registers.
    pub fn plan(&self, machine: Machine, batch: usize) -> Result<CacheUpdatePlan, Unsupported> {
        let refuse = |what, remedy: String| {
            Err(Unsupported {
                kernel: CACHE_UPDATE.name,
                what,
                remedy,
            })
        };
        if self.rank == 0 || self.rank > 32 * MOST_PER_LANE {
            let most = 32 * MOST_PER_LANE;
            return refuse(format!("rank {}", self.rank), format!("a rank of 1 to {most}"));
        }
        if self.rope_dim % 2 != 0 {
            return refuse(
                format!("a rope key of {}", self.rope_dim),
                "an even size".to_string(),
            );
        }
        if self.stride == Some(0) {
            return refuse("a stride of 0".to_string(), "a stride of 1 or more".to_string());
        }
        let planned = Planned {
            specialisation: Specialisation {
                kernel: &CACHE_UPDATE,
                dtype: self.dtype,
                constants: vec![
                    ("RANK", self.rank),
                    ("ROPE", self.rope_dim),
                    ("GATED", usize::from(self.stride.is_some())),
                    ("STRIDE", self.stride.unwrap_or(1)),
                    ("LAYER_NORM", usize::from(self.layer_norm)),
                    ("HALVES", usize::from(self.halves)),
                    ("WARPS", WARPS),
                ],
                arch: machine.arch,
            },
            launch: Launch {
                grid: [batch.div_ceil(WARPS).max(1), 1, 1],
                threads: 32 * WARPS,
                shared_bytes: 0,
            }
            .checked(CACHE_UPDATE.name)?,
        };
        Ok(CacheUpdatePlan {
            planned,
            shape: *self,
            batch,
        })
    }
}
