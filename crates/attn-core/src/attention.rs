//! The trait every variant implements.
//!
//! ```
//! use attn_core::grouped::GroupedConfig;
//! use attn_core::{Build, Capacity, Entry, LayerConfig, ModelDims, Params, Path, Queries, Values, Weights, random_tensor};
//! use candle_core::{DType, Device};
//!
//! let dims = ModelDims { d_model: 16, n_heads: 2, head_dim: 8 };
//! let entry = Entry::new(1, 8, Values::Own(8));
//! let config = GroupedConfig::new(&dims, entry, &Params::default())?;
//! let weights = Weights::seeded(&config.weight_specs(), 42)?;
//! let layer = config.build(&weights, &Build::cpu(Path::Fused, DType::F32))?;
//!
//! // A prompt of three tokens and one token after it see what one pass over all four sees.
//! let x = random_tensor(&[1, 4, 16], 7, 0, DType::F32, &Device::Cpu)?;
//! let mut cache = layer.new_cache(1, Capacity::Exact(4))?;
//! layer.prefill(&x.narrow(1, 0, 3)?, &mut cache, Queries::Last(1))?;
//! let last = layer.decode(&x.narrow(1, 3, 1)?, &mut cache)?;
//! let all = layer.forward(&x, Queries::Last(1))?;
//! assert!((last - all)?.abs()?.max_all()?.to_scalar::<f32>()? < 1e-5);
//! # Ok::<(), attn_core::Error>(())
//! ```

use candle_core::Tensor;

use crate::cache::{Cache, Capacity};
use crate::cost::{Cost, Scope};
use crate::error::{Error, Result};
use crate::geometry::Geometry;
use crate::variant::Build;
use crate::workload::Workload;

/// Which tokens of a call are queries; all of them enter the cache.
///
/// ```
/// use attn_core::Queries;
///
/// assert_eq!(Queries::All.count(5)?, 5);
/// assert_eq!(Queries::Last(2).count(5)?, 2);
/// assert!(Queries::Last(6).count(5).is_err());
/// # Ok::<(), attn_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queries {
    /// Every token.
    All,
    /// The last so many: an encoder prefix is only keys and values, chunks and mixed batches have few queries.
    Last(usize),
}

impl Queries {
    /// The number of queries among `tokens`.
    ///
    /// # Errors
    /// [`Error::Shape`] where more queries than tokens are asked for, or none.
    pub fn count(self, tokens: usize) -> Result<usize> {
        match self {
            Self::All => Ok(tokens),
            Self::Last(n) if (1..=tokens).contains(&n) => Ok(n),
            Self::Last(n) => Err(Error::Shape {
                op: "queries",
                expected: format!("1 to {tokens} queries"),
                got: vec![n],
            }),
        }
    }
}

/// One attention layer: projections, RoPE, cache, attention and output projection.
///
/// Setup ([`new_cache`](Self::new_cache), [`fill`](Self::fill)), timed work ([`forward`](Self::forward),
/// [`prefill`](Self::prefill), [`decode`](Self::decode)) and bookkeeping are separate methods, so that a
/// clock can stand around the work alone. Only the timed three and two accessors are required: caches are
/// alike enough that [`Cache`] does the rest.
///
/// Positions are never passed: a sequence begins at 0 and continues at its cache's length, which is also
/// what MTLA's block phase needs. Left padding would shift both, so ragged batches are padded on the right
/// and carry lengths.
///
/// ```
/// use attn_core::grouped::GroupedConfig;
/// use attn_core::{Attention, Build, Capacity, Entry, LayerConfig, ModelDims, Params, Path, Values, Weights, random_tensor};
/// use candle_core::{DType, Device};
///
/// /// Any layer: two sequences that are decoded, change places, and are taken back.
/// fn swap(layer: &dyn Attention) -> attn_core::Result<()> {
///     let m = layer.geometry().d_model;
///     let mut cache = layer.new_cache(2, Capacity::Exact(8))?;
///     layer.fill(&mut cache, 4, 42)?; // four random tokens each, without a prompt
///     let x = random_tensor(&[2, 1, m], 7, 0, layer.build().dtype, &Device::Cpu)?;
///     assert_eq!(layer.decode(&x, &mut cache)?.dims(), [2, 1, m]);
///     layer.reorder(&mut cache, &[1, 0])?;
///     layer.rewind(&mut cache, 4)?;
///     assert_eq!(cache.lens(), [4, 4]);
///     Ok(())
/// }
///
/// let dims = ModelDims { d_model: 16, n_heads: 2, head_dim: 8 };
/// let entry = Entry::new(2, 8, Values::Own(8));
/// let config = GroupedConfig::new(&dims, entry, &Params::default())?;
/// let weights = Weights::seeded(&config.weight_specs(), 42)?;
/// swap(config.build(&weights, &Build::cpu(Path::Fused, DType::F32))?.as_ref())?;
/// # Ok::<(), attn_core::Error>(())
/// ```
pub trait Attention: Send + Sync {
    /// Sizes of the layer.
    fn geometry(&self) -> &Geometry;

    /// Path, element type and device the layer was built for.
    fn build(&self) -> &Build;

