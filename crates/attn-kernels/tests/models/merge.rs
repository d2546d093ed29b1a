//! `cuda/merge.cu` in Rust: a lane has vectors lane, lane + 32, .. of a row; dot products are a lane's elements in order,
//! then the butterfly.

use attn_kernels::Element;
use attn_kernels::cuda::MergePlan;

use super::warp::butterfly;

/// A launch: the operands of both directions, and what the plan says.
pub struct Merge<'a, E> {
    pub plan: &'a MergePlan,
    pub c: &'a [E],
    pub u: &'a [f32],
    pub b: &'a [f32],
}

/// Gradients of the operands.
pub struct Gradients<E> {
    pub c: Vec<E>,
    pub u: Vec<f32>,
    pub b: Vec<f32>,
}

impl<E: Element> Merge<'_, E> {
    fn dot(&self, x: &[f32], y: &[f32]) -> f32 {
        let in_vector = self.plan.vector_bytes / size_of::<E>();
        let vectors = x.len() / in_vector;
        assert_eq!(vectors * in_vector, x.len());
        let mut lanes = std::array::from_fn(|lane| {
            let elements = (lane..vectors)
                .step_by(32)
                .flat_map(|at| at * in_vector..(at + 1) * in_vector);
            elements.fold(0.0, |sum, d| x[d].mul_add(y[d], sum))
        });
        butterfly(&mut lanes, 32, |a, b| a + b);
        lanes[0]
    }

    fn row(&self, of: &[E], token: usize) -> Vec<f32> {
        let r = self.plan.shape.rank;
        of[token * r..][..r].iter().map(|x| x.to_f32()).collect()
    }

    /// The sequence, the first token and the number of tokens of every warp, and its block.
    fn warps(&self) -> impl Iterator<Item = (usize, std::ops::Range<usize>)> {
        let (tokens, stride) = (self.plan.tokens, self.plan.shape.stride);
        let blocks = tokens.div_ceil(stride);
        (0..self.plan.batch * blocks).map(move |warp| {
            let (block, sequence) = (warp % blocks, warp / blocks);
            let first = block * stride;
            let at = sequence * tokens + first;
            (block, at..at + stride.min(tokens - first))
        })
    }

    fn weight(&self, block: usize, c: &[f32]) -> f32 {
        let r = self.plan.shape.rank;
        let logit = self.dot(c, &self.u[block * r..][..r]) + self.b[block];
        1.0 / (1.0 + (-logit).exp())
    }

    /// `[B, T, r]`.
    pub fn forward(&self) -> Vec<E> {
        let r = self.plan.shape.rank;
        let mut sums = vec![E::from_f32(f32::NAN); self.c.len()];
        for (block, tokens) in self.warps() {
            let mut sum = vec![0.0_f32; r];
            for token in tokens {
                let c = self.row(self.c, token);
                let weight = self.weight(block, &c);
                for (d, sum) in sum.iter_mut().enumerate() {
                    *sum = weight.mul_add(c[d], *sum);
                    sums[token * r + d] = E::from_f32(*sum);
                }
            }
        }
        sums
    }

    /// Both launches, of the gradient of the sums.
    pub fn backward(&self, grad: &[E]) -> Gradients<E> {
        let (r, stride) = (self.plan.shape.rank, self.plan.shape.stride);
        let mut dc = vec![E::from_f32(f32::NAN); self.c.len()];
        let mut of_logits = vec![f32::NAN; self.c.len() / r];
        for (block, tokens) in self.warps() {
            let mut later = vec![0.0_f32; r];
            for token in tokens.rev() {
                let (c, grad) = (self.row(self.c, token), self.row(grad, token));
                later
                    .iter_mut()
                    .zip(&grad)
                    .for_each(|(later, grad)| *later += grad);
                let weight = self.weight(block, &c);
                let of_logit = self.dot(&later, &c) * weight * (1.0 - weight);
                for d in 0..r {
                    dc[token * r + d] =
                        E::from_f32(weight.mul_add(later[d], of_logit * self.u[block * r + d]));
                }
                of_logits[token] = of_logit;
            }
        }
        let blocks = self.plan.tokens.div_ceil(stride);
        let (mut du, mut db) = (vec![0.0_f32; blocks * r], vec![0.0_f32; blocks]);
        for (block, tokens) in self.warps() {
            for token in tokens {
                let c = self.row(self.c, token);
                for (du, c) in du[block * r..].iter_mut().zip(&c) {
                    *du = of_logits[token].mul_add(*c, *du);
                }
                db[block] += of_logits[token];
            }
        }
        Gradients { c: dc, u: du, b: db }
    }
}
