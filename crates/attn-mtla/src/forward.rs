//! The layer: gate, merge, then latent attention over blocks.

use attn_core::latent::{self, Decompressed, Latent, Merged};
use attn_core::ops::{self, AttendInput};
use attn_core::phase::{Phase, timed};
use attn_core::route::{has_kernels, select};
use attn_core::{
    Attention, Build, Cache, Geometry, Habit, Habits, LayerConfig, Queries, Result, Weights, in_pool, join,
};
use candle_core::{DType, Tensor};

use crate::cache::{merge_step, partial_sums};
use crate::config::MtlaConfig;
use crate::gate::Gate;
use crate::merging::{Merging, SlotKey};
use crate::sums::gated_sums;

/// Multi-head temporal latent attention on either path.
#[derive(Debug)]
pub struct Mtla {
    pub(crate) geometry: Geometry,
    pub(crate) build: Build,
    pub(crate) latent: Latent,
    pub(crate) gate: Gate,
    pub(crate) merging: Merging,
    pub(crate) slot_key: SlotKey,
    trains_causal: bool,
    pub(crate) rope_dim: usize,
}

impl Mtla {
    /// The layer over the given weights.
    ///
    /// # Errors
    /// A weight is missing or misshapen, or the path is not defined for the dtype.
    pub fn new(config: MtlaConfig, weights: &Weights, build: &Build) -> Result<Self> {
        let weights = weights.for_build(build)?;
        Ok(Self {
            geometry: config.geometry(),
            build: build.clone(),
            latent: Latent::new(config.latent, &weights, build)?,
            gate: Gate::new(&config, &weights, build)?,
            merging: config.merging,
            slot_key: config.slot_key,
            trains_causal: config.trains_causal,
            rope_dim: config.latent.rope_dim,
        })
    }

    /// What sums are kept in: a block's sum must not depend on the cache's element type.
    pub(crate) fn wide(&self) -> DType {
        if self.build.dtype == DType::F64 {
            DType::F64
        } else {
            DType::F32
        }
    }

    /// Whether slots are weighted sums with their newest token's key, which kernels compute.
    fn has_paper_slots(&self) -> bool {
        self.merging != Merging::Last && self.slot_key == SlotKey::Newest
    }

    /// Latents `[B, 1, r]` of one token each, weighed, added to the slots under way or put in their place: what the slots
    /// hold then.
    pub(crate) fn merge_token(
        &self,
        c: &Tensor,
        weighed: impl FnOnce() -> Result<Tensor>,
        cache: &mut Cache,
    ) -> Result<Tensor> {
        if self.merging != Merging::Last {
            return merge_step(&weighed()?, cache, self.geometry.stride);
        }
        let c = c.to_dtype(self.wide())?;
        if cache.open().is_some() {
            cache.set_open(c.squeeze(1)?.contiguous()?);
        }
        Ok(c)
    }

    /// [`merge`](Self::merge) of slots that no kernel computes; `open` also has the keys `[B, Dr]` of those under way.
    fn merge_apart(&self, x: &Tensor, start: usize, open: [Option<&Tensor>; 2]) -> Result<Merged> {
        let (b, t, _) = x.dims3()?;
        let s = self.geometry.stride;
        let (c, k_r) = self.latent.latents(x, &vec![start; b])?;
        let sums = match self.merging {
            Merging::Last => c.to_dtype(self.wide())?,
            _ => {
                let blocks: Vec<u32> = (start..start + t).map(|i| (i / s) as u32).collect();
                partial_sums(&self.gate.apply(&c, &blocks, self.wide())?, open[0], start, s)?
            }
        };
        Ok(Merged {
            last: Some(sums.narrow(1, t - 1, 1)?.squeeze(1)?.contiguous()?),
            c: sums.to_dtype(self.build.dtype)?,
            k_r: self.slot_key.of_blocks(&k_r, open[1], start, s)?,
        })
    }