    /// Causal attention over whole sequences; gradients flow to the weights and to `x`.
    ///
    /// # Shapes
    /// - `x`: `[B, T, M]`, positions 0..T
    /// - returns `[B, n, M]`, the outputs of the last n tokens (`queries`)
    ///
    /// # Errors
    /// [`Error::Shape`] where `x` does not fit the geometry.
    fn forward(&self, x: &Tensor, queries: Queries) -> Result<Tensor>;

    /// Appends T tokens to every sequence of `cache` and attends from the last n of them.
    ///
    /// The cache may be empty or not; its sequences may differ in length.
    ///
    /// # Shapes
    /// - `x`: `[B, T, M]`, at positions L..L+T of each sequence
    /// - returns `[B, n, M]`
    ///
    /// # Errors
    /// [`Error::CacheFull`], [`Error::Shape`].
    fn prefill(&self, x: &Tensor, cache: &mut Cache, queries: Queries) -> Result<Tensor>;

    /// Appends one token to every sequence of `cache` and attends from it.
    ///
    /// # Shapes
    /// - `x`: `[B, 1, M]`
    /// - returns `[B, 1, M]`
    ///
    /// # Errors
    /// [`Error::CacheFull`], [`Error::Shape`].
    fn decode(&self, x: &Tensor, cache: &mut Cache) -> Result<Tensor>;

    /// An empty cache for `batch` sequences. What no token has been written to is NaN.
    ///
    /// # Errors
    /// [`Error::Candle`] where memory runs out.
    fn new_cache(&self, batch: usize, capacity: Capacity) -> Result<Cache> {
        Cache::new(self.geometry(), self.build(), batch, capacity)
    }

    /// [`prefill`](Self::prefill) where sequence b brings only `lens[b]` of the T tokens (padded on the right).
    ///
    /// # Shapes
    /// - `x`: `[B, T, M]`, rows from `lens[b]` on are ignored
    /// - returns `[B, T, M]`, rows from `lens[b]` on are zero
    ///
    /// # Errors
    /// As [`prefill`](Self::prefill), and [`Error::Shape`] where lengths do not fit.
    ///
    /// ```
    /// # use attn_core::grouped::GroupedConfig;
    /// # use attn_core::{Build, Capacity, Entry, LayerConfig, ModelDims, Params, Path, Values, Weights, random_tensor};
    /// # use candle_core::{DType, Device};
    /// # let dims = ModelDims { d_model: 16, n_heads: 2, head_dim: 8 };
    /// # let entry = Entry::new(2, 8, Values::Own(8));
    /// # let config = GroupedConfig::new(&dims, entry, &Params::default())?;
    /// # let weights = Weights::seeded(&config.weight_specs(), 42)?;
    /// # let layer = config.build(&weights, &Build::cpu(Path::Fused, DType::F32))?;
    /// let x = random_tensor(&[2, 5, 16], 7, 0, DType::F32, &Device::Cpu)?;
    /// let mut cache = layer.new_cache(2, Capacity::Exact(5))?;
    /// layer.prefill_ragged(&x, &[5, 3], &mut cache)?;
    /// assert_eq!(cache.lens(), [5, 3]);
    /// # Ok::<(), attn_core::Error>(())
    /// ```
    fn prefill_ragged(&self, x: &Tensor, lens: &[usize], cache: &mut Cache) -> Result<Tensor> {
        let (b, t, m) = x.dims3()?;
        if lens.len() != b || lens.iter().any(|&len| len > t) {
            return Err(Error::Shape {
                op: "prefill_ragged",
                expected: format!("{b} lengths of at most {t}"),
                got: lens.to_vec(),
            });
        }
        // Sequence by sequence: a prompt is compute bound, so that sharing the weights gains little.
        let mut parts = cache.split()?;
        let mut outputs = Vec::with_capacity(b);
        for (i, (part, &len)) in parts.iter_mut().zip(lens).enumerate() {
            let rows = match len {
                0 => Tensor::zeros((1, t, m), x.dtype(), x.device())?,
                _ => self
                    .prefill(&x.narrow(0, i, 1)?.narrow(1, 0, len)?, part, Queries::All)?
                    .pad_with_zeros(1, 0, t - len)?,
            };
            outputs.push(rows);
        }
        cache.join(&parts)?;
        Ok(Tensor::cat(&outputs, 0)?)
    }

    /// Makes sequence i of the cache what sequence `beams[i]` was.
    ///
    /// # Errors
    /// [`Error::Shape`] where a beam is out of range.
    fn reorder(&self, cache: &mut Cache, beams: &[usize]) -> Result<()> {
        cache.reorder(beams)
    }

    /// Gives every sequence `tokens` seeded random entries, so that a long context costs no prefill.
    ///
    /// # Errors
    /// [`Error::CacheFull`].
    fn fill(&self, cache: &mut Cache, tokens: usize, seed: u64) -> Result<()> {
        cache.fill(tokens, seed)
    }

    /// Takes every sequence back to `tokens`, the open slot included.
    ///
    /// # Errors
    /// [`Error::Rewind`] where an open slot of that length was not marked ([`Cache::mark`]).
    fn rewind(&self, cache: &mut Cache, tokens: usize) -> Result<()> {
        cache.rewind(tokens)
    }

    /// Useful operations and least bytes of a workload.
    fn cost(&self, workload: &Workload, scope: Scope) -> Cost {
        self.geometry()
            .cost(workload, scope, self.build().dtype.size_in_bytes())
    }
}
