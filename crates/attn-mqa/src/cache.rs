//! What the cache holds of a token.

use attn_core::{Entry, Values};

/// One key and one value for all heads: `2 D` elements a token.
pub fn entry(head_dim: usize) -> Entry {
    Entry::new(1, head_dim, Values::Own(head_dim))
}
