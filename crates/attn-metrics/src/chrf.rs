//! chrF (Popović, 2015) and chrF++ (Popović, 2017) of a corpus, as sacrebleu computes them: beta 2, characters up to 6
//! without spaces, words up to 2 for chrF++, case kept, no smoothing.

use std::fmt;
use std::hash::Hash;

use serde::{Deserialize, Serialize};

use crate::ngrams::{in_both, ngrams};
use crate::text::{check_lists, n_references, words};
use crate::{Result, SACREBLEU, Statistics, total};

/// Longest n-gram of characters.
const CHAR_ORDER: usize = 6;

/// Longest n-gram of words, of chrF++.
const WORD_ORDER: usize = 2;

/// Recall counts beta^2 times as much as precision.
const BETA: u32 = 2;

/// With or without words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChrfVariant {
    /// chrF: characters alone.
    #[default]
    Chrf,
    /// chrF++: words too, punctuation at their ends split off.
    PlusPlus,
}

impl ChrfVariant {
    /// Longest n-gram of words.
    pub fn word_order(self) -> usize {
        match self {
            Self::Chrf => 0,
            Self::PlusPlus => WORD_ORDER,
        }
    }

    /// Its name, with beta.
    pub fn name(self) -> String {
        format!("chrF{BETA}{}", "+".repeat(self.word_order()))
    }
}

/// What chrF counts in an example: n-grams of characters for n = 1 to 6, then those of words for n = 1 and 2, which
/// stay 0 without words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChrfCounts {
    /// N-grams of the hypothesis, 0 where the reference has none.
    pub hypothesis: [u64; CHAR_ORDER + WORD_ORDER],
    /// N-grams of the reference: of several, the one that scores highest.
    pub reference: [u64; CHAR_ORDER + WORD_ORDER],
    /// N-grams that are in both.
    pub matches: [u64; CHAR_ORDER + WORD_ORDER],
}

/// chrF with its name.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ChrfScore {
    /// chrF or chrF++, 0 to 100.
    pub score: f64,
    /// Which of them.
    pub variant: ChrfVariant,
}

/// chrF of a corpus, each example with one reference or more.
///
/// # Errors
/// As [`chrf_counts`].
pub fn chrf<H, R, S>(hypotheses: &[H], references: &[R], variant: ChrfVariant) -> Result<ChrfScore>
where
    H: AsRef<str>,
    R: AsRef<[S]>,
    S: AsRef<str>,
{
    let score = total(&chrf_counts(hypotheses, references, variant)?).score();
    Ok(ChrfScore { score, variant })
}

/// What chrF counts in each example.
///
/// # Errors
/// `Lengths` or `Empty` of corpora that do not fit or have no examples, `NoReference` of an example without one. An
/// empty string is an example and a reference.
pub fn chrf_counts<H, R, S>(
    hypotheses: &[H],
    references: &[R],
    variant: ChrfVariant,
) -> Result<Vec<ChrfCounts>>
where
    H: AsRef<str>,
    R: AsRef<[S]>,
    S: AsRef<str>,
{
    check_lists(hypotheses.len(), references)?;
    let pairs = hypotheses.iter().zip(references);
    Ok(pairs
        .map(|(hypothesis, list)| count(hypothesis.as_ref(), list.as_ref(), variant))
        .collect())
}

/// sacrebleu's signature of such a score.
pub fn chrf_signature<R: AsRef<[S]>, S: AsRef<str>>(references: &[R], variant: ChrfVariant) -> String {
    format!(
        "nrefs:{}|case:mixed|eff:yes|nc:{CHAR_ORDER}|nw:{}|space:no|version:{SACREBLEU}",
        n_references(references),
        variant.word_order(),
    )
}

fn count<S: AsRef<str>>(hypothesis: &str, references: &[S], variant: ChrfVariant) -> ChrfCounts {
    let hypothesis = Text::of(hypothesis, variant);
    let mut best = (-1.0, ChrfCounts::default());
    for reference in references {
        let counts = hypothesis.against(&Text::of(reference.as_ref(), variant));
        let score = counts.score();
        // The first one of two as good.
        if score > best.0 {
            best = (score, counts);
        }
    }
    best.1
}

