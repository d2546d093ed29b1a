//! The layer: two projections for each of queries, keys and values, of heads and of columns.

use attn_core::linear::Linear;
use attn_core::rope::{Pairing, Rope};
use attn_core::route::product;
use attn_core::{
    Attention, Build, Geometry, Habit, LayerConfig, ModelDims, Projected, ProjectionMacs, Projections,
    Result, SlotRows, WeightSpec, Weights,
};
use candle_core::Tensor;

use crate::cache::entry;

/// Sizes and settings of a TPA layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TpaConfig {
    /// Model width M, heads H, head size D.
    pub dims: ModelDims,
    /// Outer products Rk of a key.
    pub k_factors: usize,
    /// Outer products Rv of a value.
    pub v_factors: usize,
    /// Outer products Rq of a query, 0 for one plain projection.
    pub q_factors: usize,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
}

impl TpaConfig {
    /// Name and outputs of the projections of tokens, under the names of the authors' code.
    fn projections(&self) -> Vec<(&'static str, usize)> {
        let ModelDims {
            n_heads: h,
            head_dim: d,
            ..
        } = self.dims;
        let mut all = match self.q_factors {
            0 => vec![("c_q", h * d)],
            n => vec![("W_A_q", h * n), ("W_B_q", n * d)],
        };
        for (a, b, n) in [
            ("W_A_k", "W_B_k", self.k_factors),
            ("W_A_v", "W_B_v", self.v_factors),
        ] {
            all.extend([(a, h * n), (b, n * d)]);
        }
        all
    }
}

impl LayerConfig for TpaConfig {
    fn geometry(&self) -> Geometry {
        let ModelDims {
            d_model,
            n_heads,
            head_dim,
        } = self.dims;
        let Self {
            k_factors,
            v_factors,
            q_factors,
            ..
        } = *self;
        let of_heads = n_heads * head_dim;
        let factored = |n: usize| d_model * n * (n_heads + head_dim);
        let query = match q_factors {
            0 => d_model * of_heads,
            n => factored(n) + n * of_heads,
        };
        let key = factored(k_factors + v_factors);
        Geometry {
            d_model,
            n_heads,
            n_kv_heads: n_heads,
            score_dim: head_dim,
            v_dim: head_dim,
            stride: 1,
            window: None,
            entry: entry(n_heads, head_dim, k_factors, v_factors),
            state_elements: 0,
            parameters: self.weight_specs().iter().map(WeightSpec::elements).sum(),
            forward_macs: ProjectionMacs {
                query: query + d_model * of_heads,
                key: key + (k_factors + v_factors) * of_heads,
            },
            decode_macs: ProjectionMacs {
                query: query + d_model * of_heads,
                key,
            },
        }
    }

    fn weight_specs(&self) -> Vec<WeightSpec> {
        let m = self.dims.d_model;
        let of_heads = self.dims.n_heads * self.dims.head_dim;
        let mut specs: Vec<WeightSpec> = (self.projections().into_iter())
            .flat_map(|(name, out)| Linear::specs(name, out, m, false))
            .collect();
        specs.extend(Linear::specs("c_proj", m, of_heads, false));
        specs
    }

    fn build(&self, weights: &Weights, build: &Build) -> Result<Box<dyn Attention>> {
        let projections = TpaProjections::new(self, weights, build)?;
        Ok(Box::new(Projected::new(self.geometry(), build, projections)))
    }
}

/// Tensor product attention on either path.
pub type Tpa = Projected<TpaProjections>;

/// The projections of TPA.
#[derive(Debug)]
pub struct TpaProjections {
    config: TpaConfig,
    q: QueryProjection,
    k: FactorProjection,
    v: FactorProjection,
    c_proj: Linear,
    rope: Rope,
}

#[derive(Debug)]
enum QueryProjection {
    Plain(Linear),
    Factors(FactorProjection),
}

/// Factors of heads and of columns of n outer products.
#[derive(Debug)]
struct FactorProjection {
    a: Linear,
    b: Linear,
    n: usize,
}

