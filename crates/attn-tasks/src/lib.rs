//! Tasks that a model is trained on and judged by, generated from a seed: no download, the same on every machine, with a
//! score that is known to be the best.
//!
//! ```
//! use attn_tasks::{Batch, Order, Part, TaskConfig};
//!
//! # fn main() -> attn_tasks::Result<()> {
//! let Some(config) = TaskConfig::named("recall") else { return Ok(()) };
//! let task = config.build()?;
//! let order = Order::new(42, 16, task.len(Part::Train))?;
//! let batch = Batch::of(task.as_ref(), Part::Train, &order.indices(0))?;
//! assert_eq!(batch.inputs.len(), batch.batch * batch.tokens);
//! # Ok(())
//! # }
//! ```
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
mod copy;
mod entropy;
mod error;
mod markov;
mod needle;
mod order;
mod parts;
mod recall;
mod registry;
mod rng;
mod span;
mod speech;
mod summarisation;
mod task;
#[cfg(test)]
mod tests;

pub use batch::{Batch, Sources};
pub use copy::CopyConfig;
pub use entropy::EntropyConfig;
pub use error::{Error, Result};
pub use needle::NeedleConfig;
pub use order::Order;
pub use parts::Parts;
pub use recall::RecallConfig;
pub use registry::{TaskConfig, names};
pub use span::Span;
pub use speech::{SoundConfig, SpeechConfig, UnderstandingConfig};
pub use summarisation::SummarisationConfig;
pub use task::{Example, Measure, Part, Probe, Source, SourceKind, Task, TaskSpec};
