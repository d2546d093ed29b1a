//! The seed's formulation: a `[T, T]` merge matrix, dense scores, a dense mask, a cache that grows by
//! concatenation. Operation by operation as `MultiheadTemporalLatentAttention` of the `mtla` package, with its
//! faults mended (s = 1 merges nothing, prompts are masked, the open slot sums in f32).

use attn_core::ops::seedlike::dense_mask;
use attn_core::phase::{Phase, timed};
use attn_core::route::{product, select};
use attn_core::{Cache, Result};
use candle_core::Tensor;

use crate::forward::Mtla;
use crate::merging::Merging;

impl Mtla {
    /// Outputs of the last `n` tokens `[B, n, M]`, and for the cache: partial sums `[B, T, r]`, rope keys
    /// `[B, T, Dr]`. Queries see every token's partial sum where training `is_causal`.
    pub(crate) fn forward_seedlike(
        &self,
        x: &Tensor,
        n: usize,
        is_causal: bool,
    ) -> Result<(Tensor, Tensor, Tensor)> {
        let (b, t, _) = x.dims3()?;
        let s = self.geometry.stride;
        let starts = vec![0; b];
        let q = self.latent.queries(x, n, &starts)?;
        let (c, k_r) = self.latent.latents(x, &starts)?;
        let blocks: Vec<u32> = (0..t).map(|i| (i / s) as u32).collect();
        let weights = self.gate.dense(&c, &blocks)?; // [B, T, T]
        let same_block: Vec<f64> = (0..t * t)
            .map(|at| (at / t, at % t))
            .map(|(i, j)| if j <= i && i / s == j / s { 1.0 } else { 0.0 })
            .collect();
        let same_block = Tensor::from_vec(same_block, (t, t), x.device())?.to_dtype(x.dtype())?;
        let sums = match self.merging {
            Merging::Last => c.clone(),
            _ => product(&weights.broadcast_mul(&same_block)?, &c.contiguous()?)?,
        };
        let k_r = self.slot_key.of_blocks(&k_r, None, 0, s)?;
        let visible = |i: usize, j: usize| j == i || (j < i && (is_causal || (j + 1) % s == 0));
        let mask = dense_mask(t, visible, x.dtype(), x.device())?.narrow(0, t - n, n)?;
        Ok((self.latent.dense(&q, &sums, &k_r, Some(&mask))?, sums, k_r))
    }

    pub(crate) fn prefill_seedlike(&self, x: &Tensor, cache: &mut Cache, n: usize) -> Result<Tensor> {
        let (b, t, _) = x.dims3()?;
        let s = self.geometry.stride;
        if cache.uniform_len() != Some(0) {
            // The seed takes one token at a time once its cache is not empty.
            let steps = (0..t).map(|i| self.decode_seedlike(&x.narrow(1, i, 1)?, cache));
            let outputs = steps.collect::<Result<Vec<_>>>()?;
            return Ok(Tensor::cat(&outputs[t - n..], 1)?);
        }
        let (y, sums, k_r) = self.forward_seedlike(x, n, false)?;
        let rows: Vec<u32> = (0..t)
            .filter(|i| (i + 1) % s == 0 || i + 1 == t)
            .map(|i| i as u32)
            .collect();
        let (slots, keys) = (select(&sums, &rows, 1)?, select(&k_r, &rows, 1)?);
        if cache.open().is_some() {
            let last = sums.narrow(1, t - 1, 1)?.squeeze(1)?.contiguous()?;
            cache.set_open(last.to_dtype(self.wide())?);
        }
        self.latent.write(cache, &vec![0; b], &slots, &keys)?;
        cache.advance(t);
        Ok(y)
    }

    pub(crate) fn decode_seedlike(&self, x: &Tensor, cache: &mut Cache) -> Result<Tensor> {
        let s = self.geometry.stride;
        let starts = cache.lens().to_vec();
        let q = self.latent.queries(x, 1, &starts)?;
        let (c, k_r) = self.latent.latents(x, &starts)?;
        let slots: Vec<usize> = starts.iter().map(|len| len / s).collect();
        let block = slots.first().copied().unwrap_or(0);
        timed(Phase::CacheUpdate, || {
            let keys = self.slot_key.of_step(&k_r, cache, s)?;
            let weighed = || -> Result<Tensor> {
                let weight = self.gate.dense(&c, &[block as u32])?; // [B, 1, 1]
                Ok(c.broadcast_mul(&weight)?.to_dtype(self.wide())?) // the open slot sums in f32
            };
            let sums = self.merge_token(&c, weighed, cache)?;
            self.latent.write(cache, &slots, &sums, &keys)
        })?;
        cache.advance(1);
        let (c, k_r) = self.latent.cached(cache, block + 1)?;
        self.latent.dense(&q, &c, &k_r, None)
    }
}
