//! The sizes of one attention layer, as far as caches and costs depend on them.
//!
//! ```
//! use attn_core::{Entry, Values};
//!
//! // At the sizes of MTLA's paper: MQA's slot, and MLA's.
//! let mqa = Entry { heads: 1, key: 64, values: Values::Own(64) };
//! let mla = Entry { heads: 1, key: 256 + 32, values: Values::KeyPrefix(256) };
//! assert_eq!((mqa.elements(), mla.elements()), (128, 288));
//! ```

use candle_core::Tensor;
use serde::Serialize;

use crate::error::{Error, Result};

/// Where the cached values are.
///
/// ```
/// use attn_core::Values;
///
/// assert_eq!(Values::Own(64).width(), 64);
/// assert_eq!(Values::KeyPrefix(256).width(), 256); // of a key that is wider
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Values {
    /// A tensor of their own, this wide per KV head.
    Own(usize),
    /// The first columns of the keys' entries (the latent of MLA and MTLA), this wide.
    KeyPrefix(usize),
}

impl Values {
    /// Width Dv of one cached value per KV head, in elements.
    pub fn width(self) -> usize {
        match self {
            Self::Own(width) | Self::KeyPrefix(width) => width,
        }
    }
}

/// What one KV head stores for one cache slot.
///
/// ```
/// use attn_core::{Entry, Values};
///
/// let gqa = Entry { heads: 2, key: 64, values: Values::Own(64) };
/// assert_eq!(gqa.elements(), 2 * (64 + 64));
/// let latent = Entry { heads: 1, key: 40, values: Values::KeyPrefix(32) };
/// assert_eq!(latent.elements(), 40); // values cost nothing
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// KV heads Hkv in the cache.
    pub heads: usize,
    /// Width of a cached key per KV head: D, or r + Dr.
    pub key: usize,
    /// Where the values are.
    pub values: Values,
}

impl Entry {
    /// Elements of one slot over all KV heads: `Hkv (D + Dv)`, or `Hkv (r + Dr)` where V is a prefix of K.
    pub fn elements(&self) -> usize {
        let own = match self.values {
            Values::Own(width) => width,
            Values::KeyPrefix(_) => 0,
        };
        self.heads * (self.key + own)
    }
}

/// Multiply-adds of the projections per token, split by what they serve.
///
/// ```
/// use attn_core::ProjectionMacs;
///
/// // MHA of width 64: every token is projected to a query and an output, and to a key and a value.
/// let macs = ProjectionMacs { query: 2 * 64 * 64, key: 2 * 64 * 64 };
/// assert_eq!(2 * (macs.query + macs.key), 32_768); // FLOPs a token
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ProjectionMacs {
    /// For a token that is a query: its query projection and the output projection.
    pub query: usize,
    /// For a token that enters the cache: key, value or latent projection, gate, decompression.
    pub key: usize,
}

/// The sizes of one attention layer.
///
/// Letters as everywhere: M `d_model`, H `n_heads`, s `stride`. The attention of whole sequences works on
/// `score_dim` and `v_dim` (materialised keys and values), decoding on [`Entry`] (what the cache holds).
///
/// ```
/// use attn_core::latent::LatentConfig;
/// use attn_core::{Entry, ModelDims, ParamValue, Params, Values};
///
/// let dims = ModelDims { d_model: 512, n_heads: 8, head_dim: 64 };
/// let params = Params::default().with("kv_rank", ParamValue::Int(256)).with("rope_dim", ParamValue::Int(32));
/// let entry = Entry { heads: 1, key: 256 + 32, values: Values::KeyPrefix(256) };
/// let mtla = LatentConfig::new(&dims, &params)?.geometry(entry, 2, 0, 0);
/// assert_eq!(mtla.slots(5), 3); // ceil(5 / 2)
/// assert_eq!(mtla.kv_bytes(1, 5, 4), 3 * 288 * 4);
/// assert_eq!(mtla.kv_state_bytes(1), 256 * 4 + 8); // the open slot's sums, and a length
/// // What fits a mebibyte, and not one slot more.
/// let tokens = mtla.longest_context(1, 1 << 20, 4) as usize;
/// assert!(mtla.kv_bytes(1, tokens, 4) + mtla.kv_state_bytes(1) <= 1 << 20);
/// assert!(mtla.kv_bytes(1, tokens + 1, 4) + mtla.kv_state_bytes(1) > 1 << 20);
/// # Ok::<(), attn_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Geometry {
    /// Model width M.
    pub d_model: usize,
    /// Query heads H.
    pub n_heads: usize,
    /// KV heads of the materialised keys and values (H for latent attention, which decompresses per head).
    pub n_kv_heads: usize,
    /// Width of a query and a materialised key: D, or Dn + Dr.
    pub score_dim: usize,
    /// Width of a materialised value Dv.
    pub v_dim: usize,
    /// Temporal stride s: tokens that share one cache slot, 1 but for MTLA.
    pub stride: usize,
    /// One cache slot.
    pub entry: Entry,
    /// Elements per sequence of the f32 accumulator of an open slot, 0 where there is none.
    pub state_elements: usize,
    /// Parameters of the layer.
    pub parameters: usize,
    /// Projections where whole sequences are processed (keys and values materialised).
    pub forward_macs: ProjectionMacs,
    /// Projections in a decode step (absorbed where the variant absorbs).
    pub decode_macs: ProjectionMacs,
}

