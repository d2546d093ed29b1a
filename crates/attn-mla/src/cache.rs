//! What the cache holds of a token.

use attn_core::{Entry, Values};

/// One latent and one rope key for all heads, the latent serving as value too: `r + Dr` elements a token.
pub fn entry(kv_rank: usize, rope_dim: usize) -> Entry {
    Entry::new(1, kv_rank + rope_dim, Values::KeyPrefix(kv_rank))
}
