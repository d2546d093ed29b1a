//! The sizes of one attention layer, as far as caches and costs depend on them.
//!
//! ```
//! use attn_core::{Entry, Values};
//!
//! // At the sizes of MTLA's paper: MQA's slot, and MLA's.
//! let mqa = Entry::new(1, 64, Values::Own(64));
//! let mla = Entry::new(1, 256 + 32, Values::KeyPrefix(256));
//! assert_eq!((mqa.elements(), mla.elements()), (128, 288));
//! ```

use candle_core::Tensor;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::linear::LinearSpec;
use crate::variant::ModelDims;
use crate::weights::WeightSpec;

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

/// Keys and values as sums of outer products of a factor for each head and a row that heads share (TPA).
///
/// ```
/// use attn_core::{Entry, Factors, Values};
///
/// let factors = Factors { heads: 4, keys: 2, values: 1 };
/// let entry = Entry::new(1, 16, Values::Own(16)).with_factors(factors);
/// // A product's row of 16, and a factor for each of 4 heads.
/// assert_eq!((entry.key_width(), entry.value_width()), (2 * (16 + 4), Some(16 + 4)));
/// assert!(factors.keys <= Factors::MOST);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Factors {
    /// Query heads H, each with a factor of its own.
    pub heads: usize,
    /// Products that a key is the sum of.
    pub keys: usize,
    /// Products that a value is the sum of.
    pub values: usize,
}

impl Factors {
    /// The most products of a key or of a value: what kernels read a slot with.
    pub const MOST: usize = attn_kernels::Factors::MOST;
}

/// What one cache slot holds, and how a query reads it: caches, costs and kernels follow from it.
///
/// ```
/// use attn_core::{Entry, Factors, Values};
///
/// let gqa = Entry::new(2, 64, Values::Own(64));
/// assert_eq!(gqa.elements(), 2 * (64 + 64));
/// let latent = Entry::new(1, 40, Values::KeyPrefix(32));
/// assert_eq!(latent.elements(), 40); // values cost nothing
/// // Keys and values of two heads in one, and a rope key of 32 for both.
/// let tied = Entry::new(2, 64, Values::KeyPrefix(64)).with_tail(32);
/// assert_eq!(tied.elements(), 2 * 64 + 32);
/// // Two products for a key and one for a value, of 8 heads.
/// let factored = Entry::new(1, 64, Values::Own(64)).with_factors(Factors { heads: 8, keys: 2, values: 1 });
/// assert_eq!(factored.elements(), (2 + 1) * (64 + 8));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// KV heads Hkv in the cache.
    pub heads: usize,
    /// Width of a key per KV head, and of what a query is multiplied with: D, or r + Dr.
    pub key: usize,
    /// Where the values are.
    pub values: Values,
    /// The last columns of keys, where all KV heads have them in common and a slot holds them once: the rope key of GTA
    /// and GLA. 0 where there are none.
    #[serde(skip_serializing_if = "is_zero")]
    pub tail: usize,
    /// Where keys and values are not stored, but the factors they are made of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub factors: Option<Factors>,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

impl Entry {
    /// Entries of `heads` KV heads with keys and values of their own, or values among the keys.
    pub fn new(heads: usize, key: usize, values: Values) -> Self {
        Self {
            heads,
            key,
            values,
            tail: 0,
            factors: None,
        }
    }

    /// The same, with the last `tail` columns of keys stored once for all heads.
    pub fn with_tail(self, tail: usize) -> Self {
        Self { tail, ..self }
    }

    /// The same, with factors stored in place of keys and values.
    pub fn with_factors(self, factors: Factors) -> Self {
        Self {
            factors: Some(factors),
            ..self
        }
    }

    /// Columns of a slot that each KV head has for its keys: Dk without the tail, or the values' where these are among
    /// them and wider; with factors those of all products.
    pub fn key_width(&self) -> usize {
        match (self.factors, self.values) {
            (Some(factors), _) => factors.keys * (self.key + factors.heads),
            (None, Values::Own(_)) => self.key - self.tail,
            (None, Values::KeyPrefix(width)) => (self.key - self.tail).max(width),
        }
    }

    /// Columns of a slot that each KV head has for its values, where these are apart.
    pub fn value_width(&self) -> Option<usize> {
        match (self.factors, self.values) {
            (Some(factors), values) => Some(factors.values * (values.width() + factors.heads)),
            (None, Values::Own(width)) => Some(width),
            (None, Values::KeyPrefix(_)) => None,
        }
    }

    /// Elements of one slot over all KV heads: `Hkv (D + Dv)`, or `Hkv (r + Dr)` where V is a prefix of K; columns that
    /// heads share count once.
    pub fn elements(&self) -> usize {
        self.heads * (self.key_width() + self.value_width().unwrap_or(0)) + self.tail
    }

    /// Multiply-adds of a query head for a slot: Dk + Dv, with factors those of each product and its factor.
    pub fn macs(&self) -> usize {
        match self.factors {
            None => self.key + self.values.width(),
            Some(factors) => factors.keys * (self.key + 1) + factors.values * (self.values.width() + 1),
        }
    }

