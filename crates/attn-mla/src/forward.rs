//! The layer: latents per token, decompressed for whole sequences, absorbed for decoding.

use attn_core::latent::{Latent, LatentConfig};
use attn_core::ops::{self, AttendInput};
use attn_core::phase::{Phase, timed};
use attn_core::{
    Attention, Build, Cache, Geometry, Habit, Habits, LayerConfig, Queries, Result, WeightSpec, Weights,
    in_pool, join,
};
use candle_core::Tensor;

use crate::cache::entry;

/// Sizes and settings of an MLA layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MlaConfig(pub LatentConfig);

impl LayerConfig for MlaConfig {
    fn geometry(&self) -> Geometry {
        self.0.geometry(entry(self.0.kv_rank, self.0.rope_dim), 1, 0, 0)
    }

    fn weight_specs(&self) -> Vec<WeightSpec> {
        self.0.weight_specs()
    }

    fn build(&self, weights: &Weights, build: &Build) -> Result<Box<dyn Attention>> {
        Ok(Box::new(Mla::new(*self, weights, build)?))
    }
}

/// Multi-head latent attention on either path.
#[derive(Debug)]
pub struct Mla {
    geometry: Geometry,
    build: Build,
    latent: Latent,
}

impl Mla {
    /// The layer over the given weights.
    ///
    /// # Errors
    /// A weight is missing or misshapen, or the path is not defined for the dtype.
    pub fn new(config: MlaConfig, weights: &Weights, build: &Build) -> Result<Self> {
        let latent = Latent::new(config.0, &weights.for_build(build)?, build)?;
        Ok(Self {
            geometry: config.geometry(),
            build: build.clone(),
            latent,
        })
    }

    /// Attention of queries at `start..` over latents from the sequence's beginning, output projected.
    fn attend(&self, q: &Tensor, c: &Tensor, k_r: &Tensor, start: usize) -> Result<Tensor> {
        if self.build.has(Habit::DenseMask) {
            let mask = ops::seedlike::dense_mask(c.dim(1)?, |i, j| j <= i, q.dtype(), q.device())?;
            return self
                .latent
                .dense(q, c, k_r, Some(&mask.narrow(0, start, q.dim(1)?)?));
        }
        let decompressed = self.latent.decompress(c, k_r)?;
        let scale = self.latent.scale();
        self.latent.output(&ops::attend(&AttendInput {
            q,
            closed: Some(decompressed.entries()),
            own: None,
            start,
            stride: 1,
            window: None,
            scale,
        })?)
    }
}

impl Attention for Mla {
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
            let q = self.latent.queries(x, n, &starts)?;
            let (c, k_r) = self.latent.latents(x, &starts)?;
            self.attend(&q, &c, &k_r, t - n)
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
            let q = self.latent.queries(x, n, &starts)?;
            let (c, k_r) = self.latent.latents(x, &starts)?;
            self.latent.write(cache, &starts, &c, &k_r)?;
            cache.advance(t);
            let (c, k_r) = match past {
                0 => (c, k_r),
                _ => self.latent.cached(cache, past + t)?,
            };
            self.attend(&q, &c, &k_r, past + t - n)
        })
    }

    fn decode(&self, x: &Tensor, cache: &mut Cache) -> Result<Tensor> {
        in_pool(|| {
            let (b, _, _) = self.geometry.check_step(x)?;
            cache.check_batch(b)?;
            let is_dense = self.build.has(Habit::DenseMask);
            if is_dense && cache.uniform_len().is_none() {
                return cache.each_sequence(x, |x, cache| self.decode(x, cache)); // the seed has no ragged batches
            }
            if self.build.habits == Habits::NONE
                && let Some(y) = self.latent.step(x, cache, None)?
            {
                return Ok(y);
            }
            let starts = cache.lens().to_vec();
            // In one pass where the slot is there already and nobody wants every operation by itself.
            let is_appended = !is_dense && !self.build.has(Habit::Cat);
            // Side by side: neither has work for all threads from its begin to its end.
            let (q, appended) = join(
                x.device(),
                || self.latent.queries(x, 1, &starts),
                || -> Result<bool> { Ok(is_appended && self.latent.append(x, cache, None)?) },
            );
            let q = q?;
            if !appended? {
                let (c, k_r) = self.latent.latents(x, &starts)?;
                timed(Phase::CacheUpdate, || self.latent.write(cache, &starts, &c, &k_r))?;
                cache.advance(1);
            }
            if is_dense {
                cache.check_unshared("attention in the seed's way")?;
                let (c, k_r) = self.latent.cached(cache, starts[0] + 1)?;
                return self.latent.dense(&q, &c, &k_r, None);
            }
            self.latent.decode_absorbed(&q, cache)
        })
    }
}
