//! ROUGE of summaries (Lin, 2004), as the package rouge-score computes it, with its default tokenizer: letters a to z
//! and digits, in lower case.

mod lcs;
mod porter;

use serde::{Deserialize, Serialize};

use self::porter::stem;
use crate::ngrams::{in_both, ngrams};
use crate::text::check_pairs;
use crate::{Error, Result, Statistics, total};

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RougeKind {
    /// ROUGE-1: words.
    #[serde(rename = "rouge1")]
    One,
    /// ROUGE-2: pairs of words.
    #[serde(rename = "rouge2")]
    Two,
    /// ROUGE-L: the longest common subsequence of all words.
    #[serde(rename = "rougeL")]
    L,
    /// ROUGE-Lsum: the union of longest common subsequences sentence by sentence, one sentence a line.
    #[serde(rename = "rougeLsum")]
    Lsum,
}

/// Precision, recall and F1, each 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct RougeScore {
    /// How much of the hypothesis is in the reference.
    pub precision: f64,
    /// How much of the reference is in the hypothesis.
    pub recall: f64,
    /// Their harmonic mean.
    pub f1: f64,
}

/// Scores of examples, summed: the value of a corpus is the mean of its examples.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct RougeSums {
    /// Examples.
    pub n: u64,
    /// Sum of precisions.
    pub precision: f64,
    /// Sum of recalls.
    pub recall: f64,
    /// Sum of F1.
    pub f1: f64,
}

/// Mean scores of a corpus, each example with one reference. With `stemmed`, words of more than three letters are
/// compared by their stems (nltk's Porter stemmer).
///
/// # Errors
/// As [`rouge_sums`].
pub fn rouge<H: AsRef<str>, R: AsRef<str>>(
    hypotheses: &[H],
    references: &[R],
    kind: RougeKind,
    stemmed: bool,
) -> Result<RougeScore> {
    let sums = total(&rouge_sums(hypotheses, references, kind, stemmed)?);
    sums.mean().ok_or(Error::Nothing)
}

/// Scores of each example, to be resampled.
///
/// # Errors
/// `Lengths` or `Empty` of corpora that do not fit or have no examples. An example with an empty side scores 0.
pub fn rouge_sums<H: AsRef<str>, R: AsRef<str>>(
    hypotheses: &[H],
    references: &[R],
    kind: RougeKind,
    stemmed: bool,
) -> Result<Vec<RougeSums>> {
    check_pairs(hypotheses.len(), references.len())?;
    let pairs = hypotheses.iter().zip(references);
    Ok(pairs
        .map(|(hypothesis, reference)| score(hypothesis.as_ref(), reference.as_ref(), kind, stemmed).into())
        .collect())
}

fn score(hypothesis: &str, reference: &str, kind: RougeKind, stemmed: bool) -> RougeScore {
    let sentences = |text: &str| match kind {
        RougeKind::Lsum => text.split('\n').map(|line| tokens(line, stemmed)).collect(),
        _ => vec![tokens(text, stemmed)],
    };
    let (hypothesis, reference) = (sentences(hypothesis), sentences(reference));
    let n_grams = |order: usize| {
        let (a, b) = (ngrams(&hypothesis[0], order), ngrams(&reference[0], order));
        RougeScore::of(in_both(&a, &b), a.values().sum(), b.values().sum())
    };
    let words = |sentences: &[Vec<String>]| sentences.iter().map(Vec::len).sum::<usize>() as u64;
    let of_hits = |hits| RougeScore::of(hits, words(&hypothesis), words(&reference));
    match kind {
        RougeKind::One => n_grams(1),
        RougeKind::Two => n_grams(2),
        RougeKind::L => of_hits(lcs::common(&reference[0], &hypothesis[0]).len() as u64),
        RougeKind::Lsum => of_hits(lcs::union_hits(&reference, &hypothesis)),
    }
}

/// Words of the default tokenizer.
fn tokens(text: &str, stemmed: bool) -> Vec<String> {
    text.to_lowercase()
        .split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit()))
        .filter(|word| !word.is_empty())
        .map(|word| {
            if stemmed && word.len() > 3 {
                stem(word)
            } else {
                word.to_owned()
            }
        })
        .collect()
}

impl RougeScore {
    fn of(hits: u64, hypothesis: u64, reference: u64) -> Self {
        let precision = hits as f64 / hypothesis.max(1) as f64;
        let recall = hits as f64 / reference.max(1) as f64;
        let f1 = match precision + recall > 0.0 {
            true => 2.0 * precision * recall / (precision + recall),
            false => 0.0,
        };
        Self {
            precision,
            recall,
            f1,
        }
    }
}

impl From<RougeScore> for RougeSums {
    fn from(score: RougeScore) -> Self {
        Self {
            n: 1,
            precision: score.precision,
            recall: score.recall,
            f1: score.f1,
        }
    }
}

impl RougeSums {
    /// The mean of the examples, `None` without any.
    pub fn mean(&self) -> Option<RougeScore> {
        let n = self.n as f64;
        (self.n > 0).then(|| RougeScore {
            precision: self.precision / n,
            recall: self.recall / n,
            f1: self.f1 / n,
        })
    }
}

impl Statistics for RougeSums {
    fn add(&mut self, other: &Self) {
        self.n += other.n;
        self.precision += other.precision;
        self.recall += other.recall;
        self.f1 += other.f1;
    }

    /// The mean F1.
    fn value(&self) -> Option<f64> {
        self.mean().map(|mean| mean.f1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_letters_and_digits_of_ascii_after_lowering() {
        assert_eq!(
            tokens("It's 3.5 naïve–K\u{212a}", false),
            ["it", "s", "3", "5", "na", "ve", "kk"]
        );
        assert_eq!(tokens("running RUNS ran", true), ["run", "run", "ran"]);
        assert!(tokens("中文, Ωμέγα!", true).is_empty());
    }
}
