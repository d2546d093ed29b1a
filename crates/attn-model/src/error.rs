//! What can go wrong with a whole model.

use std::path::{Path, PathBuf};

/// The result of every fallible call in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a model could not be configured, loaded or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A layer, a cache or the tensor library failed.
    #[error(transparent)]
    Layer(#[from] attn_core::Error),
    /// Prompts, prefixes or options that do not fit the model or each other.
    #[error("{what} is {got}, expected {expected}")]
    Input {
        /// What was given.
        what: &'static str,
        /// Its value.
        got: String,
        /// What would do.
        expected: String,
    },
    /// Scores that are NaN or infinite: no choice can be made among them.
    #[error(
        "the scores of sentence {sentence} are not finite after {tokens} tokens, the model overflows or its weights are damaged"
    )]
    NonFinite {
        /// Index of the sentence in the batch as it was given.
        sentence: usize,
        /// Tokens generated before.
        tokens: usize,
    },
    /// A file that cannot be read or written.
    #[error("cannot {action} {path:?}: {reason}")]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system or the reader said.
        reason: String,
    },
    /// A setting of a `config.json` that cannot be used.
    #[error("{path:?}: `{key}` is {got}, expected {expected}")]
    Setting {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// Its value, or `missing`.
        got: String,
        /// What can be used.
        expected: String,
    },
    /// Weights that are not those of the configuration beside them.
    #[error("{path:?}: {reason}")]
    Weights {
        /// The file or folder.
        path: PathBuf,
        /// What is missing, misshapen or left over.
        reason: String,
    },
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Layer(error.into())
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
        Self::File {
            action: "read",
            path: path.to_path_buf(),
            reason: reason.to_string(),
        }
    }

    pub(crate) fn write(path: &Path, reason: impl ToString) -> Self {
        Self::File {
            action: "write",
            path: path.to_path_buf(),
            reason: reason.to_string(),
        }
    }
}
