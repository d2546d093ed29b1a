//! BLEU of a corpus (Papineni et al., 2002) as sacrebleu computes it (Post, 2018): n-grams up to 4, `exp` smoothing,
//! case kept, effective order off.

mod tokenize;

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::tokenize::Tokenizer;
use crate::ngrams::ngrams;
use crate::text::{check_lists, n_references, words};
use crate::{Result, SACREBLEU, Statistics, total};

/// Longest n-gram.
const ORDER: usize = 4;

/// What BLEU counts in an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BleuCounts {
    /// Tokens of the hypothesis.
    pub sys_len: u64,
    /// Tokens of the reference that is closest in length, the shorter one of two as close.
    pub ref_len: u64,
    /// N-grams of the hypothesis that are in a reference, for n = 1 to 4.
    pub correct: [u64; ORDER],
    /// N-grams of the hypothesis.
    pub total: [u64; ORDER],
}

/// BLEU and what it is made of.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BleuScore {
    /// BLEU, 0 to 100.
    pub score: f64,
    /// Precisions of n-grams for n = 1 to 4, smoothed, 0 to 100.
    pub precisions: [f64; ORDER],
    /// Brevity penalty, 0 to 1.
    pub bp: f64,
    /// Tokens of the hypotheses.
    pub sys_len: u64,
    /// Tokens of the references.
    pub ref_len: u64,
}

/// BLEU of a corpus, each example with one reference or more.
///
/// # Errors
/// As [`bleu_counts`].
pub fn bleu<H, R, S>(hypotheses: &[H], references: &[R], tokenizer: Tokenizer) -> Result<BleuScore>
where
    H: AsRef<str>,
    R: AsRef<[S]>,
    S: AsRef<str>,
{
    Ok(total(&bleu_counts(hypotheses, references, tokenizer)?).score())
}

/// What BLEU counts in each example.
///
/// # Errors
/// `Lengths` or `Empty` of corpora that do not fit or have no examples, `NoReference` of an example without one. An
/// empty string is an example and a reference.
pub fn bleu_counts<H, R, S>(
    hypotheses: &[H],
    references: &[R],
    tokenizer: Tokenizer,
) -> Result<Vec<BleuCounts>>
where
    H: AsRef<str>,
    R: AsRef<[S]>,
    S: AsRef<str>,
{
    check_lists(hypotheses.len(), references)?;
    let pairs = hypotheses.iter().zip(references);
    Ok(pairs
        .map(|(hypothesis, list)| count(hypothesis.as_ref(), list.as_ref(), tokenizer))
        .collect())
}

/// sacrebleu's signature of such a score.
pub fn bleu_signature<R: AsRef<[S]>, S: AsRef<str>>(references: &[R], tokenizer: Tokenizer) -> String {
    format!(
        "nrefs:{}|case:mixed|eff:no|tok:{}|smooth:exp|version:{SACREBLEU}",
        n_references(references),
        tokenizer.name(),
    )
}

fn count<S: AsRef<str>>(hypothesis: &str, references: &[S], tokenizer: Tokenizer) -> BleuCounts {
    let hypothesis = tokenizer.tokenize(hypothesis);
    let hypothesis: Vec<&str> = words(&hypothesis).collect();
    let references: Vec<String> = references
        .iter()
        .map(|reference| tokenizer.tokenize(reference.as_ref()))
        .collect();
    let references: Vec<Vec<&str>> = references.iter().map(|text| words(text).collect()).collect();
    let closest = references
        .iter()
        .map(Vec::len)
        .min_by_key(|len| (hypothesis.len().abs_diff(*len), *len));

    let mut counts = BleuCounts {
        sys_len: hypothesis.len() as u64,
        ref_len: closest.unwrap_or(0) as u64,
        ..BleuCounts::default()
    };
    for order in 1..=ORDER {
        // As often as in the reference that has it most often.
        let mut allowed = HashMap::new();
        for reference in &references {
            for (ngram, count) in ngrams(reference, order) {
                let most = allowed.entry(ngram).or_insert(0);
                *most = count.max(*most);
            }
        }
        for (ngram, count) in ngrams(&hypothesis, order) {
            counts.total[order - 1] += count;
            counts.correct[order - 1] += count.min(allowed.get(ngram).copied().unwrap_or(0));
        }
    }
    counts
}

impl BleuCounts {
    /// BLEU of these counts: bp exp(1/4 sum of ln p_n), with bp = exp(1 - `ref_len` / `sys_len`) where hypotheses are
    /// shorter, else 1. The k-th p_n without a match counts as 1 / 2^k of a match. It is 0 where no token matches, and
    /// where no hypothesis has four tokens.
    pub fn score(&self) -> BleuScore {
        let (sys_len, ref_len) = (self.sys_len as f64, self.ref_len as f64);
        let bp = if self.sys_len >= self.ref_len {
            1.0
        } else if self.sys_len > 0 {
            (1.0 - ref_len / sys_len).exp()
        } else {
            0.0
        };
        let mut score = BleuScore {
            score: 0.0,
            precisions: [0.0; ORDER],
            bp,
            sys_len: self.sys_len,
            ref_len: self.ref_len,
        };
        if self.correct.iter().all(|correct| *correct == 0) {
            return score;
        }
        let mut smooth = 1.0;
        for (i, precision) in score.precisions.iter_mut().enumerate() {
            let (correct, total) = (self.correct[i] as f64, self.total[i] as f64);
            if self.total[i] == 0 {
                break;
            }
            *precision = if self.correct[i] == 0 {
                smooth *= 2.0;
                100.0 / (smooth * total)
            } else {
                100.0 * correct / total
            };
        }
        if score.precisions.iter().all(|precision| *precision > 0.0) {
            let logs: f64 = score.precisions.iter().map(|precision| precision.ln()).sum();
            score.score = bp * (logs / ORDER as f64).exp();
        }
        score
    }
}

impl Statistics for BleuCounts {
    fn add(&mut self, other: &Self) {
        self.sys_len += other.sys_len;
        self.ref_len += other.ref_len;
        for i in 0..ORDER {
            self.correct[i] += other.correct[i];
            self.total[i] += other.total[i];
        }
    }

    fn value(&self) -> Option<f64> {
        Some(self.score().score)
    }
}

impl BleuScore {
    /// sacrebleu's line with a [signature](bleu_signature()).
    pub fn line(&self, signature: &str) -> String {
        format!("BLEU|{signature}{}", self.to_string().trim_start_matches("BLEU"))
    }
}

impl fmt::Display for BleuScore {
    /// As sacrebleu prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let precisions = self
            .precisions
            .map(|precision| format!("{precision:.1}"))
            .join("/");
        let ratio = match self.ref_len {
            0 => 0.0,
            ref_len => self.sys_len as f64 / ref_len as f64,
        };
        write!(
            f,
            "BLEU = {:.2} {precisions} (BP = {:.3} ratio = {ratio:.3} hyp_len = {} ref_len = {})",
            self.score, self.bp, self.sys_len, self.ref_len,
        )
    }
}
