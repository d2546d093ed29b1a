//! Shares of right answers: accuracy of labels or tokens, exact match of texts.

use serde::{Deserialize, Serialize};

use crate::text::check_pairs;
use crate::{Error, Result, Statistics, total};

/// How many are right, of how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Share {
    /// Right ones.
    pub right: u64,
    /// All of them.
    pub total: u64,
}

impl Share {
    /// A share of an example with several answers.
    ///
    /// # Errors
    /// `Share` where more are right than there are.
    pub fn new(right: u64, total: u64) -> Result<Self> {
        match right <= total {
            true => Ok(Self { right, total }),
            false => Err(Error::Share { right, total }),
        }
    }
}

/// The share of answers that equal their targets, 0 to 1.
///
/// # Errors
/// `Lengths` or `Empty` where there are not as many, or none.
pub fn accuracy<T: PartialEq>(answers: &[T], targets: &[T]) -> Result<f64> {
    let share = total(&matches(answers, targets)?);
    share.value().ok_or(Error::Nothing)
}

/// The share of hypotheses that equal their references in every character, 0 to 1. Nothing is made equal before: not
/// case, spaces or Unicode's ways to write the same.
///
/// # Errors
/// As [`accuracy`].
pub fn exact_match<H: AsRef<str>, R: AsRef<str>>(hypotheses: &[H], references: &[R]) -> Result<f64> {
    let hypotheses: Vec<&str> = hypotheses.iter().map(AsRef::as_ref).collect();
    let references: Vec<&str> = references.iter().map(AsRef::as_ref).collect();
    accuracy(&hypotheses, &references)
}

/// A share of 0 or 1 for each example, to be resampled.
///
/// # Errors
/// As [`accuracy`].
pub fn matches<T: PartialEq>(answers: &[T], targets: &[T]) -> Result<Vec<Share>> {
    check_pairs(answers.len(), targets.len())?;
    let pairs = answers.iter().zip(targets);
    Ok(pairs
        .map(|(answer, target)| Share {
            right: u64::from(answer == target),
            total: 1,
        })
        .collect())
}

impl Statistics for Share {
    fn add(&mut self, other: &Self) {
        self.right += other.right;
        self.total += other.total;
    }

    fn value(&self) -> Option<f64> {
        (self.total > 0).then(|| self.right as f64 / self.total as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accuracy_is_the_share_of_equal_pairs() {
        assert_eq!(accuracy(&[1, 2, 3, 4], &[1, 2, 0, 4]), Ok(0.75));
        assert_eq!(accuracy::<u32>(&[], &[]), Err(Error::Empty));
    }

    #[test]
    fn an_exact_match_is_one_of_code_points() {
        // A precomposed letter is not the letter with a combining mark.
        let (hypotheses, references) = (["", "a b", "é", "A"], ["", "a b", "e\u{301}", "a"]);
        assert_eq!(exact_match(&hypotheses, &references), Ok(0.5));
    }

    #[test]
    fn more_cannot_be_right_than_there_are() {
        assert_eq!(Share::new(3, 2), Err(Error::Share { right: 3, total: 2 }));
        assert_eq!(total(&[Share::new(0, 0).unwrap()]).value(), None);
    }
}
