//! The hyper-network: one weight in (0, 1) per token, from its latent and its block's index.

use std::sync::RwLock;

use attn_core::latent::GateTable;
use attn_core::linear::Linear;
use attn_core::route::{product, select};
use attn_core::{Build, Result, Weights};
use candle_core::{D, DType, Device, Tensor};

use crate::config::MtlaConfig;
use crate::merging::Merging;

/// `w_i = sigmoid(fc_c(pe(j)) . fc_p(c_i))`, `j = floor(i / s)`; or one weight for all tokens.
#[derive(Debug)]
pub(crate) struct Gate {
    weighing: Weighing,
    rank: usize,
    stride: usize,
    table: RwLock<Option<GateTable>>,
}

#[derive(Debug)]
enum Weighing {
    Hyper {
        fc_c: Linear,
        fc_p: Linear,
        /// Bias of `fc_p`, `[inner]`.
        bias_p: Tensor,
    },
    /// The logit of all weights, `[1]`.
    Same(Tensor),
}

/// The logit of a weight that is 1 in f32 and in f64.
const ONE: f64 = 40.0;

impl Gate {
    pub(crate) fn new(config: &MtlaConfig, weights: &Weights, build: &Build) -> Result<Self> {
        let (r, inner) = (config.latent.kv_rank, config.hyper_rank);
        let same = |logit: f64| -> Result<Weighing> {
            let logit = Tensor::new(&[logit], &Device::Cpu)?.to_dtype(build.dtype)?;
            Ok(Weighing::Same(logit.to_device(&build.device)?))
        };
        let weighing = match config.merging {
            Merging::Hyper => Weighing::Hyper {
                fc_c: Linear::load("hypernet_down.fc_c", inner, r, true, weights)?,
                fc_p: Linear::load("hypernet_down.fc_p", inner, r, true, weights)?,
                bias_p: weights.get("hypernet_down.fc_p.bias", &[inner])?,
            },
            Merging::Constant => Weighing::Same(weights.get("merge_logit", &[1])?),
            // sigmoid(-ln(s - 1)) = 1 / s
            Merging::Mean if config.stride > 1 => same(-((config.stride - 1) as f64).ln())?,
            Merging::Mean | Merging::Sum | Merging::Last => same(ONE)?,
        };
        Ok(Self {
            weighing,
            rank: r,
            stride: config.stride,
            table: RwLock::new(None),
        })
    }

    /// Latents times their weights.
    ///
    /// # Shapes
    /// - `c`: `[B, T, r]`; `blocks`: the block of each of the B T tokens, or of the T tokens all sequences share
    /// - returns `[B, T, r]`, of `wide` dtype
    pub(crate) fn apply(&self, c: &Tensor, blocks: &[u32], wide: DType) -> Result<Tensor> {
        let c = c.to_dtype(wide)?;
        let (b, t, r) = c.dims3()?;
        let table = self.table(blocks.iter().max().map_or(0, |&j| j as usize + 1), wide)?;
        let per_token = if blocks.len() == t { 1 } else { b };
        let u = select(&table.u, blocks, 0)?.reshape((per_token, t, r))?;
        let bias = select(&table.b, blocks, 0)?.reshape((per_token, t, 1))?;
        let logits = c
            .broadcast_mul(&u)?
            .sum_keepdim(D::Minus1)?
            .broadcast_add(&bias)?;
        Ok(c.broadcast_mul(&sigmoid(&logits)?)?)
    }

    /// All weights of the seed's formulation, `[B, rows, T]`: entry (i, j) is the weight of token j at the block
    /// index of row i, `sigmoid(fc_c(pe) fc_p(c)^T)`.
    pub(crate) fn dense(&self, c: &Tensor, blocks: &[u32]) -> Result<Tensor> {
        let (b, t, _) = c.dims3()?;
        let (fc_c, fc_p) = match &self.weighing {
            Weighing::Hyper { fc_c, fc_p, .. } => (fc_c, fc_p),
            Weighing::Same(logit) => {
                let weights = sigmoid(logit)?.to_dtype(c.dtype())?.reshape((1, 1, 1))?;
                return Ok(weights.broadcast_as((b, blocks.len(), t))?.contiguous()?);
            }
        };
        // The seed computes the encoding of every row anew on the host and copies it over.
        let encodings: Vec<f32> = blocks.iter().flat_map(|&j| encoding(j, self.rank)).collect();
        let pe =
            Tensor::from_vec(encodings, (1, blocks.len(), self.rank), c.device())?.to_dtype(c.dtype())?;
        let rows = fc_c.forward(&pe)?;
        let inner = rows.dim(D::Minus1)?;
        let rows = rows.broadcast_as((b, blocks.len(), inner))?.contiguous()?;
        sigmoid(&product(&rows, &fc_p.forward(c)?.t()?)?)
    }

    /// Constants of at least so many blocks: `u[j] = W_p^T fc_c(pe(j))`, `b[j] = bias_p . fc_c(pe(j))`.
    pub(crate) fn table(&self, blocks: usize, wide: DType) -> Result<GateTable> {
        let tracked = match &self.weighing {
            Weighing::Hyper { fc_c, fc_p, bias_p } => {
                fc_c.weight().track_op() || fc_p.weight().track_op() || bias_p.track_op()
            }
            Weighing::Same(logit) => logit.track_op(),
        };
        if tracked {
            return self.compute(blocks, wide); // gradients need the graph of this very call
        }
        // A poisoned lock holds a whole table all the same: it is replaced in one assignment.
        let known = self.table.read().unwrap_or_else(|err| err.into_inner()).clone();
        if let Some(table) = known
            && table.u.dim(0)? >= blocks
            && table.u.dtype() == wide
        {
            return Ok(table);
        }
        let table = self.compute(blocks.next_power_of_two(), wide)?;
        *self.table.write().unwrap_or_else(|err| err.into_inner()) = Some(table.clone());
        Ok(table)
    }

    fn compute(&self, blocks: usize, wide: DType) -> Result<GateTable> {
        let (u, b) = match &self.weighing {
            Weighing::Hyper { fc_c, fc_p, bias_p } => {
                let device = bias_p.device();
                let encodings: Vec<f32> = (0..blocks as u32).flat_map(|j| encoding(j, self.rank)).collect();
                let pe =
                    Tensor::from_vec(encodings, (1, blocks, self.rank), device)?.to_dtype(bias_p.dtype())?;
                let rows = fc_c.forward(&pe)?.squeeze(0)?.to_dtype(wide)?; // [blocks, inner]
                (
                    product(&rows, &fc_p.weight().to_dtype(wide)?)?,
                    product(&rows, &bias_p.to_dtype(wide)?.unsqueeze(1)?)?.squeeze(1)?,
                )
            }
            Weighing::Same(logit) => (
                Tensor::zeros((blocks, self.rank), wide, logit.device())?,
                logit.to_dtype(wide)?.broadcast_as(blocks)?.contiguous()?,
            ),
        };
        Ok(GateTable {
            u,
            b,
            stride: self.stride,
        })
    }
}

/// Sinusoidal encoding of a block index, sines at even elements and cosines at odd ones, in f32 as the seed's.
fn encoding(block: u32, rank: usize) -> impl Iterator<Item = f32> {
    let step = -(10_000f32.ln()) / rank as f32;
    (0..rank).map(move |i| {
        let angle = block as f32 * ((i - i % 2) as f32 * step).exp();
        if i % 2 == 0 { angle.sin() } else { angle.cos() }
    })
}

fn sigmoid(x: &Tensor) -> Result<Tensor> {
    Ok((x.neg()?.exp()? + 1.0)?.recip()?)
}
