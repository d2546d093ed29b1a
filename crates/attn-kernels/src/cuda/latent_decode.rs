//! Latent decode: MLA and MTLA, absorbed. `cuda/latent_decode.cu` has the formula, `cuda/streams.cuh` the tiles.

use super::machine::{Dtype, Machine, Unsupported};
use super::specialise::Kernel;
use super::streams::{DecodePlan, Streams, Tiles};

/// The source.
pub static LATENT_DECODE: Kernel = Kernel {
    name: "latent_decode",
    text: include_str!("../../cuda/latent_decode.cu"),
    is_hot: true,
};

/// What the kernel is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LatentDecodeShape {
    /// Of queries, cache and output.
    pub dtype: Dtype,
    /// Query heads H.
    pub n_heads: usize,
    /// r.
    pub rank: usize,
    /// Dr.
    pub rope_dim: usize,
    /// Tokens s of an entry; 1 for MLA.
    pub stride: usize,
}

impl LatentDecodeShape {
    /// Kernel, launch and workspace for `batch` sequences of about `slots` entries.
    ///
    /// # Errors
    /// [`Unsupported`] where `r + Dr` is odd in 16-bit elements, or a tile does not fit shared memory.
    pub fn plan(&self, machine: Machine, batch: usize, slots: usize) -> Result<DecodePlan, Unsupported> {
        self.streams().plan(machine, batch, slots)
    }

    /// How a block is made up.
    ///
    /// # Errors
    /// As of [`LatentDecodeShape::plan`].
    pub fn tiles(&self, machine: Machine) -> Result<Tiles, Unsupported> {
        self.streams().tiles(machine)
    }

    fn streams(&self) -> Streams {
        Streams {
            kernel: &LATENT_DECODE,
            dtype: self.dtype,
            heads: self.n_heads,
            n_kv_heads: 1,
            key_dim: self.rank + self.rope_dim,
            value_dim: self.rank,
            apart: false,
            stride: self.stride,
        }
    }
}