/// A text taken apart.
struct Text<'a> {
    characters: Vec<char>,
    words: Vec<&'a str>,
}

impl<'a> Text<'a> {
    fn of(text: &'a str, variant: ChrfVariant) -> Self {
        Self {
            characters: words(text).flat_map(str::chars).collect(),
            words: match variant {
                ChrfVariant::Chrf => Vec::new(),
                ChrfVariant::PlusPlus => words(text).flat_map(without_punctuation).collect(),
            },
        }
    }

    fn against(&self, reference: &Self) -> ChrfCounts {
        let mut counts = ChrfCounts::default();
        for order in 1..=CHAR_ORDER {
            counts.put(order - 1, order, &self.characters, &reference.characters);
        }
        for order in 1..=WORD_ORDER {
            counts.put(CHAR_ORDER + order - 1, order, &self.words, &reference.words);
        }
        counts
    }
}

/// A word, and punctuation of ASCII at its end, else at its beginning: one character, and never both.
fn without_punctuation(word: &str) -> impl Iterator<Item = &str> {
    let is_punctuation = |c: char| c.is_ascii_punctuation();
    let (first, last) = (word.chars().next(), word.chars().next_back());
    let at = match (first, last) {
        _ if word.chars().nth(1).is_none() => 0,
        (_, Some(last)) if is_punctuation(last) => word.len() - last.len_utf8(),
        (Some(first), _) if is_punctuation(first) => first.len_utf8(),
        _ => 0,
    };
    let (before, after) = word.split_at(at);
    [before, after].into_iter().filter(|part| !part.is_empty())
}

impl ChrfCounts {
    /// Puts n-grams of one order at their place.
    fn put<T: Eq + Hash>(&mut self, at: usize, order: usize, hypothesis: &[T], reference: &[T]) {
        let (hypothesis, reference) = (ngrams(hypothesis, order), ngrams(reference, order));
        if !reference.is_empty() {
            self.hypothesis[at] = hypothesis.values().sum();
        }
        self.reference[at] = reference.values().sum();
        self.matches[at] = in_both(&hypothesis, &reference);
    }

    /// chrF of these counts, 0 to 100: F of the mean precision and the mean recall over the orders that hypothesis and
    /// reference both have, 0 where there are none.
    pub fn score(&self) -> f64 {
        let factor = f64::from(BETA.pow(2));
        let (mut precision, mut recall, mut orders) = (0.0, 0.0, 0.0);
        for i in 0..self.matches.len() {
            if self.hypothesis[i] > 0 && self.reference[i] > 0 {
                precision += self.matches[i] as f64 / self.hypothesis[i] as f64;
                recall += self.matches[i] as f64 / self.reference[i] as f64;
                orders += 1.0;
            }
        }
        if orders == 0.0 || precision + recall == 0.0 {
            return 0.0;
        }
        precision /= orders;
        recall /= orders;
        100.0 * ((1.0 + factor) * precision * recall / (factor * precision + recall))
    }
}

impl Statistics for ChrfCounts {
    fn add(&mut self, other: &Self) {
        for i in 0..self.matches.len() {
            self.hypothesis[i] += other.hypothesis[i];
            self.reference[i] += other.reference[i];
            self.matches[i] += other.matches[i];
        }
    }

    fn value(&self) -> Option<f64> {
        Some(self.score())
    }
}

impl ChrfScore {
    /// sacrebleu's line with a [signature](chrf_signature).
    pub fn line(&self, signature: &str) -> String {
        format!("{}|{signature} = {:.2}", self.variant.name(), self.score)
    }
}

impl fmt::Display for ChrfScore {
    /// As sacrebleu prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {:.2}", self.variant.name(), self.score)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn punctuation_goes_from_the_end_first_and_once() {
        let parts = |word| without_punctuation(word).collect::<Vec<_>>();
        assert_eq!(parts("(hi)"), ["(hi", ")"]);
        assert_eq!(parts("(hi"), ["(", "hi"]);
        assert_eq!(parts("é!!"), ["é!", "!"]);
        assert_eq!(parts("("), ["("]);
        assert_eq!(parts("。好"), ["。好"]);
    }
}
