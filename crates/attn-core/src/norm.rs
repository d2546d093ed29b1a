//! Normalisation of latents: LayerNorm (the seed) or RMSNorm (DeepSeek).
//!
//! ```
//! use attn_core::Weights;
//! use attn_core::norm::{Norm, NormKind};
//! use candle_core::{Device, Tensor};
//!
//! let ones = |values: [f32; 2]| Tensor::new(&values, &Device::Cpu);
//! let mut weights = Weights::default();
//! weights.insert("kv_norm.weight", ones([1.0, 1.0])?);
//! let rms = Norm::load(NormKind::Rms, "kv_norm", 2, 0.0, &weights)?;
//! let y = rms.forward(&Tensor::new(&[[3_f32, 4.0]], &Device::Cpu)?)?;
//! let rms_of_x = 12.5_f32.sqrt();
//! let y = y.flatten_all()?.to_vec1::<f32>()?;
//! assert!((y[0] - 3.0 / rms_of_x).abs() < 1e-6 && (y[1] - 4.0 / rms_of_x).abs() < 1e-6);
//! # Ok::<(), attn_core::Error>(())
//! ```

use candle_core::{CpuStorage, CustomOp2, CustomOp3, D, DType, Layout, Shape, Tensor, WithDType};
use num_traits::Float;
use rayon::prelude::*;

use crate::cache::accumulator_dtype;
use crate::error::Result;
use crate::route::has_kernels;
use crate::weights::{WeightSpec, Weights};

/// Which normalisation.
///
/// ```
/// use attn_core::norm::NormKind;
///
/// assert_eq!(NormKind::Layer.specs("kv_norm", 8).len(), 2); // a scale and a bias
/// assert_eq!(NormKind::Rms.specs("kv_norm", 8).len(), 1);
/// ```
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
///
/// ```
/// use attn_core::norm::{Norm, NormKind};
/// use attn_core::{Weights, random_tensor};
/// use candle_core::{DType, Device};
///
/// let weights = Weights::seeded(&NormKind::Layer.specs("kv_norm", 16), 42)?;
/// let norm = Norm::load(NormKind::Layer, "kv_norm", 16, 1e-5, &weights)?;
/// let x = random_tensor(&[2, 3, 16], 7, 0, DType::F32, &Device::Cpu)?;
/// assert_eq!(norm.forward(&x)?.dims(), [2, 3, 16]);
/// # Ok::<(), attn_core::Error>(())
/// ```
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

    /// The norm of these weights; LayerNorm with a bias, RMSNorm without.
    #[cfg(feature = "cuda")]
    pub(crate) fn new(weight: Tensor, bias: Option<Tensor>, eps: f64) -> Self {
        Self { weight, bias, eps }
    }

    /// Norms of as many equal parts of the columns, each with its part of weight and bias.
    pub(crate) fn parts(self, n: usize) -> Result<Vec<Self>> {
        if n == 1 {
            return Ok(vec![self]);
        }
        let width = self.weight.dim(0)? / n;
        (0..n)
            .map(|i| {
                let part = |t: &Tensor| t.narrow(0, i * width, width)?.contiguous();
                let bias = self.bias.as_ref().map(part).transpose()?;
                Ok(Self {
                    weight: part(&self.weight)?,
                    bias,
                    ..self.clone()
                })
            })
            .collect()
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
        let (x, weight) = (x.to_dtype(wide)?, self.weight.to_dtype(wide)?);
        let bias = self.bias.as_ref().map(|bias| bias.to_dtype(wide)).transpose()?;
        if has_kernels(&x) {
            let (x, op) = (x.contiguous()?, NormOp { eps: self.eps });
            let y = match &bias {
                Some(bias) => x.apply_op3(&weight, bias, op)?,
                None => x.apply_op2(&weight, op)?,
            };
            return Ok(y.to_dtype(dtype)?);
        }
        let x = match bias {
            Some(_) => x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?,
            None => x,
        };
        let variance = x.sqr()?.mean_keepdim(D::Minus1)?;
        let x = x
            .broadcast_div(&(variance + self.eps)?.sqrt()?)?
            .broadcast_mul(&weight)?;
        let x = match &bias {
            Some(bias) => x.broadcast_add(bias)?,
            None => x,
        };
        Ok(x.to_dtype(dtype)?)
    }
}

/// The norm as one pass with a gradient: as operations of candle it is eleven passes, and twenty backwards. Rows are
/// centred where there is a bias, which makes the difference between LayerNorm and RMSNorm.
#[derive(Debug, Clone, Copy)]
struct NormOp {
    eps: f64,
}

/// Rows of which one task adds up the gradients of weights. The number is fixed, so that sums are the same on any
/// number of threads.
const RUN: usize = 64;

