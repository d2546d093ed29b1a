//! Corpus metrics that agree with their reference packages to the printed digit, and intervals of them.
//!
//! | metric | reference |
//! |---|---|
//! | [`bleu`](bleu()), [`chrf`](chrf()) | sacrebleu, version [`SACREBLEU`] |
//! | [`wer`](wer()), [`cer`] | jiwer |
//! | [`rouge`](rouge()) | rouge-score, with its default tokenizer and nltk's Porter stemmer |
//! | [`accuracy`], [`exact_match`], [`perplexity`](perplexity()) | their definitions |
//!
//! Every metric is a function of hypotheses and references, and comes in two steps: what is counted in each example,
//! and the value of all the counts together. The counts are [`Statistics`], which add up; [`Bootstrap`] resamples
//! them without looking at a text again.
//!
//! ```
//! use attn_metrics::{Bootstrap, Tokenizer, bleu, bleu_counts, single};
//!
//! let hypotheses = ["The cat sat on the mat.", "It was 3.5 metres long."];
//! let references = single(&["The cat is on the mat.", "It was 3.5 metres long."]);
//! let score = bleu(&hypotheses, &references, Tokenizer::V13a)?;
//! assert_eq!(
//!     score.to_string(),
//!     "BLEU = 73.24 92.3/81.8/66.7/57.1 (BP = 1.000 ratio = 1.000 hyp_len = 13 ref_len = 13)",
//! );
//!
//! let counts = bleu_counts(&hypotheses, &references, Tokenizer::V13a)?;
//! let interval = Bootstrap::default().interval(&counts)?;
//! assert!(interval.low <= score.score && score.score <= interval.high);
//! # Ok::<(), attn_metrics::Error>(())
//! ```
#![warn(missing_docs)]

mod bleu;
mod chrf;
mod error;
mod interval;
mod ngrams;
mod perplexity;
mod rouge;
mod share;
mod statistics;
mod text;
mod wer;

pub use bleu::{BleuCounts, BleuScore, Tokenizer, bleu, bleu_counts, bleu_signature};
pub use chrf::{ChrfCounts, ChrfScore, ChrfVariant, chrf, chrf_counts, chrf_signature};
pub use error::{Error, Result};
pub use interval::{Bootstrap, Difference, Interval};
pub use perplexity::{Nats, perplexity};
pub use rouge::{RougeKind, RougeScore, RougeSums, rouge, rouge_sums};
pub use share::{Share, accuracy, exact_match, matches};
pub use statistics::{Statistics, total};
pub use text::single;
pub use wer::{ErrorCounts, cer, cer_counts, wer, wer_counts};

/// The version of sacrebleu that signatures name: the one the fixtures were made with.
pub const SACREBLEU: &str = "2.6.0";
