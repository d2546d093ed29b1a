//! The merge of training: gate and partial sums as one operation with a gradient. As operations of candle it is twelve
//! passes over the latents, and twice as many backwards.

use attn_core::Result;
use attn_core::latent::GateTable;
use candle_core::{CpuStorage, CustomOp3, DType, Layout, Shape, Tensor, WithDType};
use num_traits::Float;
use rayon::prelude::*;

/// [`partial_sums`](crate::cache::partial_sums) of sequences from their beginning, each token weighed by
/// `sigmoid(c . u[j] + b[j])` of its block j, as one pass with a gradient.
///
/// # Shapes
/// - `c`: `[B, T, r]`, on the CPU in f32 or f64; the table's rows: those of the blocks
/// - returns `[B, T, r]`
pub(crate) fn gated_sums(c: &Tensor, table: &GateTable) -> Result<Tensor> {
    let op = GatedSums { stride: table.stride };
    Ok(c.contiguous()?
        .apply_op3(&table.u.contiguous()?, &table.b.contiguous()?, op)?)
}

#[derive(Debug, Clone, Copy)]
struct GatedSums {
    stride: usize,
}

/// Latents `[B, T, r]`, and the gate's table `[blocks, r]` and `[blocks]`.
#[derive(Clone, Copy)]
struct Operands<'a, T> {
    c: &'a [T],
    u: &'a [T],
    b: &'a [T],
    t: usize,
    r: usize,
}

impl<T: Float> Operands<'_, T> {
    fn weight(&self, block: usize, c: &[T]) -> T {
        let u = &self.u[block * self.r..][..self.r];
        let logit = c.iter().zip(u).fold(self.b[block], |sum, (&c, &u)| sum + c * u);
        T::one() / (T::one() + (-logit).exp())
    }
}

/// Gradients of [`Operands`].
struct Gradients<T> {
    c: Vec<T>,
    u: Vec<T>,
    b: Vec<T>,
}

