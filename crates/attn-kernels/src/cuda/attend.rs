//! Attend: causal attention of whole sequences. `cuda/attend.cu` has the formula and the order of its sums,
//! `cuda/attend.cuh` the tiles.

use super::machine::{Dtype, Launch, Machine, Unsupported};
use super::operands::{Cache, Memory, int, memory};
use super::specialise::{Kernel, Planned, Specialisation};
use super::streams::HEAD_TILE;
use crate::error::{Mismatch, at_least, product};

/// The source.
pub static ATTEND: Kernel = Kernel {
    name: "attend",
    text: include_str!("../../cuda/attend.cu"),
    is_hot: true,
};

/// The largest head.
const MOST_COLUMNS: usize = 256;

/// Heads are multiples of it: rows are whole copies for every element type.
const COLUMNS: usize = 8;

/// What attend and its gradients are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AttendShape {
    /// Of queries, entries, output and gradients.
    pub dtype: Dtype,
    /// Query heads H.
    pub n_heads: usize,
    /// KV heads Hkv, which H is a multiple of.
    pub n_kv_heads: usize,
    /// Dk, shared columns among them.
    pub key_dim: usize,
    /// Columns Ds of the keys, the last ones, that all heads share.
    pub shared_dim: usize,
    /// Dv.
    pub value_dim: usize,
    /// Tokens s of a closed entry, each query having an entry of its own beside them; `None` where a query's own token is
    /// among the closed entries.
    pub stride: Option<usize>,
}

/// How a block is made up. Names are those of the macros of `attend.cu`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttendTiles {
    /// Warps.
    pub warps: usize,
    /// Tiles of 16 queries that a warp has.
    pub row_tiles: usize,
    /// Keys of a tile.
    pub keys: usize,
    /// Blocks of a multiprocessor.
    pub blocks: usize,
}

/// The kernel, and what its operands are held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttendPlan {
    /// Kernel and launch.
    pub planned: Planned,
    /// What it is compiled for.
    pub shape: AttendShape,
    /// How a block is made up.
    pub tiles: AttendTiles,
    /// Sequences B.
    pub batch: usize,
    /// Tokens T.
    pub tokens: usize,
}

impl AsRef<Planned> for AttendPlan {
    fn as_ref(&self) -> &Planned {
        &self.planned
    }
}

/// Keys and values of a launch, one of each for every entry. Addresses and distances of rows are multiples of 16 bytes.
#[derive(Debug, Clone, Copy)]
pub struct AttendEntries {
    /// The columns of keys that each head has for itself, `[B, Hkv, N, Dk - Ds]`.
    pub k: Cache,
    /// The last columns of keys, `[B, 1, N, Ds]`, where all heads share them: MLA's rope key.
    pub shared: Option<Cache>,
    /// `[B, Hkv, N, Dv]`.
    pub v: Cache,
}

/// Operands of attend.
#[derive(Debug, Clone, Copy)]
pub struct AttendOperands {
    /// `[B, H, T, Dk]`, the tokens at `start..start + T`.
    pub q: Cache,
    /// N entries from the sequence's beginning. `None` where they are those of `own` that close a block, the first token
    /// being the sequence's first.
    pub closed: Option<AttendEntries>,
    /// The diagonal: T entries, each seen by its query alone.
    pub own: Option<AttendEntries>,
    /// Closed entries N.
    pub n_keys: usize,
    /// Position of the first query.
    pub start: usize,
    /// `[B, T, H, Dv]`, without gaps.
    pub out: Memory,
    /// `[B, H, T]` f32: logarithms of the sums of weights, which the gradients start from.
    pub lse: Option<Memory>,
    /// Factor of the scores, above 0.
    pub scale: f32,
}

/// `Rows` of `attend.cuh`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct RowsParams {
    pub(super) data: u64,
    strides: [i64; 3],
}

/// `Entries` of `attend.cuh`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct EntriesParams {
    k: RowsParams,
    shared: RowsParams,
    v: RowsParams,
}

/// `Attend` of `attend.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct AttendParams {
    q: RowsParams,
    closed: EntriesParams,
    own: EntriesParams,
    out: u64,
    lse: u64,
    n_heads: i32,
    group: i32,
    tokens: i32,
    start: i32,
    factor: f32,
    scale: f32,
}

