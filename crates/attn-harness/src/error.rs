//! What can be wrong with a sweep or with the options beside it. All of it is bad input: nothing has run yet.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use crate::device::DeviceError;
use crate::sweep::DeviceRequest;

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read at all.
    #[error("cannot read {}: {reason}", path.display())]
    Read {
        /// The file as it was named.
        path: PathBuf,
        /// What the system said, or what the file is instead.
        reason: String,
        /// What to do.
        help: String,
    },
    /// The file was read, and something in it cannot be meant.
    #[error(transparent)]
    Sweep(Box<BadSweep>),
    /// An option beside the file cannot be meant.
    #[error("{option}: {message}")]
    Option {
        /// The option as it was typed.
        option: String,
        /// What is wrong with it.
        message: String,
        /// What to do.
        help: String,
    },
    /// The device cannot be used here.
    #[error("device {device}: {error}")]
    Device {
        /// The device as it was asked for.
        device: DeviceRequest,
        /// What is missing; it knows the remedy.
        error: DeviceError,
    },
}

impl Error {
    /// What to do, where a sentence says it.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Read { help, .. } | Self::Option { help, .. } => Some(help.clone()),
            Self::Device { error, .. } => Some(error.remedy()),
            Self::Sweep(_) => None,
        }
    }

    /// An [`Error::Option`].
    pub fn option(option: impl Into<String>, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Option {
            option: option.into(),
            message: message.into(),
            help: help.into(),
        }
    }
}

/// A sweep file with everything that is wrong with it.
#[derive(Debug)]
pub struct BadSweep {
    /// The file as it was named.
    pub path: PathBuf,
    /// Its text: the spans of the labels count its bytes.
    pub source_text: String,
    /// What is wrong, in the order it was found; at least one.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong and what was expected, naming every key involved.
    pub message: String,
    /// The places in the file.
    pub labels: Vec<Label>,
    /// Options of the command line that put a value there, as typed.
    pub options: Vec<String>,
    /// What to do.
    pub help: Option<String>,
}

/// A place in a sweep file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Bytes of the text.
    pub span: Range<usize>,
    /// What stands there.
    pub text: String,
}

impl Problem {
    /// A problem without a place yet.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            labels: Vec::new(),
            options: Vec::new(),
            help: None,
        }
    }

    /// Says what to do.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Points at bytes of the text.
    #[must_use]
    pub fn at(mut self, span: Range<usize>, text: impl Into<String>) -> Self {
        self.labels.push(Label {
            span,
            text: text.into(),
        });
        self
    }

    /// Message and the options that caused it.
    pub fn full_message(&self) -> String {
        match self.options.as_slice() {
            [] => self.message.clone(),
            options => format!("{} (set by {})", self.message, options.join(" and ")),
        }
    }
}

impl BadSweep {
    /// Line and column of a byte, both from 1.
    pub fn line_column(&self, byte: usize) -> (usize, usize) {
        let before = self.source_text.get(..byte).unwrap_or(&self.source_text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (
            before.matches('\n').count() + 1,
            before[line_start..].chars().count() + 1,
        )
    }
}

impl fmt::Display for BadSweep {
    /// One line a problem, `file:line:column: message`, as compilers do it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{}", self.path.display())?;
            if let Some(label) = problem.labels.first() {
                let (line, column) = self.line_column(label.span.start);
                write!(f, ":{line}:{column}")?;
            }
            write!(f, ": {}", problem.full_message())?;
        }
        Ok(())
    }
}

impl std::error::Error for BadSweep {}
