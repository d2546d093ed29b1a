//! Advance: what a decode step begins with, positions counted and the queries of MLA and MTLA turned. `cuda/advance.cu`
//! has the mapping.

use super::machine::{Dtype, Launch, Machine, Unsupported};
use super::operands::{Memory, int, memory};
use super::specialise::{Kernel, Planned, Specialisation};
use crate::error::{Mismatch, at_least, product};

/// The source.
pub static ADVANCE: Kernel = Kernel {
    name: "advance",
    text: include_str!("../../cuda/advance.cu"),
    is_hot: true,
};

/// Threads of a block at most; fewer where there are fewer pairs.
const MOST_THREADS: usize = 256;

/// What the kernel is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AdvanceShape {
    /// Of the queries.
    pub dtype: Dtype,
    /// Heads H that are turned; 0 where none are.
    pub n_heads: usize,
    /// Columns Dr of a head that are turned.
    pub rope_dim: usize,
    /// Whether pairs are `(i, i + Dr / 2)`, and not `(2 i, 2 i + 1)`.
    pub halves: bool,
}

/// The kernel, and what its operands are held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdvancePlan {
    /// Kernel and launch.
    pub planned: Planned,
    /// What it is compiled for.
    pub shape: AdvanceShape,
    /// Sequences B.
    pub batch: usize,
}

/// Columns of queries that are turned, `[B, H, Dr]`, those of a head side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Columns {
    /// The elements.
    pub memory: Memory,
    /// From one sequence to the next.
    pub batch_stride: usize,
    /// From one head to the next.
    pub head_stride: usize,
}

/// Queries and what turns them.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// The queries.
    pub q: Columns,
    /// Where they go; may not be the same.
    pub turned: Columns,
    /// `[positions, Dr / 2]` f32.
    pub cos: Memory,
    /// `[positions, Dr / 2]` f32.
    pub sin: Memory,
    /// Positions of the tables; queries of tokens beyond are not written.
    pub n_positions: usize,
}

/// Operands of the kernel.
#[derive(Debug, Clone, Copy)]
pub struct AdvanceOperands {
    /// `[B]` i32: the position of each sequence's newest token, which becomes that of the next one.
    pub positions: Memory,
    /// Where there are heads to turn.
    pub turn: Option<Turn>,
}

/// `Advance` of `advance.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct AdvanceParams {
    q: u64,
    turned: u64,
    cos: u64,
    sin: u64,
    positions: u64,
    q_stride: i64,
    turned_stride: i64,
    q_head_stride: i32,
    turned_head_stride: i32,
    n_positions: i32,
}

// The source asserts the same size.
const _: () = assert!(size_of::<AdvanceParams>() == 72);

impl AsRef<Planned> for AdvancePlan {
    fn as_ref(&self) -> &Planned {
        &self.planned
    }
}

impl AdvanceShape {
    /// The kernel and its launch for a batch of `batch` sequences.
    ///
    /// # Errors
    /// [`Unsupported`] for an odd number of columns.
    pub fn plan(&self, machine: Machine, batch: usize) -> Result<AdvancePlan, Unsupported> {
        if self.rope_dim % 2 != 0 {
            return Err(Unsupported {
                kernel: ADVANCE.name,
                what: format!("{} columns to turn", self.rope_dim),
                remedy: "an even number".to_string(),
            });
        }
        let pairs = self.n_heads * self.rope_dim / 2;
        let threads = pairs.next_multiple_of(32).clamp(32, MOST_THREADS);
        let planned = Planned {
            specialisation: Specialisation {
                kernel: &ADVANCE,
                dtype: self.dtype,
                constants: vec![
                    ("HEADS", self.n_heads),
                    ("ROPE", self.rope_dim),
                    ("HALVES", usize::from(self.halves)),
                    ("THREADS", threads),
                ],
                arch: machine.arch,
            },
            launch: Launch {
                grid: [batch.max(1), 1, 1],
                threads,
                shared_bytes: 0,
            },
        };
        Ok(AdvancePlan {
            planned,
            shape: *self,
            batch,
        })
    }
}

