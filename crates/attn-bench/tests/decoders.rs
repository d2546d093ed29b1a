//! Whole decoders through the binary: searched, verified, timed phase by phase, resumed, and caught where they go wrong.

#![allow(clippy::unwrap_used, reason = "a helper of tests, outside of a test function")]

mod common;

use attn_harness::row::Row;
use attn_harness::status::Status;
use attn_harness::store::Run;
use common::{Place, command};

const SEARCH: &str = "\
name: search
model: {d_model: 32, n_heads: 4, n_layers: 2, vocab: 50}
variants:
  - mha
  - gqa: {n_kv_heads: 2}
  - mtla: {kv_rank: 16, rope_dim: 4, stride: 2}
scopes: [model]
paths: [seedlike, fused]
prefixes: [replicated, copied, shared]
workloads:
  - beam: {tokens: 9, new_tokens: 5, beam: 4, batch: 3}
  - generate: {tokens: 9, new_tokens: 5, batch: 3}
measure: {warmup_ms: 1, min_samples: 3, max_samples: 3, max_s: 1, ceilings: false}
figures: []
";

fn rows(place: &Place) -> Vec<Row> {
    Run::open(&place.path().join("r")).unwrap().rows
}

fn phases(row: &Row) -> f64 {
    let phases = [
        row.prefill_s,
        row.projections_s,
        row.cache_update_s,
        row.attention_s,
        row.reorder_s,
        row.feed_forward_s,
        row.vocabulary_s,
        row.choosing_s,
        row.other_s,
    ];
    phases.iter().map(|seconds| seconds.unwrap()).sum()
}

#[test]
fn a_search_leaves_verified_rows_with_its_phases_and_resumes() {
    let place = Place::with(SEARCH);
    place.prints(&["run", "sweep.yaml", "--out", "r", "--filter", "path=fused"]);
    let first = rows(&place);
    assert_eq!(first.len(), 3 * (3 + 1));
    place.prints(&["run", "sweep.yaml", "--out", "r", "--resume"]);
    let all = rows(&place);
    assert_eq!(all.len(), 3 * (3 + 1 + 1 + 1));
    for row in &first {
        assert!(all.contains(row), "{} changed", row.case_id);
    }
    for row in &all {
        assert_eq!(row.status, Status::Ok, "{row:?}");
        assert!(
            row.error_max.unwrap() < 1e-4 && row.verified_rows.unwrap() > 0,
            "{row:?}"
        );
        assert_eq!(
            (row.n_layers, row.d_ff, row.vocab, row.decoder.as_deref()),
            (Some(2), Some(128), Some(50), Some("prefix"))
        );
        assert!(row.paper_time_s.unwrap() > 0.0 && row.paper_memory_bytes.unwrap() > 0);
        let first_token_s = row.time_to_first_token_s.unwrap();
        assert!(first_token_s > 0.0 && first_token_s < 2.0 * row.time_median_s.unwrap());
        assert!(row.prefill_s.unwrap() > 0.0 && row.vocabulary_s.unwrap() > 0.0);
        // Of the middle half of the samples, which need not be the median one.
        let ratio = phases(row) / row.time_median_s.unwrap();
        assert!((0.7..1.3).contains(&ratio), "{ratio} {row:?}");
        let is_beam = row.workload == "beam";
        assert_eq!(row.beam, is_beam.then_some(4));
        assert_eq!(row.prefix.is_some(), is_beam);
        assert_eq!(row.reorder_s.unwrap() > 0.0, is_beam, "{row:?}");
        let habits = (row.path_requested == "seedlike").then_some("cat+expand+reorder-copy+dense-mask+f32");
        assert_eq!(row.habits.as_deref(), habits);
        assert_eq!(row.tokens_per_s, Some(15.0 / row.time_median_s.unwrap()));
        // Elements of a slot, slots of S + N tokens, K or one sequences of 3 sentences, 2 layers.
        let elements = [("mha", 64), ("gqa", 32), ("mtla", 20)];
        let elements = elements.iter().find(|(name, _)| *name == row.variant).unwrap().1;
        let stride = row.stride.unwrap_or(1);
        let (hypotheses, slots) = (3 * row.beam.unwrap_or(1), 14_u64.div_ceil(stride));
        let kept = match row.prefix.as_deref() {
            Some("shared") => 3 * (10 / stride) + hypotheses * (slots - 10 / stride),
            _ => hypotheses * slots,
        };
        assert_eq!(row.kv_bytes, Some(2 * kept * elements * 4), "{row:?}");
    }
    // What is shared is stored once.
    let bytes = |prefix: &str| {
        let is = |row: &&Row| row.variant == "mha" && row.prefix.as_deref() == Some(prefix);
        let of = all.iter().filter(|row| row.path_requested == "fused");
        of.clone().find(is).unwrap().kv_allocated_bytes.unwrap()
    };
    assert_eq!(bytes("replicated"), bytes("copied"));
    assert!(bytes("shared") < bytes("copied") / 2);
}

