//! Attention over keys and values of their own: MHA, GQA and MQA are one layer with different Hkv.
//!
//! ```
//! use attn_core::grouped::GroupedConfig;
//! use attn_core::{Entry, LayerConfig, ModelDims, Params, Values};
//!
//! let dims = ModelDims { d_model: 512, n_heads: 8, head_dim: 64 };
//! let elements = |heads| -> attn_core::Result<usize> {
//!     let entry = Entry::new(heads, 64, Values::Own(64));
//!     Ok(GroupedConfig::new(&dims, entry, &Params::default())?.geometry().entry.elements())
//! };
//! assert_eq!((elements(8)?, elements(2)?, elements(1)?), (1024, 256, 128)); // MHA, GQA, MQA
//! # Ok::<(), attn_core::Error>(())
//! ```

use candle_core::Tensor;

use crate::attention::Attention;
use crate::cache::{Cache, SlotRows};
use crate::error::Result;
use crate::geometry::{Entry, Geometry};
use crate::linear::{Linear, LinearSpec};
use crate::ops::cuda::{GroupedStep, GroupedToken};
use crate::projected::{Projected, Projections};
use crate::rope::{Pairing, Rope};
use crate::settings::{BIAS, ROPE_THETA, bias, check_kv_heads, check_rope, rope_theta};
use crate::variant::{Build, LayerConfig, ModelDims, ParamSpec, Params};
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
pub const GROUPED_PARAMS: [ParamSpec; 2] = [BIAS, ROPE_THETA];

/// Sizes and settings of a layer whose keys and values are projected directly.
///
/// ```
/// use attn_core::grouped::GroupedConfig;
/// use attn_core::{Entry, ModelDims, Params, Values};
///
/// let dims = ModelDims { d_model: 64, n_heads: 4, head_dim: 16 };
/// let entry = |heads| Entry::new(heads, 16, Values::Own(16));
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
    /// Tokens that a query sees at most, its own among them.
    pub window: Option<usize>,
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
    /// [`Error::Geometry`](crate::Error::Geometry) where H is no multiple of Hkv, or the head size is odd.
    pub fn new(dims: &ModelDims, entry: Entry, params: &Params) -> Result<Self> {
        check_kv_heads(dims, entry.heads)?;
        check_rope("head_dim", dims.head_dim)?;
        Ok(Self {
            dims: *dims,
            entry,
            window: None,
            bias: bias(params)?,
            rope_theta: rope_theta(params)?,
            rope_pairing: Pairing::default(),
        })
    }

    fn linears(&self) -> [LinearSpec; 4] {
        let ModelDims {
            d_model: m,
            n_heads: h,
            head_dim: d,
        } = self.dims;
        let h_kv = self.entry.heads;
        [
            LinearSpec::of_query("q_proj", h * d, m),
            LinearSpec::of_slot("k_proj", h_kv * d, m),
            LinearSpec::of_slot("v_proj", h_kv * d, m),
            LinearSpec::of_query("out_proj", m, h * d),
        ]
        .map(|linear| linear.with_bias(self.bias))
    }
}

impl LayerConfig for GroupedConfig {
    fn geometry(&self) -> Geometry {
        Geometry {
            window: self.window,
            ..Geometry::of(&self.dims, self.entry, &self.linears())
        }
    }

    fn weight_specs(&self) -> Vec<WeightSpec> {
        LinearSpec::weights(&self.linears())
    }

    fn build(&self, weights: &Weights, build: &Build) -> Result<Box<dyn Attention>> {
        let projections = GroupedProjections::new(self, weights, build)?;
        Ok(Box::new(Projected::new(self.geometry(), build, projections)))
    }
}

