//! Trains a variant on a task and says how good it became.
//!
//! A [`TaskModel`] is an encoder without attention, where the task has a source, and a decoder around the variant. A
//! [`Trainer`] takes it through a training that can be interrupted anywhere: data order, learning rates and weights are
//! functions of seed and step, and what is kept is taken up bit by bit. [`evaluate()`] judges it.
#![warn(missing_docs)]

mod check;
mod checkpoint;
mod error;
mod evaluate;
mod model;
mod score;
mod trainer;

pub use check::{Agreement, check};
pub use error::{Error, Result};
pub use evaluate::{Evaluation, ProbeCell, Reading, evaluate};
pub use model::{ModelSizes, TaskModel, TaskModelConfig};
pub use score::{Score, score};
pub use trainer::{CurvePoint, End, Trainer, TrainingOptions};
