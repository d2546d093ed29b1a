//! What the cache holds of a token.

use attn_core::{Entry, Values};

/// One key and one value per query head: `2 H D` elements a token.
pub fn entry(n_heads: usize, head_dim: usize) -> Entry {
    Entry::new(n_heads, head_dim, Values::Own(head_dim))
}
