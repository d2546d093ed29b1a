//! The layer: one projection for keys and values, and one for the rope key.

use attn_core::linear::{Linear, LinearSpec};
use attn_core::rope::{Pairing, Rope};
use attn_core::{
    Attention, Build, Geometry, LayerConfig, ModelDims, Projected, Projections, Result, SlotRows, WeightSpec,
    Weights,
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
    /// Under the names of the authors' code.
    fn linears(&self) -> [LinearSpec; 4] {
        let ModelDims {
            d_model: m,
            n_heads: h,
            head_dim: d,
        } = self.dims;
        [
            LinearSpec::of_query("q_proj", h * d, m),
            LinearSpec::of_slot("kv_proj", self.n_kv_heads * d, m),
            LinearSpec::of_slot("W_rope_k", self.rope_dim, m),
            LinearSpec::of_query("o_proj", m, h * d),
        ]
        .map(|linear| linear.with_bias(self.bias))
    }
}

impl LayerConfig for GtaConfig {
    fn geometry(&self) -> Geometry {
        let entry = entry(self.n_kv_heads, self.dims.head_dim, self.rope_dim);
        Geometry::of(&self.dims, entry, &self.linears())
    }

    fn weight_specs(&self) -> Vec<WeightSpec> {
        LinearSpec::weights(&self.linears())
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
        let [q_proj, kv_proj, rope_k, o_proj] = LinearSpec::load_all(config.linears(), weights, build)?;
        Ok(Self {
            config: *config,
            q_proj,
            kv_proj,
            rope_k,
            o_proj,
            rope: Rope::new(config.rope_dim, config.rope_theta, Pairing::default())?.for_build(build),
        })
    }
}

impl Projections for GtaProjections {
    fn queries(&self, x: &Tensor, starts: &[usize]) -> Result<Tensor> {
        let q = self.q_proj.to_heads(x, self.config.dims.n_heads)?;
        self.rope.apply(&q, starts) // the last Dr columns
    }

    fn slots(&self, x: &Tensor, starts: &[usize]) -> Result<SlotRows> {
        let states = self.kv_proj.to_heads(x, self.config.n_kv_heads)?;
        let k_r = self.rope.apply(&self.rope_k.to_heads(x, 1)?, starts)?; // [B, T, 1, Dr]
        Ok(SlotRows {
            keys: states.transpose(1, 2)?,
            values: None,
            tail: Some(k_r.transpose(1, 2)?),
        })
    }

    fn output(&self, heads: &Tensor) -> Result<Tensor> {
        self.o_proj.from_heads(heads)
    }
}
