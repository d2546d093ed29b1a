//! Bootstraps against sacrebleu's paired one, and against numpy on the resamples that sacrebleu draws.
#![allow(clippy::unwrap_used)] // in helpers too

mod common;

use attn_metrics::{
    Bootstrap, ChrfVariant, RougeKind, Statistics, Tokenizer, bleu_counts, chrf_counts, rouge_sums, single,
    wer_counts,
};
use common::fixture;
use serde::Deserialize;

#[derive(Deserialize)]
struct Paired {
    system: Vec<String>,
    baseline: Vec<String>,
    references: Vec<String>,
    resamples: usize,
    seed: u64,
    bleu: Expected,
    chrf: Expected,
    chrf_plus_plus: Expected,
    wer: Expected,
    rouge_l: Expected,
}

/// The same resamples in float64.
#[derive(Deserialize)]
struct Expected {
    value: f64,
    mean: f64,
    ends: [f64; 2],
    difference: f64,
    difference_mean: f64,
    difference_ends: [f64; 2],
    p: f64,
    sacrebleu: Option<Sacrebleu>,
}

/// What sacrebleu says itself: it adds in float32, and its interval is half the distance of two order statistics.
#[derive(Deserialize)]
struct Sacrebleu {
    p: f64,
    mean: f64,
    half_width: f64,
}

#[track_caller]
fn close(got: f64, expected: f64, tolerance: f64) {
    let within = tolerance * expected.abs().max(1.0);
    assert!((got - expected).abs() <= within, "got {got}, expected {expected}");
}

/// Checks a system and its difference to the baseline.
#[track_caller]
fn check<S: Statistics>(case: &Paired, expected: &Expected, counts: impl Fn(&[String]) -> Vec<S>) {
    let bootstrap = Bootstrap {
        resamples: case.resamples,
        seed: case.seed,
    };
    let (system, baseline) = (counts(&case.system), counts(&case.baseline));
    let one = bootstrap.interval(&system).unwrap();
    close(one.value, expected.value, 1e-9);
    close(one.mean, expected.mean, 1e-9);
    close(one.low, expected.ends[0], 1e-9);
    close(one.high, expected.ends[1], 1e-9);

    let both = bootstrap.difference(&system, &baseline).unwrap();
    close(both.value, expected.difference, 1e-9);
    close(both.mean, expected.difference_mean, 1e-9);
    close(both.low, expected.difference_ends[0], 1e-9);
    close(both.high, expected.difference_ends[1], 1e-9);
    assert_eq!(both.p, expected.p);

    if let Some(sacrebleu) = &expected.sacrebleu {
        assert_eq!(both.p, sacrebleu.p);
        close(one.mean, sacrebleu.mean, 1e-6);
        // One order statistic further out at either end.
        let half_width = (one.high - one.low) / 2.0;
        assert!((half_width / sacrebleu.half_width - 1.0).abs() < 0.1);
    }
}

#[test]
fn the_same_seed_gives_the_p_of_sacrebleu() {
    for case in &fixture::<Vec<Paired>>("paired") {
        let references = single(&case.references);
        check(case, &case.bleu, |texts| {
            bleu_counts(texts, &references, Tokenizer::V13a).unwrap()
        });
        check(case, &case.chrf, |texts| {
            chrf_counts(texts, &references, ChrfVariant::Chrf).unwrap()
        });
        check(case, &case.chrf_plus_plus, |texts| {
            chrf_counts(texts, &references, ChrfVariant::PlusPlus).unwrap()
        });
        check(case, &case.wer, |texts| {
            wer_counts(texts, &case.references).unwrap()
        });
        check(case, &case.rouge_l, |texts| {
            rouge_sums(texts, &case.references, RougeKind::L, false).unwrap()
        });
    }
}