impl AdvancePlan {
    /// What the kernel is given.
    ///
    /// # Errors
    /// [`Mismatch`] where memory is shorter than the plan's sizes say, or there is nothing to turn where there should
    /// be. Whether addresses are of a device is not seen here.
    pub fn params(&self, operands: &AdvanceOperands) -> Result<AdvanceParams, Mismatch> {
        let op = ADVANCE.name;
        let AdvanceShape {
            dtype,
            n_heads,
            rope_dim,
            ..
        } = self.shape;
        let mut params = AdvanceParams {
            q: 0,
            turned: 0,
            cos: 0,
            sin: 0,
            positions: memory(op, "positions", operands.positions, 4 * self.batch, 4)?,
            q_stride: 0,
            turned_stride: 0,
            q_head_stride: 0,
            turned_head_stride: 0,
            n_positions: 0,
        };
        if n_heads == 0 {
            return Ok(params);
        }
        let Some(turn) = operands.turn else {
            at_least(op, "the number of queries", 0, n_heads)?;
            return Ok(params);
        };
        let columns = |what, of: Columns| {
            let last = product(&[self.batch.saturating_sub(1), of.batch_stride])
                .saturating_add(product(&[n_heads - 1, of.head_stride]));
            let bytes = last.saturating_add(rope_dim).saturating_mul(dtype.bytes());
            memory(op, what, of.memory, bytes, dtype.bytes())
        };
        let table = product(&[turn.n_positions, rope_dim / 2, 4]);
        params.q = columns("the queries", turn.q)?;
        params.turned = columns("the turned queries", turn.turned)?;
        params.cos = memory(op, "the table of cosines", turn.cos, table, 4)?;
        params.sin = memory(op, "the table of sines", turn.sin, table, 4)?;
        params.q_stride = turn.q.batch_stride as i64;
        params.turned_stride = turn.turned.batch_stride as i64;
        params.q_head_stride = int(op, "the distance of heads", turn.q.head_stride)?;
        params.turned_head_stride = int(op, "the distance of turned heads", turn.turned.head_stride)?;
        params.n_positions = int(op, "the number of positions", turn.n_positions)?;
        Ok(params)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Arch;
    use super::*;

    fn at(address: u64, bytes: usize) -> Memory {
        Memory { address, bytes }
    }

    #[test]
    fn operands_are_held_against_the_plan() {
        let shape = AdvanceShape {
            dtype: Dtype::Bf16,
            n_heads: 8,
            rope_dim: 32,
            halves: false,
        };
        let plan = shape.plan(Machine::usual(Arch::Sm90a), 2).unwrap();
        assert_eq!(
            (plan.planned.launch.grid[0], plan.planned.launch.threads),
            (2, 128)
        );
        let columns = |width: usize| Columns {
            memory: at(2, (15 * width + 32) * 2),
            batch_stride: 8 * width,
            head_stride: width,
        };
        let turn = Turn {
            q: columns(96),
            turned: columns(288),
            cos: at(4, 10 * 16 * 4),
            sin: at(4, 10 * 16 * 4),
            n_positions: 10,
        };
        let good = AdvanceOperands {
            positions: at(4, 8),
            turn: Some(turn),
        };
        let params = plan.params(&good).unwrap();
        assert_eq!((params.q_stride, params.turned_head_stride), (8 * 96, 288));
        let refused = |operands: AdvanceOperands| plan.params(&operands).unwrap_err().to_string();
        assert!(refused(AdvanceOperands { turn: None, ..good }).contains("number of queries"));
        let short = Columns {
            memory: at(2, (15 * 288 + 31) * 2),
            ..turn.turned
        };
        let turn = Some(Turn {
            turned: short,
            ..turn
        });
        assert!(refused(AdvanceOperands { turn, ..good }).contains("turned queries"));
        // Where no head is turned there is only the count.
        let counts = AdvanceShape { n_heads: 0, ..shape };
        let plan = counts.plan(Machine::usual(Arch::Sm80), 3).unwrap();
        let only = AdvanceOperands {
            positions: at(4, 12),
            turn: None,
        };
        assert!(plan.params(&only).is_ok());
        assert!(
            plan.params(&AdvanceOperands {
                positions: at(4, 8),
                ..only
            })
            .is_err()
        );
    }
}
