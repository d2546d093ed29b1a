//! AdamW, with a state that can be kept and taken up again.

use std::collections::BTreeMap;

use attn_core::Weights;
use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Settings of [`AdamW`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamWOptions {
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of their squares.
    pub beta2: f64,
    /// Added to the root of the squares.
    pub eps: f64,
    /// What matrices lose at every step, in learning rates; biases and norms lose nothing.
    pub weight_decay: f64,
    /// Largest norm of all gradients together; larger ones are scaled down. 0 for none.
    pub clip_norm: f64,
}

impl Default for AdamWOptions {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.98,
            eps: 1e-8,
            weight_decay: 0.01,
            clip_norm: 1.0,
        }
    }
}

/// Adam with decoupled weight decay.
///
/// ```text
/// m = b1 m + (1 - b1) g,   v = b2 v + (1 - b2) g^2
/// w = w (1 - lr decay) - lr / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps)
/// ```
///
/// # Source
/// Loshchilov and Hutter, arXiv 1711.05101, algorithm 2, in the order of PyTorch's `AdamW`.
#[derive(Debug)]
pub struct AdamW {
    options: AdamWOptions,
    steps: u64,
    /// Means of gradients and of their squares, by weight.
    moments: BTreeMap<String, [Tensor; 2]>,
}

impl AdamW {
    /// An optimiser that has seen nothing.
    pub fn new(options: AdamWOptions) -> Self {
        Self {
            options,
            steps: 0,
            moments: BTreeMap::new(),
        }
    }

    /// Updates every weight that has a gradient, in place. Returns the norm of all gradients together, before they are
    /// scaled down. Where it is not finite nothing is updated.
    ///
    /// # Errors
    /// [`Error::Input`] where a weight is no variable.
    pub fn step(&mut self, weights: &Weights, grads: &GradStore, lr: f64) -> Result<f64> {
        let norm = norm(weights, grads)?;
        if !norm.is_finite() {
            return Ok(norm);
        }
        let AdamWOptions {
            beta1,
            beta2,
            eps,
            weight_decay,
            clip_norm,
        } = self.options;
        self.steps += 1;
        // As PyTorch's `clip_grad_norm_`.
        let scale = match clip_norm {
            0.0 => 1.0,
            _ => (clip_norm / (norm + 1e-6)).min(1.0),
        };
        let corrected = [beta1, beta2].map(|beta| 1.0 - beta.powf(self.steps as f64));
        for (name, weight) in weights.iter() {
            let Some(grad) = grads.get(weight) else {
                continue; // this loss does not depend on it
            };
            let grad = match scale {
                1.0 => grad.detach(),
                _ => (grad.detach() * scale)?,
            };
            let [mean, squares] = match self.moments.get(name) {
                Some([mean, squares]) => [
                    ((mean * beta1)? + (&grad * (1.0 - beta1))?)?,
                    ((squares * beta2)? + (grad.sqr()? * (1.0 - beta2))?)?,
                ],
                None => [(&grad * (1.0 - beta1))?, (grad.sqr()? * (1.0 - beta2))?],
            };
            let root = ((squares.sqrt()? / corrected[1].sqrt())? + eps)?;
            let update = (mean.div(&root)? * (lr / corrected[0]))?;
            let kept = match weight.rank() {
                0 | 1 => weight.detach(),
                _ => (weight.detach() * (1.0 - lr * weight_decay))?,
            };
            variable(name, weight)?.set(&(kept - update)?)?;
            self.moments.insert(name.to_string(), [mean, squares]);
        }
        Ok(norm)
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The state: tensors `mean.<weight>` and `squares.<weight>`.
    pub fn state(&self) -> Weights {
        let named = |(name, [mean, squares]): (&String, &[Tensor; 2])| {
            [
                (format!("mean.{name}"), mean.clone()),
                (format!("squares.{name}"), squares.clone()),
            ]
        };
        self.moments.iter().flat_map(named).collect()
    }

    /// An optimiser that goes on from a state after `steps` steps.
    ///
    /// # Errors
    /// [`Error::Input`] where a mean has no squares.
    pub fn resume(options: AdamWOptions, steps: u64, state: &Weights) -> Result<Self> {
        let mut moments = BTreeMap::new();
        for (name, mean) in state.iter() {
            let Some(name) = name.strip_prefix("mean.") else {
                continue;
            };
            let squares = state.get(&format!("squares.{name}"), mean.dims())?;
            moments.insert(name.to_string(), [mean.clone(), squares]);
        }
        Ok(Self {
            options,
            steps,
            moments,
        })
    }
}

/// The norm of all gradients together.
fn norm(weights: &Weights, grads: &GradStore) -> Result<f64> {
    let mut squares = 0.0;
    for (_, weight) in weights.iter() {
        if let Some(grad) = grads.get(weight) {
            squares += grad
                .detach()
                .sqr()?
                .sum_all()?
                .to_dtype(DType::F64)?
                .to_scalar::<f64>()?;
        }
    }
    Ok(squares.sqrt())
}

fn variable(name: &str, weight: &Tensor) -> Result<Var> {
    if weight.is_variable() {
        return Ok(Var::from_tensor(weight)?);
    }
    Err(Error::input("weight", name, "a variable"))
}
