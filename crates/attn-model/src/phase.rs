//! Where time goes. Stands in for `attn_core::phase`, which attributes what these calls wrap.

/// A part of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The prompt, and growing its cache to the beam.
    Prefill,
    /// Reordering of caches.
    Reorder,
    /// Embeddings, norms, residuals and feed-forward layers.
    FeedForward,
    /// The last norm and the projection to the vocabulary.
    Vocabulary,
    /// Log-probabilities, the choice among them and its bookkeeping.
    Sampling,
}

/// Runs `work` as a part of `phase`.
#[inline(always)]
pub(crate) fn timed<R>(_phase: Phase, work: impl FnOnce() -> R) -> R {
    work()
}
