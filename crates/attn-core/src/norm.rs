//! Normalisation of latents: LayerNorm (the seed) or RMSNorm (DeepSeek).

use candle_core::{CpuStorage, CustomOp1, D, DType, Layout, Shape, Tensor, WithDType};
use num_traits::Float;
use rayon::prelude::*;

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
        let (x, centred) = (x.to_dtype(wide)?, self.bias.is_some());
        let x = if x.device().is_cpu() {
            let eps = self.eps;
            x.contiguous()?.apply_op1(Standardise { centred, eps })?
        } else {
            let x = match centred {
                true => x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?,
                false => x,
            };
            let variance = x.sqr()?.mean_keepdim(D::Minus1)?;
            x.broadcast_div(&(variance + self.eps)?.sqrt()?)?
        };
        let x = x.broadcast_mul(&self.weight.to_dtype(wide)?)?;
        let x = match &self.bias {
            Some(bias) => x.broadcast_add(&bias.to_dtype(wide)?)?,
            None => x,
        };
        Ok(x.to_dtype(dtype)?)
    }
}

/// `(x - mean) / sqrt(variance + eps)` of rows, or `x / sqrt(mean(x^2) + eps)` where they are not centred, as one pass
/// with a gradient: as operations of candle it is nine passes, and fifteen backwards.
#[derive(Debug, Clone, Copy)]
struct Standardise {
    centred: bool,
    eps: f64,
}

impl Standardise {
    /// Runs `work` on rows of the output and the inputs' rows, and is given how many elements a row has.
    fn rows<T: WithDType + Float>(width: usize, out: &mut [T], work: impl Fn(usize, &mut [T]) + Sync + Send) {
        out.par_chunks_exact_mut(width)
            .with_min_len((1usize << 14).div_ceil(width))
            .enumerate()
            .for_each(|(row, out)| work(row, out));
    }

    /// What a row is shifted by, and what it is then multiplied with.
    fn of_row<T: WithDType + Float>(&self, x: &[T]) -> (T, T) {
        let n = T::from_f64(x.len() as f64);
        let mean = match self.centred {
            true => x.iter().fold(T::from_f64(0.0), |sum, &x| sum + x) / n,
            false => T::from_f64(0.0),
        };
        let squares = x
            .iter()
            .fold(T::from_f64(0.0), |sum, &x| sum + (x - mean) * (x - mean));
        (
            mean,
            T::from_f64(1.0) / (squares / n + T::from_f64(self.eps)).sqrt(),
        )
    }

    fn forward<T: WithDType + Float>(&self, x: &[T], width: usize) -> Vec<T> {
        let mut out = vec![T::from_f64(0.0); x.len()];
        Self::rows(width, &mut out, |row, out| {
            let x = &x[row * width..][..width];
            let (mean, scale) = self.of_row(x);
            out.iter_mut()
                .zip(x)
                .for_each(|(out, &x)| *out = (x - mean) * scale);
        });
        out
    }

    /// `scale (g - mean(g) - y mean(g y))`, the first mean only where rows are centred.
    fn backward<T: WithDType + Float>(&self, x: &[T], y: &[T], grad: &[T], width: usize) -> Vec<T> {
        let mut out = vec![T::from_f64(0.0); x.len()];
        Self::rows(width, &mut out, |row, out| {
            let [x, y, grad] = [x, y, grad].map(|all| &all[row * width..][..width]);
            let (_, scale) = self.of_row(x);
            let n = T::from_f64(width as f64);
            let mean = match self.centred {
                true => grad.iter().fold(T::from_f64(0.0), |sum, &g| sum + g) / n,
                false => T::from_f64(0.0),
            };
            let along = grad
                .iter()
                .zip(y)
                .fold(T::from_f64(0.0), |sum, (&g, &y)| sum + g * y)
                / n;
            for ((out, &g), &y) in out.iter_mut().zip(grad).zip(y) {
                *out = scale * (g - mean - y * along);
            }
        });
        out
    }

    fn backward_as<T: WithDType + Float>(
        &self,
        x: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<Tensor> {
        let flat = |x: &Tensor| x.contiguous()?.flatten_all()?.to_vec1::<T>();
        let width = x.dim(D::Minus1)?;
        let out = self.backward(&flat(x)?, &flat(y)?, &flat(grad)?, width);
        Tensor::from_vec(out, x.shape(), x.device())
    }
}

impl CustomOp1 for Standardise {
    fn name(&self) -> &'static str {
        "standardise"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let Some((from, to)) = layout.contiguous_offsets() else {
            candle_core::bail!("standardise takes contiguous rows")
        };
        let width = layout.dims().last().copied().unwrap_or(1);
        let out = match x {
            CpuStorage::F32(x) => CpuStorage::F32(self.forward(&x[from..to], width)),
            CpuStorage::F64(x) => CpuStorage::F64(self.forward(&x[from..to], width)),
            _ => candle_core::bail!("standardise takes f32 and f64"),
        };
        Ok((out, layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(Some(match x.dtype() {
            DType::F64 => self.backward_as::<f64>(x, y, grad)?,
            _ => self.backward_as::<f32>(x, y, grad)?,
        }))
    }
}