// The source asserts the same size.
const _: () = assert!(size_of::<AttendParams>() == 264);

impl AttendShape {
    /// The kernel and its launch for `batch` sequences of `tokens` tokens.
    ///
    /// # Errors
    /// [`Unsupported`] where heads do not fit together, a head's size is no multiple of 8 or above 256, or a tile does not
    /// fit shared memory, or there are more sequences or blocks of tokens than a grid has.
    pub fn plan(&self, machine: Machine, batch: usize, tokens: usize) -> Result<AttendPlan, Unsupported> {
        self.check(ATTEND.name, [batch, tokens])?;
        let tiles = self.tiles(machine, batch, tokens)?;
        let shared_bytes = self.shared_bytes(&tiles);
        let planned = Planned {
            specialisation: Specialisation {
                kernel: &ATTEND,
                dtype: self.dtype,
                constants: vec![
                    ("KEY_DIM", self.key_dim),
                    ("SHARED_DIM", self.shared_dim),
                    ("VALUE_DIM", self.value_dim),
                    ("OWN", usize::from(self.stride.is_some())),
                    ("STRIDE", self.stride.unwrap_or(1)),
                    ("WARPS", tiles.warps),
                    ("ROW_TILES", tiles.row_tiles),
                    ("KEYS", tiles.keys),
                    ("BLOCKS", tiles.blocks),
                    ("SHARED_BYTES", shared_bytes),
                ],
                arch: machine.arch,
            },
            launch: Launch {
                grid: [self.n_heads, tokens.div_ceil(tiles.rows()), batch],
                threads: 32 * tiles.warps,
                shared_bytes,
            }
            .checked(ATTEND.name)?,
        };
        Ok(AttendPlan {
            planned,
            shape: *self,
            tiles,
            batch,
            tokens,
        })
    }

    /// Refuses what has no tile.
    pub(super) fn check(&self, kernel: &'static str, [batch, tokens]: [usize; 2]) -> Result<(), Unsupported> {
        let refuse = |what, remedy: &str| {
            Err(Unsupported {
                kernel,
                what,
                remedy: remedy.to_string(),
            })
        };
        let (h, h_kv) = (self.n_heads, self.n_kv_heads);
        if h == 0 || h_kv == 0 || h % h_kv != 0 {
            let remedy = "a number of query heads that is a multiple of the KV heads";
            return refuse(format!("{h} query heads on {h_kv} KV heads"), remedy);
        }
        let Self {
            key_dim,
            shared_dim,
            value_dim,
            ..
        } = *self;
        let is_taken = |dim: usize| dim % COLUMNS == 0 && dim <= MOST_COLUMNS;
        let are_taken = [key_dim, shared_dim, value_dim].into_iter().all(is_taken);
        if key_dim == 0 || value_dim == 0 || shared_dim > key_dim || !are_taken {
            let what = format!("keys of {key_dim}, {shared_dim} of them shared, and values of {value_dim}");
            return refuse(what, "multiples of 8 up to 256");
        }
        if self.stride == Some(0) {
            return refuse("a stride of 0".to_string(), "a stride of 1 or more");
        }
        if batch == 0 || tokens == 0 {
            return refuse(
                format!("{batch} sequences of {tokens} tokens"),
                "one of each or more",
            );
        }
        Ok(())
    }

