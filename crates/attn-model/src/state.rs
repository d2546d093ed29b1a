//! What a decoder remembers of a batch: a cache for every layer.

use std::sync::Arc;

use attn_core::phase::{Phase, timed};
use attn_core::{Attention, Cache, Capacity};

use crate::error::Result;

/// The caches of all layers. Positions are the caches' lengths.
pub struct State {
    layers: Vec<Arc<dyn Attention>>,
    pub(crate) caches: Vec<Cache>,
    capacity: Capacity,
}

impl State {
    pub(crate) fn new(layers: Vec<Arc<dyn Attention>>, batch: usize, capacity: Capacity) -> Result<Self> {
        let mut state = Self {
            layers,
            caches: Vec::new(),
            capacity,
        };
        state.caches = state.empty(batch)?;
        Ok(state)
    }

    /// Empty caches of `batch` sequences, alike in capacity.
    pub(crate) fn empty(&self, batch: usize) -> Result<Vec<Cache>> {
        let caches = self
            .layers
            .iter()
            .map(|layer| layer.new_cache(batch, self.capacity));
        Ok(caches.collect::<attn_core::Result<_>>()?)
    }

    /// The cache of every layer.
    pub fn caches(&self) -> &[Cache] {
        &self.caches
    }

    /// The same, to be changed.
    pub fn caches_mut(&mut self) -> &mut [Cache] {
        &mut self.caches
    }

    /// Sequences B.
    pub fn batch(&self) -> usize {
        self.caches.first().map_or(0, Cache::batch)
    }

    /// Tokens each sequence holds, its prefix included: the position of its next token.
    pub fn lens(&self) -> &[usize] {
        self.caches.first().map_or(&[], Cache::lens)
    }

    /// Bytes of the entries in use, all layers together.
    pub fn kv_bytes(&self) -> u64 {
        self.caches.iter().map(Cache::kv_bytes).sum()
    }

    /// Bytes the slots occupy, used or not, all layers together.
    pub fn kv_allocated_bytes(&self) -> u64 {
        self.caches.iter().map(Cache::kv_allocated_bytes).sum()
    }

    /// Bytes kept beside the slots, all layers together.
    pub fn kv_state_bytes(&self) -> u64 {
        self.caches.iter().map(Cache::kv_state_bytes).sum()
    }

    /// Makes sequence i what sequence `sequences[i]` was, in every layer; there may be more or fewer than before.
    /// Nothing is done where that is what they are.
    ///
    /// # Errors
    /// [`attn_core::Error::Shape`] where a sequence is out of range.
    pub fn reorder(&mut self, sequences: &[usize]) -> Result<()> {
        let is_identity =
            sequences.len() == self.batch() && sequences.iter().enumerate().all(|(i, &from)| i == from);
        if is_identity {
            return Ok(());
        }
        timed(Phase::Reorder, || {
            for (layer, cache) in self.layers.iter().zip(&mut self.caches) {
                layer.reorder(cache, sequences)?;
            }
            Ok(())
        })
    }

    /// Turns every sequence into `beam` adjacent ones that share what it holds, stored once (its open slot apart).
    ///
    /// # Errors
    /// [`attn_core::Error::Unsupported`] where they share already.
    pub fn share(&mut self, beam: usize) -> Result<()> {
        for cache in &mut self.caches {
            cache.share(beam)?;
        }
        Ok(())
    }

    /// Remembers the present lengths, so that [`rewind`](Self::rewind) can come back to them.
    ///
    /// # Errors
    /// [`attn_core::Error::Candle`] where memory runs out.
    pub fn mark(&mut self) -> Result<()> {
        for cache in &mut self.caches {
            cache.mark()?;
        }
        Ok(())
    }

    /// Takes every sequence back to `tokens`.
    ///
    /// # Errors
    /// [`attn_core::Error::Rewind`] where that length ends inside a block and was not marked.
    pub fn rewind(&mut self, tokens: usize) -> Result<()> {
        for (layer, cache) in self.layers.iter().zip(&mut self.caches) {
            layer.rewind(cache, tokens)?;
        }
        Ok(())
    }
}
