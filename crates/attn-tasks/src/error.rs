//! What can be wrong with a task's settings, or with what a batch or an order is made of.

/// The result of every fallible call in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why there is no task, no batch or no order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting of a task that cannot be meant.
    #[error("`{task}.{key}` is {got}, expected {expected}")]
    Setting {
        /// The task's name.
        task: &'static str,
        /// The key, with those around it: `sound.phones`.
        key: &'static str,
        /// Its value.
        got: String,
        /// What would do.
        expected: String,
    },
    /// Examples or sizes that do not fit each other.
    #[error("{what} is {got}, expected {expected}")]
    Input {
        /// What was given.
        what: &'static str,
        /// Its value.
        got: String,
        /// What would do.
        expected: String,
    },
}

impl Error {
    pub(crate) fn input(what: &'static str, got: impl ToString, expected: impl Into<String>) -> Self {
        Self::Input {
            what,
            got: got.to_string(),
            expected: expected.into(),
        }
    }
}
