//! The layer: how tokens become queries and slots, and heads an output. Cache, paths and kernels are taken care of.

use attn_core::linear::{Linear, LinearSpec};
use attn_core::rope::{Pairing, Rope};
use attn_core::{
    Attention, Build, Error, Geometry, LayerConfig, ModelDims, Projected, Projections, Result, SlotRows,
    WeightSpec, Weights,
};
use candle_core::Tensor;

use crate::cache::entry;

/// Sizes and settings of a layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SkeletonConfig {
    /// Model width M, heads H, head size D.
    pub dims: ModelDims,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
}

impl SkeletonConfig {
    /// Unwritten: these are MHA's.
    fn linears(&self) -> [LinearSpec; 4] {
        let (m, width) = (self.dims.d_model, self.dims.n_heads * self.dims.head_dim);
        [
            LinearSpec::of_query("q_proj", width, m),
            LinearSpec::of_slot("k_proj", width, m),
            LinearSpec::of_slot("v_proj", width, m),
            LinearSpec::of_query("out_proj", m, width),
        ]
    }
}

impl LayerConfig for SkeletonConfig {
    fn geometry(&self) -> Geometry {
        let entry = entry(self.dims.n_heads, self.dims.head_dim);
        Geometry::of(&self.dims, entry, &self.linears())
    }

    fn weight_specs(&self) -> Vec<WeightSpec> {
        LinearSpec::weights(&self.linears())
    }

    fn build(&self, weights: &Weights, build: &Build) -> Result<Box<dyn Attention>> {
        let [q_proj, k_proj, v_proj, out_proj] = LinearSpec::load_all(self.linears(), weights, build)?;
        let projections = SkeletonProjections {
            n_heads: self.dims.n_heads,
            q_proj,
            k_proj,
            v_proj,
            out_proj,
            rope: Rope::new(self.dims.head_dim, self.rope_theta, Pairing::default())?.for_build(build),
        };
        Ok(Box::new(Projected::new(self.geometry(), build, projections)))
    }
}

/// The projections; [`Projected`] makes a layer of them, on either path.
#[derive(Debug)]
pub struct SkeletonProjections {
    n_heads: usize,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    rope: Rope,
}

impl Projections for SkeletonProjections {
    fn queries(&self, x: &Tensor, starts: &[usize]) -> Result<Tensor> {
        let q = self.q_proj.to_heads(x, self.n_heads)?;
        let _turned = self.rope.apply(&q, starts)?;
        unwritten("queries [B, T, H, Dk], turned to their positions")
    }

    fn slots(&self, x: &Tensor, _starts: &[usize]) -> Result<SlotRows> {
        let [_k, _v] = [&self.k_proj, &self.v_proj].map(|linear| linear.to_heads(x, self.n_heads));
        unwritten("slots as src/cache.rs has them, keys turned")
    }

    fn output(&self, heads: &Tensor) -> Result<Tensor> {
        self.out_proj.from_heads(heads)
    }
}

/// What the suite finds until the formula is here.
fn unwritten<T>(what: &str) -> Result<T> {
    Err(Error::Unsupported {
        what: format!("skeleton without its {what},"),
        remedy: "write it in src/forward.rs".to_string(),
    })
}
