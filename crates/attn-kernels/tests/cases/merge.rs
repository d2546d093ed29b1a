//! Operands of the merge, and the formula in f64.

use attn_kernels::Element;
use attn_kernels::cuda::MergeShape;

use super::dtype;
use crate::common::random;

/// Latents, gradients of their sums, and tables.
#[derive(Clone)]
pub struct Merge<E> {
    pub shape: MergeShape,
    pub batch: usize,
    pub tokens: usize,
    pub c: Vec<E>,
    pub grad: Vec<E>,
    pub u: Vec<f32>,
    pub b: Vec<f32>,
}

/// What the formula makes of them.
pub struct Merged {
    pub sums: Vec<f64>,
    pub dc: Vec<f64>,
    pub du: Vec<f64>,
    pub db: Vec<f64>,
}

impl<E: Element> Merge<E> {
    pub fn new(rank: usize, stride: usize, batch: usize, tokens: usize) -> Self {
        let blocks = tokens.div_ceil(stride);
        Self {
            shape: MergeShape {
                dtype: dtype::<E>(),
                rank,
                stride,
            },
            batch,
            tokens,
            c: random(batch * tokens * rank, 1),
            grad: random(batch * tokens * rank, 2),
            u: random(blocks * rank, 3),
            b: random(blocks, 4),
        }
    }

    pub fn formula(&self) -> Merged {
        let (r, stride, tokens) = (self.shape.rank, self.shape.stride, self.tokens);
        let wide = |x: &[E]| x.iter().map(|x| f64::from(x.to_f32())).collect::<Vec<_>>();
        let (c, grad) = (wide(&self.c), wide(&self.grad));
        let zeros = |n| vec![0.0; n];
        let (mut sums, mut dc) = (zeros(c.len()), zeros(c.len()));
        let (mut du, mut db) = (zeros(self.u.len()), zeros(self.b.len()));
        for token in 0..c.len() / r {
            let (block, phase) = (token % tokens / stride, token % tokens % stride);
            let left = (stride - phase).min(tokens - token % tokens);
            let row = |of: &[f64], token: usize, d: usize| of[token * r + d];
            let u = |d: usize| f64::from(self.u[block * r + d]);
            let logit = (0..r).map(|d| row(&c, token, d) * u(d)).sum::<f64>() + f64::from(self.b[block]);
            let weight = 1.0 / (1.0 + (-logit).exp());
            let later = |d: usize| {
                (token..token + left)
                    .map(|token| row(&grad, token, d))
                    .sum::<f64>()
            };
            let along = (0..r).map(|d| later(d) * row(&c, token, d)).sum::<f64>();
            let of_logit = along * weight * (1.0 - weight);
            db[block] += of_logit;
            for d in 0..r {
                (token..token + left).for_each(|to| sums[to * r + d] += weight * row(&c, token, d));
                dc[token * r + d] = weight * later(d) + of_logit * u(d);
                du[block * r + d] += of_logit * row(&c, token, d);
            }
        }
        Merged { sums, dc, du, db }
    }
}