    /// The first that fits: more queries of a warp use what it reads from shared memory more often, but leave
    /// multiprocessors idle where there are few.
    fn tiles(&self, machine: Machine, batch: usize, tokens: usize) -> Result<AttendTiles, Unsupported> {
        let tiles = |warps, row_tiles, keys| AttendTiles {
            warps,
            row_tiles,
            keys,
            // Threads of four warps, with all registers that they can have, are half a multiprocessor's.
            blocks: if warps == 4 && self.dtype != Dtype::F32 {
                2
            } else {
                1
            },
        };
        let width = self.key_width().max(self.value_width());
        let all = match (self.dtype, self.value_width()) {
            (Dtype::F32, _) if width <= 128 => vec![tiles(4, 1, 32), tiles(4, 1, 16)],
            (Dtype::F32, _) => vec![tiles(4, 1, 16)],
            // Scores of 64 keys beside more columns than these take more registers than there are.
            (_, 0..=96) => vec![tiles(4, 2, 64), tiles(4, 1, 64), tiles(4, 1, 32)],
            (_, 97..=128) => vec![tiles(4, 2, 32), tiles(4, 1, 64), tiles(4, 1, 32)],
            _ => vec![tiles(8, 1, 32), tiles(4, 1, 32), tiles(4, 1, 16)],
        };
        let fits = |tiles: &&AttendTiles| self.shared_bytes(tiles) <= machine.shared_bytes;
        let is_busy = |tiles: &&AttendTiles| {
            product(&[batch, self.n_heads, tokens.div_ceil(tiles.rows())]) >= machine.multiprocessors
        };
        let smallest = all.iter().map(AttendTiles::rows).min();
        let fitting = || all.iter().filter(fits);
        let found = fitting().find(is_busy);
        let found = found.or_else(|| fitting().find(|tiles| Some(tiles.rows()) == smallest));
        found
            .or_else(|| fitting().next())
            .copied()
            .ok_or_else(|| Unsupported {
                kernel: ATTEND.name,
                what: format!(
                    "keys of {} and values of {} in {} bytes of shared memory",
                    self.key_dim, self.value_dim, machine.shared_bytes
                ),
                remedy: "smaller heads, or 16-bit elements".to_string(),
            })
    }

    pub(super) fn key_width(&self) -> usize {
        self.key_dim.next_multiple_of(16)
    }

    pub(super) fn value_width(&self) -> usize {
        self.value_dim.next_multiple_of(16)
    }

    /// `SHARED_BYTES`, which `attend.cu` computes again.
    fn shared_bytes(&self, tiles: &AttendTiles) -> usize {
        let stage = tiles.keys * (self.key_width() + self.value_width());
        (tiles.rows() * self.key_width() + 2 * stage) * self.dtype.bytes()
    }

    /// Closed entries that the token at a position sees.
    pub(super) fn seen(&self, position: usize) -> usize {
        match self.stride {
            Some(stride) => position / stride,
            None => position + 1,
        }
    }
}

impl AttendTiles {
    /// Queries of a block.
    pub fn rows(&self) -> usize {
        HEAD_TILE * self.warps * self.row_tiles
    }
}

impl Cache {
    /// Every `stride`-th row, beginning with the last of the first so many; elements have so many bytes.
    fn every(&self, stride: usize, bytes: usize) -> Self {
        let first = product(&[stride - 1, self.row_stride, bytes]).min(self.memory.bytes);
        Self {
            memory: Memory {
                address: self.memory.address + first as u64,
                bytes: self.memory.bytes - first,
            },
            row_stride: product(&[self.row_stride, stride]),
            ..*self
        }
    }
}

/// Rows `[batch, heads, n, dim]` as a kernel takes them.
pub(super) fn rows(
    op: &'static str,
    what: &'static str,
    rows: &Cache,
    counts: [usize; 4],
    dtype: Dtype,
) -> Result<RowsParams, Mismatch> {
    let strides = [rows.batch_stride, rows.head_stride, rows.row_stride];
    Ok(RowsParams {
        data: rows.check(op, what, counts, dtype.bytes(), 16)?,
        strides: strides.map(|stride| stride as i64),
    })
}

/// Operands of both passes that are entries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Given<'a> {
    pub(super) closed: &'a Option<AttendEntries>,
    pub(super) own: &'a Option<AttendEntries>,
    pub(super) n_keys: usize,
    pub(super) start: usize,
    pub(super) batch: usize,
    pub(super) tokens: usize,
}