#[test]
fn a_decoder_that_goes_wrong_is_not_timed() {
    let place = Place::with(SEARCH);
    let out = command()
        .current_dir(place.path())
        .args(["run", "sweep.yaml", "--out", "r", "--filter", "workload=beam"])
        .env(
            "ATTN_BENCH_PLANT",
            "variant=mha:misordered;variant=gqa:prefix;variant=mtla:wrong",
        )
        .output()
        .unwrap();
    assert_eq!(
        out.status.code(),
        Some(3),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    for row in rows(&place) {
        let (label, reason) = (row.label, row.reason.unwrap());
        // Hypotheses that share a prefix cannot take their neighbour's at all.
        let is_refused = row.variant == "mha" && row.prefix.as_deref() == Some("shared");
        let (status, why) = match is_refused {
            true => (Status::Crash, "stay with their sentence"),
            false => (Status::Wrong, "log-probabilities differ"),
        };
        assert_eq!(row.status, status, "{label}: {reason}");
        assert!(reason.contains(why), "{label}: {reason}");
        assert_eq!((row.time_median_s, row.prefill_s), (None, None));
    }
}

#[test]
fn a_plain_language_model_generates_and_searches_too() {
    let sweep = SEARCH.replace("vocab: 50", "vocab: 50, decoder: llama");
    let place = Place::with(&sweep);
    place.prints(&["run", "sweep.yaml", "--out", "r", "--filter", "variant!=gqa"]);
    let all = rows(&place);
    assert_eq!(all.len(), 2 * (3 + 1 + 1 + 1));
    for row in &all {
        assert_eq!(row.status, Status::Ok, "{row:?}");
        assert_eq!(row.decoder.as_deref(), Some("llama"));
    }
}

#[test]
fn sets_of_habits_run_side_by_side() {
    let sweep = SEARCH
        .replace(
            "paths:",
            "habits: [all, cat+f32, expand+reorder-copy, dense-mask, none]\npaths:",
        )
        .replace("  - generate: {tokens: 9, new_tokens: 5, batch: 3}\n", "");
    let place = Place::with(&sweep);
    place.prints(&["run", "sweep.yaml", "--out", "r", "--filter", "path=seedlike"]);
    let all = rows(&place);
    assert_eq!(all.len(), 3 * 5);
    for row in &all {
        assert_eq!((row.status, row.group), (Status::Ok, 0), "{row:?}");
        let has_f32 = row.habits.as_deref().unwrap().contains("f32");
        assert_eq!(
            row.dtype_resolved.as_deref(),
            Some(if has_f32 { "f32" } else { "bf16" })
        );
    }
    let table = place.prints(&["show", "r", "--filter", "habits=none"]);
    assert!(
        table.contains("beam B=3 T=9 N=5 K=4, model, bf16, cpu, seedlike, habits none"),
        "{table}"
    );
}
