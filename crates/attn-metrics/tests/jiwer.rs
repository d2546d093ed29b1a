//! Word and character errors against jiwer: every count, and the rate.
#![allow(clippy::unwrap_used)] // in helpers too

mod common;

use attn_metrics::{ErrorCounts, cer, wer};
use common::{close, first, fixture};
use serde::Deserialize;

#[derive(Deserialize)]
struct Corpus {
    hypotheses: Vec<String>,
    references: Vec<Vec<String>>,
    wer: Errors,
    cer: Errors,
}

#[derive(Deserialize)]
struct Errors {
    counts: ErrorCounts,
    rate: f64,
}

/// A pair that is aligned in halves.
#[derive(Deserialize)]
struct Long {
    hypothesis: String,
    reference: String,
    cer: Errors,
}

#[test]
fn errors_are_jiwers() {
    for corpus in fixture::<Vec<Corpus>>("corpora") {
        let (hypotheses, references) = (&corpus.hypotheses, first(&corpus.references));
        for (got, expected) in [
            (wer(hypotheses, &references).unwrap(), &corpus.wer),
            (cer(hypotheses, &references).unwrap(), &corpus.cer),
        ] {
            assert_eq!(got, expected.counts, "{hypotheses:?}");
            close(got.rate(), expected.rate, hypotheses);
        }
    }
}

#[test]
fn errors_of_long_texts_are_jiwers() {
    for long in fixture::<Vec<Long>>("long") {
        let got = cer(&[&long.hypothesis], &[&long.reference]).unwrap();
        assert_eq!(got, long.cer.counts);
        close(got.rate(), long.cer.rate, &[]);
    }
}
