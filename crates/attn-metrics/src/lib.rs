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
//! and the value of all the counts together. The counts are [`Statistics`], which add up.
#![warn(missing_docs)]

mod bleu;
mod chrf;
mod error;
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
pub use perplexity::{Nats, perplexity};
pub use rouge::{RougeKind, RougeScore, RougeSums, rouge, rouge_sums};
pub use share::{Share, accuracy, exact_match, matches};
pub use statistics::{Statistics, total};
pub use text::single;
pub use wer::{ErrorCounts, cer, cer_counts, wer, wer_counts};

/// The version of sacrebleu that signatures name: the one the fixtures were made with.
pub const SACREBLEU: &str = "2.6.0";
