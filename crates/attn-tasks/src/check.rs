//! Checks of a task's settings: each names the key it is about.

use crate::error::{Error, Result};
use crate::span::Span;

/// Larger than any size that is meant: tokens, symbols, words.
pub(crate) const MOST: usize = 1 << 16;

/// Examples a part must be able to choose from. With fewer, a part could be empty, and training would see all of them.
const FEWEST_CONTENTS: u128 = 1 << 16;

/// The checks of one task.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Check(pub(crate) &'static str);

impl Check {
    /// The setting cannot be meant.
    pub(crate) fn fail<T>(
        self,
        key: &'static str,
        got: impl ToString,
        expected: impl Into<String>,
    ) -> Result<T> {
        Err(Error::Setting {
            task: self.0,
            key,
            got: got.to_string(),
            expected: expected.into(),
        })
    }

    /// From `min` to `max`, both included.
    pub(crate) fn between(self, key: &'static str, got: usize, min: usize, max: usize) -> Result<()> {
        match (min..=max).contains(&got) {
            true => Ok(()),
            false => self.fail(key, got, format!("{min} to {max}")),
        }
    }

    /// A span within `min` to `max`.
    pub(crate) fn span(self, key: &'static str, got: Span, min: usize, max: usize) -> Result<()> {
        match min <= got.min && got.min <= got.max && got.max <= max {
            true => Ok(()),
            false => self.fail(key, got, format!("{min} <= min <= max <= {max}")),
        }
    }

    /// So many different examples, at least, must be enough for three parts that share none; `key` is what makes more.
    pub(crate) fn contents(self, key: &'static str, got: impl ToString, contents: u128) -> Result<()> {
        match contents >= FEWEST_CONTENTS {
            true => Ok(()),
            false => self.fail(
                key,
                got,
                format!("enough for {FEWEST_CONTENTS} different examples, there are only {contents}"),
            ),
        }
    }
}

/// `base` to the power of `exponent`, or the largest number there is.
pub(crate) fn power(base: usize, exponent: usize) -> u128 {
    (base as u128).saturating_pow(u32::try_from(exponent).unwrap_or(u32::MAX))
}
