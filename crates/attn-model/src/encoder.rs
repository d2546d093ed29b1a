//! A small encoder: what gives the paper's decoder its prefix.
//!
//! It mixes neighbours by convolutions and has no attention, so that what a comparison trains differs in the decoder's
//! attention alone.

use attn_core::linear::Linear;
use attn_core::norm::{Norm, NormKind};
use attn_core::{Build, WeightSpec, Weights};
use candle_core::{D, DType, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::prompts::check_tokens;

const NORM_EPS: f64 = 1e-5;

/// What an encoder reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EncoderInput {
    /// Frames of so many elements.
    Frames(usize),
    /// Tokens of a vocabulary of so many.
    Tokens(usize),
}

/// Sizes of an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncoderConfig {
    /// What it reads.
    pub input: EncoderInput,
    /// Width M of its states, the decoder's.
    pub d_model: usize,
    /// Layers.
    pub n_layers: usize,
    /// Inner size F of a layer.
    pub d_ff: usize,
    /// States that a layer looks at, an odd number.
    pub kernel: usize,
    /// States that are made one by their mean, at the end: the plain way to a smaller cache.
    pub downsample: usize,
}

impl EncoderConfig {
    /// Name, shape and initialisation of every weight.
    pub fn weight_specs(&self) -> Vec<WeightSpec> {
        let (m, f) = (self.d_model, self.d_ff);
        let mut specs = match self.input {
            EncoderInput::Frames(dim) => Linear::specs("encoder.input", m, dim, true),
            EncoderInput::Tokens(vocab) => vec![WeightSpec {
                name: "encoder.embed_tokens.weight".to_string(),
                shape: vec![vocab, m],
                mean: 0.0,
                std: 1.0,
            }],
        };
        for i in 0..self.n_layers {
            let prefix = format!("encoder.layers.{i}");
            specs.extend(NormKind::Layer.specs(&format!("{prefix}.norm"), m));
            specs.extend(Linear::specs(&format!("{prefix}.fc1"), f, self.kernel * m, true));
            specs.extend(Linear::specs(&format!("{prefix}.fc2"), m, f, true));
        }
        specs.extend(NormKind::Layer.specs("encoder.norm", m));
        specs
    }

    /// States that a source of `n` frames or tokens becomes.
    pub fn states(&self, n: usize) -> usize {
        n.div_ceil(self.downsample.max(1))
    }

    /// The encoder over the given weights.
    ///
    /// # Errors
    /// [`Error::Input`] where the kernel is even or a size is 0; a weight is missing or misshapen.
    pub fn build(&self, weights: &Weights, build: &Build) -> Result<Encoder> {
        if self.kernel % 2 == 0 {
            return Err(Error::input("kernel", self.kernel, "an odd number"));
        }
        if self.downsample == 0 {
            return Err(Error::input("downsample", 0, "at least 1"));
        }
        let weights = weights.for_build(build)?;
        let (m, f) = (self.d_model, self.d_ff);
        let input = match self.input {
            EncoderInput::Frames(dim) => {
                Input::Frames(Linear::load("encoder.input", m, dim, true, &weights)?)
            }
            EncoderInput::Tokens(vocab) => {
                Input::Tokens(weights.get("encoder.embed_tokens.weight", &[vocab, m])?)
            }
        };
        let layer = |i: usize| -> Result<Layer> {
            let prefix = format!("encoder.layers.{i}");
            Ok(Layer {
                norm: Norm::load(NormKind::Layer, &format!("{prefix}.norm"), m, NORM_EPS, &weights)?,
                fc1: Linear::load(&format!("{prefix}.fc1"), f, self.kernel * m, true, &weights)?,
                fc2: Linear::load(&format!("{prefix}.fc2"), m, f, true, &weights)?,
            })
        };
        Ok(Encoder {
            config: *self,
            build: build.clone(),
            input,
            layers: (0..self.n_layers).map(layer).collect::<Result<_>>()?,
            norm: Norm::load(NormKind::Layer, "encoder.norm", m, NORM_EPS, &weights)?,
        })
    }
}

#[derive(Debug)]
enum Input {
    Frames(Linear),
    /// `[V, M]`.
    Tokens(Tensor),
}

#[derive(Debug)]
struct Layer {
    norm: Norm,
    fc1: Linear,
    fc2: Linear,
}

/// An encoder with its weights: `x + fc2(relu(fc1(N(x) of K neighbours)))`, layer by layer, and a norm.
#[derive(Debug)]
pub struct Encoder {
    config: EncoderConfig,
    build: Build,
    input: Input,
    layers: Vec<Layer>,
    norm: Norm,
}