impl AttendShape {
    /// Closed entries, wherever they are, and own ones, as a kernel takes them.
    pub(super) fn entries(&self, op: &'static str, given: Given<'_>) -> Result<[EntriesParams; 2], Mismatch> {
        let entries = |of: &AttendEntries, n: usize| -> Result<EntriesParams, Mismatch> {
            let counts = |heads: usize, dim: usize| [given.batch, heads, n, dim];
            let of_head = self.key_dim - self.shared_dim;
            let shared = match (self.shared_dim, &of.shared) {
                (0, _) => RowsParams::default(),
                (dim, None) => {
                    at_least(op, "the size of shared keys", 0, dim).map(|()| RowsParams::default())?
                }
                (dim, Some(shared)) => rows(op, "shared keys", shared, counts(1, dim), self.dtype)?,
            };
            Ok(EntriesParams {
                k: rows(op, "k", &of.k, counts(self.n_kv_heads, of_head), self.dtype)?,
                shared,
                v: rows(
                    op,
                    "v",
                    &of.v,
                    counts(self.n_kv_heads, self.value_dim),
                    self.dtype,
                )?,
            })
        };
        let (stride, bytes) = (self.stride.unwrap_or(1), self.dtype.bytes());
        let own = match (self.stride, given.own) {
            (None, _) => None,
            (Some(_), Some(own)) => Some(own),
            (Some(_), None) => return Err(missing(op, "the number of own entries", given.tokens)),
        };
        let closed = match (given.closed, own) {
            (Some(closed), _) => *closed,
            (None, Some(own)) if given.start == 0 => {
                let ends = product(&[given.n_keys, stride]);
                at_least(op, "the number of own entries", given.tokens, ends)?;
                AttendEntries {
                    k: own.k.every(stride, bytes),
                    shared: own.shared.map(|shared| shared.every(stride, bytes)),
                    v: own.v.every(stride, bytes),
                }
            }
            (None, _) => return Err(missing(op, "the number of closed entries", given.n_keys)),
        };
        if given.tokens > 0 {
            let last = given.start.saturating_add(given.tokens - 1);
            int(op, "the last position", last)?;
            at_least(op, "the number of keys", given.n_keys, self.seen(last))?;
        }
        Ok([
            entries(&closed, given.n_keys)?,
            own.map_or(Ok(EntriesParams::default()), |own| entries(own, given.tokens))?,
        ])
    }
}

fn missing(op: &'static str, what: &'static str, expected: usize) -> Mismatch {
    Mismatch {
        op,
        what,
        expected,
        got: 0,
    }
}

