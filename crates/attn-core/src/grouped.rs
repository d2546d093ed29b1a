//! Attention over keys and values of their own: MHA, GQA and MQA are one layer with different Hkv.
//!
//! ```
//! use attn_core::grouped::GroupedConfig;
//! use attn_core::{Entry, LayerConfig, ModelDims, Params, Values};
//!
//! let dims = ModelDims { d_model: 512, n_heads: 8, head_dim: 64 };
//! let elements = |heads| -> attn_core::Result<usize> {
//!     let entry = Entry { heads, key: 64, values: Values::Own(64) };
//!     Ok(GroupedConfig::new(&dims, entry, &Params::default())?.geometry().entry.elements())
//! };
//! assert_eq!((elements(8)?, elements(2)?, elements(1)?), (1024, 256, 128)); // MHA, GQA, MQA
//! # Ok::<(), attn_core::Error>(())
//! ```

use candle_core::Tensor;

use crate::attention::{Attention, Queries};
use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::geometry::{Entry, Geometry, ProjectionMacs};
use crate::habits::{Habit, Habits};
use crate::linear::Linear;
use crate::ops::cuda::{GroupedStep, GroupedToken};
use crate::ops::{self, AttendInput, DecodeInput, Entries};
use crate::phase::{Phase, timed};
use crate::pool::in_pool;
use crate::rope::{Pairing, Rope};
use crate::variant::{Build, LayerConfig, ModelDims, ParamKind, ParamSpec, Params};
use crate::weights::{WeightSpec, Weights};

/// The settings MHA, GQA and MQA share.
///
/// ```
/// use attn_core::grouped::GROUPED_PARAMS;
///
/// let names: Vec<&str> = GROUPED_PARAMS.iter().map(|spec| spec.name).collect();
/// assert_eq!(names, ["bias", "rope_theta"]);
/// assert!(GROUPED_PARAMS.iter().all(|spec| !spec.is_required()));
/// ```
pub const GROUPED_PARAMS: [ParamSpec; 2] = [
    ParamSpec {
        name: "bias",
        kind: ParamKind::Bool,
        default: "true",
        help: "whether projections have biases",
        symbol: "",
    },
    ParamSpec {
        name: "rope_theta",
        kind: ParamKind::Float,
        default: "10000",
        help: "base of the rotary embedding",
        symbol: "",
    },
];

/// Sizes and settings of a layer whose keys and values are projected directly.
///
/// ```
/// use attn_core::grouped::GroupedConfig;
/// use attn_core::{Entry, ModelDims, Params, Values};
///
/// let dims = ModelDims { d_model: 64, n_heads: 4, head_dim: 16 };
/// let entry = |heads| Entry { heads, key: 16, values: Values::Own(16) };
/// assert!(GroupedConfig::new(&dims, entry(2), &Params::default()).is_ok());
/// // Three keys cannot be shared evenly by four heads.
/// let error = GroupedConfig::new(&dims, entry(3), &Params::default()).unwrap_err();
/// assert!(error.to_string().contains("n_heads must be a multiple of n_kv_heads"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupedConfig {
    /// Model width M, query heads H, head size D.
    pub dims: ModelDims,
    /// What one cache slot holds; its KV heads Hkv are a divisor of H.
    pub entry: Entry,
    /// Whether projections have biases.
    pub bias: bool,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
    /// Which elements it pairs.
    pub rope_pairing: Pairing,
}

impl GroupedConfig {
    /// The layer whose cache holds `entry` a slot, with the settings `bias` and `rope_theta` of `params`.
    ///
    /// # Errors
    /// [`Error::Geometry`] where H is no multiple of Hkv, or the head size is odd.
    pub fn new(dims: &ModelDims, entry: Entry, params: &Params) -> Result<Self> {
        let n_kv_heads = entry.heads;
        if n_kv_heads == 0 || dims.n_heads % n_kv_heads != 0 {
            return Err(Error::geometry(
                &["n_heads", "n_kv_heads"],
                format!(
                    "{} query heads cannot share {n_kv_heads} KV heads evenly, n_heads must be a multiple of n_kv_heads",
                    dims.n_heads
                ),
            ));
        }
        if dims.head_dim % 2 != 0 {
            return Err(Error::geometry(
                &["head_dim"],
                format!(
                    "rope turns pairs of elements, so head_dim {} must be even",
                    dims.head_dim
                ),
            ));
        }
        Ok(Self {
            dims: *dims,
            entry,
            bias: params.bool("bias", true)?,
            rope_theta: params.float("rope_theta", 10_000.0)?,
            rope_pairing: Pairing::default(),
        })
    }

