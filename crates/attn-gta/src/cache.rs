//! What the cache holds of a token.

use attn_core::{Entry, Values};

/// One state per KV head, value and key in one, and one rope key for all: `Hkv D + Dr` elements a token.
pub fn entry(n_kv_heads: usize, head_dim: usize, rope_dim: usize) -> Entry {
    Entry::new(n_kv_heads, head_dim, Values::KeyPrefix(head_dim)).with_tail(rope_dim)
}
