//! What the cache holds of a token.

use attn_core::{Entry, Values};

/// A latent of `r / Hc` per latent head, which serves as value too, and one rope key for all: `r + Dr` elements a token.
pub fn entry(n_latents: usize, latent_dim: usize, rope_dim: usize) -> Entry {
    Entry::new(n_latents, latent_dim + rope_dim, Values::KeyPrefix(latent_dim)).with_tail(rope_dim)
}
