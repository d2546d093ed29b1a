//! Plans of the kernels that are made of `cuda/streams.cuh`: teams of warps, their tiles, and the memory of both.

use super::machine::{Dtype, Launch, Machine, Unsupported};
use super::specialise::{Kernel, Planned, Specialisation};
use super::splits::{Work, splits};
use crate::error::product;

/// Warps of a block: with all registers a thread can have, they fill a multiprocessor.
const WARPS: usize = 8;

/// Value columns of a warp: 128 of its registers.
const MOST_COLUMNS: usize = 256;

/// Value columns of a warp up to which two blocks fit a multiprocessor's registers.
const FEW_COLUMNS: usize = 64;

/// Heads of a tile: rows of an `mma`.
pub const HEAD_TILE: usize = 16;

/// What `streams.cuh` is compiled for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Streams {
    pub(super) kernel: &'static Kernel,
    pub(super) dtype: Dtype,
    /// Query heads of a KV head.
    pub(super) heads: usize,
    pub(super) n_kv_heads: usize,
    pub(super) key_dim: usize,
    pub(super) value_dim: usize,
    /// Whether values are not the first columns of the keys.
    pub(super) apart: bool,
    /// Tokens of an entry.
    pub(super) stride: usize,
}

/// How a block of `streams.cuh` is made up. Names are those of its macros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiles {
    /// Tiles of 16 heads that a team has.
    pub head_tiles: usize,
    /// Warps among which a team shares the value columns of a head tile.
    pub column_groups: usize,
    /// Streams of a block.
    pub teams: usize,
    /// Entries of a tile.
    pub entries: usize,
    /// Tiles of a team in shared memory.
    pub stages: usize,
    /// Bytes of a copy.
    pub copy_bytes: usize,
    /// Blocks of a multiprocessor.
    pub blocks: usize,
}

/// Memory of a decode launch beside its operands. Tickets are to be zero before the first launch; each leaves zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workspace {
    /// f32 of `partial`.
    pub partial_floats: usize,
    /// Pairs of f32 of `partial_sums`.
    pub partial_sums: usize,
    /// u32 of `tickets`.
    pub tickets: usize,
}

/// Sizes of a decode launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeSizes {
    /// Sequences B.
    pub batch: usize,
    /// Query heads H.
    pub n_heads: usize,
    /// KV heads Hkv.
    pub n_kv_heads: usize,
    /// Dk.
    pub key_dim: usize,
    /// Dv.
    pub value_dim: usize,
    /// Whether values are not the first columns of the keys.
    pub apart: bool,
}

/// A decode kernel, its launch, and the memory that it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodePlan {
    /// What the operands are held against.
    pub sizes: DecodeSizes,
    /// Kernel and launch; `grid[2]` is the number of splits.
    pub planned: Planned,
    /// Beside the operands.
    pub workspace: Workspace,
    /// Bytes that pointers and strides of caches and queries must be multiples of.
    pub align_bytes: usize,
}

impl AsRef<Planned> for DecodePlan {
    fn as_ref(&self) -> &Planned {
        &self.planned
    }
}

/// The largest copy that rows of all these lengths are whole numbers of.
pub(super) fn copy_bytes(row_bytes: &[usize]) -> Option<usize> {
    [16, 8, 4]
        .into_iter()
        .find(|copy| row_bytes.iter().all(|row| row % copy == 0))
}

impl Streams {
    /// Kernel and launch for a batch whose sequences have about `slots` entries. Any number of entries may be launched
    /// with it; time is best near that one.
    pub(super) fn plan(
        &self,
        machine: Machine,
        batch: usize,
        slots: usize,
    ) -> Result<DecodePlan, Unsupported> {
        let tiles = self.tiles(machine)?;
        let rows = HEAD_TILE * tiles.head_tiles;
        let value_width = self.value_dim.next_multiple_of(16);
        let head_blocks = self.heads.div_ceil(rows);
        let sequence_heads = product(&[batch, self.n_kv_heads]);
        let own_values = if self.apart { self.value_dim } else { 0 };
        let splits = splits(
            machine,
            Work {
                groups: product(&[sequence_heads, head_blocks]),
                blocks: tiles.blocks,
                slots,
                entry_bytes: (self.key_dim + own_values) * self.dtype.bytes(),
                fewest: tiles.teams * tiles.entries,
                partial_bytes: self.heads.min(rows) * value_width * 4,
                // The sum over splits has a weight for each of a block's rows and splits where the ring was.
                most: self.ring_bytes(&tiles) / (4 * rows) - 1,
            },
        );
        let threads = 32 * tiles.teams * tiles.head_tiles * tiles.column_groups;
        let is_split = usize::from(splits > 1);
        Ok(DecodePlan {
            sizes: DecodeSizes {
                batch,
                n_heads: self.heads * self.n_kv_heads,
                n_kv_heads: self.n_kv_heads,
                key_dim: self.key_dim,
                value_dim: self.value_dim,
                apart: self.apart,
            },
            planned: Planned {
                specialisation: Specialisation {
                    kernel: self.kernel,
                    dtype: self.dtype,
                    constants: self.constants(&tiles),
                    arch: machine.arch,
                },
                launch: Launch {
                    grid: [sequence_heads, head_blocks, splits],
                    threads,
                    shared_bytes: self.shared_bytes(&tiles),
                }
                .checked(self.kernel.name)?,
            },
            workspace: Workspace {
                partial_floats: product(&[is_split, sequence_heads, splits, self.heads, value_width]),
                partial_sums: product(&[is_split, sequence_heads, splits, self.heads]),
                tickets: product(&[is_split, sequence_heads, head_blocks]),
            },
            align_bytes: tiles.copy_bytes,
        })
    }

