//! What the cache holds of a token.

use attn_core::{Entry, Values};

/// One key and one value per KV head: `2 Hkv D` elements a token, of the last W tokens.
pub fn entry(n_kv_heads: usize, head_dim: usize) -> Entry {
    Entry::new(n_kv_heads, head_dim, Values::Own(head_dim))
}
