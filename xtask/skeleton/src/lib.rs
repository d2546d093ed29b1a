//! SKELETON, an [`Attention`](attn_core::Attention) layer (authors, arXiv number).
//!
//! The formula, in the letters of ARCHITECTURE.md. Cache: its elements per token and layer.
#![warn(missing_docs)]

mod cache;
mod config;
mod forward;

pub use cache::entry;
pub use config::{VARIANT, configure};
pub use forward::{SkeletonConfig, SkeletonProjections};
