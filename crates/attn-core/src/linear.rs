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
use crate::variant::Build;
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
/// assert_eq!(q_proj.to_heads(&x, 2)?.dims(), [2, 3, 2, 3]);
/// # Ok::<(), attn_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

/// A projection that has no weights yet, and for which tokens it is computed.
///
/// ```
/// use attn_core::linear::LinearSpec;
/// use attn_core::{ProjectionMacs, Weights};
///
/// let specs = [
///     LinearSpec::of_query("q_proj", 64, 32),
///     LinearSpec::of_slot("kv_proj", 16, 32),
///     LinearSpec::of_query("out_proj", 32, 64),
/// ]
/// .map(|spec| spec.with_bias(true));
/// let weights = Weights::seeded(&LinearSpec::weights(&specs), 42)?;
/// assert_eq!(specs[1].load(&weights)?.weight().dims(), [16, 32]);
/// assert_eq!(ProjectionMacs::of(&specs), ProjectionMacs { query: 2 * 64 * 32, key: 16 * 32 });
/// # Ok::<(), attn_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinearSpec {
    /// Name of its weights.
    pub name: &'static str,
    /// Outputs.
    pub out: usize,
    /// Inputs.
    pub input: usize,
    /// Whether it has a bias.
    pub bias: bool,
    /// Whether it is computed for a token that enters the cache; else for one that is a query.
    pub is_of_slot: bool,
}

impl LinearSpec {
    /// A projection to queries, or from heads to outputs.
    pub fn of_query(name: &'static str, out: usize, input: usize) -> Self {
        Self {
            name,
            out,
            input,
            bias: false,
            is_of_slot: false,
        }
    }

    /// A projection to what the cache holds of a token.
    pub fn of_slot(name: &'static str, out: usize, input: usize) -> Self {
        Self {
            is_of_slot: true,
            ..Self::of_query(name, out, input)
        }
    }

    /// The same with a bias, or without.
    pub fn with_bias(self, bias: bool) -> Self {
        Self { bias, ..self }
    }

    /// Name, shape and initialisation of the weights of all of them.
    pub fn weights(specs: &[Self]) -> Vec<WeightSpec> {
        let of = |spec: &Self| Linear::specs(spec.name, spec.out, spec.input, spec.bias);
        specs.iter().flat_map(of).collect()
    }

    /// The projection over its weights.
    ///
    /// # Errors
    /// A weight is missing or misshapen.
    pub fn load(&self, weights: &Weights) -> Result<Linear> {
        Linear::load(self.name, self.out, self.input, self.bias, weights)
    }

    /// The projections over their weights, in a build's dtype and on its device.
    ///
    /// # Errors
    /// A weight is missing or misshapen, or the build's path is not defined for its dtype.
    ///
    /// ```
    /// use attn_core::linear::LinearSpec;
    /// use attn_core::{Build, Path, Weights};
    /// use candle_core::DType;
    ///
    /// let specs = [LinearSpec::of_query("q_proj", 64, 32), LinearSpec::of_slot("kv_proj", 16, 32)];
    /// let weights = Weights::seeded(&LinearSpec::weights(&specs), 42)?;
    /// let [q_proj, kv_proj] = LinearSpec::load_all(specs, &weights, &Build::cpu(Path::Fused, DType::BF16))?;
    /// assert_eq!(q_proj.weight().dims(), [64, 32]);
    /// assert_eq!(kv_proj.weight().dtype(), DType::BF16);
    /// # Ok::<(), attn_core::Error>(())
    /// ```
    pub fn load_all<const N: usize>(
        specs: [Self; N],
        weights: &Weights,
        build: &Build,
    ) -> Result<[Linear; N]> {
        let weights = weights.for_build(build)?;
        let loaded = specs.iter().map(|spec| spec.load(&weights));
        match <[Linear; N]>::try_from(loaded.collect::<Result<Vec<_>>>()?) {
            Ok(linears) => Ok(linears),
            Err(_) => unreachable!("one projection for each of {N} specs"),
        }
    }
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

impl Linear {
    /// Projects tokens to heads.
    ///
    /// # Shapes
    /// `[B, T, in]` -> `[B, T, heads, out / heads]`
    ///
    /// # Errors
    /// [`crate::Error::Candle`] where shapes do not fit.
    pub fn to_heads(&self, x: &Tensor, heads: usize) -> Result<Tensor> {
        let (b, t, _) = x.dims3()?;
        Ok(self.forward(x)?.reshape((b, t, heads, ()))?)
    }

    /// Projects heads, side by side.
    ///
    /// # Shapes
    /// `[B, T, heads, in / heads]` -> `[B, T, out]`
    ///
    /// # Errors
    /// [`crate::Error::Candle`] where shapes do not fit.
    pub fn from_heads(&self, heads: &Tensor) -> Result<Tensor> {
        let (b, t, h, d) = heads.dims4()?;
        self.forward(&heads.reshape((b, t, h * d))?)
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