    fn projections(&self) -> [(&'static str, usize, usize); 4] {
        let ModelDims {
            d_model: m,
            n_heads: h,
            head_dim: d,
        } = self.dims;
        let h_kv = self.entry.heads;
        [
            ("q_proj", h * d, m),
            ("k_proj", h_kv * d, m),
            ("v_proj", h_kv * d, m),
            ("out_proj", m, h * d),
        ]
    }
}

impl LayerConfig for GroupedConfig {
    fn geometry(&self) -> Geometry {
        let ModelDims {
            d_model,
            n_heads,
            head_dim,
        } = self.dims;
        let macs = ProjectionMacs {
            query: 2 * d_model * n_heads * head_dim,
            key: 2 * d_model * self.entry.heads * head_dim,
        };
        Geometry {
            d_model,
            n_heads,
            n_kv_heads: self.entry.heads,
            score_dim: head_dim,
            v_dim: head_dim,
            stride: 1,
            entry: self.entry,
            state_elements: 0,
            parameters: self.weight_specs().iter().map(WeightSpec::elements).sum(),
            forward_macs: macs,
            decode_macs: macs,
        }
    }

    fn weight_specs(&self) -> Vec<WeightSpec> {
        self.projections()
            .iter()
            .flat_map(|&(name, out, input)| Linear::specs(name, out, input, self.bias))
            .collect()
    }

    fn build(&self, weights: &Weights, build: &Build) -> Result<Box<dyn Attention>> {
        Ok(Box::new(GroupedAttention::new(*self, weights, build)?))
    }
}

/// A layer over keys and values of their own, on either path.
///
/// ```
/// use attn_core::grouped::{GroupedAttention, GroupedConfig};
/// use attn_core::{Attention, Build, Entry, LayerConfig, ModelDims, Params, Path, Queries, Values, Weights, random_tensor};
/// use candle_core::{DType, Device};
///
/// let dims = ModelDims { d_model: 32, n_heads: 4, head_dim: 8 };
/// let config = GroupedConfig::new(&dims, Entry { heads: 1, key: 8, values: Values::Own(8) }, &Params::default())?;
/// let weights = Weights::seeded(&config.weight_specs(), 42)?;
/// let x = random_tensor(&[1, 6, 32], 7, 0, DType::F64, &Device::Cpu)?;
/// // Both formulations of the same layer.
/// let [fused, seedlike] = [Path::Fused, Path::Seedlike].map(|path| {
///     GroupedAttention::new(config, &weights, &Build::cpu(path, DType::F64))?.forward(&x, Queries::All)
/// });
/// assert!((fused? - seedlike?)?.abs()?.max_all()?.to_scalar::<f64>()? < 1e-12);
/// # Ok::<(), attn_core::Error>(())
/// ```
#[derive(Debug)]
pub struct GroupedAttention {
    geometry: Geometry,
    build: Build,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    rope: Rope,
    head_dim: usize,
    scale: f64,
}

impl GroupedAttention {
    /// The layer over the given weights.
    ///
    /// # Errors
    /// A weight is missing or misshapen, or the path is not defined for the dtype.
    pub fn new(config: GroupedConfig, weights: &Weights, build: &Build) -> Result<Self> {
        let weights = weights.for_build(build)?;
        let [q_proj, k_proj, v_proj, out_proj] = config
            .projections()
            .map(|(name, out, input)| Linear::load(name, out, input, config.bias, &weights));
        let head_dim = config.dims.head_dim;
        Ok(Self {
            geometry: config.geometry(),
            build: build.clone(),
            q_proj: q_proj?,
            k_proj: k_proj?,
            v_proj: v_proj?,
            out_proj: out_proj?,
            rope: Rope::new(head_dim, config.rope_theta, config.rope_pairing)?
                .anew(build.has(Habit::DenseMask)),
            head_dim,
            scale: (head_dim as f64).powf(-0.5),
        })
    }

