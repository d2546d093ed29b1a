//! Grouped decode: MHA, GQA and MQA. With eight or more query heads for a KV head `cuda/grouped_decode.cu` has the
//! formula and `cuda/streams.cuh` the tiles; with fewer it is `cuda/few_heads_decode.cu`.

use super::few_heads_decode::{FewHeads, Lanes};
use super::machine::{Dtype, Machine, Unsupported};
use super::specialise::Kernel;
use super::streams::{DecodePlan, Streams, Tiles};

/// The source.
pub static GROUPED_DECODE: Kernel = Kernel {
    name: "grouped_decode",
    text: include_str!("../../cuda/grouped_decode.cu"),
    is_hot: true,
};

/// Query heads of a KV head from which on matrix units are used: half of a tile's rows.
const MANY_HEADS: usize = 8;

/// What the kernels of MHA, GQA and MQA are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GroupedDecodeShape {
    /// Of queries, caches and output.
    pub dtype: Dtype,
    /// Query heads H.
    pub n_heads: usize,
    /// KV heads Hkv, which H is a multiple of.
    pub n_kv_heads: usize,
    /// Dk.
    pub key_dim: usize,
    /// Dv.
    pub value_dim: usize,
}

impl GroupedDecodeShape {
    /// Kernel, launch and workspace for `batch` sequences of about `slots` entries. Few heads that are too large for a
    /// lane's registers go the way of many.
    ///
    /// # Errors
    /// [`Unsupported`] where heads do not fit together, a head's size is odd in 16-bit elements, or a tile does not fit
    /// shared memory.
    pub fn plan(&self, machine: Machine, batch: usize, slots: usize) -> Result<DecodePlan, Unsupported> {
        match self.lanes()? {
            Some(lanes) => self.few_heads().plan(lanes, machine, batch, slots),
            None => self.streams()?.plan(machine, batch, slots),
        }
    }

    /// How a warp of the kernel for few heads is made up, where that one is used.
    ///
    /// # Errors
    /// [`Unsupported`] where heads do not fit together.
    pub fn lanes(&self) -> Result<Option<Lanes>, Unsupported> {
        let is_few = self.streams()?.heads < MANY_HEADS;
        Ok(self.few_heads().lanes().filter(|_| is_few))
    }

    /// How a block of the kernel for many heads is made up.
    ///
    /// # Errors
    /// As of [`GroupedDecodeShape::plan`].
    pub fn tiles(&self, machine: Machine) -> Result<Tiles, Unsupported> {
        self.streams()?.tiles(machine)
    }

    fn few_heads(&self) -> FewHeads {
        FewHeads {
            dtype: self.dtype,
            heads: self.n_heads / self.n_kv_heads.max(1),
            n_kv_heads: self.n_kv_heads,
            key_dim: self.key_dim,
            value_dim: self.value_dim,
        }
    }

    fn streams(&self) -> Result<Streams, Unsupported> {
        let (h, h_kv) = (self.n_heads, self.n_kv_heads);
        if h_kv == 0 || h % h_kv != 0 {
            return Err(Unsupported {
                kernel: GROUPED_DECODE.name,
                what: format!("{h} query heads on {h_kv} KV heads"),
                remedy: "a number of query heads that is a multiple of the KV heads".to_string(),
            });
        }
        Ok(Streams {
            kernel: &GROUPED_DECODE,
            dtype: self.dtype,
            heads: h / h_kv,
            n_kv_heads: h_kv,
            key_dim: self.key_dim,
            value_dim: self.value_dim,
            apart: true,
            stride: 1,
        })
    }
}