impl NormOp {
    /// What a row is shifted by, and what it is then multiplied with.
    fn of_row<T: WithDType + Float>(self, x: &[T], is_centred: bool) -> (T, T) {
        let n = T::from_f64(x.len() as f64);
        let mean = match is_centred {
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

    fn forward<T: WithDType + Float>(self, x: &[T], weight: &[T], bias: Option<&[T]>) -> Vec<T> {
        let width = weight.len();
        let mut out = vec![T::from_f64(0.0); x.len()];
        let runs = out.par_chunks_mut(RUN * width).zip(x.par_chunks(RUN * width));
        runs.for_each(|(out, x)| {
            for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                let (mean, scale) = self.of_row(x, bias.is_some());
                for (d, (out, &x)) in out.iter_mut().zip(x).enumerate() {
                    *out = (x - mean) * scale * weight[d];
                }
                if let Some(bias) = bias {
                    out.iter_mut().zip(bias).for_each(|(out, &bias)| *out += bias);
                }
            }
        });
        out
    }

    /// Of the input, `scale (g w - mean(g w) - y mean(g w y))` with `y` the row before weight and bias, the first mean
    /// only where rows are centred; of the weight, `sum(g y)`; of the bias, `sum(g)`.
    fn backward<T: WithDType + Float>(
        self,
        x: &[T],
        weight: &[T],
        grad: &[T],
        is_centred: bool,
    ) -> (Vec<T>, Vec<T>, Vec<T>) {
        let (width, zero) = (weight.len(), T::from_f64(0.0));
        let n = T::from_f64(width as f64);
        let mut dx = vec![zero; x.len()];
        let runs = dx
            .par_chunks_mut(RUN * width)
            .zip(x.par_chunks(RUN * width).zip(grad.par_chunks(RUN * width)));
        let sums = runs.map(|(dx, (x, grad))| {
            let (mut d_weight, mut d_bias) = (vec![zero; width], vec![zero; width]);
            let rows = x.chunks_exact(width).zip(grad.chunks_exact(width));
            for (dx, (x, grad)) in dx.chunks_exact_mut(width).zip(rows) {
                let (mean, scale) = self.of_row(x, is_centred);
                let (mut sum, mut along) = (zero, zero);
                for d in 0..width {
                    let (y, g) = ((x[d] - mean) * scale, grad[d] * weight[d]);
                    d_weight[d] += grad[d] * y;
                    d_bias[d] += grad[d];
                    sum += g;
                    along += g * y;
                    dx[d] = y;
                }
                let (sum, along) = (if is_centred { sum / n } else { zero }, along / n);
                for d in 0..width {
                    dx[d] = scale * (grad[d] * weight[d] - sum - dx[d] * along);
                }
            }
            (d_weight, d_bias)
        });
        let sums: Vec<_> = sums.collect();
        let (mut d_weight, mut d_bias) = (vec![zero; width], vec![zero; width]);
        for (of_weight, of_bias) in &sums {
            d_weight
                .iter_mut()
                .zip(of_weight)
                .for_each(|(sum, &add)| *sum += add);
            d_bias.iter_mut().zip(of_bias).for_each(|(sum, &add)| *sum += add);
        }
        (dx, d_weight, d_bias)
    }

    fn forward_any(
        self,
        x: (&CpuStorage, &Layout),
        weight: (&CpuStorage, &Layout),
        bias: Option<(&CpuStorage, &Layout)>,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        fn whole<'a, T: WithDType>(
            (storage, layout): (&'a CpuStorage, &Layout),
        ) -> candle_core::Result<&'a [T]> {
            match layout.contiguous_offsets() {
                Some((from, to)) => Ok(&storage.as_slice::<T>()?[from..to]),
                None => candle_core::bail!("norm takes contiguous operands"),
            }
        }
        let out = match x.0 {
            CpuStorage::F32(_) => {
                CpuStorage::F32(self.forward(whole(x)?, whole(weight)?, bias.map(whole).transpose()?))
            }
            CpuStorage::F64(_) => {
                CpuStorage::F64(self.forward(whole(x)?, whole(weight)?, bias.map(whole).transpose()?))
            }
            _ => candle_core::bail!("norm takes f32 and f64"),
        };
        Ok((out, x.1.shape().clone()))
    }

    fn backward_as<T: WithDType + Float>(
        self,
        [x, weight, grad]: [&Tensor; 3],
        is_centred: bool,
    ) -> candle_core::Result<[Tensor; 3]> {
        let flat = |x: &Tensor| x.contiguous()?.flatten_all()?.to_vec1::<T>();
        let (dx, d_weight, d_bias) = self.backward(&flat(x)?, &flat(weight)?, &flat(grad)?, is_centred);
        Ok([
            Tensor::from_vec(dx, x.shape(), x.device())?,
            Tensor::from_vec(d_weight, weight.shape(), x.device())?,
            Tensor::from_vec(d_bias, weight.shape(), x.device())?,
        ])
    }

    fn backward_any(self, operands: [&Tensor; 3], is_centred: bool) -> candle_core::Result<[Tensor; 3]> {
        match operands[0].dtype() {
            DType::F64 => self.backward_as::<f64>(operands, is_centred),
            _ => self.backward_as::<f32>(operands, is_centred),
        }
    }
}

impl CustomOp2 for NormOp {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        self.forward_any((x, x_layout), (weight, weight_layout), None)
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let [dx, d_weight, _] = self.backward_any([x, weight, grad], false)?;
        Ok((Some(dx), Some(d_weight)))
    }
}

impl CustomOp3 for NormOp {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let bias = Some((bias, bias_layout));
        self.forward_any((x, x_layout), (weight, weight_layout), bias)
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [dx, d_weight, d_bias] = self.backward_any([x, weight, grad], true)?;
        Ok((Some(dx), Some(d_weight), Some(d_bias)))
    }
}