    /// Queries of the last `n` tokens, `[B, n, H, D]`; `starts` are the positions of `x`'s first tokens.
    fn queries(&self, x: &Tensor, n: usize, starts: &[usize]) -> Result<Tensor> {
        let (b, t, _) = x.dims3()?;
        let q = self.q_proj.forward(&x.narrow(1, t - n, n)?)?;
        let q = q.reshape((b, n, self.geometry.n_heads, self.head_dim))?;
        let starts: Vec<usize> = starts.iter().map(|start| start + t - n).collect();
        self.rope.apply(&q, &starts)
    }

    /// Keys (turned) and values of all tokens, `[B, T, Hkv, D]` each.
    fn keys_values(&self, x: &Tensor, starts: &[usize]) -> Result<(Tensor, Tensor)> {
        let (b, t, _) = x.dims3()?;
        let heads = (b, t, self.geometry.n_kv_heads, self.head_dim);
        let k = self
            .rope
            .apply(&self.k_proj.forward(x)?.reshape(heads)?, starts)?;
        let v = self.v_proj.forward(x)?.reshape(heads)?;
        Ok((k, v))
    }

    /// Attention of queries at `start..` over keys from the sequence's beginning.
    fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor, start: usize) -> Result<Tensor> {
        let (k, v) = (k.transpose(1, 2)?, v.transpose(1, 2)?); // [B, Hkv, L, D]
        let (k, v) = (self.heads_of(&k)?, self.heads_of(&v)?);
        if self.build.has(Habit::DenseMask) {
            let (n, l) = (q.dim(1)?, k.dim(2)?);
            let mask = ops::seedlike::dense_mask(l, |i, j| j <= i, q.dtype(), q.device())?;
            let mask = mask.narrow(0, start, n)?;
            let q = q.transpose(1, 2)?;
            return Ok(ops::seedlike::dense_attention(&q, &k, &v, Some(&mask), self.scale)?.transpose(1, 2)?);
        }
        ops::attend(&AttendInput {
            q,
            closed: Some(Entries::Apart {
                k: &k.transpose(1, 2)?,
                v: &v.transpose(1, 2)?,
            }),
            own: None,
            start,
            stride: 1,
            scale: self.scale,
        })
    }

    /// Keys or values `[B, Hkv, L, D]` of as many heads as attention is given: repeated where that is a habit.
    fn heads_of(&self, x: &Tensor) -> Result<Tensor> {
        match self.build.has(Habit::Expand) {
            true => ops::seedlike::expand_heads(x, self.geometry.n_heads),
            false => Ok(x.clone()),
        }
    }

    /// Attention of one query per sequence `[B, H, D]` over the cache.
    fn attend_cached(&self, q: &Tensor, cache: &Cache) -> Result<Tensor> {
        let is_dense = self.build.has(Habit::DenseMask);
        if !is_dense && !self.build.has(Habit::Expand) {
            return ops::decode_cached(q, cache, self.scale);
        }
        timed(Phase::Attention, || {
            cache.check_unshared("attention in the seed's way")?;
            let slots = cache.slots();
            let (k, v) = cache.first(slots.iter().max().copied().unwrap_or(0))?;
            let v = v.ok_or_else(|| Error::Shape {
                op: "attention",
                expected: "values of their own".to_string(),
                got: k.dims().to_vec(),
            })?;
            let (k, v) = (self.heads_of(&k)?, self.heads_of(&v)?);
            if is_dense {
                let q = q.unsqueeze(2)?;
                return Ok(ops::seedlike::dense_attention(&q, &k, &v, None, self.scale)?.squeeze(2)?);
            }
            ops::decode(&DecodeInput {
                q,
                keys: &k,
                values: Some(&v),
                layout: self.geometry.entry.values,
                slots: &slots,
                scale: self.scale,
            })
        })
    }

