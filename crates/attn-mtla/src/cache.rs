//! What the cache holds of a block of tokens, and how tokens merge into it.

use attn_core::{Cache, Entry, Result, Values};
use candle_core::Tensor;

/// One merged latent and one rope key for all heads of s tokens: `r + Dr` elements a block.
pub fn entry(kv_rank: usize, rope_dim: usize) -> Entry {
    Entry::new(1, kv_rank + rope_dim, Values::KeyPrefix(kv_rank))
}

/// Partial sums of every token: entry i is the sum of `gated` over its block up to token i, the open slot of
/// `cache` (present where a sequence of `start` tokens ends inside a block) included.
///
/// # Shapes
/// - `gated`: `[B, T, r]`, the tokens at `start..start + T`
/// - returns `[B, T, r]`
///
/// # Cost
/// `O(T r)`: a prefix sum inside each block (math: fact A), where the seed multiplies by a `[T, T]` matrix
pub(crate) fn partial_sums(gated: &Tensor, open: Option<&Tensor>, start: usize, s: usize) -> Result<Tensor> {
    let (b, t, r) = gated.dims3()?;
    let phase = start % s;
    // Rows before the first token complete its block; the open sum stands in the first of them.
    let padded = match (phase, open) {
        (0, _) | (_, None) => gated.pad_with_zeros(1, phase, 0)?,
        (_, Some(open)) => {
            let open = open
                .to_dtype(gated.dtype())?
                .unsqueeze(1)?
                .pad_with_zeros(1, 0, phase - 1)?;
            Tensor::cat(&[&open, gated], 1)?
        }
    };
    let blocks = (phase + t).div_ceil(s);
    let padded = padded
        .pad_with_zeros(1, 0, blocks * s - phase - t)?
        .reshape((b, blocks, s, r))?;
    let mut sum = padded.narrow(2, 0, 1)?;
    let mut sums = vec![sum.clone()];
    for i in 1..s {
        sum = (sum + padded.narrow(2, i, 1)?)?;
        sums.push(sum.clone());
    }
    Ok(Tensor::cat(&sums, 2)?
        .reshape((b, blocks * s, r))?
        .narrow(1, phase, t)?
        .contiguous()?)
}

/// Adds one gated latent `[B, 1, r]` to every sequence: into its open slot, or a new one where none is open.
/// Returns what the slots now hold, `[B, 1, r]`.
pub(crate) fn merge_step(gated: &Tensor, cache: &mut Cache, s: usize) -> Result<Tensor> {
    let gated = gated.squeeze(1)?;
    let Some(open) = cache.open() else {
        return Ok(gated.unsqueeze(1)?); // s = 1: every token closes its block
    };
    let phases: Vec<usize> = cache.lens().iter().map(|len| len % s).collect();
    let sum = if phases.iter().all(|&phase| phase == 0) {
        gated
    } else if phases.iter().all(|&phase| phase > 0) {
        (open + gated)?
    } else {
        // Selected and not multiplied away: what a closed slot left behind is never read.
        let continues: Vec<u8> = phases.iter().map(|&phase| u8::from(phase > 0)).collect();
        let continues = Tensor::new(continues, open.device())?
            .unsqueeze(1)?
            .broadcast_as(open.shape())?;
        continues.where_cond(&(open + &gated)?, &gated)?
    };
    cache.set_open(sum.clone());
    Ok(sum.unsqueeze(1)?)
}
