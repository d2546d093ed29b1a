//! What becomes of the tokens of a block: the paper's way, and those it is to be held against (no paper has them yet).

use attn_core::{Cache, Result};
use candle_core::{D, DType, Tensor};

use crate::cache::partial_sums;

/// What the latents of a block are weighed by before they are added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Merging {
    /// A weight from each latent and its block's index: the paper's hyper-network.
    #[default]
    Hyper,
    /// One learned weight for all tokens.
    Constant,
    /// 1 / s: the mean of a whole block, the sum so far over s of one under way.
    Mean,
    /// 1.
    Sum,
    /// 1 for the newest token and 0 for all before it: a slot holds one token.
    Last,
}

impl Merging {
    /// The names in sweeps.
    pub const NAMES: [&'static str; 5] = ["hyper", "constant", "mean", "sum", "last"];
    const ALL: [Self; 5] = [Self::Hyper, Self::Constant, Self::Mean, Self::Sum, Self::Last];

    /// The name in sweeps.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// The one of that name, the paper's where there is none.
    pub(crate) fn named(name: &str) -> Self {
        let known = Self::ALL.into_iter().find(|merging| merging.name() == name);
        known.unwrap_or_default()
    }
}

/// Whose rope key a slot has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SlotKey {
    /// The newest token's: the paper's.
    #[default]
    Newest,
    /// The first token's.
    First,
    /// The mean of its tokens', each turned to its own position.
    Mean,
}

impl SlotKey {
    /// The names in sweeps.
    pub const NAMES: [&'static str; 3] = ["newest", "first", "mean"];
    const ALL: [Self; 3] = [Self::Newest, Self::First, Self::Mean];

    /// The name in sweeps.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// The one of that name, the paper's where there is none.
    pub(crate) fn named(name: &str) -> Self {
        let known = Self::ALL.into_iter().find(|key| key.name() == name);
        known.unwrap_or_default()
    }

    /// The key of every token's block up to that token.
    ///
    /// # Shapes
    /// - `k_r`: `[B, T, Dr]`, keys of the tokens at `start..start + T`; `open`: `[B, Dr]`, the key of the slot that is
    ///   under way at `start`, where there is one
    /// - returns `[B, T, Dr]`
    pub(crate) fn of_blocks(
        self,
        k_r: &Tensor,
        open: Option<&Tensor>,
        start: usize,
        s: usize,
    ) -> Result<Tensor> {
        let (_, t, _) = k_r.dims3()?;
        let open = if start % s == 0 { None } else { open };
        match self {
            Self::Newest => Ok(k_r.clone()),
            Self::First => {
                let all = match open {
                    Some(open) => Tensor::cat(&[&open.unsqueeze(1)?, k_r], 1)?,
                    None => k_r.clone(),
                };
                let before = usize::from(open.is_some());
                // The block that is under way begins with its own key, in front of the others.
                let first = |i: usize| ((start + i) / s * s + before).saturating_sub(start) as u32;
                let rows: Vec<u32> = (0..t).map(first).collect();
                attn_core::route::select(&all, &rows, 1)
            }
            Self::Mean => {
                let wide = wide(k_r.dtype());
                let keys = k_r.to_dtype(wide)?;
                let open = match open {
                    Some(open) => Some((open.to_dtype(wide)? * (start % s) as f64)?),
                    None => None,
                };
                let sums = partial_sums(&keys, open.as_ref(), start, s)?;
                let shares: Vec<f64> = (0..t).map(|i| 1.0 / ((start + i) % s + 1) as f64).collect();
                let shares = Tensor::from_vec(shares, (1, t, 1), &candle_core::Device::Cpu)?
                    .to_dtype(wide)?
                    .to_device(k_r.device())?;
                Ok(sums.broadcast_mul(&shares)?.to_dtype(k_r.dtype())?)
            }
        }
    }

    /// The keys of the slots that one token each is added to, `[B, 1, Dr]`: their own key `k_r` where it opens one.
    pub(crate) fn of_step(self, k_r: &Tensor, cache: &Cache, s: usize) -> Result<Tensor> {
        let lens = cache.lens();
        if self == Self::Newest || lens.iter().all(|len| len % s == 0) {
            return Ok(k_r.clone());
        }
        let mut keys = Vec::with_capacity(lens.len());
        for (b, &len) in lens.iter().enumerate() {
            let own = k_r.narrow(0, b, 1)?;
            let phase = len % s;
            if phase == 0 {
                keys.push(own);
                continue;
            }
            let old = slot_key(cache, b, len / s, k_r.dim(D::Minus1)?)?;
            keys.push(self.of_blocks(&own, Some(&old), len, s)?);
        }
        Ok(Tensor::cat(&keys, 0)?)
    }

    /// Keys `[B, Dr]` of the slots under way, where all sequences are as long; `None` where they end a block, and where a
    /// slot's key is its newest token's.
    pub(crate) fn open(self, cache: &Cache, len: usize, s: usize, rope_dim: usize) -> Result<Option<Tensor>> {
        if self == Self::Newest || len % s == 0 {
            return Ok(None);
        }
        let keys = (0..cache.batch()).map(|b| slot_key(cache, b, len / s, rope_dim));
        Ok(Some(Tensor::cat(&keys.collect::<Result<Vec<_>>>()?, 0)?))
    }
}

/// The rope key `[1, Dr]` of slot `slot` of sequence `b`.
fn slot_key(cache: &Cache, b: usize, slot: usize, rope_dim: usize) -> Result<Tensor> {
    let mut slots = vec![0; cache.batch()];
    slots[b] = slot;
    let own = cache.own_slots(&slots)[b];
    let entry = cache.keys().narrow(0, b, 1)?.narrow(2, own, 1)?;
    let width = entry.dim(D::Minus1)?;
    Ok(entry
        .narrow(3, width - rope_dim, rope_dim)?
        .squeeze(1)?
        .squeeze(1)?)
}

fn wide(dtype: DType) -> DType {
    match dtype {
        DType::F64 => DType::F64,
        _ => DType::F32,
    }
}
