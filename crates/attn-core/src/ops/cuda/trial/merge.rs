//! Operands of the trials of the merge and its gradients.

use attn_kernels::cuda::MergeShape;
use candle_core::{D, DType, Device, Tensor, Var};

use super::super::candle_dtype;
use super::SEED;
use crate::error::Result;
use crate::latent::GateTable;
use crate::weights::random_tensor;

/// Sequences of a trial.
pub(in super::super) const TRIAL_BATCH: usize = 3;

/// Operands of a trial.
pub(in super::super) struct MergeTrial {
    /// `[B, T, r]`.
    pub(in super::super) c: Tensor,
    pub(in super::super) table: GateTable,
    /// Gradient of the sums.
    pub(in super::super) grad: Tensor,
}

/// What is computed, in f32.
pub(in super::super) struct Merged {
    pub(in super::super) sums: Tensor,
    /// Gradients of latents, table and biases.
    pub(in super::super) gradients: [Tensor; 3],
}

impl MergeTrial {
    /// Tokens of the trials of a shape: one; more blocks than a launch's have warps, the last one cut short.
    pub(in super::super) fn tokens(shape: &MergeShape) -> [usize; 2] {
        [1, 5 * shape.stride + shape.stride.div_ceil(2)]
    }

    /// On the processor.
    pub(in super::super) fn new(shape: &MergeShape, tokens: usize) -> Result<Self> {
        let (dtype, r) = (candle_dtype(shape.dtype), shape.rank);
        let random = |dims: &[usize], stream, dtype| random_tensor(dims, SEED, stream, dtype, &Device::Cpu);
        let blocks = tokens.div_ceil(shape.stride);
        Ok(Self {
            c: random(&[TRIAL_BATCH, tokens, r], 1, dtype)?,
            table: GateTable {
                // Logits of unit variance.
                u: (random(&[blocks, r], 2, DType::F32)? * (r as f64).powf(-0.5))?,
                b: random(&[blocks], 3, DType::F32)?,
                stride: shape.stride,
            },
            grad: random(&[TRIAL_BATCH, tokens, r], 4, dtype)?,
        })
    }

    pub(in super::super) fn on(&self, device: &Device) -> Result<Self> {
        Ok(Self {
            c: self.c.to_device(device)?,
            table: GateTable {
                u: self.table.u.to_device(device)?,
                b: self.table.b.to_device(device)?,
                stride: self.table.stride,
            },
            grad: self.grad.to_device(device)?,
        })
    }

    /// By candle's operations on the processor, token by token.
    pub(in super::super) fn expected(&self) -> Result<Merged> {
        let var =
            |x: &Tensor| -> Result<Tensor> { Ok(Var::from_tensor(&x.to_dtype(DType::F32)?)?.into_inner()) };
        let vars = [var(&self.c)?, var(&self.table.u)?, var(&self.table.b)?];
        let [c, u, b] = &vars;
        let mut sums = Vec::new();
        for token in 0..c.dim(1)? {
            let block = token / self.table.stride;
            let c = c.narrow(1, token, 1)?; // [B, 1, r]
            let logit = c
                .broadcast_mul(&u.narrow(0, block, 1)?)?
                .sum_keepdim(D::Minus1)?
                .broadcast_add(&b.narrow(0, block, 1)?)?;
            let weight = (logit.neg()?.exp()? + 1.0)?.recip()?;
            let gated = c.broadcast_mul(&weight)?;
            let sum = match sums.last() {
                Some(before) if token % self.table.stride > 0 => (before + gated)?,
                _ => gated,
            };
            sums.push(sum);
        }
        let sums = Tensor::cat(&sums, 1)?;
        let of_sums = self.grad.to_dtype(DType::F32)?;
        let gradients = (&sums * of_sums)?.sum_all()?.backward()?;
        let of = |x: &Tensor| match gradients.get(x) {
            Some(gradient) => Ok(gradient.clone()),
            None => x.zeros_like(),
        };
        Ok(Merged {
            sums: sums.detach(),
            gradients: [of(c)?, of(u)?, of(b)?],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::trials::agree;
    use attn_kernels::cuda::Dtype;

    /// Against the formulas, sums and products in their own words.
    #[test]
    fn trials_of_the_merge_are_the_formulas() {
        let shape = MergeShape {
            dtype: Dtype::F32,
            rank: 6,
            stride: 3,
        };
        for tokens in MergeTrial::tokens(&shape) {
            let trial = MergeTrial::new(&shape, tokens).unwrap();
            let got = trial.expected().unwrap();
            let c = trial.c.to_vec3::<f32>().unwrap();
            let grad = trial.grad.to_vec3::<f32>().unwrap();
            let u = trial.table.u.to_vec2::<f32>().unwrap();
            let b = trial.table.b.to_vec1::<f32>().unwrap();
            let mut sums = c.clone();
            let mut of_biases = vec![0.0; b.len()];
            for (sequence, c) in c.iter().enumerate() {
                let mut weights = Vec::new();
                for (token, c) in c.iter().enumerate() {
                    let block = token / 3;
                    let logit: f32 = c.iter().zip(&u[block]).map(|(c, u)| c * u).sum::<f32>() + b[block];
                    weights.push(1.0 / (1.0 + (-logit).exp()));
                    for d in 0..6 {
                        let before = if token % 3 > 0 {
                            sums[sequence][token - 1][d]
                        } else {
                            0.0
                        };
                        sums[sequence][token][d] = before + weights[token] * c[d];
                    }
                }
                for (token, c) in c.iter().enumerate() {
                    let end = (token / 3 * 3 + 3).min(tokens);
                    let later = |d: usize| (token..end).map(|i| grad[sequence][i][d]).sum::<f32>();
                    let along: f32 = (0..6).map(|d| later(d) * c[d]).sum();
                    of_biases[token / 3] += along * weights[token] * (1.0 - weights[token]);
                }
            }
            let sums = Tensor::new(sums, &Device::Cpu).unwrap();
            agree(&got.sums, &sums, 1e-6).unwrap();
            let of_biases = Tensor::new(of_biases, &Device::Cpu).unwrap();
            agree(&got.gradients[2], &of_biases, 1e-5).unwrap();
        }
    }
}
