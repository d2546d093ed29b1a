//! The gate of a training: the model and its gradients, against a plain formulation in f64.

use attn_core::{Build, Path, Weights, in_pool};
use attn_model::train::cross_entropy;
use attn_tasks::{Batch, Part, Task};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor};

use crate::error::Result;
use crate::model::TaskModelConfig;

/// Examples that are compared.
const EXAMPLES: u64 = 2;

/// How far a model is from a plain formulation of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Agreement {
    /// Largest difference of a logit, over the largest logit of the reference.
    pub logits: f64,
    /// Largest difference of a gradient, over the largest one of the same weight, or a thousandth of the largest of all
    /// where that is more.
    pub gradients: f64,
    /// Logits' rows that were compared.
    pub rows: usize,
}

/// Compares logits and gradients at the beginning of a training with those of path `seedlike` in f64.
///
/// # Errors
/// Those of the model and the data.
pub fn check(task: &dyn Task, config: &TaskModelConfig, seed: u64, build: &Build) -> Result<Agreement> {
    let weights = Weights::seeded(&config.weight_specs(), seed)?;
    let batch = Batch::of(task, Part::Train, &(0..EXAMPLES).collect::<Vec<_>>())?;
    in_pool(|| {
        let (logits, grads, vars) = pass(config, &weights, build, &batch)?;
        let reference = Build::cpu(Path::Seedlike, DType::F64);
        let (expected, expected_grads, expected_vars) = pass(config, &weights, &reference, &batch)?;
        let rows = batch.batch * batch.tokens;
        let (difference, scale) = distance(&logits, &expected)?;
        let mut apart = Vec::new();
        for ((_, got), (_, want)) in vars.iter().zip(expected_vars.iter()) {
            if let (Some(got), Some(want)) = (grads.get(got), expected_grads.get(want)) {
                apart.push(distance(got, want)?);
            }
        }
        let most = apart.iter().map(|(_, scale)| *scale).fold(0.0, f64::max);
        let of_weight = |(difference, scale): &(f64, f64)| difference / scale.max(1e-3 * most);
        Ok(Agreement {
            logits: difference / scale,
            // NaN is not lost.
            gradients: apart
                .iter()
                .map(of_weight)
                .fold(0.0, |a, b| if b > a || b.is_nan() { b } else { a }),
            rows,
        })
    })
}

fn pass(
    config: &TaskModelConfig,
    weights: &Weights,
    build: &Build,
    batch: &Batch,
) -> Result<(Tensor, GradStore, Weights)> {
    let kept = match build.dtype {
        DType::F64 => DType::F64,
        _ => DType::F32,
    };
    let vars = weights.to_vars(kept)?;
    let logits = config.build(&vars, build)?.logits(batch)?;
    let shape = (batch.batch, batch.tokens);
    let device = logits.device();
    let targets = Tensor::from_slice(&batch.targets, shape, &Device::Cpu)?.to_device(device)?;
    let answers = Tensor::from_slice(&batch.weights, shape, &Device::Cpu)?.to_device(device)?;
    let loss = cross_entropy(&logits, &targets, &answers, 0.0)?;
    let grads = loss.mean.backward()?;
    Ok((logits.detach(), grads, vars))
}

/// The largest difference, and the largest of what is expected.
fn distance(got: &Tensor, expected: &Tensor) -> Result<(f64, f64)> {
    let flat = |t: &Tensor| -> Result<Vec<f64>> {
        Ok(t.to_device(&Device::Cpu)?
            .to_dtype(DType::F64)?
            .flatten_all()?
            .to_vec1()?)
    };
    let (got, expected) = (flat(got)?, flat(expected)?);
    let worst = |a: f64, b: f64| if b > a || b.is_nan() { b } else { a };
    let difference = got
        .iter()
        .zip(&expected)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, worst);
    Ok((difference, expected.iter().map(|x| x.abs()).fold(0.0, worst)))
}
