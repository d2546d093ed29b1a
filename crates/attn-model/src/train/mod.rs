//! Training: a loss, an optimiser whose state can be kept, learning rates as a function of the step.
//!
//! What is trained are variables ([`attn_core::Weights::to_vars`]); a decoder over them sees every update, since an update
//! changes them in place.

mod adamw;
mod loss;
mod schedule;

pub use adamw::{AdamW, AdamWOptions};
pub use loss::{Loss, cross_entropy};
pub use schedule::{Decay, Schedule};
