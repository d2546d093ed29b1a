//! What the cache holds of a token.

use attn_core::{Entry, Values};

/// Unwritten: this is MHA's, one key and one value per head, `2 H D` elements a token. Bytes, costs and kernels follow
/// from it; `with_tail` and `with_factors` are for columns that heads share, and for sums of outer products.
pub fn entry(n_heads: usize, head_dim: usize) -> Entry {
    Entry::new(n_heads, head_dim, Values::Own(head_dim))
}
