//! What can be wrong with a corpus.

/// The result of every fallible call in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a metric has no value.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Two sides that should go together example by example, but do not.
    #[error("{left} {left_name} for {right} {right_name}, expected as many")]
    Lengths {
        /// What is on one side.
        left_name: &'static str,
        /// How many there are.
        left: usize,
        /// What is on the other side.
        right_name: &'static str,
        /// How many there are.
        right: usize,
    },
    /// A corpus without examples.
    #[error("no examples, expected one or more")]
    Empty,
    /// An example without a reference.
    #[error("example {example} (from 0) has no reference, expected one or more")]
    NoReference {
        /// Its index.
        example: usize,
    },
    /// Nats that are no number, or infinite.
    #[error("the loss of example {example} (from 0) is {got}, expected a finite number of nats")]
    Nats {
        /// Its index.
        example: usize,
        /// What was given.
        got: f64,
    },
    /// A share of more than all.
    #[error("{right} right of {total}")]
    Share {
        /// How many are right.
        right: u64,
        /// Of how many.
        total: u64,
    },
    /// A metric of nothing: the examples are there, and there is nothing in them to count.
    #[error("nothing to count in any example: the metric has no value")]
    Nothing,
    /// A resample in which the metric has no finite value.
    #[error(
        "the metric has no finite value in resample {resample} (from 0), leave out examples that count nothing"
    )]
    Resample {
        /// Its index.
        resample: usize,
    },
    /// A bootstrap without resamples.
    #[error("a bootstrap of 0 resamples, expected one or more")]
    NoResamples,
}