impl Encoder {
    /// States of sources, gradients included.
    ///
    /// # Shapes
    /// - `source`: `[B, S, F]` frames of any float type, or `[B, S]` u32 tokens
    /// - returns `[B, ceil(S / downsample), M]`
    ///
    /// # Errors
    /// [`Error::Input`] where tokens are not of the vocabulary.
    pub fn forward(&self, source: &Tensor) -> Result<Tensor> {
        let source = source.to_device(&self.build.device)?;
        let mut x = match &self.input {
            Input::Frames(input) => input.forward(&source.to_dtype(self.build.dtype)?)?,
            Input::Tokens(embedding) => {
                let (b, s) = source.dims2()?;
                let (vocab, m) = embedding.dims2()?;
                let tokens = source.flatten_all()?.to_dtype(DType::U32)?;
                check_tokens(&tokens.to_vec1()?, vocab)?;
                embedding.index_select(&tokens, 0)?.reshape((b, s, m))?
            }
        };
        for layer in &self.layers {
            let around = neighbours(&layer.norm.forward(&x)?, self.config.kernel)?;
            x = (x + layer.fc2.forward(&layer.fc1.forward(&around)?.relu()?)?)?;
        }
        mean_of(&self.norm.forward(&x)?, self.config.downsample)
    }
}

/// `[B, S, M]` -> `[B, S, K M]`: each state beside those around it, zeros beyond the ends.
fn neighbours(x: &Tensor, kernel: usize) -> Result<Tensor> {
    let (_, s, _) = x.dims3()?;
    let reach = kernel / 2;
    let padded = x.pad_with_zeros(1, reach, reach)?;
    let shifted = (0..kernel).map(|k| padded.narrow(1, k, s));
    Ok(Tensor::cat(
        &shifted.collect::<candle_core::Result<Vec<_>>>()?,
        D::Minus1,
    )?)
}

/// Means of `n` states each, of fewer at the end.
fn mean_of(x: &Tensor, n: usize) -> Result<Tensor> {
    let (b, s, m) = x.dims3()?;
    if n == 1 {
        return Ok(x.clone());
    }
    let whole = s / n * n;
    let mut parts = Vec::new();
    if whole > 0 {
        parts.push(x.narrow(1, 0, whole)?.reshape((b, whole / n, n, m))?.mean(2)?);
    }
    if whole < s {
        parts.push(x.narrow(1, whole, s - whole)?.mean_keepdim(1)?);
    }
    Ok(Tensor::cat(&parts, 1)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use attn_core::{Path, random_tensor};
    use candle_core::Device;

    fn config(input: EncoderInput) -> EncoderConfig {
        EncoderConfig {
            input,
            d_model: 8,
            n_layers: 2,
            d_ff: 16,
            kernel: 3,
            downsample: 1,
        }
    }

    #[test]
    fn a_state_sees_its_neighbours_and_no_more() -> Result<()> {
        let config = config(EncoderInput::Frames(5));
        let weights = Weights::seeded(&config.weight_specs(), 1)?;
        let encoder = config.build(&weights, &Build::cpu(Path::Fused, DType::F64))?;
        let source = random_tensor(&[2, 9, 5], 1, 1, DType::F64, &Device::Cpu)?;
        let states = encoder.forward(&source)?;
        assert_eq!(states.dims(), [2, 9, 8]);
        // Two layers of three neighbours reach two states to each side.
        let part = encoder.forward(&source.narrow(1, 1, 7)?)?;
        let gap = |a: &Tensor, b: &Tensor| -> Result<f64> { Ok((a - b)?.abs()?.max_all()?.to_scalar()?) };
        assert!(gap(&states.narrow(1, 3, 3)?, &part.narrow(1, 2, 3)?)? < 1e-12);
        assert!(gap(&states.narrow(1, 1, 1)?, &part.narrow(1, 0, 1)?)? > 1e-3);
        Ok(())
    }

    #[test]
    fn states_become_one_by_their_mean() -> Result<()> {
        let whole = config(EncoderInput::Tokens(11));
        let halved = EncoderConfig {
            downsample: 2,
            ..whole
        };
        let weights = Weights::seeded(&whole.weight_specs(), 1)?;
        let build = Build::cpu(Path::Fused, DType::F64);
        let source = Tensor::new(&[[1_u32, 10, 3, 0, 7]], &Device::Cpu)?;
        let (all, means) = (
            whole.build(&weights, &build)?.forward(&source)?,
            halved.build(&weights, &build)?.forward(&source)?,
        );
        assert_eq!((means.dims(), halved.states(5)), (&[1, 3, 8][..], 3));
        let first = all.narrow(1, 0, 2)?.mean_keepdim(1)?;
        let gap: f64 = (first - means.narrow(1, 0, 1)?)?.abs()?.max_all()?.to_scalar()?;
        assert!(gap < 1e-12);
        let last: f64 = (all.narrow(1, 4, 1)? - means.narrow(1, 2, 1)?)?
            .abs()?
            .max_all()?
            .to_scalar()?;
        assert!(last < 1e-12);
        let refused = whole
            .build(&weights, &build)?
            .forward(&Tensor::new(&[[11_u32]], &Device::Cpu)?);
        assert!(refused.is_err());
        Ok(())
    }
}