impl FactorProjection {
    fn load(names: [&str; 2], n: usize, dims: &ModelDims, weights: &Weights) -> Result<Self> {
        let load = |name, out| Linear::load(name, out, dims.d_model, false, weights);
        Ok(Self {
            a: load(names[0], dims.n_heads * n)?,
            b: load(names[1], n * dims.head_dim)?,
            n,
        })
    }

    /// Factors of heads over n, `[B, T, H, n]`.
    fn heads(&self, x: &Tensor, n_heads: usize) -> Result<Tensor> {
        let (b, t, _) = x.dims3()?;
        Ok((self.a.forward(x)?.reshape((b, t, n_heads, self.n))? / self.n as f64)?)
    }

    /// Factors of columns, `[B, T, n, D]`.
    fn columns(&self, x: &Tensor, head_dim: usize) -> Result<Tensor> {
        let (b, t, _) = x.dims3()?;
        Ok(self.b.forward(x)?.reshape((b, t, self.n, head_dim))?)
    }
}

impl TpaProjections {
    fn new(config: &TpaConfig, weights: &Weights, build: &Build) -> Result<Self> {
        let (dims, weights) = (&config.dims, weights.for_build(build)?);
        let of_heads = dims.n_heads * dims.head_dim;
        let factors = |names, n| FactorProjection::load(names, n, dims, &weights);
        Ok(Self {
            config: *config,
            q: match config.q_factors {
                0 => QueryProjection::Plain(Linear::load("c_q", of_heads, dims.d_model, false, &weights)?),
                n => QueryProjection::Factors(factors(["W_A_q", "W_B_q"], n)?),
            },
            k: factors(["W_A_k", "W_B_k"], config.k_factors)?,
            v: factors(["W_A_v", "W_B_v"], config.v_factors)?,
            c_proj: Linear::load("c_proj", dims.d_model, of_heads, false, &weights)?,
            rope: Rope::new(dims.head_dim, config.rope_theta, Pairing::default())?
                .anew(build.has(Habit::DenseMask)),
        })
    }

    /// A slot's factors `[B, 1, T, n (D + H)]`: of each product those of columns, then those of heads.
    fn side_by_side(&self, columns: &Tensor, heads: &Tensor) -> Result<Tensor> {
        let (b, t, n, _) = columns.dims4()?;
        let both = Tensor::cat(&[columns, &heads.transpose(2, 3)?], 3)?;
        let width = both.dim(3)?;
        Ok(both.reshape((b, 1, t, n * width))?)
    }
}

impl Projections for TpaProjections {
    fn queries(&self, x: &Tensor, starts: &[usize]) -> Result<Tensor> {
        let (b, t, _) = x.dims3()?;
        let ModelDims {
            n_heads, head_dim, ..
        } = self.config.dims;
        let factors = match &self.q {
            QueryProjection::Plain(c_q) => {
                let q = c_q.forward(x)?.reshape((b, t, n_heads, head_dim))?;
                return self.rope.apply(&q, starts);
            }
            QueryProjection::Factors(factors) => factors,
        };
        // Turning the rows of a sum turns the sum.
        let columns = self.rope.apply(&factors.columns(x, head_dim)?, starts)?;
        let heads = factors.heads(x, n_heads)?;
        let q = product(
            &heads.reshape((b * t, n_heads, factors.n))?,
            &columns.reshape((b * t, factors.n, head_dim))?,
        )?;
        Ok(q.reshape((b, t, n_heads, head_dim))?)
    }

    fn slots(&self, x: &Tensor, starts: &[usize]) -> Result<SlotRows> {
        let ModelDims {
            n_heads, head_dim, ..
        } = self.config.dims;
        let k = self.rope.apply(&self.k.columns(x, head_dim)?, starts)?;
        let v = self.v.columns(x, head_dim)?;
        Ok(SlotRows::keys_values(
            self.side_by_side(&k, &self.k.heads(x, n_heads)?)?,
            self.side_by_side(&v, &self.v.heads(x, n_heads)?)?,
        ))
    }

    fn output(&self, heads: &Tensor) -> Result<Tensor> {
        let (b, n, h, d) = heads.dims4()?;
        self.c_proj.forward(&heads.reshape((b, n, h * d))?)
    }
}