    /// Decodes one token `[B, 1, M]` of every sequence on a GPU, by kernels that have lengths there; `None`, and nothing
    /// done, off GPUs, and where the step is to be composed.
    fn step(&self, x: &Tensor, cache: &mut Cache) -> Result<Option<Tensor>> {
        if self.build.habits != Habits::NONE || cache.shared().is_some() {
            return Ok(None);
        }
        let Some(step) = GroupedStep::of(x, self.geometry.n_heads, &self.rope, cache) else {
            return Ok(None);
        };
        let [q, k, v] = [&self.q_proj, &self.k_proj, &self.v_proj].map(|projection| projection.forward(x));
        let (q, k, v) = (q?, k?, v?);
        let heads = step.run(
            &GroupedToken {
                qkv: [&q, &k, &v],
                rope: &self.rope,
                scale: self.scale,
            },
            cache,
        )?;
        heads.map(|heads| self.output(&heads)).transpose()
    }

    /// Output projection of `[B, n, H, D]`.
    fn output(&self, heads: &Tensor) -> Result<Tensor> {
        let (b, n, h, d) = heads.dims4()?;
        self.out_proj.forward(&heads.reshape((b, n, h * d))?)
    }

    /// Writes keys and values `[B, T, Hkv, D]` to the slots from `starts` on.
    fn store(&self, cache: &mut Cache, starts: &[usize], k: &Tensor, v: &Tensor) -> Result<()> {
        cache.write(starts, &k.transpose(1, 2)?, Some(&v.transpose(1, 2)?))?;
        cache.advance(k.dim(1)?);
        Ok(())
    }
}

impl Attention for GroupedAttention {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn build(&self) -> &Build {
        &self.build
    }

    fn forward(&self, x: &Tensor, queries: Queries) -> Result<Tensor> {
        in_pool(|| {
            let (b, t, _) = self.geometry.check_input(x)?;
            let n = queries.count(t)?;
            let starts = vec![0; b];
            let q = self.queries(x, n, &starts)?;
            let (k, v) = self.keys_values(x, &starts)?;
            self.output(&self.attend(&q, &k, &v, t - n)?)
        })
    }

    fn prefill(&self, x: &Tensor, cache: &mut Cache, queries: Queries) -> Result<Tensor> {
        in_pool(|| {
            let (b, t, _) = self.geometry.check_input(x)?;
            let n = queries.count(t)?;
            cache.check_batch(b)?;
            cache.check_unshared("a prompt")?;
            let Some(past) = cache.uniform_len() else {
                return cache.each_sequence(x, |x, cache| self.prefill(x, cache, queries));
            };
            let starts = cache.lens().to_vec();
            let q = self.queries(x, n, &starts)?;
            let (k, v) = self.keys_values(x, &starts)?;
            self.store(cache, &starts, &k, &v)?;
            let (k, v) = match past {
                0 => (k, v),
                _ => (
                    cache.keys().narrow(2, 0, past + t)?.transpose(1, 2)?,
                    cache.own_values()?.narrow(2, 0, past + t)?.transpose(1, 2)?,
                ),
            };
            self.output(&self.attend(&q, &k, &v, past + t - n)?)
        })
    }

    fn decode(&self, x: &Tensor, cache: &mut Cache) -> Result<Tensor> {
        in_pool(|| {
            let (b, _, _) = self.geometry.check_step(x)?;
            cache.check_batch(b)?;
            if self.build.has(Habit::DenseMask) && cache.uniform_len().is_none() {
                return cache.each_sequence(x, |x, cache| self.decode(x, cache)); // the seed has no ragged batches
            }
            if let Some(y) = self.step(x, cache)? {
                return Ok(y);
            }
            let starts = cache.lens().to_vec();
            let projected = timed(Phase::Projections, || -> Result<_> {
                Ok((self.queries(x, 1, &starts)?, self.keys_values(x, &starts)?))
            });
            let (q, (k, v)) = projected?;
            timed(Phase::CacheUpdate, || self.store(cache, &starts, &k, &v))?;
            let heads = self.attend_cached(&q.squeeze(1)?, cache)?;
            timed(Phase::Projections, || self.output(&heads.unsqueeze(1)?))
        })
    }
}
