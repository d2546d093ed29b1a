//! What the cache holds of a token.

use attn_core::{Entry, Factors, Values};

/// Factors of keys and values of all H heads, `(Rk + Rv) (H + D)` elements a token.
pub fn entry(n_heads: usize, head_dim: usize, k_factors: usize, v_factors: usize) -> Entry {
    Entry::new(1, head_dim, Values::Own(head_dim)).with_factors(Factors {
        heads: n_heads,
        keys: k_factors,
        values: v_factors,
    })
}