impl GatedSums {
    fn forward<T: WithDType + Float + Default>(self, operands: Operands<T>) -> Vec<T> {
        let Operands { c, t, r, .. } = operands;
        let mut sums = vec![T::default(); c.len()];
        let of_sequence = sums.par_chunks_mut(t * r).enumerate();
        of_sequence.for_each(|(sequence, sums)| {
            let of_block = sums.par_chunks_mut(self.stride * r).with_min_len(64).enumerate();
            of_block.for_each(|(block, sums)| {
                let first = sequence * t + block * self.stride;
                for token in 0..sums.len() / r {
                    let c = &c[(first + token) * r..][..r];
                    let weight = operands.weight(block, c);
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

    /// A latent's comes from all sums that it is in and from its own weight, the table's from the weights of a block.
    fn backward<T: WithDType + Float + Default>(self, operands: Operands<T>, grad: &[T]) -> Gradients<T> {
        let Operands { c, u, b, t, r } = operands;
        let mut gradients = Gradients {
            c: vec![T::default(); c.len()],
            u: vec![T::default(); u.len()],
            b: vec![T::default(); b.len()],
        };
        let mut of_logits = vec![T::default(); c.len() / r];
        let of_sequence = gradients
            .c
            .par_chunks_mut(t * r)
            .zip(of_logits.par_chunks_mut(t))
            .enumerate();
        of_sequence.for_each(|(sequence, (dc, of_logits))| {
            let of_block = dc
                .par_chunks_mut(self.stride * r)
                .zip(of_logits.par_chunks_mut(self.stride))
                .with_min_len(64)
                .enumerate();
            of_block.for_each_init(
                || vec![T::default(); r],
                |later, (block, (dc, of_logits))| {
                    let first = sequence * t + block * self.stride;
                    let u = &u[block * r..][..r];
                    later.fill(T::default());
                    for token in (0..of_logits.len()).rev() {
                        let at = (first + token) * r;
                        let (c, grad) = (&c[at..][..r], &grad[at..][..r]);
                        let weight = operands.weight(block, c);
                        let mut along = T::default();
                        for d in 0..r {
                            later[d] += grad[d];
                            along += later[d] * c[d];
                        }
                        let of_logit = along * weight * (T::one() - weight);
                        for (d, dc) in dc[token * r..][..r].iter_mut().enumerate() {
                            *dc = weight * later[d] + of_logit * u[d];
                        }
                        of_logits[token] = of_logit;
                    }
                },
            );
        });
        let of_block = gradients.u.par_chunks_mut(r).zip(&mut gradients.b);
        of_block
            .with_min_len(64)
            .enumerate()
            .for_each(|(block, (du, db))| {
                for sequence in 0..c.len() / (t * r) {
                    let first = (block * self.stride).min(t);
                    for token in first..(first + self.stride).min(t) {
                        let at = sequence * t + token;
                        let c = &c[at * r..][..r];
                        du.iter_mut().zip(c).for_each(|(du, &c)| *du += of_logits[at] * c);
                        *db += of_logits[at];
                    }
                }
            });
        gradients
    }

    fn backward_as<T: WithDType + Float + Default>(
        self,
        [c, u, b]: [&Tensor; 3],
        grad: &Tensor,
    ) -> candle_core::Result<[Tensor; 3]> {
        let flat = |x: &Tensor| x.contiguous()?.flatten_all()?.to_vec1::<T>();
        let (_, t, r) = c.dims3()?;
        let (c_of, u_of, b_of) = (flat(c)?, flat(u)?, flat(b)?);
        let operands = Operands {
            c: &c_of,
            u: &u_of,
            b: &b_of,
            t,
            r,
        };
        let gradients = self.backward(operands, &flat(grad)?);
        Ok([
            Tensor::from_vec(gradients.c, c.shape(), c.device())?,
            Tensor::from_vec(gradients.u, u.shape(), u.device())?,
            Tensor::from_vec(gradients.b, b.shape(), b.device())?,
        ])
    }
}

impl CustomOp3 for GatedSums {
    fn name(&self) -> &'static str {
        "gated-sums"
    }

    fn cpu_fwd(
        &self,
        c: &CpuStorage,
        c_layout: &Layout,
        u: &CpuStorage,
        u_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let ranges = [c_layout, u_layout, b_layout].map(Layout::contiguous_offsets);
        let [Some(of_c), Some(of_u), Some(of_b)] = ranges else {
            candle_core::bail!("gated-sums takes contiguous operands")
        };
        let (_, t, r) = c_layout.shape().dims3()?;
        if u_layout.dims()[0] * self.stride < t {
            candle_core::bail!("gated-sums takes a row of the table for each block")
        }
        macro_rules! sums {
            ($c:expr, $u:expr, $b:expr) => {
                self.forward(Operands {
                    c: &$c[of_c.0..of_c.1],
                    u: &$u[of_u.0..of_u.1],
                    b: &$b[of_b.0..of_b.1],
                    t,
                    r,
                })
            };
        }
        let sums = match (c, u, b) {
            (CpuStorage::F32(c), CpuStorage::F32(u), CpuStorage::F32(b)) => CpuStorage::F32(sums!(c, u, b)),
            (CpuStorage::F64(c), CpuStorage::F64(u), CpuStorage::F64(b)) => CpuStorage::F64(sums!(c, u, b)),
            _ => candle_core::bail!("gated-sums takes f32 and f64"),
        };
        Ok((sums, c_layout.shape().clone()))
    }

    fn bwd(
        &self,
        c: &Tensor,
        u: &Tensor,
        b: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let operands = [c, u, b];
        let [dc, du, db] = match c.dtype() {
            DType::F64 => self.backward_as::<f64>(operands, grad)?,
            _ => self.backward_as::<f32>(operands, grad)?,
        };
        Ok((Some(dc), Some(du), Some(db)))
    }
}