impl AttendPlan {
    /// What the kernel is given.
    ///
    /// # Errors
    /// [`Mismatch`] where memory is shorter than the sizes say, entries are missing, or addresses and distances of rows are
    /// not multiples of 16 bytes. Whether addresses are of a device is not seen here.
    pub fn params(&self, operands: &AttendOperands) -> Result<AttendParams, Mismatch> {
        let op = ATTEND.name;
        let AttendShape {
            dtype,
            n_heads: h,
            n_kv_heads: h_kv,
            key_dim,
            value_dim,
            ..
        } = self.shape;
        let (batch, tokens) = (self.batch, self.tokens);
        let [closed, own] = self.shape.entries(
            op,
            Given {
                closed: &operands.closed,
                own: &operands.own,
                n_keys: operands.n_keys,
                start: operands.start,
                batch,
                tokens,
            },
        )?;
        let out_bytes = product(&[batch, tokens, h, value_dim, dtype.bytes()]);
        let lse = operands.lse.map(|lse| {
            let bytes = product(&[4, batch, h, tokens]);
            memory(op, "the logarithms", lse, bytes, 4)
        });
        Ok(AttendParams {
            q: rows(op, "q", &operands.q, [batch, h, tokens, key_dim], dtype)?,
            closed,
            own,
            out: memory(op, "the output", operands.out, out_bytes, 16)?,
            lse: lse.transpose()?.unwrap_or(0),
            n_heads: int(op, "the number of heads", h)?,
            group: int(op, "the heads of a group", h / h_kv)?,
            tokens: int(op, "the number of tokens", tokens)?,
            start: int(op, "the first position", operands.start)?,
            factor: operands.scale * std::f32::consts::LOG2_E,
            scale: operands.scale,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Arch, AttendBackwardOperands, AttendGradients};
    use super::*;

    fn at(address: u64, bytes: usize) -> Memory {
        Memory { address, bytes }
    }

    /// Rows of two sequences of five tokens, `heads` of `dim` each, token by token from byte 160 on.
    fn rows(heads: usize, dim: usize, width: usize) -> Cache {
        Cache {
            memory: at(160, 2 * (9 * heads * width + (heads - 1) * width + dim)),
            batch_stride: 5 * heads * width,
            head_stride: width,
            row_stride: heads * width,
        }
    }

    fn shape() -> AttendShape {
        AttendShape {
            dtype: Dtype::Bf16,
            n_heads: 4,
            n_kv_heads: 2,
            key_dim: 96,
            shared_dim: 32,
            value_dim: 64,
            stride: Some(2),
        }
    }

    fn own() -> AttendEntries {
        AttendEntries {
            k: rows(2, 64, 128),
            shared: Some(rows(1, 32, 32)),
            v: rows(2, 64, 128),
        }
    }

    #[test]
    fn operands_of_attend_are_held_against_the_plan() {
        let plan = shape().plan(Machine::usual(Arch::Sm90a), 2, 5).unwrap();
        let good = AttendOperands {
            q: rows(4, 96, 96),
            closed: None,
            own: Some(own()),
            n_keys: 2,
            start: 0,
            out: at(16, 2 * 5 * 4 * 64 * 2),
            lse: Some(at(4, 2 * 4 * 5 * 4)),
            scale: 0.5,
        };
        let params = plan.params(&good).unwrap();
        // The first closed entry is the second token's.
        assert_eq!(params.closed.k.data, params.own.k.data + 2 * 128 * 2);
        assert_eq!(params.closed.k.strides, [5 * 256, 128, 2 * 256]);
        let refused = |operands: AttendOperands| plan.params(&operands).unwrap_err().to_string();
        assert_eq!(
            refused(AttendOperands { n_keys: 1, ..good }),
            "attend: the number of keys is 1, expected 2"
        );
        assert_eq!(
            refused(AttendOperands { n_keys: 3, ..good }),
            "attend: the number of own entries is 5, expected 6"
        );
        assert!(refused(AttendOperands { own: None, ..good }).contains("own entries"));
        assert!(refused(AttendOperands { start: 1, ..good }).contains("closed entries"));
        let shared = None;
        let apart = Some(AttendEntries { shared, ..own() });
        assert!(refused(AttendOperands { own: apart, ..good }).contains("shared keys"));
        let mut q = good.q;
        q.memory.bytes -= 2;
        assert!(refused(AttendOperands { q, ..good }).contains("q is"));
        q = good.q;
        q.head_stride = 97;
        assert_eq!(
            refused(AttendOperands { q, ..good }),
            "attend: q is 194, expected 192"
        );
    }

    #[test]
    fn operands_of_the_gradients_are_held_against_the_plan() {
        let plan = shape()
            .plan_backward(Machine::usual(Arch::Sm90a), 2, 5, 2)
            .unwrap();
        let workspace = plan.workspace;
        assert_eq!(
            [workspace.rows, workspace.own_weights, workspace.shared_parts],
            [40, 40, 2 * 2 * 5 * 32]
        );
        let good = AttendBackwardOperands {
            q: rows(4, 96, 96),
            closed: None,
            own: Some(own()),
            start: 0,
            out: at(16, 2 * 5 * 4 * 64 * 2),
            lse: at(4, 40 * 4),
            grad: rows(4, 64, 64),
            dq: at(16, 2 * 5 * 4 * 96 * 2),
            entries: AttendGradients::Joint {
                kv: at(32, 2 * 5 * 2 * 128 * 2),
                shared: at(16, 2 * 5 * 32 * 2),
            },
            rows: at(8, 40 * 8),
            own_weights: at(8, 40 * 8),
            shared_parts: at(16, 4 * workspace.shared_parts),
            scale: 0.5,
        };
        assert!(plan.params(&good).is_ok());
        let refused = |operands: AttendBackwardOperands| plan.params(&operands).unwrap_err().to_string();
        let (k, v) = (at(16, 1 << 20), at(16, 1 << 20));
        let entries = AttendGradients::Apart { k, v };
        assert_eq!(
            refused(AttendBackwardOperands { entries, ..good }),
            "attend_backward: the number of shared columns is 32, expected 0"
        );
        let closed = Some(own());
        assert!(refused(AttendBackwardOperands { closed, ..good }).contains("kinds of entries"));
        let rows = Memory::NONE;
        assert!(refused(AttendBackwardOperands { rows, ..good }).contains("rows is 0"));
    }
}