/// A layer over keys and values of their own, on either path.
///
/// ```
/// use attn_core::grouped::GroupedConfig;
/// use attn_core::{Build, Entry, LayerConfig, ModelDims, Params, Path, Queries, Values, Weights, random_tensor};
/// use candle_core::{DType, Device};
///
/// let dims = ModelDims { d_model: 32, n_heads: 4, head_dim: 8 };
/// let config = GroupedConfig::new(&dims, Entry::new(1, 8, Values::Own(8)), &Params::default())?;
/// let weights = Weights::seeded(&config.weight_specs(), 42)?;
/// let x = random_tensor(&[1, 6, 32], 7, 0, DType::F64, &Device::Cpu)?;
/// // Both formulations of the same layer, a `GroupedAttention`.
/// let [fused, seedlike] = [Path::Fused, Path::Seedlike].map(|path| {
///     config.build(&weights, &Build::cpu(path, DType::F64))?.forward(&x, Queries::All)
/// });
/// assert!((fused? - seedlike?)?.abs()?.max_all()?.to_scalar::<f64>()? < 1e-12);
/// # Ok::<(), attn_core::Error>(())
/// ```
pub type GroupedAttention = Projected<GroupedProjections>;

/// The projections of MHA, GQA and MQA: keys and values are what the cache holds.
///
/// ```
/// use attn_core::grouped::{GroupedConfig, GroupedProjections};
/// use attn_core::{Build, Entry, LayerConfig, ModelDims, Params, Path, Projections, Values, Weights, random_tensor};
/// use candle_core::{DType, Device};
///
/// let dims = ModelDims { d_model: 32, n_heads: 4, head_dim: 8 };
/// let config = GroupedConfig::new(&dims, Entry::new(2, 8, Values::Own(8)), &Params::default())?;
/// let weights = Weights::seeded(&config.weight_specs(), 42)?;
/// let projections = GroupedProjections::new(&config, &weights, &Build::cpu(Path::Fused, DType::F32))?;
/// let x = random_tensor(&[1, 6, 32], 7, 0, DType::F32, &Device::Cpu)?;
/// assert_eq!(projections.queries(&x, &[0])?.dims(), [1, 6, 4, 8]);
/// assert_eq!(projections.slots(&x, &[0])?.keys.dims(), [1, 2, 6, 8]);
/// # Ok::<(), attn_core::Error>(())
/// ```
#[derive(Debug)]
pub struct GroupedProjections {
    n_heads: usize,
    n_kv_heads: usize,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    rope: Rope,
}

impl GroupedProjections {
    /// The projections over the given weights.
    ///
    /// # Errors
    /// A weight is missing or misshapen, or the path is not defined for the dtype.
    pub fn new(config: &GroupedConfig, weights: &Weights, build: &Build) -> Result<Self> {
        let [q_proj, k_proj, v_proj, out_proj] = LinearSpec::load_all(config.linears(), weights, build)?;
        Ok(Self {
            n_heads: config.dims.n_heads,
            n_kv_heads: config.entry.heads,
            q_proj,
            k_proj,
            v_proj,
            out_proj,
            rope: Rope::new(config.dims.head_dim, config.rope_theta, config.rope_pairing)?.for_build(build),
        })
    }
}

impl Projections for GroupedProjections {
    fn queries(&self, x: &Tensor, starts: &[usize]) -> Result<Tensor> {
        self.rope.apply(&self.q_proj.to_heads(x, self.n_heads)?, starts)
    }

    fn slots(&self, x: &Tensor, starts: &[usize]) -> Result<SlotRows> {
        let k = self
            .rope
            .apply(&self.k_proj.to_heads(x, self.n_kv_heads)?, starts)?;
        let v = self.v_proj.to_heads(x, self.n_kv_heads)?;
        Ok(SlotRows::keys_values(k.transpose(1, 2)?, v.transpose(1, 2)?)) // [B, Hkv, T, D]
    }

    fn output(&self, heads: &Tensor) -> Result<Tensor> {
        self.out_proj.from_heads(heads)
    }

    fn step(&self, x: &Tensor, cache: &mut Cache, scale: f64) -> Result<Option<Tensor>> {
        let Some(step) = GroupedStep::of(x, self.n_heads, &self.rope, cache) else {
            return Ok(None);
        };
        let [q, k, v] = [&self.q_proj, &self.k_proj, &self.v_proj].map(|projection| projection.forward(x));
        let (q, k, v) = (q?, k?, v?);
        let heads = step.run(
            &GroupedToken {
                qkv: [&q, &k, &v],
                rope: &self.rope,
                scale,
            },
            cache,
        )?;
        heads.map(|heads| self.output(&heads)).transpose()
    }
}