    /// What T tokens at `start..start + T` add to their sequences; what they leave open where it `is_kept`.
    fn merge(&self, x: &Tensor, start: usize, open: Option<&Tensor>, is_kept: bool) -> Result<Merged> {
        let (b, t, _) = x.dims3()?;
        let (s, starts) = (self.geometry.stride, vec![start; b]);
        let table = self.gate.table((start + t).div_ceil(s), self.wide())?;
        if let Some(merged) = self.latent.merged(x, &starts, &table, open)? {
            return Ok(merged);
        }
        let (c, k_r) = self.latent.latents(x, &starts)?;
        let composed = |c: &Tensor, start: usize, t: usize| -> Result<Tensor> {
            let blocks: Vec<u32> = (start..start + t).map(|i| (i / s) as u32).collect();
            partial_sums(&self.gate.apply(c, &blocks, self.wide())?, open, start, s)
        };
        let last_of = |sums: &Tensor| -> Result<Tensor> {
            let t = sums.dim(1)?;
            Ok(sums.narrow(1, t - 1, 1)?.squeeze(1)?.contiguous()?)
        };
        let is_whole = open.is_none() && start == 0;
        if is_whole && let Some(sums) = latent::gated_sums_on_gpu(&c, &table) {
            // Its sums are rounded. What the cache keeps of an open block is not, and comes of that block alone.
            let last = match t % s {
                n if is_kept && n > 0 => Some(last_of(&composed(&c.narrow(1, t - n, n)?, t - n, n)?)?),
                _ => None,
            };
            return Ok(Merged { c: sums, k_r, last });
        }
        let sums = if is_whole && has_kernels(&c) {
            gated_sums(&c.to_dtype(self.wide())?, &table)?
        } else {
            composed(&c, start, t)?
        };
        Ok(Merged {
            last: Some(last_of(&sums)?),
            c: sums.to_dtype(self.build.dtype)?,
            k_r,
        })
    }

    /// Block-strided attention of the last `n` tokens (math: fact B), output projected: `[B, n, M]`.
    ///
    /// Keys are the `past` slots closed before this call, decompressed again from the cache, and the ends of the
    /// blocks this call closes; each query's own partial sum is the diagonal.
    fn attend(
        &self,
        q: &Tensor,
        merged: &Merged,
        start: usize,
        past: Option<(Tensor, Tensor)>,
    ) -> Result<Tensor> {
        let (n, t, s) = (q.dim(1)?, merged.k_r.dim(1)?, self.geometry.stride);
        let own_c = merged.c.narrow(1, t - n, n)?;
        let own = self.latent.decompress(&own_c, &merged.k_r.narrow(1, t - n, n)?)?;
        // Where every block end is a query too, its key and value are there already.
        let closed = if n == t && start == 0 {
            None
        } else {
            let ends = block_ends(start, t, s);
            let (mut c, mut k_r) = (select(&merged.c, &ends, 1)?, select(&merged.k_r, &ends, 1)?);
            if let Some((past_c, past_k_r)) = past {
                c = Tensor::cat(&[&past_c, &c], 1)?;
                k_r = Tensor::cat(&[&past_k_r, &k_r], 1)?;
            }
            Some(self.latent.decompress(&c, &k_r)?)
        };
        let heads = ops::attend(&AttendInput {
            q,
            closed: closed.as_ref().map(Decompressed::entries),
            own: Some(own.entries()),
            start: start + t - n,
            stride: s,
            window: None,
            scale: self.latent.scale(),
        })?;
        self.latent.output(&heads)
    }

    /// Attention of the last `n` tokens over the partial sums of every token up to each, as training without the
    /// stride-aware mask has it: more than a cache holds.
    fn attend_causally(&self, q: &Tensor, merged: &Merged) -> Result<Tensor> {
        let entries = self.latent.decompress(&merged.c, &merged.k_r)?;
        self.latent.output(&ops::attend(&AttendInput {
            q,
            closed: Some(entries.entries()),
            own: None,
            start: merged.k_r.dim(1)? - q.dim(1)?,
            stride: 1,
            window: None,
            scale: self.latent.scale(),
        })?)
    }

    /// Writes the slots that T tokens touched, and keeps the sums of the one left open.
    fn store(&self, merged: &Merged, start: usize, cache: &mut Cache) -> Result<()> {
        let (b, t, s) = (merged.k_r.dim(0)?, merged.k_r.dim(1)?, self.geometry.stride);
        let mut rows = block_ends(start, t, s);
        if let (true, Some(last)) = ((start + t) % s != 0, &merged.last) {
            rows.push(t as u32 - 1);
            cache.set_open(last.clone());
        }
        let (c, k_r) = (select(&merged.c, &rows, 1)?, select(&merged.k_r, &rows, 1)?);
        self.latent.write(cache, &vec![start / s; b], &c, &k_r)?;
        cache.advance(t);
        Ok(())
    }
}

/// Indices among T tokens at `start..` of those that close a block.
fn block_ends(start: usize, t: usize, s: usize) -> Vec<u32> {
    (0..t)
        .filter(|i| (start + i + 1) % s == 0)
        .map(|i| i as u32)
        .collect()
}

