//! Word and character error rates of a corpus, as jiwer computes them.

mod align;

use std::collections::HashMap;
use std::hash::Hash;

use serde::{Deserialize, Serialize};

use self::align::align;
use crate::text::{check_pairs, is_space};
use crate::{Result, Statistics, total};

/// Words or characters of an alignment with the fewest errors. Where several have as few, it is the one jiwer takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ErrorCounts {
    /// Right ones.
    pub hits: u64,
    /// Others in place of the reference's.
    pub substitutions: u64,
    /// Missing ones.
    pub deletions: u64,
    /// Ones too many.
    pub insertions: u64,
}

/// Word errors of a corpus. Words are what single spaces separate, after runs of white space have become one space:
/// a lone tab is part of a word.
///
/// # Errors
/// As [`wer_counts`].
pub fn wer<H: AsRef<str>, R: AsRef<str>>(hypotheses: &[H], references: &[R]) -> Result<ErrorCounts> {
    Ok(total(&wer_counts(hypotheses, references)?))
}

/// Word errors of each example.
///
/// # Errors
/// `Lengths` or `Empty` of corpora that do not fit or have no examples. An empty string is an example.
pub fn wer_counts<H: AsRef<str>, R: AsRef<str>>(
    hypotheses: &[H],
    references: &[R],
) -> Result<Vec<ErrorCounts>> {
    check_pairs(hypotheses.len(), references.len())?;
    let pairs = hypotheses.iter().zip(references);
    Ok(pairs
        .map(|(hypothesis, reference)| {
            let (hypothesis, reference) = (one_space(hypothesis.as_ref()), one_space(reference.as_ref()));
            count(&words(&reference), &words(&hypothesis))
        })
        .collect())
}

/// Character errors of a corpus: code points, spaces between words among them.
///
/// # Errors
/// As [`wer_counts`].
pub fn cer<H: AsRef<str>, R: AsRef<str>>(hypotheses: &[H], references: &[R]) -> Result<ErrorCounts> {
    Ok(total(&cer_counts(hypotheses, references)?))
}

/// Character errors of each example.
///
/// # Errors
/// As [`wer_counts`].
pub fn cer_counts<H: AsRef<str>, R: AsRef<str>>(
    hypotheses: &[H],
    references: &[R],
) -> Result<Vec<ErrorCounts>> {
    check_pairs(hypotheses.len(), references.len())?;
    let characters = |text: &str| text.trim_matches(is_space).chars().collect::<Vec<_>>();
    let pairs = hypotheses.iter().zip(references);
    Ok(pairs
        .map(|(hypothesis, reference)| {
            count(&characters(reference.as_ref()), &characters(hypothesis.as_ref()))
        })
        .collect())
}

/// The text with a space for every two or more of white space.
fn one_space(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after = rest.trim_start_matches(is_space);
        let run = &rest[..rest.len() - after.len()];
        if run.chars().nth(1).is_some() {
            out.push(' ');
            rest = after;
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    out
}

fn words(text: &str) -> Vec<&str> {
    text.trim_matches(is_space)
        .split(' ')
        .filter(|word| !word.is_empty())
        .collect()
}

/// Errors of numbers that stand for words, or characters: they compare faster.
fn count<T: Eq + Hash>(reference: &[T], hypothesis: &[T]) -> ErrorCounts {
    let mut known = HashMap::new();
    let [reference, hypothesis] = [reference, hypothesis].map(|items| {
        let mut numbers = Vec::with_capacity(items.len());
        for item in items {
            let next = known.len() as u32;
            numbers.push(*known.entry(item).or_insert(next));
        }
        numbers
    });
    align(&reference, &hypothesis)
}

impl ErrorCounts {
    /// Words or characters of the references.
    pub fn reference_len(&self) -> u64 {
        self.hits + self.substitutions + self.deletions
    }

    /// The error rate: errors for each word or character of the references, 0 where all is right, and above 1 where
    /// there are more errors. Of references without any, it is the number of insertions.
    pub fn rate(&self) -> f64 {
        match self.reference_len() {
            0 => self.insertions as f64,
            len => (self.substitutions + self.deletions + self.insertions) as f64 / len as f64,
        }
    }
}

impl Statistics for ErrorCounts {
    fn add(&mut self, other: &Self) {
        self.hits += other.hits;
        self.substitutions += other.substitutions;
        self.deletions += other.deletions;
        self.insertions += other.insertions;
    }

    fn value(&self) -> Option<f64> {
        Some(self.rate())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_white_space_are_one_space_and_a_lone_tab_is_none() {
        assert_eq!(one_space("a\tb \n c  "), "a\tb c ");
        assert_eq!(words(&one_space(" a\tb \t c ")), ["a\tb", "c"]);
    }

    #[test]
    fn without_references_the_rate_is_the_number_of_insertions() {
        assert_eq!(wer(&["a b c"], &[" "]).unwrap().rate(), 3.0);
        assert_eq!(cer(&[""], &[""]).unwrap().rate(), 0.0);
    }
}
