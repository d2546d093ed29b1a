//! The gradients of attend. `cuda/attend_backward.cu` has the formula and says what each pass does, `cuda/attend.cuh` the
//! tiles.

use super::attend::{AttendEntries, AttendShape, EntriesParams, Given, RowsParams, rows};
use super::machine::{Dtype, Launch, Machine, Unsupported};
use super::operands::{Cache, Memory, aligned, int, memory};
use super::specialise::{Kernel, Planned, Specialisation};
use super::streams::HEAD_TILE;
use crate::error::{Mismatch, product};

/// The source.
pub static ATTEND_BACKWARD: Kernel = Kernel {
    name: "attend_backward",
    text: include_str!("../../cuda/attend_backward.cu"),
    is_hot: true,
};

/// Threads of a block of the passes without tiles.
const THREADS: usize = 256;

/// Lanes of a row of the first pass.
const LANES: usize = 8;

/// One launch of the source: `PASS_*` there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// D of every row; of its own entry weight and gradient.
    Rows,
    /// dQ.
    Queries,
    /// dK and dV of closed entries.
    Entries,
    /// dK of closed entries.
    Keys,
    /// dV of closed entries.
    Values,
    /// dK and dV of own entries that close no block.
    OwnEntries,
    /// Sums of the columns that all heads share.
    Shared,
}

/// How a block of a pass with tiles is made up. Names are those of its macros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GradientTiles {
    /// Warps.
    pub warps: usize,
    /// Tiles of 16 rows that a warp has.
    pub row_tiles: usize,
    /// Rows of a tile that is gone through: columns of the weights.
    pub columns: usize,
    /// Blocks of a multiprocessor.
    pub blocks: usize,
}

/// A launch, what it does, and how its blocks are made up where there are tiles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedPass {
    /// What it does.
    pub pass: Pass,
    /// Kernel and launch.
    pub planned: Planned,
    /// Of passes with tiles.
    pub tiles: Option<GradientTiles>,
}

/// The launches, and what their operands are held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttendBackwardPlan {
    /// In the order in which they are to be launched, on one stream, all with the same parameters.
    pub passes: Vec<PlannedPass>,
    /// What they are compiled for.
    pub shape: AttendShape,
    /// Beside the operands.
    pub workspace: AttendWorkspace,
    /// Sequences B.
    pub batch: usize,
    /// Tokens T.
    pub tokens: usize,
    /// Closed entries N.
    pub n_keys: usize,
}

/// Memory beside the operands. It need not hold anything before the first launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttendWorkspace {
    /// Pairs of f32 of `rows`.
    pub rows: usize,
    /// Pairs of f32 of `own_weights`.
    pub own_weights: usize,
    /// f32 of `shared_parts`.
    pub shared_parts: usize,
}

/// Where the gradients of entries go, token by token. M is the number of entries that were given: N closed, or T own.
#[derive(Debug, Clone, Copy)]
pub enum AttendGradients {
    /// Of entries whose heads share nothing.
    Apart {
        /// `[B, M, Hkv, Dk]`.
        k: Memory,
        /// `[B, M, Hkv, Dv]`.
        v: Memory,
    },
    /// Of keys and values side by side, with Ds columns of keys that all heads share.
    Joint {
        /// `[B, M, Hkv, Dk - Ds + Dv]`.
        kv: Memory,
        /// `[B, M, Ds]`.
        shared: Memory,
    },
}

/// Operands of the gradients, of which either the closed entries or the own ones are given.
#[derive(Debug, Clone, Copy)]
pub struct AttendBackwardOperands {
    /// `[B, H, T, Dk]`.
    pub q: Cache,
    /// N entries, where there are no own ones.
    pub closed: Option<AttendEntries>,
    /// T entries, those of them closed that close a block.
    pub own: Option<AttendEntries>,
    /// Position of the first query; 0 with own entries.
    pub start: usize,
    /// What attend returned, `[B, T, H, Dv]`.
    pub out: Memory,
    /// Its logarithms, `[B, H, T]` f32.
    pub lse: Memory,
    /// Gradient of the output, `[B, H, T, Dv]`.
    pub grad: Cache,
    /// Gradient of the queries, `[B, T, H, Dk]`.
    pub dq: Memory,
    /// Of the entries.
    pub entries: AttendGradients,
    /// `[rows, 2]` f32 of the workspace.
    pub rows: Memory,
    /// `[own_weights, 2]` f32 of the workspace.
    pub own_weights: Memory,
    /// `[shared_parts]` f32 of the workspace.
    pub shared_parts: Memory,
    /// Factor of the scores, above 0.
    pub scale: f32,
}

