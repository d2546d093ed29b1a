//! Normalisation of latents: LayerNorm (the seed) or RMSNorm (DeepSeek).

use candle_core::{D, DType, Tensor};

use crate::cache::accumulator_dtype;
use crate::error::Result;
use crate::weights::{WeightSpec, Weights};

/// Which normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormKind {
    /// `(x - mean) / sqrt(var + eps) * weight + bias`.
    #[default]
    Layer,
    /// `x / sqrt(mean(x^2) + eps) * weight`.
    Rms,
}

impl NormKind {
    /// The weights of a norm called `name`.
    pub fn specs(self, name: &str, width: usize) -> Vec<WeightSpec> {
        let mut specs = vec![WeightSpec::norm(format!("{name}.weight"), width)];
        if self == Self::Layer {
            specs.push(WeightSpec::bias(format!("{name}.bias"), width));
        }
        specs
    }
}

/// A normalisation with its weights.
#[derive(Debug, Clone)]
pub struct Norm {
    weight: Tensor,
    /// Only LayerNorm has one.
    bias: Option<Tensor>,
    eps: f64,
}

impl Norm {
    /// The norm called `name` among `weights`.
    ///
    /// # Errors
    /// A weight is missing or misshapen.
    pub fn load(kind: NormKind, name: &str, width: usize, eps: f64, weights: &Weights) -> Result<Self> {
        Ok(Self {
            weight: weights.get(&format!("{name}.weight"), &[width])?,
            bias: match kind {
                NormKind::Layer => Some(weights.get(&format!("{name}.bias"), &[width])?),
                NormKind::Rms => None,
            },
            eps,
        })
    }

    pub(crate) fn weight(&self) -> &Tensor {
        &self.weight
    }

    pub(crate) fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    pub(crate) fn eps(&self) -> f64 {
        self.eps
    }

    /// Normalises the last dimension, in f32 or wider.
    ///
    /// # Errors
    /// [`crate::Error::Candle`] where shapes do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let tracked = x.track_op() || self.weight.track_op();
        // candle-nn's kernels are several times faster, but have no gradient (and say nothing about it).
        if !tracked && x.dtype() != DType::F64 {
            let x = x.contiguous()?;
            return Ok(match &self.bias {
                Some(bias) => candle_nn::ops::layer_norm(&x, &self.weight, bias, self.eps as f32)?,
                None => candle_nn::ops::rms_norm(&x, &self.weight, self.eps as f32)?,
            });
        }
        let (dtype, wide) = (x.dtype(), accumulator_dtype(x.dtype()));
        let x = x.to_dtype(wide)?;
        let x = match self.bias {
            Some(_) => x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?,
            None => x,
        };
        let variance = x.sqr()?.mean_keepdim(D::Minus1)?;
        let x = x.broadcast_div(&(variance + self.eps)?.sqrt()?)?;
        let x = x.broadcast_mul(&self.weight.to_dtype(wide)?)?;
        let x = match &self.bias {
            Some(bias) => x.broadcast_add(&bias.to_dtype(wide)?)?,
            None => x,
        };
        Ok(x.to_dtype(dtype)?)
    }
}
