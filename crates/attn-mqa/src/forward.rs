//! The layer: every step is the grouped one with this variant's KV heads.

use attn_core::grouped::GroupedAttention;

/// Multi-query attention on either path; see [`GroupedAttention`] for the steps.
pub type Mqa = GroupedAttention;
