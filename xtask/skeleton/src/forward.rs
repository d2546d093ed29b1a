//! The layer: how tokens become queries and slots, and heads an output. Cache, paths and kernels are taken care of.

use attn_core::linear::Linear;
use attn_core::rope::{Pairing, Rope};
use attn_core::{
    Attention, Build, Error, Geometry, Habit, LayerConfig, ModelDims, Projected, ProjectionMacs, Projections,
    Result, SlotRows, WeightSpec, Weights,
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
    /// Name, outputs and inputs of the projections. Unwritten: these are MHA's.
    fn projections(&self) -> [(&'static str, usize, usize); 4] {
        let (m, width) = (self.dims.d_model, self.dims.n_heads * self.dims.head_dim);
        [
            ("q_proj", width, m),
            ("k_proj", width, m),
            ("v_proj", width, m),
            ("out_proj", m, width),
        ]
    }
}

impl LayerConfig for SkeletonConfig {
    fn geometry(&self) -> Geometry {
        let ModelDims {
            d_model,
            n_heads,
            head_dim,
        } = self.dims;
        // Unwritten: multiply-adds a token of queries and outputs, and of what enters the cache.
        let macs = ProjectionMacs {
            query: 2 * d_model * n_heads * head_dim,
            key: 2 * d_model * n_heads * head_dim,
        };
        Geometry {
            d_model,
            n_heads,
            n_kv_heads: n_heads,
            score_dim: head_dim,
            v_dim: head_dim,
            stride: 1,
            window: None,
            entry: entry(n_heads, head_dim),
            state_elements: 0,
            parameters: self.weight_specs().iter().map(WeightSpec::elements).sum(),
            forward_macs: macs,
            decode_macs: macs,
        }
    }

    fn weight_specs(&self) -> Vec<WeightSpec> {
        self.projections()
            .iter()
            .flat_map(|&(name, out, input)| Linear::specs(name, out, input, false))
            .collect()
    }

    fn build(&self, weights: &Weights, build: &Build) -> Result<Box<dyn Attention>> {
        let projections = SkeletonProjections::new(self, weights, build)?;
        Ok(Box::new(Projected::new(self.geometry(), build, projections)))
    }
}

/// The layer on either path.
pub type Skeleton = Projected<SkeletonProjections>;

/// Its projections.
#[derive(Debug)]
pub struct SkeletonProjections {
    dims: ModelDims,
    /// Queries, keys, values and outputs.
    linears: [Linear; 4],
    rope: Rope,
}

impl SkeletonProjections {
    fn new(config: &SkeletonConfig, weights: &Weights, build: &Build) -> Result<Self> {
        let weights = weights.for_build(build)?;
        let [q, k, v, out] = config
            .projections()
            .map(|(name, out, input)| Linear::load(name, out, input, false, &weights));
        Ok(Self {
            dims: config.dims,
            linears: [q?, k?, v?, out?],
            rope: Rope::new(config.dims.head_dim, config.rope_theta, Pairing::default())?
                .anew(build.has(Habit::DenseMask)),
        })
    }

    /// `[B, T, H, D]` by one of the projections.
    fn heads(&self, linear: usize, x: &Tensor) -> Result<Tensor> {
        let (b, t, _) = x.dims3()?;
        let heads = (b, t, self.dims.n_heads, self.dims.head_dim);
        Ok(self.linears[linear].forward(x)?.reshape(heads)?)
    }
}

impl Projections for SkeletonProjections {
    fn queries(&self, x: &Tensor, starts: &[usize]) -> Result<Tensor> {
        let _turned = self.rope.apply(&self.heads(0, x)?, starts)?;
        unwritten("queries [B, T, H, Dk], turned to their positions")
    }

    fn slots(&self, x: &Tensor, _starts: &[usize]) -> Result<SlotRows> {
        let _keys = self.heads(1, x)?;
        unwritten("slots as src/cache.rs has them, keys turned")
    }

    fn output(&self, heads: &Tensor) -> Result<Tensor> {
        let (b, n, h, d) = heads.dims4()?;
        self.linears[3].forward(&heads.reshape((b, n, h * d))?)
    }
}

/// What the suite finds until the formula is here.
fn unwritten<T>(what: &str) -> Result<T> {
    Err(Error::Unsupported {
        what: format!("skeleton without its {what},"),
        remedy: "write it in src/forward.rs".to_string(),
    })
}
