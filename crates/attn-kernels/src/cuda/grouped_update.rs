//! Grouped update: one token of every sequence into the caches of MHA, GQA and MQA. `cuda/grouped_update.cu` has the
//! mapping.

use super::machine::{Dtype, Launch, Machine, Unsupported};
use super::specialise::{Kernel, Planned, Specialisation};
use crate::error::product;

/// The source.
pub static GROUPED_UPDATE: Kernel = Kernel {
    name: "grouped_update",
    text: include_str!("../../cuda/grouped_update.cu"),
    is_hot: true,
};

/// Heads of a block, a warp each.
const WARPS: usize = 4;

/// What the kernel is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GroupedUpdateShape {
    /// Of projections and caches.
    pub dtype: Dtype,
    /// Query heads H.
    pub n_heads: usize,
    /// KV heads Hkv.
    pub n_kv_heads: usize,
    /// Dk, all of which is turned.
    pub key_dim: usize,
    /// Dv.
    pub value_dim: usize,
    /// Whether pairs are `(i, i + Dk / 2)`, and not `(2 i, 2 i + 1)`.
    pub halves: bool,
}

/// The kernel, and what its operands are held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupedUpdatePlan {
    /// Kernel and launch.
    pub planned: Planned,
    /// What it is compiled for.
    pub shape: GroupedUpdateShape,
    /// Sequences B.
    pub batch: usize,
}

impl AsRef<Planned> for GroupedUpdatePlan {
    fn as_ref(&self) -> &Planned {
        &self.planned
    }
}

impl GroupedUpdateShape {
    /// The kernel and its launch for a batch of `batch` sequences.
    ///
    /// # Errors
    /// [`Unsupported`] for keys of an odd size.
    pub fn plan(&self, machine: Machine, batch: usize) -> Result<GroupedUpdatePlan, Unsupported> {
        if self.key_dim % 2 != 0 {
            return Err(Unsupported {
                kernel: GROUPED_UPDATE.name,
                what: format!("keys of {}", self.key_dim),
                remedy: "an even size".to_string(),
            });
        }
        let heads = product(&[batch, self.n_heads + 2 * self.n_kv_heads]);
        let planned = Planned {
            specialisation: Specialisation {
                kernel: &GROUPED_UPDATE,
                dtype: self.dtype,
                constants: vec![
                    ("KEY_DIM", self.key_dim),
                    ("VALUE_DIM", self.value_dim),
                    ("HEADS", self.n_heads),
                    ("KV_HEADS", self.n_kv_heads),
                    ("HALVES", usize::from(self.halves)),
                    ("WARPS", WARPS),
                ],
                arch: machine.arch,
            },
            launch: Launch {
                grid: [heads.div_ceil(WARPS).max(1), 1, 1],
                threads: 32 * WARPS,
                shared_bytes: 0,
            }
            .checked(GROUPED_UPDATE.name)?,
        };
        Ok(GroupedUpdatePlan {
            planned,
            shape: *self,
            batch,
        })
    }
}
