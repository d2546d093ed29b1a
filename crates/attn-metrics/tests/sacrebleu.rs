//! BLEU and chrF against sacrebleu, in full precision and in the line that it prints.
#![allow(clippy::unwrap_used)] // in helpers too

mod common;

use attn_metrics::{
    BleuScore, ChrfVariant, SACREBLEU, Tokenizer, bleu, bleu_signature, chrf, chrf_signature,
};
use common::{close, fixture};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Corpus {
    hypotheses: Vec<String>,
    references: Vec<Vec<String>>,
    bleu_13a: Bleu,
    bleu_none: Bleu,
    chrf: Chrf,
    chrf_plus_plus: Chrf,
}

#[derive(Deserialize)]
struct Bleu {
    #[serde(flatten)]
    score: BleuScore,
    line: String,
}

#[derive(Deserialize)]
struct Chrf {
    score: f64,
    line: String,
}

fn corpora() -> Vec<Corpus> {
    let corpora: Vec<Corpus> = fixture("corpora");
    assert!(corpora.len() > 250);
    corpora
}

#[test]
fn signatures_name_the_version_of_the_fixture() {
    assert_eq!(fixture::<Value>("made_with")["sacrebleu"], SACREBLEU);
}

#[test]
fn bleu_is_sacrebleus() {
    for corpus in corpora() {
        for (expected, tokenizer) in [
            (&corpus.bleu_13a, Tokenizer::V13a),
            (&corpus.bleu_none, Tokenizer::None),
        ] {
            let of = &corpus.hypotheses;
            let got = bleu(of, &corpus.references, tokenizer).unwrap();
            close(got.score, expected.score.score, of);
            close(got.bp, expected.score.bp, of);
            for (got, expected) in got.precisions.iter().zip(expected.score.precisions) {
                close(*got, expected, of);
            }
            assert_eq!(got.sys_len, expected.score.sys_len, "{of:?}");
            assert_eq!(got.ref_len, expected.score.ref_len, "{of:?}");
            let signature = bleu_signature(&corpus.references, tokenizer);
            assert_eq!(got.line(&signature), expected.line);
        }
    }
}

#[test]
fn tokens_are_sacrebleus() {
    for (line, expected) in fixture::<Vec<(String, String)>>("tokens_13a") {
        assert_eq!(Tokenizer::V13a.tokenize(&line), expected, "{line:?}");
    }
}

#[test]
fn chrf_is_sacrebleus() {
    for corpus in corpora() {
        for (expected, variant) in [
            (&corpus.chrf, ChrfVariant::Chrf),
            (&corpus.chrf_plus_plus, ChrfVariant::PlusPlus),
        ] {
            let got = chrf(&corpus.hypotheses, &corpus.references, variant).unwrap();
            close(got.score, expected.score, &corpus.hypotheses);
            let signature = chrf_signature(&corpus.references, variant);
            assert_eq!(got.line(&signature), expected.line);
        }
    }
}