    /// Whether every head stores its keys and values for itself, or one head a latent: what kernels of GPUs take.
    pub fn is_plain(&self) -> bool {
        self.tail == 0 && self.factors.is_none()
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
/// let entry = Entry::new(1, 256 + 32, Values::KeyPrefix(256));
/// let mtla = LatentConfig::new(&dims, &params)?.geometry(entry, 2, 0, 0);
/// assert_eq!(mtla.slots(5), 3); // ceil(5 / 2)
/// assert_eq!(mtla.kv_bytes(1, 5, 4), 3 * 288 * 4);
/// assert_eq!(mtla.kv_state_bytes(1), 256 * 4 + 8); // the open slot's sums, and a length
/// // What fits a mebibyte, and not one slot more.
/// let tokens = mtla.longest_context(1, 1 << 20, 4).unwrap() as usize;
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
    /// Slots that a query sees at most, the last ones, its own among them; the cache holds no more. `None`: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<usize>,
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

impl ProjectionMacs {
    /// Those of these projections.
    pub fn of(linears: &[LinearSpec]) -> Self {
        let sum = |is_of_slot| {
            let those = linears.iter().filter(|spec| spec.is_of_slot == is_of_slot);
            those.map(|spec| spec.out * spec.input).sum()
        };
        Self {
            query: sum(false),
            key: sum(true),
        }
    }
}

impl Geometry {
    /// The layer of these projections over slots of `entry`, whose queries, keys and values are as wide as heads.
    ///
    /// ```
    /// use attn_core::linear::LinearSpec;
    /// use attn_core::{Entry, Geometry, ModelDims, Values};
    ///
    /// let dims = ModelDims { d_model: 32, n_heads: 4, head_dim: 8 };
    /// let linears = [
    ///     LinearSpec::of_query("q_proj", 32, 32),
    ///     LinearSpec::of_slot("kv_proj", 8, 32),
    ///     LinearSpec::of_query("out_proj", 32, 32),
    /// ];
    /// let geometry = Geometry::of(&dims, Entry::new(1, 8, Values::KeyPrefix(8)), &linears);
    /// assert_eq!((geometry.parameters, geometry.n_kv_heads), (32 * (32 + 8 + 32), 1));
    /// ```
    pub fn of(dims: &ModelDims, entry: Entry, linears: &[LinearSpec]) -> Self {
        let macs = ProjectionMacs::of(linears);
        Self {
            d_model: dims.d_model,
            n_heads: dims.n_heads,
            n_kv_heads: entry.factors.map_or(entry.heads, |factors| factors.heads),
            score_dim: dims.head_dim,
            v_dim: dims.head_dim,
            stride: 1,
            window: None,
            entry,
            state_elements: 0,
            parameters: LinearSpec::weights(linears)
                .iter()
                .map(WeightSpec::elements)
                .sum(),
            forward_macs: macs,
            decode_macs: macs,
        }
    }

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

    /// Cache slots of a sequence of `tokens`: `ceil(L / s)`, and no more than the window.
    pub fn slots(&self, tokens: usize) -> usize {
        let slots = tokens.div_ceil(self.stride);
        self.window.map_or(slots, |window| window.min(slots))
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

    /// The most tokens that `batch` sequences may each have for cache and state to fit in `bytes`: whole slots, 0 where
    /// not even one fits, and `None` where any number does, since a whole window fits.
    pub fn longest_context(&self, batch: usize, bytes: u64, element_bytes: usize) -> Option<u64> {
        let slot = batch as u64 * (self.entry.elements() * element_bytes) as u64;
        let left = bytes.saturating_sub(self.kv_state_bytes(batch));
        let slots = left / slot.max(1);
        if self.window.is_some_and(|window| slots >= window as u64) {
            return None;
        }
        Some(slots.saturating_mul(self.stride as u64))
    }

    /// The most sequences of `tokens` each for cache and state to fit in `bytes`.
    pub fn largest_batch(&self, tokens: usize, bytes: u64, element_bytes: usize) -> u64 {
        bytes / (self.kv_bytes(1, tokens, element_bytes) + self.kv_state_bytes(1))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
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
                window: None,
                entry: Entry::new(1, 8, Values::KeyPrefix(6)),
                state_elements,
                parameters: 0,
                forward_macs: macs,
                decode_macs: macs,
            };
            let needed = |batch, tokens| g.kv_bytes(batch, tokens, 2) + g.kv_state_bytes(batch);
            for bytes in [0, 7, 50, 999, 4096, 4097] {
                for batch in [1, 3] {
                    let tokens = g.longest_context(batch, bytes, 2).unwrap() as usize;
                    assert!(tokens == 0 || needed(batch, tokens) <= bytes, "{bytes} {batch}");
                    assert!(needed(batch, tokens + 1) > bytes, "{bytes} {batch}");
                }
                let windowed = Geometry {
                    window: Some(3),
                    ..g.clone()
                };
                let fits = windowed.kv_bytes(1, 99, 2) + windowed.kv_state_bytes(1) <= bytes;
                assert_eq!(windowed.longest_context(1, bytes, 2).is_none(), fits, "{bytes}");
                for tokens in [1, 10, 64] {
                    let batch = g.largest_batch(tokens, bytes, 2) as usize;
                    assert!(needed(batch, tokens) <= bytes, "{bytes} {tokens}");
                    assert!(needed(batch + 1, tokens) > bytes, "{bytes} {tokens}");
                }
            }
        }
    }
}
