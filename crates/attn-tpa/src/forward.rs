//! The layer: two projections for each of queries, keys and values, of heads and of columns.

use attn_core::linear::{Linear, LinearSpec};
use attn_core::rope::{Pairing, Rope};
use attn_core::route::product;
use attn_core::{
    Attention, Build, Geometry, LayerConfig, ModelDims, Projected, Projections, Result, SlotRows, WeightSpec,
    Weights,
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

/// The projections under the names of the authors' code.
impl TpaConfig {
    fn plain_query(&self) -> LinearSpec {
        let of_heads = self.dims.n_heads * self.dims.head_dim;
        LinearSpec::of_query("c_q", of_heads, self.dims.d_model)
    }

    /// Factors of heads, and of columns.
    fn query(&self) -> [LinearSpec; 2] {
        self.factors(["W_A_q", "W_B_q"], self.q_factors, LinearSpec::of_query)
    }

    fn key(&self) -> [LinearSpec; 2] {
        self.factors(["W_A_k", "W_B_k"], self.k_factors, LinearSpec::of_slot)
    }

    fn value(&self) -> [LinearSpec; 2] {
        self.factors(["W_A_v", "W_B_v"], self.v_factors, LinearSpec::of_slot)
    }

    fn factors(
        &self,
        [a, b]: [&'static str; 2],
        n: usize,
        spec: fn(&'static str, usize, usize) -> LinearSpec,
    ) -> [LinearSpec; 2] {
        let ModelDims {
            d_model: m,
            n_heads: h,
            head_dim: d,
        } = self.dims;
        [spec(a, h * n, m), spec(b, n * d, m)]
    }

    fn output(&self) -> LinearSpec {
        let of_heads = self.dims.n_heads * self.dims.head_dim;
        LinearSpec::of_query("c_proj", self.dims.d_model, of_heads)
    }

    fn linears(&self) -> Vec<LinearSpec> {
        let mut all = match self.q_factors {
            0 => vec![self.plain_query()],
            _ => self.query().to_vec(),
        };
        all.extend(self.key());
        all.extend(self.value());
        all.push(self.output());
        all
    }
}

impl LayerConfig for TpaConfig {
    fn geometry(&self) -> Geometry {
        let Self {
            dims,
            k_factors,
            v_factors,
            ..
        } = *self;
        let entry = entry(dims.n_heads, dims.head_dim, k_factors, v_factors);
        let mut geometry = Geometry::of(&dims, entry, &self.linears());
        // Sums of products: of queries always, of keys and values where these are formed.
        let of_heads = dims.n_heads * dims.head_dim;
        geometry.forward_macs.query += self.q_factors * of_heads;
        geometry.decode_macs.query += self.q_factors * of_heads;
        geometry.forward_macs.key += (k_factors + v_factors) * of_heads;
        geometry
    }

    fn weight_specs(&self) -> Vec<WeightSpec> {
        LinearSpec::weights(&self.linears())
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
    fn load([a, b]: [LinearSpec; 2], n: usize, weights: &Weights) -> Result<Self> {
        Ok(Self {
            a: a.load(weights)?,
            b: b.load(weights)?,
            n,
        })
    }

    /// Factors of heads over n, `[B, T, H, n]`.
    fn heads(&self, x: &Tensor, n_heads: usize) -> Result<Tensor> {
        Ok((self.a.to_heads(x, n_heads)? / self.n as f64)?)
    }

    /// Factors of columns, `[B, T, n, D]`.
    fn columns(&self, x: &Tensor) -> Result<Tensor> {
        self.b.to_heads(x, self.n)
    }
}

impl TpaProjections {
    fn new(config: &TpaConfig, weights: &Weights, build: &Build) -> Result<Self> {
        let weights = weights.for_build(build)?;
        Ok(Self {
            config: *config,
            q: match config.q_factors {
                0 => QueryProjection::Plain(config.plain_query().load(&weights)?),
                n => QueryProjection::Factors(FactorProjection::load(config.query(), n, &weights)?),
            },
            k: FactorProjection::load(config.key(), config.k_factors, &weights)?,
            v: FactorProjection::load(config.value(), config.v_factors, &weights)?,
            c_proj: config.output().load(&weights)?,
            rope: Rope::new(config.dims.head_dim, config.rope_theta, Pairing::default())?.for_build(build),
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
                return self.rope.apply(&c_q.to_heads(x, n_heads)?, starts);
            }
            QueryProjection::Factors(factors) => factors,
        };
        // Turning the rows of a sum turns the sum.
        let columns = self.rope.apply(&factors.columns(x)?, starts)?;
        let heads = factors.heads(x, n_heads)?;
        let q = product(
            &heads.reshape((b * t, n_heads, factors.n))?,
            &columns.reshape((b * t, factors.n, head_dim))?,
        )?;
        Ok(q.reshape((b, t, n_heads, head_dim))?)
    }

    fn slots(&self, x: &Tensor, starts: &[usize]) -> Result<SlotRows> {
        let n_heads = self.config.dims.n_heads;
        let k = self.rope.apply(&self.k.columns(x)?, starts)?;
        let v = self.v.columns(x)?;
        Ok(SlotRows::keys_values(
            self.side_by_side(&k, &self.k.heads(x, n_heads)?)?,
            self.side_by_side(&v, &self.v.heads(x, n_heads)?)?,
        ))
    }

    fn output(&self, heads: &Tensor) -> Result<Tensor> {
        self.c_proj.from_heads(heads)
    }
}
