//! The layer: one projection for keys and values, and one for the rope key.

use attn_core::linear::Linear;
use attn_core::rope::{Pairing, Rope};
use attn_core::{
    Attention, Build, Geometry, Habit, LayerConfig, ModelDims, Projected, ProjectionMacs, Projections,
    Result, SlotRows, WeightSpec, Weights,
};
use candle_core::Tensor;

use crate::cache::entry;

/// Sizes and settings of a GTA layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GtaConfig {
    /// Model width M, query heads H, head size D.
    pub dims: ModelDims,
    /// KV heads Hkv.
    pub n_kv_heads: usize,
    /// Rope size Dr.
    pub rope_dim: usize,
    /// Whether projections have biases.
    pub bias: bool,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
}

impl GtaConfig {
    /// Name, outputs and inputs of the projections, under the names of the authors' code.
    fn projections(&self) -> [(&'static str, usize, usize); 4] {
        let ModelDims {
            d_model: m,
            n_heads: h,
            head_dim: d,
        } = self.dims;
        [
            ("q_proj", h * d, m),
            ("kv_proj", self.n_kv_heads * d, m),
            ("W_rope_k", self.rope_dim, m),
            ("o_proj", m, h * d),
        ]
    }
}

impl LayerConfig for GtaConfig {
    fn geometry(&self) -> Geometry {
        let ModelDims {
            d_model,
            n_heads,
            head_dim,
        } = self.dims;
        let macs = ProjectionMacs {
            query: 2 * d_model * n_heads * head_dim,
            key: d_model * (self.n_kv_heads * head_dim + self.rope_dim),
        };
        Geometry {
            d_model,
            n_heads,
            n_kv_heads: self.n_kv_heads,
            score_dim: head_dim,
            v_dim: head_dim,
            stride: 1,
            window: None,
            entry: entry(self.n_kv_heads, head_dim, self.rope_dim),
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
        let projections = GtaProjections::new(self, weights, build)?;
        Ok(Box::new(Projected::new(self.geometry(), build, projections)))
    }
}

/// Grouped-tied attention on either path.
pub type Gta = Projected<GtaProjections>;

/// The projections of GTA.
#[derive(Debug)]
pub struct GtaProjections {
    config: GtaConfig,
    q_proj: Linear,
    kv_proj: Linear,
    rope_k: Linear,
    o_proj: Linear,
    rope: Rope,
}

impl GtaProjections {
    fn new(config: &GtaConfig, weights: &Weights, build: &Build) -> Result<Self> {
        let weights = weights.for_build(build)?;
        let [q_proj, kv_proj, rope_k, o_proj] = config
            .projections()
            .map(|(name, out, input)| Linear::load(name, out, input, config.bias, &weights));
        Ok(Self {
            config: *config,
            q_proj: q_proj?,
            kv_proj: kv_proj?,
            rope_k: rope_k?,
            o_proj: o_proj?,
            rope: Rope::new(config.rope_dim, config.rope_theta, Pairing::default())?
                .anew(build.has(Habit::DenseMask)),
        })
    }
}

impl Projections for GtaProjections {
    fn queries(&self, x: &Tensor, starts: &[usize]) -> Result<Tensor> {
        let (b, t, _) = x.dims3()?;
        let ModelDims {
            n_heads, head_dim, ..
        } = self.config.dims;
        let q = self.q_proj.forward(x)?.reshape((b, t, n_heads, head_dim))?;
        self.rope.apply(&q, starts) // the last Dr columns
    }

    fn slots(&self, x: &Tensor, starts: &[usize]) -> Result<SlotRows> {
        let (b, t, _) = x.dims3()?;
        let heads = (b, t, self.config.n_kv_heads, self.config.dims.head_dim);
        let k_r = self.rope_k.forward(x)?.unsqueeze(2)?; // [B, T, 1, Dr]
        Ok(SlotRows {
            keys: self.kv_proj.forward(x)?.reshape(heads)?.transpose(1, 2)?,
            values: None,
            tail: Some(self.rope.apply(&k_r, starts)?.transpose(1, 2)?),
        })
    }

    fn output(&self, heads: &Tensor) -> Result<Tensor> {
        let (b, n, h, d) = heads.dims4()?;
        self.o_proj.forward(&heads.reshape((b, n, h * d))?)
    }
}
