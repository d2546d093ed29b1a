//! Tasks that a model is trained on and judged by.
#![warn(missing_docs)]

mod task;

pub use task::{Example, Measure, Part, Probe, Source, SourceKind, Task, TaskSpec};
