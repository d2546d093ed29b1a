//! Read all: how fast memory is read, and what empties the L2 cache. `cuda/read_all.cu` has the mapping.

use super::machine::{Dtype, Launch, Machine, Unsupported};
use super::operands::{Memory, memory};
use super::specialise::{Kernel, Planned, Specialisation};
use crate::error::Mismatch;

/// The source.
pub static READ_ALL: Kernel = Kernel {
    name: "read_all",
    text: include_str!("../../cuda/read_all.cu"),
    is_hot: true,
};

/// Bytes of a vector, which is what a thread loads at once.
const VECTOR_BYTES: usize = 16;

const THREADS: usize = 256;

/// Vectors that a thread waits for at a time.
const LOADS: usize = 8;

/// Blocks of a multiprocessor: their loads together are what it waits for.
const BLOCKS: usize = 4;

/// The kernel, and what its operands are held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadAllPlan {
    /// Kernel and launch.
    pub planned: Planned,
    /// Vectors that are read, of 16 bytes.
    vectors: usize,
}

/// `ReadAll` of `read_all.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct ReadAllParams {
    from: u64,
    sums: u64,
    vectors: i64,
}

// The source asserts the same size.
const _: () = assert!(size_of::<ReadAllParams>() == 24);

impl AsRef<Planned> for ReadAllPlan {
    fn as_ref(&self) -> &Planned {
        &self.planned
    }
}

impl ReadAllPlan {
    /// The kernel and its launch for `bytes`, rounded up to whole vectors and at least one.
    ///
    /// # Errors
    /// [`Unsupported`] where a device had more multiprocessors than a grid has blocks.
    pub fn new(machine: Machine, bytes: usize) -> Result<Self, Unsupported> {
        let vectors = bytes.div_ceil(VECTOR_BYTES).max(1);
        let tiles = vectors.div_ceil(THREADS * LOADS);
        let planned = Planned {
            specialisation: Specialisation {
                kernel: &READ_ALL,
                dtype: Dtype::F32, // of no consequence: words are words
                constants: vec![("THREADS", THREADS), ("LOADS", LOADS)],
                arch: machine.arch,
            },
            launch: Launch {
                grid: [tiles.clamp(1, BLOCKS * machine.multiprocessors.max(1)), 1, 1],
                threads: THREADS,
                shared_bytes: 0,
            }
            .checked(READ_ALL.name)?,
        };
        Ok(Self { planned, vectors })
    }

    /// Bytes that are read.
    pub fn bytes(&self) -> usize {
        self.vectors * VECTOR_BYTES
    }

    /// Sums that are added to, u32 each.
    pub fn sums(&self) -> usize {
        self.planned.launch.grid[0]
    }

    /// What the kernel is given: what it reads, and the sums.
    ///
    /// # Errors
    /// [`Mismatch`] where memory is shorter than that. Whether addresses are of a device is not seen here.
    pub fn params(&self, from: Memory, sums: Memory) -> Result<ReadAllParams, Mismatch> {
        let op = READ_ALL.name;
        Ok(ReadAllParams {
            from: memory(op, "the buffer", from, self.bytes(), VECTOR_BYTES)?,
            sums: memory(op, "the sums", sums, 4 * self.sums(), 4)?,
            vectors: self.vectors as i64,
        })
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
    fn every_multiprocessor_waits_for_enough_at_a_time() {
        let machine = Machine::usual(Arch::Sm90a);
        let plan = ReadAllPlan::new(machine, 600 << 20).unwrap();
        assert_eq!(plan.bytes(), 600 << 20);
        assert_eq!(plan.sums(), 4 * 132);
        // 4.8 TB/s, and 1 us until a load is there: what must be under way to keep memory busy.
        let waits_for = plan.sums() * THREADS * LOADS * VECTOR_BYTES;
        assert!(waits_for as f64 > 2.0 * 4.8e12 * 1e-6);
        // What is small has a block for each tile.
        assert_eq!(ReadAllPlan::new(machine, 32 << 10).unwrap().sums(), 1);
        assert_eq!(ReadAllPlan::new(machine, (32 << 10) + 1).unwrap().sums(), 2);
        assert_eq!(ReadAllPlan::new(machine, 0).unwrap().bytes(), 16);
    }

    #[test]
    fn memory_that_is_too_short_is_refused() {
        let plan = ReadAllPlan::new(Machine::usual(Arch::Sm80), 1_000).unwrap();
        assert_eq!(plan.bytes(), 1_008);
        assert!(plan.params(at(16, 1_008), at(4, 4)).is_ok());
        let refused = |from, sums| plan.params(from, sums).unwrap_err().to_string();
        assert!(refused(at(16, 1_000), at(4, 4)).contains("the buffer"));
        assert!(refused(at(8, 1_008), at(4, 4)).contains("the buffer"));
        assert!(refused(at(16, 1_008), at(4, 3)).contains("the sums"));
    }
}
