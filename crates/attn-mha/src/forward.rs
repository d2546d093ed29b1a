//! The layer: every step is the grouped one with this variant's KV heads.

use attn_core::grouped::GroupedAttention;

/// Multi-head attention on either path; see [`GroupedAttention`] for the steps.
pub type Mha = GroupedAttention;
