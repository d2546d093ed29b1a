//! Sizes that differ from example to example.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A size from `min` to `max`, both included, each as likely as the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// The smallest.
    pub min: usize,
    /// The largest.
    pub max: usize,
}

impl Span {
    /// From `min` to `max`.
    pub const fn new(min: usize, max: usize) -> Self {
        Self { min, max }
    }

    /// Always `n`.
    pub const fn exactly(n: usize) -> Self {
        Self::new(n, n)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{min: {}, max: {}}}", self.min, self.max)
    }
}
