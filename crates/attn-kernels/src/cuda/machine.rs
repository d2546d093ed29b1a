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
