//! What plans depend on: architectures and their limits, element types; and what they say: launches, refusals.

/// An architecture that kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arch {
    /// Ampere, and what runs its code.
    Sm80,
    /// Hopper.
    Sm90a,
}

impl Arch {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Sm80, Self::Sm90a];

    /// The compilers' name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sm80 => "sm_80",
            Self::Sm90a => "sm_90a",
        }
    }

    /// That of a device's compute capability: only Hopper runs what is compiled for `sm_90a`, and what is compiled for
    /// `sm_80` runs on 8.x alone.
    pub fn of(major: usize, _minor: usize) -> Result<Self, Unsupported> {
        match major {
            8 => Ok(Self::Sm80),
            9 => Ok(Self::Sm90a),
            _ => Err(Unsupported {
                kernel: "cuda",
                what: format!("compute capability {major}.x"),
                remedy: "a device of compute capability 8.x or 9.0, or the CPU".to_string(),
            }),
        }
    }

    /// Bytes of shared memory that a block may have.
    pub fn shared_bytes(self) -> usize {
        match self {
            Self::Sm80 => 163 * 1024,
            Self::Sm90a => 227 * 1024,
        }
    }

    /// Multiprocessors of its usual device: A100, H100 and H200.
    pub fn multiprocessors(self) -> usize {
        match self {
            Self::Sm80 => 108,
            Self::Sm90a => 132,
        }
    }
}

/// The device a plan is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Machine {
    /// What it runs.
    pub arch: Arch,
    /// Multiprocessors.
    pub multiprocessors: usize,
    /// Bytes of shared memory that a block may have, where a device has less than its [`Arch`].
    pub shared_bytes: usize,
}

impl Machine {
    /// The usual device of an architecture.
    pub fn usual(arch: Arch) -> Self {
        Self {
            arch,
            multiprocessors: arch.multiprocessors(),
            shared_bytes: arch.shared_bytes(),
        }
    }
}

/// Elements of queries, caches and outputs. Sums are f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// Products by multiply-adds, exact.
    F32,
    /// Products by `mma`, sums in f32.
    Bf16,
    /// The same.
    F16,
}

impl Dtype {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::F16];

    /// The usual name.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }

    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }

    /// `DTYPE_*` of `common.cuh`.
    pub(crate) fn constant(self) -> usize {
        match self {
            Self::F32 => 0,
            Self::Bf16 => 1,
            Self::F16 => 2,
        }
    }
}

/// Sizes of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// Blocks.
    pub grid: [usize; 3],
    /// Threads of a block.
    pub threads: usize,
    /// Bytes of dynamic shared memory of a block.
    pub shared_bytes: usize,
}

/// Blocks along each axis that every architecture takes.
const MOST_BLOCKS: [usize; 3] = [i32::MAX as usize, 65_535, 65_535];

impl Launch {
    /// Refuses more blocks than a grid may have, and along x more warps than kernels can number.
    pub(super) fn checked(self, kernel: &'static str) -> Result<Self, Unsupported> {
        let [x, y, z] = self.grid;
        let is_taken = [x, y, z].iter().zip(MOST_BLOCKS).all(|(n, most)| *n <= most);
        if is_taken && x.saturating_mul(self.threads / 32) <= i32::MAX as usize {
            return Ok(self);
        }
        Err(Unsupported {
            kernel,
            what: format!("{x} x {y} x {z} blocks of {} threads", self.threads),
            remedy: "fewer sequences, or fewer tokens".to_string(),
        })
    }
}

/// What has no kernel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kernel}: no kernel for {what}, use {remedy}")]
pub struct Unsupported {
    /// The kernel that was asked for it.
    pub kernel: &'static str,
    /// The geometry, or what of it.
    pub what: String,
    /// What has one.
    pub remedy: String,
}

#[cfg(test)]
mod tests {
    use super::super::{
        AttendShape, CacheUpdateShape, GroupedDecodeShape, GroupedUpdateShape, LatentDecodeShape, MergeShape,
    };
    use super::*;

    #[track_caller]
    fn refused<T: std::fmt::Debug>(plan: Result<T, Unsupported>) {
        let error = plan.unwrap_err();
        assert!(error.what.ends_with("threads"), "{error}");
    }

    #[test]
    fn no_plan_has_more_blocks_than_a_grid() {
        let machine = Machine::usual(Arch::Sm90a);
        let dtype = Dtype::Bf16;
        let attend = AttendShape {
            dtype,
            n_heads: 8,
            n_kv_heads: 8,
            key_dim: 64,
            shared_dim: 0,
            value_dim: 64,
            stride: None,
        };
        // Sequences are z, blocks of tokens y.
        assert!(attend.plan(machine, 65_535, 1).is_ok());
        refused(attend.plan(machine, 65_536, 1));
        refused(attend.plan_backward(machine, 65_536, 1, 1));
        assert!(attend.plan(machine, 1, 4_000_000).is_ok());
        refused(attend.plan(machine, 1, 1 << 24));
        refused(attend.plan_backward(machine, 1, 1 << 24, 1 << 24));
        // More than a number of this type holds is too much as well.
        refused(attend.plan(machine, 1, usize::MAX));
        refused(attend.plan_backward(machine, usize::MAX, 1, 1));
        let merge = MergeShape {
            dtype,
            rank: 64,
            stride: 1,
        };
        assert!(merge.plan(machine, 1 << 15, 1 << 15).is_ok());
        refused(merge.plan(machine, 1 << 16, 1 << 16));
        refused(merge.plan(machine, usize::MAX, 2));
        let (n_heads, n_kv_heads, key_dim, value_dim) = (8, 8, 64, 64);
        let update = GroupedUpdateShape {
            dtype,
            n_heads,
            n_kv_heads,
            key_dim,
            value_dim,
            halves: false,
        };
        assert!(update.plan(machine, 1 << 26).is_ok());
        refused(update.plan(machine, 1 << 27));
        let entry = CacheUpdateShape {
            dtype,
            rank: 64,
            rope_dim: 16,
            stride: None,
            layer_norm: true,
            halves: false,
        };
        assert!(entry.plan(machine, 1 << 30).is_ok());
        refused(entry.plan(machine, 1 << 31));
        for n_heads in [8, 128] {
            let decode = GroupedDecodeShape {
                dtype,
                n_heads,
                n_kv_heads,
                key_dim,
                value_dim,
            };
            assert!(decode.plan(machine, 1 << 24, 100).is_ok());
            refused(decode.plan(machine, 1 << 28, 100));
        }
        let latents = |n_heads| LatentDecodeShape {
            dtype,
            n_heads,
            rank: 64,
            rope_dim: 16,
            stride: 1,
        };
        refused(latents(16).plan(machine, 1 << 31, 100));
        // Blocks of heads are y.
        refused(latents(1 << 24).plan(machine, 1, 100));
    }
}
