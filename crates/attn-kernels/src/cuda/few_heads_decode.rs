//! Decode for few query heads on a KV head. `cuda/few_heads_decode.cu` has the formula and the mapping.

use super::machine::{Dtype, Launch, Machine, Unsupported};
use super::specialise::{Kernel, Planned, Specialisation};
use super::splits::{Work, splits};
use super::streams::{DecodePlan, DecodeSizes, Workspace, copy_bytes};
use crate::error::product;

/// The source.
pub static FEW_HEADS_DECODE: Kernel = Kernel {
    name: "few_heads_decode",
    text: include_str!("../../cuda/few_heads_decode.cu"),
    is_hot: true,
};

/// Warps of a block: few, since threads of many registers come in whole blocks.
const WARPS: usize = 4;

/// Registers of a thread beside operands and sums, about: addresses, counters, a vector being widened.
const OTHER_REGISTERS: usize = 56;

/// What the kernel is compiled for.
#[derive(Debug, Clone, Copy)]
pub(super) struct FewHeads {
    pub(super) dtype: Dtype,
    /// Query heads of a KV head.
    pub(super) heads: usize,
    pub(super) n_kv_heads: usize,
    pub(super) key_dim: usize,
    pub(super) value_dim: usize,
}

/// How a warp is made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lanes {
    /// Bytes of a load.
    pub vector_bytes: usize,
    /// Lanes of an entry, a power of two.
    pub of_entry: usize,
    /// Entries that a set of lanes has in a step.
    pub keys: usize,
    /// Warps of a block.
    pub warps: usize,
    /// Blocks of a multiprocessor.
    pub blocks: usize,
}

impl FewHeads {
    /// As many entries in a step as registers allow, or nothing where not even one fits, or rows are of no vectors.
    pub(super) fn lanes(&self) -> Option<Lanes> {
        if self.heads == 0 || self.key_dim == 0 || self.value_dim == 0 {
            return None;
        }
        let bytes = self.dtype.bytes();
        let vector_bytes = copy_bytes(&[self.key_dim * bytes, self.value_dim * bytes])?;
        let vectors = [self.key_dim, self.value_dim].map(|dim| dim * bytes / vector_bytes);
        let of_entry = vectors[0].max(vectors[1]).next_power_of_two().min(32);
        let own: usize = vectors.iter().map(|vectors| vectors.div_ceil(of_entry)).sum();
        let registers = |keys: usize| {
            let sums = self.heads * own * vector_bytes / bytes;
            sums + keys * own * vector_bytes / 4 + keys * self.heads + OTHER_REGISTERS
        };
        // A thread of so many blocks of 128 threads has this many registers.
        [(4, 128), (3, 168), (2, 255)]
            .into_iter()
            .find_map(|(blocks, most)| {
                // With many blocks even few entries keep memory busy, but not a single one.
                let keys = [8, 4, 2]
                    .into_iter()
                    .find(|keys| registers(*keys) <= most && keys * blocks >= 8)?;
                Some(Lanes {
                    vector_bytes,
                    of_entry,
                    keys,
                    warps: WARPS,
                    blocks,
                })
            })
    }

    /// Kernel and launch for a batch whose sequences have about `slots` entries.
    pub(super) fn plan(
        &self,
        lanes: Lanes,
        machine: Machine,
        batch: usize,
        slots: usize,
    ) -> Result<DecodePlan, Unsupported> {
        let sequence_heads = product(&[batch, self.n_kv_heads]);
        let value_width = self.value_dim.next_multiple_of(4);
        let step = 32 / lanes.of_entry * lanes.keys;
        let splits = splits(
            machine,
            Work {
                groups: sequence_heads,
                blocks: lanes.blocks,
                slots,
                entry_bytes: (self.key_dim + self.value_dim) * self.dtype.bytes(),
                fewest: lanes.warps * step,
                partial_bytes: self.heads * value_width * 4,
                // The sum over splits has a weight for each head and split where the parts were.
                most: lanes.warps * value_width - 1,
            },
        );
        let shared_bytes = lanes.warps * self.heads * (value_width * 4 + 8);
        let is_split = usize::from(splits > 1);
        Ok(DecodePlan {
            sizes: DecodeSizes {
                batch,
                n_heads: self.heads * self.n_kv_heads,
                n_kv_heads: self.n_kv_heads,
                key_dim: self.key_dim,
                value_dim: self.value_dim,
                apart: true,
            },
            planned: Planned {
                specialisation: Specialisation {
                    kernel: &FEW_HEADS_DECODE,
                    dtype: self.dtype,
                    constants: vec![
                        ("KEY_DIM", self.key_dim),
                        ("VALUE_DIM", self.value_dim),
                        ("HEADS", self.heads),
                        ("VECTOR", lanes.vector_bytes),
                        ("ENTRY_LANES", lanes.of_entry),
                        ("KEYS", lanes.keys),
                        ("WARPS", lanes.warps),
                        ("BLOCKS", lanes.blocks),
                        ("SHARED_BYTES", shared_bytes),
                    ],
                    arch: machine.arch,
                },
                launch: Launch {
                    grid: [sequence_heads, 1, splits],
                    threads: 32 * lanes.warps,
                    shared_bytes,
                }
                .checked(FEW_HEADS_DECODE.name)?,
            },
            workspace: Workspace {
                partial_floats: product(&[is_split, sequence_heads, splits, self.heads, value_width]),
                partial_sums: product(&[is_split, sequence_heads, splits, self.heads]),
                tickets: product(&[is_split, sequence_heads]),
            },
            align_bytes: lanes.vector_bytes,
        })
    }
}
