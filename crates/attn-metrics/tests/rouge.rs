//! ROUGE against the package rouge-score, with and without stems.
#![allow(clippy::unwrap_used)] // in helpers too

mod common;

use std::collections::HashMap;

use attn_metrics::{RougeKind, rouge};
use common::{close, first, fixture};
use serde::Deserialize;

/// Precision, recall and F1 of each kind.
type Scores = HashMap<RougeKind, [f64; 3]>;

#[derive(Deserialize)]
struct Corpus {
    hypotheses: Vec<String>,
    references: Vec<Vec<String>>,
    rouge: Scores,
    rouge_stemmed: Scores,
}

#[test]
fn rouge_is_that_of_rouge_score() {
    for corpus in fixture::<Vec<Corpus>>("corpora") {
        let (hypotheses, references) = (&corpus.hypotheses, first(&corpus.references));
        for (scores, stemmed) in [(&corpus.rouge, false), (&corpus.rouge_stemmed, true)] {
            assert_eq!(scores.len(), 4);
            for (kind, expected) in scores {
                let got = rouge(hypotheses, &references, *kind, stemmed).unwrap();
                close(got.precision, expected[0], hypotheses);
                close(got.recall, expected[1], hypotheses);
                close(got.f1, expected[2], hypotheses);
            }
        }
    }
}