impl Geometry {
    /// Sizes B, T, M of an input `[B, T, M]` with at least one token.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn check_input(&self, x: &Tensor) -> Result<(usize, usize, usize)> {
        match x.dims() {
            &[b, t, m] if b > 0 && t > 0 && m == self.d_model => Ok((b, t, m)),
            got => Err(Error::Shape {
                op: "attention",
                expected: format!("[B, T, {}] with B, T > 0", self.d_model),
                got: got.to_vec(),
            }),
        }
    }

    /// Sizes of the input of a decode step, `[B, 1, M]`.
    ///
    /// # Errors
    /// [`Error::Shape`].
    pub fn check_step(&self, x: &Tensor) -> Result<(usize, usize, usize)> {
        match self.check_input(x)? {
            sizes @ (_, 1, _) => Ok(sizes),
            (b, t, m) => Err(Error::Shape {
                op: "decode",
                expected: format!("[B, 1, {m}]"),
                got: vec![b, t, m],
            }),
        }
    }

    /// Cache slots of a sequence of `tokens`: `ceil(L / s)`.
    pub fn slots(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.stride)
    }

    /// Bytes of a cache that holds `tokens` per sequence: `B ceil(L / s) elements bytes`.
    ///
    /// This is the formula of the papers; with the capacity in place of the length it is what a preallocated
    /// cache occupies, exactly.
    pub fn kv_bytes(&self, batch: usize, tokens: usize, element_bytes: usize) -> u64 {
        (batch as u64) * (self.slots(tokens) as u64) * ((self.entry.elements() * element_bytes) as u64)
    }

    /// Bytes of what a cache keeps beside its slots: the f32 accumulator of the open slot, O(B r), and one
    /// 8-byte length per sequence.
    pub fn kv_state_bytes(&self, batch: usize) -> u64 {
        batch as u64 * (4 * self.state_elements as u64 + 8)
    }

    /// The most tokens that `batch` sequences may each have for cache and state to fit in `bytes`: whole slots, and
    /// 0 where not even one fits.
    pub fn longest_context(&self, batch: usize, bytes: u64, element_bytes: usize) -> u64 {
        let slot = batch as u64 * (self.entry.elements() * element_bytes) as u64;
        let left = bytes.saturating_sub(self.kv_state_bytes(batch));
        (left / slot.max(1)).saturating_mul(self.stride as u64)
    }

    /// The most sequences of `tokens` each for cache and state to fit in `bytes`.
    pub fn largest_batch(&self, tokens: usize, bytes: u64, element_bytes: usize) -> u64 {
        bytes / (self.kv_bytes(1, tokens, element_bytes) + self.kv_state_bytes(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_the_last_sizes_that_fit() {
        let macs = ProjectionMacs::default();
        for (stride, state_elements) in [(1, 0), (2, 6), (5, 6)] {
            let g = Geometry {
                d_model: 8,
                n_heads: 2,
                n_kv_heads: 2,
                score_dim: 4,
                v_dim: 4,
                stride,
                entry: Entry {
                    heads: 1,
                    key: 8,
                    values: Values::KeyPrefix(6),
                },
                state_elements,
                parameters: 0,
                forward_macs: macs,
                decode_macs: macs,
            };
            let needed = |batch, tokens| g.kv_bytes(batch, tokens, 2) + g.kv_state_bytes(batch);
            for bytes in [0, 7, 50, 999, 4096, 4097] {
                for batch in [1, 3] {
                    let tokens = g.longest_context(batch, bytes, 2) as usize;
                    assert!(tokens == 0 || needed(batch, tokens) <= bytes, "{bytes} {batch}");
                    assert!(needed(batch, tokens + 1) > bytes, "{bytes} {batch}");
                }
                for tokens in [1, 10, 64] {
                    let batch = g.largest_batch(tokens, bytes, 2) as usize;
                    assert!(needed(batch, tokens) <= bytes, "{bytes} {tokens}");
                    assert!(needed(batch + 1, tokens) > bytes, "{bytes} {tokens}");
                }
            }
        }
    }
}
