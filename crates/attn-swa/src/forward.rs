//! The layer: every step is the grouped one, with a window in its geometry.

use attn_core::grouped::GroupedAttention;

/// Sliding-window attention on either path; see [`GroupedAttention`] for the steps.
pub type Swa = GroupedAttention;
