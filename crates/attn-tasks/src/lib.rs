//! Tasks that a model is trained on and judged by, generated from a seed: no download, the same on every machine, with a
//! score that is known to be the best.
//!
//! # Same on every machine
//! Everything is drawn with ChaCha8 and whole numbers. Where an element of a frame is a float, it comes from one division,
//! product or sum that IEEE 754 rounds one way, and from no function of a mathematics library.
//!
//! # Parts
//! An example belongs to the part that a hash of its content says (what is spoken, not how it sounds), so that no two parts
//! share one.
#![warn(missing_docs)]

mod batch;
mod check;
mod error;
mod order;
mod parts;
mod rng;
mod span;
mod task;

pub use batch::{Batch, Sources};
pub use error::{Error, Result};
pub use order::Order;
pub use parts::Parts;
pub use span::Span;
pub use task::{Example, Measure, Part, Probe, Source, SourceKind, Task, TaskSpec};