impl Attention for Mtla {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn build(&self) -> &Build {
        &self.build
    }

    fn forward(&self, x: &Tensor, queries: Queries) -> Result<Tensor> {
        in_pool(|| {
            let (b, t, _) = self.geometry.check_input(x)?;
            let n = queries.count(t)?;
            if self.build.has(Habit::DenseMask) {
                return Ok(self.forward_seedlike(x, n, self.trains_causal)?.0);
            }
            let q = self.latent.queries(x, n, &vec![0; b])?;
            let merged = match self.has_paper_slots() {
                true => self.merge(x, 0, None, false)?,
                false => self.merge_apart(x, 0, [None, None])?,
            };
            if self.trains_causal {
                return self.attend_causally(&q, &merged);
            }
            self.attend(&q, &merged, 0, None)
        })
    }

    fn prefill(&self, x: &Tensor, cache: &mut Cache, queries: Queries) -> Result<Tensor> {
        in_pool(|| {
            let (b, t, _) = self.geometry.check_input(x)?;
            let n = queries.count(t)?;
            cache.check_batch(b)?;
            cache.check_unshared("a prompt")?;
            let Some(past) = cache.uniform_len() else {
                return cache.each_sequence(x, |x, cache| self.prefill(x, cache, queries));
            };
            if self.build.has(Habit::DenseMask) {
                return self.prefill_seedlike(x, cache, n);
            }
            let s = self.geometry.stride;
            let open = if past % s == 0 { None } else { cache.open() };
            let merged = match self.has_paper_slots() {
                true => self.merge(x, past, open, true)?,
                false => {
                    let keys = self.slot_key.open(cache, past, s, self.rope_dim)?;
                    self.merge_apart(x, past, [open, keys.as_ref()])?
                }
            };
            let closed = match past / s {
                0 => None,
                slots => Some(self.latent.cached(cache, slots)?),
            };
            let q = self.latent.queries(x, n, &vec![past; b])?;
            let y = self.attend(&q, &merged, past, closed)?;
            self.store(&merged, past, cache)?;
            Ok(y)
        })
    }

    fn decode(&self, x: &Tensor, cache: &mut Cache) -> Result<Tensor> {
        in_pool(|| {
            let (b, _, _) = self.geometry.check_step(x)?;
            cache.check_batch(b)?;
            if self.build.has(Habit::DenseMask) {
                cache.check_unshared("attention in the seed's way")?;
                if cache.uniform_len().is_none() {
                    return cache.each_sequence(x, |x, cache| self.decode(x, cache)); // the seed has no ragged batches
                }
                return self.decode_seedlike(x, cache);
            }
            let s = self.geometry.stride;
            let starts = cache.lens().to_vec();
            let end = starts.iter().max().map_or(0, |len| len + 1);
            // A GPU's kernels have the position there, and a graph of them is one of every step the cache has room for.
            let blocks = match x.device().is_cuda() {
                true => end.div_ceil(s).max(cache.keys().dim(2)?),
                false => end.div_ceil(s),
            };
            let table = timed(Phase::CacheUpdate, || self.gate.table(blocks, self.wide()))?;
            if self.build.habits == Habits::NONE
                && self.has_paper_slots()
                && let Some(y) = self.latent.step(x, cache, Some(&table))?
            {
                return Ok(y);
            }
            // In one pass where the slot is there already.
            let is_appended = !self.build.has(Habit::Cat) && self.has_paper_slots();
            // Side by side: neither has work for all threads from its begin to its end.
            let (q, appended) = join(
                x.device(),
                || self.latent.queries(x, 1, &starts),
                || -> Result<bool> { Ok(is_appended && self.latent.append(x, cache, Some(&table))?) },
            );
            let q = q?;
            if !appended? {
                let slots: Vec<usize> = starts.iter().map(|len| len / s).collect();
                let (c, k_r) = self.latent.latents(x, &starts)?;
                let blocks: Vec<u32> = slots.iter().map(|&slot| slot as u32).collect();
                timed(Phase::CacheUpdate, || {
                    let keys = self.slot_key.of_step(&k_r, cache, s)?;
                    let weighed = || self.gate.apply(&c, &blocks, self.wide());
                    let sums = self.merge_token(&c, weighed, cache)?;
                    self.latent.write(cache, &slots, &sums, &keys)
                })?;
                cache.advance(1);
            }
            self.latent.decode_absorbed(&q, cache)
        })
    }
}