/// `AttendBackward` of `attend_backward.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct AttendBackwardParams {
    q: RowsParams,
    closed: EntriesParams,
    own: EntriesParams,
    grad: RowsParams,
    out: u64,
    lse: u64,
    rows: u64,
    own_weights: u64,
    shared_parts: u64,
    dq: u64,
    dk: u64,
    dv: u64,
    dshared: u64,
    dk_row_stride: i64,
    dk_head_stride: i64,
    dv_row_stride: i64,
    dv_head_stride: i64,
    batch: i32,
    n_heads: i32,
    n_kv_heads: i32,
    tokens: i32,
    n_keys: i32,
    start: i32,
    factor: f32,
    scale: f32,
}

// The source asserts the same size.
const _: () = assert!(size_of::<AttendBackwardParams>() == 392);

impl Pass {
    fn constant(self) -> usize {
        match self {
            Self::Rows => 0,
            Self::Queries => 1,
            Self::Entries => 2,
            Self::Keys => 3,
            Self::Values => 4,
            Self::OwnEntries => 5,
            Self::Shared => 6,
        }
    }
}

impl GradientTiles {
    /// Rows of a block.
    pub fn rows(&self) -> usize {
        HEAD_TILE * self.warps * self.row_tiles
    }
}

impl AttendShape {
    /// The launches for `batch` sequences of `tokens` tokens with `n_keys` closed entries.
    ///
    /// # Errors
    /// [`Unsupported`] as of [`AttendShape::plan`].
    pub fn plan_backward(
        &self,
        machine: Machine,
        batch: usize,
        tokens: usize,
        n_keys: usize,
    ) -> Result<AttendBackwardPlan, Unsupported> {
        self.check(ATTEND_BACKWARD.name, [batch, tokens])?;
        let given = if self.stride.is_some() { tokens } else { n_keys };
        let (h, h_kv) = (self.n_heads, self.n_kv_heads);
        let in_chunk = 16 / self.dtype.bytes();
        let mut passes = Vec::new();
        let mut add = |pass, grid: [usize; 3], threads, tiles: Option<(GradientTiles, usize)>| {
            passes.push(self.pass(machine, pass, grid, threads, tiles)?);
            Ok(())
        };
        let flat = |threads: &[usize]| [product(threads).div_ceil(THREADS), 1, 1];
        add(Pass::Rows, flat(&[batch, tokens, h, LANES]), THREADS, None)?;
        let mut add_tiles = |pass, heads: usize, n: usize| -> Result<(), Unsupported> {
            let tiles = self.gradient_tiles(machine, pass)?;
            let grid = [heads, n.div_ceil(tiles.rows()), batch];
            let shared_bytes = self.gradient_bytes(pass, &tiles);
            add(pass, grid, 32 * tiles.warps, Some((tiles, shared_bytes)))
        };
        add_tiles(Pass::Queries, h, tokens)?;
        if n_keys > 0 && self.gradient_tiles(machine, Pass::Entries).is_ok() {
            add_tiles(Pass::Entries, h_kv, n_keys)?;
        } else if n_keys > 0 {
            add_tiles(Pass::Keys, h_kv, n_keys)?;
            add_tiles(Pass::Values, h_kv, n_keys)?;
        }
        if self.stride.is_some() {
            let chunks = (self.key_dim + self.value_dim) / in_chunk;
            let threads = flat(&[batch, tokens, h_kv, chunks]);
            add(Pass::OwnEntries, threads, THREADS, None)?;
        }
        if self.shared_dim > 0 && given > 0 {
            let fours = [batch, given, self.shared_dim / 4];
            add(Pass::Shared, flat(&fours), THREADS, None)?;
        }
        let all_rows = product(&[batch, h, tokens]);
        Ok(AttendBackwardPlan {
            passes,
            shape: *self,
            workspace: AttendWorkspace {
                rows: all_rows,
                own_weights: if self.stride.is_some() { all_rows } else { 0 },
                shared_parts: product(&[batch, h_kv, given, self.shared_dim]),
            },
            batch,
            tokens,
            n_keys,
        })
    }

