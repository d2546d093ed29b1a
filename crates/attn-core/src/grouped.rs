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
use crate::error::{Error, Result};
use crate::geometry::{Entry, Geometry, ProjectionMacs};
use crate::habits::Habit;
use crate::linear::Linear;
use crate::ops::cuda::{GroupedStep, GroupedToken};
use crate::projected::{Projected, Projections};
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
            window: None,
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
            window: self.window,
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
    head_dim: usize,
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
        let weights = weights.for_build(build)?;
        let [q_proj, k_proj, v_proj, out_proj] = config
            .projections()
            .map(|(name, out, input)| Linear::load(name, out, input, config.bias, &weights));
        let head_dim = config.dims.head_dim;
        Ok(Self {
            n_heads: config.dims.n_heads,
            n_kv_heads: config.entry.heads,
            head_dim,
            q_proj: q_proj?,
            k_proj: k_proj?,
            v_proj: v_proj?,
            out_proj: out_proj?,
            rope: Rope::new(head_dim, config.rope_theta, config.rope_pairing)?
                .anew(build.has(Habit::DenseMask)),
        })
    }
}

impl Projections for GroupedProjections {
    fn queries(&self, x: &Tensor, starts: &[usize]) -> Result<Tensor> {
        let (b, t, _) = x.dims3()?;
        let q = self
            .q_proj
            .forward(x)?
            .reshape((b, t, self.n_heads, self.head_dim))?;
        self.rope.apply(&q, starts)
    }

    fn slots(&self, x: &Tensor, starts: &[usize]) -> Result<SlotRows> {
        let (b, t, _) = x.dims3()?;
        let heads = (b, t, self.n_kv_heads, self.head_dim);
        let k = self.k_proj.forward(x)?.reshape(heads)?;
        let k = self.rope.apply(&k, starts)?.transpose(1, 2)?; // [B, Hkv, T, D]
        let v = self.v_proj.forward(x)?.reshape(heads)?.transpose(1, 2)?;
        Ok(SlotRows::keys_values(k, v))
    }

    fn output(&self, heads: &Tensor) -> Result<Tensor> {
        let (b, n, h, d) = heads.dims4()?;
        self.out_proj.forward(&heads.reshape((b, n, h * d))?)
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
