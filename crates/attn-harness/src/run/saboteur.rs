//! Layers that go wrong as a test wants them to: the gate must find it.

use std::fmt;
use std::sync::Arc;

use attn_core::{Attention, Build, Cache, Geometry, LayerConfig, Queries, Result, WeightSpec, Weights};
use candle_core::Tensor;

/// Layers whose caches follow the wrong hypotheses.
pub(super) struct Saboteur {
    inner: Arc<dyn LayerConfig>,
}

impl Saboteur {
    pub(super) fn around(inner: Arc<dyn LayerConfig>) -> Arc<dyn LayerConfig> {
        Arc::new(Self { inner })
    }
}

impl fmt::Debug for Saboteur {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl LayerConfig for Saboteur {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn weight_specs(&self) -> Vec<WeightSpec> {
        self.inner.weight_specs()
    }

    fn build(&self, weights: &Weights, build: &Build) -> Result<Box<dyn Attention>> {
        let layer = self.inner.build(weights, build)?;
        Ok(Box::new(Misordered { layer }))
    }
}

struct Misordered {
    layer: Box<dyn Attention>,
}

impl Attention for Misordered {
    fn geometry(&self) -> &Geometry {
        self.layer.geometry()
    }

    fn build(&self) -> &Build {
        self.layer.build()
    }

    fn forward(&self, x: &Tensor, queries: Queries) -> Result<Tensor> {
        self.layer.forward(x, queries)
    }

    fn prefill(&self, x: &Tensor, cache: &mut Cache, queries: Queries) -> Result<Tensor> {
        self.layer.prefill(x, cache, queries)
    }

    fn decode(&self, x: &Tensor, cache: &mut Cache) -> Result<Tensor> {
        self.layer.decode(x, cache)
    }

    /// Sequences that stay as many get the cache of their neighbour's hypothesis.
    fn reorder(&self, cache: &mut Cache, beams: &[usize]) -> Result<()> {
        let mut beams = beams.to_vec();
        if beams.len() == cache.batch() {
            beams.rotate_left(1);
        }
        self.layer.reorder(cache, &beams)
    }
}
