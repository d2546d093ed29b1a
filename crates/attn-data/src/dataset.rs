//! A task whose examples come from files.

use std::sync::OnceLock;

use attn_tasks::{Example, Part, Source, SourceKind, Task, TaskSpec};

use crate::error::{Error, Result};
use crate::report::Report;

/// A task whose examples come from files.
///
/// All files are checked when a dataset is opened. What is read later can still fail where somebody changes or removes
/// it meanwhile: [`Dataset::try_example`] says so. [`Task::example`] cannot; it gives a blank example without an answer,
/// on which no loss is taken, and [`Dataset::fault`] has the reason from then on. Whoever uses the latter asks for faults
/// before a result is believed.
pub trait Dataset: Task {
    /// Example `index` of a part.
    ///
    /// # Errors
    /// Where there is no such example, or its file is no longer what it was.
    fn try_example(&self, part: Part, index: u64) -> Result<Example>;

    /// What became of the examples that were read.
    fn report(&self) -> &Report;

    /// The first example that [`Task::example`] could not give.
    fn fault(&self) -> Option<&Error>;
}

/// Holds the first fault.
#[derive(Debug, Default)]
pub(crate) struct Faults(OnceLock<Error>);

impl Faults {
    pub fn first(&self) -> Option<&Error> {
        self.0.get()
    }

    /// The example, or a blank one and a fault.
    pub fn or_blank(&self, example: Result<Example>, spec: &TaskSpec) -> Example {
        example.unwrap_or_else(|error| {
            // A fault before this one is the first.
            let _ = self.0.set(error);
            blank(spec)
        })
    }
}

/// Nothing to learn from: the shortest source, and a text without an answer.
fn blank(spec: &TaskSpec) -> Example {
    let source = match spec.source {
        SourceKind::None => Source::None,
        SourceKind::Frames { dim } => Source::Frames {
            features: vec![0.0; dim],
            dim,
        },
        SourceKind::Tokens { .. } => Source::Tokens(vec![spec.bos]),
    };
    Example {
        source,
        text: vec![spec.bos; 2],
        is_answer: vec![false],
        probes: Vec::new(),
    }
}

/// The index into a list of so many examples.
pub(crate) fn position(part: Part, index: u64, len: usize) -> Result<usize> {
    match usize::try_from(index) {
        Ok(i) if i < len => Ok(i),
        _ => Err(Error::NoExample {
            part,
            index,
            len: len as u64,
        }),
    }
}