    /// As many teams as there are warps for, and as many stages as then fit.
    pub(super) fn tiles(&self, machine: Machine) -> Result<Tiles, Unsupported> {
        let refuse = |what: String, remedy: &str| Unsupported {
            kernel: self.kernel.name,
            what,
            remedy: remedy.to_string(),
        };
        if self.heads == 0 || self.key_dim == 0 || self.value_dim == 0 || self.stride == 0 {
            return Err(refuse("a size of 0".to_string(), "sizes of 1 or more"));
        }
        let bytes = self.dtype.bytes();
        let rows = [self.key_dim * bytes, self.value_dim * bytes];
        // Values that are columns of the keys are never copied.
        let rows = if self.apart { &rows[..] } else { &rows[..1] };
        let copy_bytes = copy_bytes(rows).ok_or_else(|| {
            let what = format!("rows of {rows:?} bytes");
            refuse(what, "head sizes that are even, or f32")
        })?;
        let value_width = self.value_dim.next_multiple_of(16);
        let column_groups = value_width.div_ceil(MOST_COLUMNS);
        let columns = value_width.div_ceil(column_groups);
        let too_wide = || {
            let what = format!("{} columns of values", self.value_dim);
            refuse(what, "at most 2048")
        };
        let most_tiles = WARPS / column_groups;
        if most_tiles == 0 {
            return Err(too_wide());
        }
        let all_tiles = self.heads.div_ceil(HEAD_TILE);
        // Blocks of heads alike: two of three tiles and not one of four and one of two.
        let head_tiles = all_tiles.div_ceil(all_tiles.div_ceil(most_tiles));
        let most_teams = WARPS / (head_tiles * column_groups);
        // Products of f32 take more registers than those of `mma`.
        let is_small = columns <= FEW_COLUMNS && self.dtype != Dtype::F32;
        let blocks = if is_small { 2 } else { 1 };
        for head_tiles in (1..=head_tiles).rev() {
            for blocks in (1..=blocks).rev() {
                for teams in (1..=most_teams).rev() {
                    for stages in [3, 2] {
                        let tiles = Tiles {
                            head_tiles,
                            column_groups,
                            teams,
                            entries: if self.dtype == Dtype::F32 { 8 } else { 16 },
                            stages,
                            copy_bytes,
                            blocks,
                        };
                        // Each block takes a kilobyte that is not its own.
                        let room = (machine.shared_bytes + 1024) / blocks - 1024;
                        let is_enough = blocks == 1 || teams == most_teams;
                        if is_enough && self.shared_bytes(&tiles) <= room {
                            return Ok(tiles);
                        }
                    }
                }
            }
        }
        let what = format!(
            "keys of {} and values of {} on {}",
            self.key_dim,
            self.value_dim,
            machine.arch.name()
        );
        Err(refuse(what, "smaller heads, or 16-bit elements"))
    }

    fn key_width(&self) -> usize {
        self.key_dim.next_multiple_of(16)
    }

    /// `RING_BYTES` of `streams.cuh`: stages, or the parts of teams.
    fn ring_bytes(&self, tiles: &Tiles) -> usize {
        let value_width = self.value_dim.next_multiple_of(16);
        let width = self.key_width() + if self.apart { value_width } else { 0 };
        let stages = tiles.teams * tiles.stages * tiles.entries * width * self.dtype.bytes();
        let parts = tiles.teams * HEAD_TILE * tiles.head_tiles * (value_width + 8) * 4;
        stages.max(parts)
    }

    /// `SHARED_BYTES`, which `streams.cuh` computes again.
    pub(super) fn shared_bytes(&self, tiles: &Tiles) -> usize {
        let rows = HEAD_TILE * tiles.head_tiles;
        let queries = rows * self.key_width() * self.dtype.bytes();
        let warps = tiles.teams * tiles.head_tiles * tiles.column_groups;
        let scores = match tiles.column_groups {
            1 => 0,
            _ => warps * tiles.entries / 8 * 32 * 16,
        };
        queries + self.ring_bytes(tiles) + scores + tiles.teams * rows * 8
    }

    fn constants(&self, tiles: &Tiles) -> Vec<(&'static str, usize)> {
        vec![
            ("KEY_DIM", self.key_dim),
            ("VALUE_DIM", self.value_dim),
            ("HEADS", self.heads),
            ("STRIDE", self.stride),
            ("HEAD_TILES", tiles.head_tiles),
            ("COLUMN_GROUPS", tiles.column_groups),
            ("TEAMS", tiles.teams),
            ("ENTRIES", tiles.entries),
            ("STAGES", tiles.stages),
            ("COPY_BYTES", tiles.copy_bytes),
            ("BLOCKS", tiles.blocks),
            ("SHARED_BYTES", self.shared_bytes(tiles)),
        ]
    }
}
