//! A projection: `x W^T + b`.
//!
//! ```
//! use attn_core::linear::Linear;
//! use candle_core::{Device, Tensor};
//!
//! let weight = Tensor::new(&[[1_f32, 2.0], [0.0, 1.0], [1.0, 1.0]], &Device::Cpu)?; // [3, 2]
//! let x = Tensor::new(&[[[1_f32, 10.0]]], &Device::Cpu)?;
//! let y = Linear::new(weight, None).forward(&x)?;
//! assert_eq!(y.flatten_all()?.to_vec1::<f32>()?, [21.0, 10.0, 11.0]);
//! # Ok::<(), attn_core::Error>(())
//! ```

use attn_kernels::FEW_ROWS;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, Layout, Shape, Tensor};

use crate::error::Result;
use crate::ops::native;
use crate::route::{has_kernels, product};
use crate::weights::{WeightSpec, Weights};

/// A linear projection with a PyTorch-layout weight `[out, in]`.
///
/// ```
/// use attn_core::linear::Linear;
/// use attn_core::{Weights, random_tensor};
/// use candle_core::{DType, Device};
///
/// let weights = Weights::seeded(&Linear::specs("q_proj", 6, 4, true), 42)?;
/// let q_proj = Linear::load("q_proj", 6, 4, true, &weights)?;
/// assert_eq!(q_proj.weight().dims(), [6, 4]);
/// let x = random_tensor(&[2, 3, 4], 7, 0, DType::F32, &Device::Cpu)?;
/// assert_eq!(q_proj.forward(&x)?.dims(), [2, 3, 6]);
/// # Ok::<(), attn_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// The weights of a projection called `name`.
    pub fn specs(name: &str, out: usize, input: usize, bias: bool) -> Vec<WeightSpec> {
        let mut specs = vec![WeightSpec::matrix(format!("{name}.weight"), out, input)];
        if bias {
            specs.push(WeightSpec::bias(format!("{name}.bias"), out));
        }
        specs
    }

    /// The projection by a weight `[out, in]` and a bias `[out]`.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight, bias }
    }

    /// The projection called `name` among `weights`.
    ///
    /// # Errors
    /// A weight is missing or misshapen.
    pub fn load(name: &str, out: usize, input: usize, bias: bool, weights: &Weights) -> Result<Self> {
        Ok(Self {
            weight: weights.get(&format!("{name}.weight"), &[out, input])?,
            bias: if bias {
                Some(weights.get(&format!("{name}.bias"), &[out])?)
            } else {
                None
            },
        })
    }

    /// The weight `[out, in]`.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// `x W^T + b` over the last dimension.
    ///
    /// # Shapes
    /// `[B, T, in]` -> `[B, T, out]`
    ///
    /// # Errors
    /// [`crate::Error::Candle`] where shapes do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (b, t, input) = x.dims3()?;
        let out = self.weight.dim(0)?;
        if b * t == 0 {
            return Ok(Tensor::zeros((b, t, out), x.dtype(), x.device())?);
        }
        let rows = x.contiguous()?.reshape((b * t, input))?;
        if let Some(y) = native::project(&rows, &self.weight, self.bias.as_ref())? {
            return Ok(y.reshape((b, t, out))?);
        }
        let is_tracked = rows.track_op() || self.weight.track_op();
        let y = if !has_kernels(&rows) {
            product(&rows, &self.weight.t()?)?
        } else if is_tracked {
            rows.apply_op2(&self.weight, Project)?
        } else if b * t <= FEW_ROWS {
            // With the tall operand on the left the product runs 2-3 times faster on the CPU.
            self.weight.matmul(&rows.t()?)?.t()?.contiguous()? // [out, B] -> [B, out]
        } else {
            rows.matmul(&self.weight.t()?)?
        };
        let y = y.reshape((b, t, out))?;
        match &self.bias {
            Some(bias) => Ok(y.broadcast_add(bias)?),
            None => Ok(y),
        }
    }
}

/// `x W^T` of rows `[n, in]` and a weight `[out, in]` with its gradients, each one product. Candle's own would compute
/// that of an input that nobody asks for, and write the weight's the other way round.
struct Project;

impl CustomOp2 for Project {
    fn name(&self) -> &'static str {
        "project"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let ((n, inputs), (out, _)) = (x_layout.shape().dims2()?, weight_layout.shape().dims2()?);
        let product = x.matmul(
            weight,
            (1, n, out, inputs),
            x_layout,
            &weight_layout.transpose(0, 1)?,
        )?;
        Ok((product, (n, out).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let of_x = x.track_op().then(|| grad.matmul(weight)).transpose()?;
        let of_weight = weight.track_op().then(|| grad.t()?.matmul(x)).transpose()?;
        Ok((of_x, of_weight))
    }
}
