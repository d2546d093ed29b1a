//! What can go wrong with a training.

use std::path::{Path, PathBuf};

/// The result of every fallible call in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a training could not begin, go on, or be judged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model failed.
    #[error(transparent)]
    Model(#[from] attn_model::Error),
    /// The task's data failed.
    #[error(transparent)]
    Task(#[from] attn_tasks::Error),
    /// A measure of texts failed.
    #[error(transparent)]
    Metric(#[from] attn_metrics::Error),
    /// Options that do not fit each other or the task.
    #[error("{what} is {got}, expected {expected}")]
    Input {
        /// What was given.
        what: &'static str,
        /// Its value.
        got: String,
        /// What would do.
        expected: String,
    },
    /// A checkpoint that cannot be read or written.
    #[error("cannot {action} the checkpoint {path:?}: {reason}")]
    Checkpoint {
        /// `read` or `write`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system or the reader said.
        reason: String,
    },
}

impl From<attn_core::Error> for Error {
    fn from(error: attn_core::Error) -> Self {
        Self::Model(error.into())
    }
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Model(error.into())
    }
}

impl Error {
    pub(crate) fn input(what: &'static str, got: impl ToString, expected: impl Into<String>) -> Self {
        Self::Input {
            what,
            got: got.to_string(),
            expected: expected.into(),
        }
    }

    pub(crate) fn read(path: &Path, reason: impl ToString) -> Self {
        Self::Checkpoint {
            action: "read",
            path: path.to_path_buf(),
            reason: reason.to_string(),
        }
    }

    pub(crate) fn write(path: &Path, reason: impl ToString) -> Self {
        Self::Checkpoint {
            action: "write",
            path: path.to_path_buf(),
            reason: reason.to_string(),
        }
    }
}