    fn pass(
        &self,
        machine: Machine,
        pass: Pass,
        grid: [usize; 3],
        threads: usize,
        tiles: Option<(GradientTiles, usize)>,
    ) -> Result<PlannedPass, Unsupported> {
        let mut constants = vec![
            ("PASS", pass.constant()),
            ("KEY_DIM", self.key_dim),
            ("SHARED_DIM", self.shared_dim),
            ("VALUE_DIM", self.value_dim),
            ("OWN", usize::from(self.stride.is_some())),
            ("STRIDE", self.stride.unwrap_or(1)),
            ("WARPS", threads / 32),
        ];
        let mut shared_bytes = 0;
        if let Some((tiles, bytes)) = tiles {
            shared_bytes = bytes;
            constants.extend([
                ("ROW_TILES", tiles.row_tiles),
                ("COLUMNS", tiles.columns),
                ("BLOCKS", tiles.blocks),
                ("SHARED_BYTES", bytes),
            ]);
        }
        Ok(PlannedPass {
            pass,
            planned: Planned {
                specialisation: Specialisation {
                    kernel: &ATTEND_BACKWARD,
                    dtype: self.dtype,
                    constants,
                    arch: machine.arch,
                },
                launch: Launch {
                    grid,
                    threads,
                    shared_bytes,
                }
                .checked(ATTEND_BACKWARD.name)?,
            },
            tiles: tiles.map(|(tiles, _)| tiles),
        })
    }

    /// The first that fits registers and shared memory: more rows of a warp use what it reads more often.
    fn gradient_tiles(&self, machine: Machine, pass: Pass) -> Result<GradientTiles, Unsupported> {
        let sums = match pass {
            Pass::Entries => self.key_width() + self.value_width(),
            Pass::Values => self.value_width(),
            _ => self.key_width(),
        };
        // Registers of a lane: half as many as columns for sums, two tiles of weights; the rest is for operands.
        let most = if self.dtype == Dtype::F32 { 96 } else { 176 };
        for warps in [4, 2] {
            for (row_tiles, columns) in [(2, 32), (1, 64), (1, 32), (1, 16)] {
                let is_f32 = self.dtype == Dtype::F32;
                let tiles = GradientTiles {
                    warps,
                    row_tiles,
                    columns,
                    blocks: if is_f32 { 1 } else { 2 },
                };
                let registers = row_tiles * (sums / 2 + columns);
                // A pass that cannot be divided further takes what there is.
                let is_last = pass != Pass::Entries && columns == 16;
                let fits = registers <= most || is_last;
                if fits && self.gradient_bytes(pass, &tiles) <= machine.shared_bytes {
                    return Ok(tiles);
                }
            }
        }
        Err(Unsupported {
            kernel: ATTEND_BACKWARD.name,
            what: format!("keys of {} and values of {}", self.key_dim, self.value_dim),
            remedy: "smaller heads, or 16-bit elements".to_string(),
        })
    }

    /// `SHARED_BYTES`, which `attend_backward.cu` computes again.
    fn gradient_bytes(&self, pass: Pass, tiles: &GradientTiles) -> usize {
        let width = (self.key_width() + self.value_width()) * self.dtype.bytes();
        let of_column = if pass == Pass::Queries { 0 } else { 8 };
        tiles.rows() * width + 2 * tiles.columns * (width + of_column)
    }
}

