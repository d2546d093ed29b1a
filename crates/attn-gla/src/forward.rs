//! The layer: latents per head and token, decompressed for whole sequences, absorbed for decoding.

use attn_core::latent::{Latent, LatentConfig};
use attn_core::{
    Attention, Build, Entry, Geometry, LayerConfig, Projected, Projections, Result, SlotRows, WeightSpec,
    Weights,
};
use candle_core::Tensor;

use crate::cache::entry;

/// Sizes and settings of a GLA layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GlaConfig(pub LatentConfig);

impl LayerConfig for GlaConfig {
    fn geometry(&self) -> Geometry {
        let entry = entry(self.0.n_latents, self.0.latent_dim(), self.0.rope_dim);
        self.0.geometry(entry, 1, 0, 0)
    }

    fn weight_specs(&self) -> Vec<WeightSpec> {
        self.0.weight_specs()
    }

    fn build(&self, weights: &Weights, build: &Build) -> Result<Box<dyn Attention>> {
        let projections = GlaProjections {
            config: self.0,
            latent: Latent::new(self.0, &weights.for_build(build)?, build)?,
        };
        Ok(Box::new(Projected::new(self.geometry(), build, projections)))
    }
}

/// Grouped latent attention on either path.
pub type Gla = Projected<GlaProjections>;

/// The projections of GLA.
#[derive(Debug)]
pub struct GlaProjections {
    config: LatentConfig,
    latent: Latent,
}

impl Projections for GlaProjections {
    fn queries(&self, x: &Tensor, starts: &[usize]) -> Result<Tensor> {
        self.latent.queries(x, x.dim(1)?, starts)
    }

    fn slots(&self, x: &Tensor, starts: &[usize]) -> Result<SlotRows> {
        let (b, t, _) = x.dims3()?;
        let (c, k_r) = self.latent.latents(x, starts)?;
        let heads = (b, t, self.config.n_latents, self.config.latent_dim());
        Ok(SlotRows {
            keys: c.reshape(heads)?.transpose(1, 2)?, // [B, Hc, T, r / Hc]
            values: None,
            tail: Some(k_r.unsqueeze(1)?),
        })
    }

    fn keys_values(&self, rows: &SlotRows, entry: &Entry) -> Result<[Tensor; 2]> {
        let (b, _, n, _) = rows.keys.dims4()?;
        let c = rows.keys.transpose(1, 2)?.reshape((b, n, self.config.kv_rank))?;
        match &rows.tail {
            Some(k_r) => self.latent.decompress(&c, &k_r.squeeze(1)?)?.keys_values(),
            None => attn_core::ops::form(rows, entry),
        }
    }

    fn absorb(&self, q: Tensor) -> Result<Tensor> {
        self.latent.absorb(&q)
    }

    fn decompress(&self, heads: Tensor) -> Result<Tensor> {
        self.latent.values_of(&heads)
    }

    fn output(&self, heads: &Tensor) -> Result<Tensor> {
        self.latent.output(heads)
    }
}
