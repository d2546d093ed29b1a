//! Named weights of one layer: read from safetensors, or drawn from a seed.
//!
//! ```
//! use attn_core::{WeightSpec, Weights};
//!
//! let specs = [WeightSpec::matrix("wq.weight", 8, 4), WeightSpec::bias("wq.bias", 8)];
//! let weights = Weights::seeded(&specs, 42)?;
//! assert_eq!(weights.get("wq.weight", &[8, 4])?.dims(), [8, 4]);
//! let error = weights.get("wq.weight", &[4, 8]).unwrap_err();
//! assert_eq!(error.to_string(), "weight `wq.weight` has shape [8, 4], expected [4, 8]");
//! # Ok::<(), attn_core::Error>(())
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor, Var};
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};

use crate::error::{Error, Result};
use crate::variant::Build;

/// Name, shape and initial distribution of one weight.
///
/// ```
/// use attn_core::WeightSpec;
///
/// let spec = WeightSpec::matrix("wo.weight", 512, 256);
/// assert_eq!((spec.elements(), spec.std), (512 * 256, 1.0 / 16.0));
/// assert_eq!(WeightSpec::norm("kv_norm.weight", 256).mean, 1.0);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct WeightSpec {
    /// Name under the layer's prefix, as the seed's modules have it.
    pub name: String,
    /// Shape; matrices are `[out, in]` as in PyTorch.
    pub shape: Vec<usize>,
    /// Mean of the initial values.
    pub mean: f64,
    /// Standard deviation of the initial values.
    pub std: f64,
}

impl WeightSpec {
    /// A projection `[out, in]`, of standard deviation `in^-1/2` so that outputs keep their inputs' scale.
    pub fn matrix(name: impl Into<String>, out: usize, input: usize) -> Self {
        Self {
            name: name.into(),
            shape: vec![out, input],
            mean: 0.0,
            std: (input as f64).powf(-0.5),
        }
    }

    /// A bias `[out]`: small and not zero, so that a forgotten one is noticed.
    pub fn bias(name: impl Into<String>, out: usize) -> Self {
        Self {
            name: name.into(),
            shape: vec![out],
            mean: 0.0,
            std: 0.02,
        }
    }

    /// A norm's scale `[width]`: around one and not equal to it, for the same reason.
    pub fn norm(name: impl Into<String>, width: usize) -> Self {
        Self {
            name: name.into(),
            shape: vec![width],
            mean: 1.0,
            std: 0.02,
        }
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Named weights of one layer.
///
/// ```
/// use attn_core::{Build, Path, WeightSpec, Weights};
/// use candle_core::DType;
///
/// let specs = [WeightSpec::matrix("wq.weight", 4, 4)];
/// let weights = Weights::seeded(&specs, 42)?;
/// // The same seed and name give the same values, whatever else there is.
/// let more = Weights::seeded(&[specs[0].clone(), WeightSpec::bias("wq.bias", 4)], 42)?;
/// let values = |weights: &Weights| -> attn_core::Result<Vec<f32>> {
///     Ok(weights.get("wq.weight", &[4, 4])?.flatten_all()?.to_vec1()?)
/// };
/// assert_eq!(values(&weights)?, values(&more)?);
/// assert!(more.contains("wq.bias") && more.iter().count() == 2);
/// let half = weights.for_build(&Build::cpu(Path::Fused, DType::BF16))?;
/// assert_eq!(half.get("wq.weight", &[4, 4])?.dtype(), DType::BF16);
/// # Ok::<(), attn_core::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Weights {
    tensors: BTreeMap<String, Tensor>,
}

impl Weights {
    /// Weights drawn from `seed`, in f32 on the CPU.
    ///
    /// Each weight has a random stream of its own, named by the weight: layers that share a name and a
    /// shape (MHA and GQA with Hkv = H) get the same values.
    ///
    /// # Errors
    /// [`Error::Candle`] where memory runs out.
    pub fn seeded(specs: &[WeightSpec], seed: u64) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        for spec in specs {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(name_hash(&spec.name));
            let normal = Normal::new(spec.mean, spec.std).map_err(|err| {
                Error::Candle(candle_core::Error::Msg(format!("weight `{}`: {err}", spec.name)))
            })?;
            let values: Vec<f32> = normal
                .sample_iter(&mut rng)
                .take(spec.elements())
                .map(|x| x as f32)
                .collect();
            tensors.insert(
                spec.name.clone(),
                Tensor::from_vec(values, spec.shape.as_slice(), &Device::Cpu)?,
            );
        }
        Ok(Self { tensors })
    }

