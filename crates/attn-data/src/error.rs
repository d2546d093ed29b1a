//! What can be wrong with data, with the file and the line where it is.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use attn_tasks::Part;

use crate::audio::AudioProblem;

/// The result of every fallible call in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: Arc<Path>,
    /// The line, from 1.
    pub line: u64,
}

impl fmt::Display for Place {
    /// `file:line`, as compilers do it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

/// Why data could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting that cannot be meant.
    #[error("{key}: {message}")]
    Config {
        /// The setting, as it is spelled in a configuration.
        key: &'static str,
        /// What is wrong, and what would do.
        message: String,
    },
    /// A file that is missing or cannot be read.
    #[error("cannot read {}: {reason}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said, or what the file is instead.
        reason: String,
    },
    /// A file that cannot be written.
    #[error("cannot write {}: {reason}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said, or what is there already.
        reason: String,
    },
    /// A line that is not UTF-8.
    #[error("{at}: invalid UTF-8 at byte {byte} of the line")]
    Utf8 {
        /// Where.
        at: Place,
        /// The first byte that is wrong, from 1.
        byte: usize,
    },
    /// A line of a size that no text has.
    #[error("{at}: the line has more than {limit} bytes")]
    LongLine {
        /// Where.
        at: Place,
        /// The most bytes that are read.
        limit: u64,
    },
    /// A file without a line of data.
    #[error("{} has no examples", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A column that the header of a table lacks or has twice.
    #[error("{at}: the header {problem} a column `{column}`, it has {found}")]
    Column {
        /// The header.
        at: Place,
        /// The column.
        column: String,
        /// `lacks` or `repeats`.
        problem: &'static str,
        /// The columns there are.
        found: String,
    },
    /// A row with fewer or more fields than the header.
    #[error("{at}: {got} fields, the header has {expected} (they are separated by tabs)")]
    Fields {
        /// Where.
        at: Place,
        /// Columns of the header.
        expected: usize,
        /// Fields of the row.
        got: usize,
    },
    /// A text without a word in it.
    #[error("{at}: {field} is empty")]
    EmptyText {
        /// Where.
        at: Place,
        /// The column, key or side.
        field: String,
    },
    /// A line that is no JSON object with what is needed.
    #[error("{at}: {reason}")]
    Json {
        /// Where.
        at: Place,
        /// What is wrong with it.
        reason: String,
    },
    /// Two files that go line by line, of different lengths.
    #[error(
        "{} has {source_lines} lines, {} has {target_lines}: parallel files have as many",
        source_path.display(), target_path.display()
    )]
    LineCounts {
        /// The file of sources.
        source_path: PathBuf,
        /// Its lines.
        source_lines: u64,
        /// The file of targets.
        target_path: PathBuf,
        /// Its lines.
        target_lines: u64,
    },
    /// Audio that is missing, broken or not what was asked for.
    #[error("{at}: {}: {problem}", audio.display())]
    Audio {
        /// The line of the manifest.
        at: Place,
        /// The file with the audio.
        audio: PathBuf,
        /// What is wrong.
        problem: AudioProblem,
    },
    /// An utterance of one part that is in another too.
    #[error("{at}: this audio is in {other} too, what is trained on cannot be tested on")]
    InTwoParts {
        /// Where.
        at: Place,
        /// The other line.
        other: Place,
    },
    /// A label that no training example has.
    #[error("{at}: no training example has the label `{label}`")]
    UnknownLabel {
        /// Where.
        at: Place,
        /// The label.
        label: String,
    },
    /// A part whose examples were all left out.
    #[error("nothing is left of part {}: {left_out}", part_name(*part))]
    NothingLeft {
        /// The part.
        part: Part,
        /// How many were left out, and why.
        left_out: String,
    },
    /// A tokenizer file that cannot be used.
    #[error("{}: {reason}", path.display())]
    TokenizerFile {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A tokenizer failed at its work.
    #[error("the tokenizer failed: {reason}")]
    Tokenizer {
        /// What it said.
        reason: String,
    },
    /// A tokenizer failed on a line.
    #[error("{at}: {error}")]
    Line {
        /// Where.
        at: Place,
        /// How.
        error: Box<Error>,
    },
    /// More tokens than a model may have.
    #[error("the {what} has {size} tokens, more than the {allowed} that `limits.max_vocab` allows")]
    Vocabulary {
        /// The vocabulary.
        what: &'static str,
        /// Its size.
        size: usize,
        /// The most there may be.
        allowed: usize,
    },
    /// An example that there is not.
    #[error("part {} has {len} examples, there is no example {index}", part_name(*part))]
    NoExample {
        /// The part.
        part: Part,
        /// The example asked for, from 0.
        index: u64,
        /// Examples of the part.
        len: u64,
    },
}

impl Error {
    /// An [`Error::Config`].
    pub(crate) fn config(key: &'static str, message: impl Into<String>) -> Self {
        Self::Config {
            key,
            message: message.into(),
        }
    }

    /// The same error with its place.
    pub(crate) fn at(self, at: &Place) -> Self {
        Self::Line {
            at: at.clone(),
            error: Box::new(self),
        }
    }

    /// An [`Error::Tokenizer`].
    pub(crate) fn tokenizer(reason: impl fmt::Display) -> Self {
        Self::Tokenizer {
            reason: reason.to_string(),
        }
    }
}

/// A part as a configuration spells it.
pub(crate) fn part_name(part: Part) -> &'static str {
    match part {
        Part::Train => "train",
        Part::Valid => "valid",
        Part::Test => "test",
    }
}
