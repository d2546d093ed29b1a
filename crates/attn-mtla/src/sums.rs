//! The merge of training: gate and partial sums as one operation with a gradient. As operations of candle it is twelve
//! passes over the latents, and twice as many backwards.

use attn_core::Result;
use candle_core::{CpuStorage, CustomOp2, DType, Layout, Shape, Tensor, WithDType};
use num_traits::Float;
use rayon::prelude::*;

/// [`partial_sums`](crate::cache::partial_sums) of sequences from their beginning, weights `sigmoid(logits)`, as one pass with a gradient.
///
/// # Shapes
/// - `c`: `[B, T, r]`; `logits`: `[B, T, 1]`, on the CPU in f32 or f64
/// - returns `[B, T, r]`
pub(crate) fn gated_sums(c: &Tensor, logits: &Tensor, s: usize) -> Result<Tensor> {
    Ok(c.contiguous()?
        .apply_op2(&logits.contiguous()?, GatedSums { stride: s })?)
}

#[derive(Debug, Clone, Copy)]
struct GatedSums {
    stride: usize,
}

impl GatedSums {
    fn forward<T: WithDType + Float + Default>(self, c: &[T], logits: &[T], [t, r]: [usize; 2]) -> Vec<T> {
        let mut sums = vec![T::default(); c.len()];
        let of_sequence = sums.par_chunks_mut(t * r).enumerate();
        of_sequence.for_each(|(sequence, sums)| {
            let of_block = sums.par_chunks_mut(self.stride * r).with_min_len(64).enumerate();
            of_block.for_each(|(block, sums)| {
                let first = sequence * t + block * self.stride;
                for token in 0..sums.len() / r {
                    let weight = sigmoid(logits[first + token]);
                    let c = &c[(first + token) * r..][..r];
                    let (before, sum) = sums.split_at_mut(token * r);
                    let before = before.rchunks(r).next();
                    for d in 0..r {
                        sum[d] = weight * c[d] + before.map_or(T::default(), |before| before[d]);
                    }
                }
            });
        });
        sums
    }

    /// Of a token's latent and logit, from the gradients of all sums that it is in.
    fn backward<T: WithDType + Float + Default>(
        self,
        c: &[T],
        logits: &[T],
        grad: &[T],
        [t, r]: [usize; 2],
    ) -> (Vec<T>, Vec<T>) {
        let (mut dc, mut d_logits) = (vec![T::default(); c.len()], vec![T::default(); logits.len()]);
        let of_sequence = dc
            .par_chunks_mut(t * r)
            .zip(d_logits.par_chunks_mut(t))
            .enumerate();
        of_sequence.for_each(|(sequence, (dc, d_logits))| {
            let of_block = dc
                .par_chunks_mut(self.stride * r)
                .zip(d_logits.par_chunks_mut(self.stride))
                .with_min_len(64)
                .enumerate();
            of_block.for_each(|(block, (dc, d_logits))| {
                let first = sequence * t + block * self.stride;
                let mut later = vec![T::default(); r];
                for token in (0..d_logits.len()).rev() {
                    let at = (first + token) * r;
                    let weight = sigmoid(logits[first + token]);
                    let mut along = T::default();
                    for d in 0..r {
                        later[d] += grad[at + d];
                        along += later[d] * c[at + d];
                        dc[token * r + d] = weight * later[d];
                    }
                    d_logits[token] = along * weight * (T::one() - weight);
                }
            });
        });
        (dc, d_logits)
    }

    fn backward_as<T: WithDType + Float + Default>(
        self,
        c: &Tensor,
        logits: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<[Tensor; 2]> {
        let flat = |x: &Tensor| x.contiguous()?.flatten_all()?.to_vec1::<T>();
        let (_, t, r) = c.dims3()?;
        let (dc, d_logits) = self.backward(&flat(c)?, &flat(logits)?, &flat(grad)?, [t, r]);
        Ok([
            Tensor::from_vec(dc, c.shape(), c.device())?,
            Tensor::from_vec(d_logits, logits.shape(), c.device())?,
        ])
    }
}

impl CustomOp2 for GatedSums {
    fn name(&self) -> &'static str {
        "gated-sums"
    }

    fn cpu_fwd(
        &self,
        c: &CpuStorage,
        c_layout: &Layout,
        logits: &CpuStorage,
        logits_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (Some(of_c), Some(of_logits)) =
            (c_layout.contiguous_offsets(), logits_layout.contiguous_offsets())
        else {
            candle_core::bail!("gated-sums takes contiguous operands")
        };
        let (_, t, r) = c_layout.shape().dims3()?;
        let (of_c, of_logits) = (of_c.0..of_c.1, of_logits.0..of_logits.1);
        let sums = match (c, logits) {
            (CpuStorage::F32(c), CpuStorage::F32(logits)) => {
                CpuStorage::F32(self.forward(&c[of_c], &logits[of_logits], [t, r]))
            }
            (CpuStorage::F64(c), CpuStorage::F64(logits)) => {
                CpuStorage::F64(self.forward(&c[of_c], &logits[of_logits], [t, r]))
            }
            _ => candle_core::bail!("gated-sums takes f32 and f64"),
        };
        Ok((sums, c_layout.shape().clone()))
    }

    fn bwd(
        &self,
        c: &Tensor,
        logits: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let [dc, d_logits] = match c.dtype() {
            DType::F64 => self.backward_as::<f64>(c, logits, grad)?,
            _ => self.backward_as::<f32>(c, logits, grad)?,
        };
        Ok((Some(dc), Some(d_logits)))
    }
}

fn sigmoid<T: Float>(x: T) -> T {
    T::one() / (T::one() + (-x).exp())
}