    /// The tensors of a safetensors file whose names begin with `prefix`, which is cut off.
    ///
    /// # Errors
    /// [`Error::Safetensors`] where the file cannot be read.
    ///
    /// ```
    /// use attn_core::{Error, Weights};
    /// use candle_core::Device;
    ///
    /// let missing = Weights::from_safetensors("no/such/file".as_ref(), "layers.0.", &Device::Cpu);
    /// assert!(matches!(missing, Err(Error::Safetensors { .. })));
    /// ```
    pub fn from_safetensors(path: &Path, prefix: &str, device: &Device) -> Result<Self> {
        let all = candle_core::safetensors::load(path, device).map_err(|err| Error::Safetensors {
            path: path.to_path_buf(),
            reason: err.to_string(),
        })?;
        Ok(all
            .into_iter()
            .filter_map(|(name, t)| Some((name.strip_prefix(prefix)?.to_string(), t)))
            .collect())
    }

    /// The same weights in a build's dtype and on its device; gradients flow through the conversion.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the build's path is not defined for its dtype.
    pub fn for_build(&self, build: &Build) -> Result<Self> {
        if !build.is_defined() {
            return Err(Error::Unsupported {
                what: format!("path {} in {}", build.path, build.dtype.as_str()),
                remedy: "the seed computes in f32, use path fused for half precision".to_string(),
            });
        }
        self.tensors
            .iter()
            .map(|(name, t)| Ok((name.clone(), t.to_dtype(build.dtype)?.to_device(&build.device)?)))
            .collect::<Result<Self>>()
    }

    /// The same weights as trainable variables, of `dtype`.
    ///
    /// # Errors
    /// [`Error::Candle`] where memory runs out.
    pub fn to_vars(&self, dtype: DType) -> Result<Self> {
        let tensors = self
            .tensors
            .iter()
            .map(|(name, t)| Ok((name.clone(), Var::from_tensor(&t.to_dtype(dtype)?)?.into_inner())))
            .collect::<Result<_>>()?;
        Ok(Self { tensors })
    }

    /// The weight `name`, whose shape must be `shape`.
    ///
    /// # Errors
    /// [`Error::MissingWeight`], [`Error::WeightShape`].
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let Some(tensor) = self.tensors.get(name) else {
            return Err(Error::MissingWeight {
                name: name.to_string(),
                expected: shape.to_vec(),
            });
        };
        if tensor.dims() != shape {
            return Err(Error::WeightShape {
                name: name.to_string(),
                expected: shape.to_vec(),
                got: tensor.dims().to_vec(),
            });
        }
        Ok(tensor.clone())
    }

    /// Whether there is a weight `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Adds or replaces a weight.
    pub fn insert(&mut self, name: impl Into<String>, tensor: Tensor) {
        self.tensors.insert(name.into(), tensor);
    }

    /// All weights in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, t)| (name.as_str(), t))
    }
}

impl FromIterator<(String, Tensor)> for Weights {
    fn from_iter<I: IntoIterator<Item = (String, Tensor)>>(iter: I) -> Self {
        Self {
            tensors: iter.into_iter().collect(),
        }
    }
}

/// Values of unit variance, uniform in [-sqrt 3, sqrt 3): cheap enough to fill gigabytes of cache with.
///
/// The same `seed` and `stream` give the same values on every machine and for every thread count.
///
/// ```
/// use attn_core::random_unit;
///
/// let values = random_unit(10_000, 42, 0);
/// assert_eq!(values, random_unit(10_000, 42, 0));
/// let variance = values.iter().map(|x| x * x).sum::<f32>() / 10_000.0;
/// assert!((variance - 1.0).abs() < 0.05, "{variance}");
/// ```
pub fn random_unit(elements: usize, seed: u64, stream: u64) -> Vec<f32> {
    use rayon::prelude::*;
    const CHUNK: usize = 1 << 16;
    const SCALE: f32 = 1.732_050_8 / (1u32 << 23) as f32;
    let mut values = vec![0f32; elements];
    values.par_chunks_mut(CHUNK).enumerate().for_each(|(i, chunk)| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ (i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        rng.set_stream(stream);
        for value in chunk {
            *value = ((rng.next_u32() >> 8) as i32 - (1 << 23)) as f32 * SCALE;
        }
    });
    values
}

/// A tensor of [`random_unit`] values.
///
/// # Errors
/// [`Error::Candle`] where memory runs out.
///
/// ```
/// use attn_core::random_tensor;
/// use candle_core::{DType, Device};
///
/// let x = random_tensor(&[2, 5, 16], 42, 1, DType::BF16, &Device::Cpu)?;
/// assert_eq!((x.dims(), x.dtype()), (&[2, 5, 16][..], DType::BF16));
/// # Ok::<(), attn_core::Error>(())
/// ```
pub fn random_tensor(
    shape: &[usize],
    seed: u64,
    stream: u64,
    dtype: DType,
    device: &Device,
) -> Result<Tensor> {
    let values = random_unit(shape.iter().product(), seed, stream);
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?
        .to_dtype(dtype)?
        .to_device(device)?)
}

/// FNV-1a: stable across platforms and releases, which the standard hasher is not.
fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}