impl AttendBackwardPlan {
    /// What every launch is given.
    ///
    /// # Errors
    /// [`Mismatch`] where memory is shorter than the sizes say, entries are missing or of both kinds, or addresses and
    /// distances of rows are not multiples of 16 bytes. Whether addresses are of a device is not seen here.
    pub fn params(&self, operands: &AttendBackwardOperands) -> Result<AttendBackwardParams, Mismatch> {
        let op = ATTEND_BACKWARD.name;
        let shape = &self.shape;
        let AttendShape {
            dtype,
            n_heads: h,
            n_kv_heads: h_kv,
            key_dim,
            shared_dim,
            value_dim,
            ..
        } = *shape;
        let Self {
            batch,
            tokens,
            n_keys,
            ..
        } = *self;
        if operands.closed.is_some() && operands.own.is_some() {
            return Err(Mismatch {
                op,
                what: "the number of kinds of entries",
                expected: 1,
                got: 2,
            });
        }
        let [closed, own] = shape.entries(
            op,
            Given {
                closed: &operands.closed,
                own: &operands.own,
                n_keys,
                start: operands.start,
                batch,
                tokens,
            },
        )?;
        let bytes = dtype.bytes();
        let given = if shape.stride.is_some() { tokens } else { n_keys };
        let elements = |what, of: Memory, sizes: [usize; 4]| {
            memory(op, what, of, product(&sizes).saturating_mul(bytes), 16)
        };
        let of_head = key_dim - shared_dim;
        let ([dk, dv, dshared], [dk_width, dv_width]) = match operands.entries {
            AttendGradients::Apart { .. } if shared_dim > 0 => {
                return Err(Mismatch {
                    op,
                    what: "the number of shared columns",
                    expected: 0,
                    got: shared_dim,
                });
            }
            AttendGradients::Apart { k, v } => (
                [
                    elements("k's gradient", k, [batch, given, h_kv, key_dim])?,
                    elements("v's gradient", v, [batch, given, h_kv, value_dim])?,
                    0,
                ],
                [key_dim, value_dim],
            ),
            AttendGradients::Joint { kv, shared } => {
                let width = of_head + value_dim;
                let what = "the gradient of keys and values";
                let kv = elements(what, kv, [batch, given, h_kv, width])?;
                aligned(op, what, of_head * bytes, 16)?;
                let shared = elements("shared keys' gradient", shared, [batch, given, 1, shared_dim])?;
                ([kv, kv + (of_head * bytes) as u64, shared], [width; 2])
            }
        };
        let queries = |dim| [batch, tokens, h, dim];
        let workspace = &self.workspace;
        let all_rows = product(&[batch, h, tokens]);
        Ok(AttendBackwardParams {
            q: rows(op, "q", &operands.q, [batch, h, tokens, key_dim], dtype)?,
            closed,
            own,
            grad: rows(
                op,
                "the gradient",
                &operands.grad,
                [batch, h, tokens, value_dim],
                dtype,
            )?,
            out: elements("the output", operands.out, queries(value_dim))?,
            lse: memory(op, "the logarithms", operands.lse, 4 * all_rows, 4)?,
            rows: memory(op, "rows", operands.rows, 8 * workspace.rows, 8)?,
            own_weights: memory(
                op,
                "own weights",
                operands.own_weights,
                8 * workspace.own_weights,
                8,
            )?,
            shared_parts: memory(
                op,
                "shared parts",
                operands.shared_parts,
                4 * workspace.shared_parts,
                16,
            )?,
            dq: elements("q's gradient", operands.dq, queries(key_dim))?,
            dk,
            dv,
            dshared,
            dk_row_stride: product(&[h_kv, dk_width]) as i64,
            dk_head_stride: dk_width as i64,
            dv_row_stride: product(&[h_kv, dv_width]) as i64,
            dv_head_stride: dv_width as i64,
            batch: int(op, "the batch", batch)?,
            n_heads: int(op, "the number of heads", h)?,
            n_kv_heads: int(op, "the number of KV heads", h_kv)?,
            tokens: int(op, "the number of tokens", tokens)?,
            n_keys: int(op, "the number of keys", n_keys)?,
            start: int(op, "the first position", operands.start)?,
            factor: operands.scale * std::f32::consts::LOG2_E,
            scale: operands.scale,
        })
    }
}
