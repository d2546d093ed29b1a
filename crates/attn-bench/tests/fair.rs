//! Fairness modes on the real variants: what is solved, against brute force, and what is left.

#![allow(clippy::unwrap_used, reason = "helpers of tests, outside of test functions")]

mod common;

use common::{Place, root};
use serde_json::Value;

const SWEEP: &str = "\
name: fair
fair: HOLD
model: {d_model: 256, n_heads: 8}
variants:
  - mha
  - gqa: GQA
  - mqa
  - mla: {rope_dim: 16}
  - mtla: {rope_dim: 16, stride: [2, 3]}
workloads:
  - decode: {context: [100, 512], batch: 3}
  - prefill: {tokens: 128}
  - train_step: {tokens: 64}
  - generate: {tokens: 64, new_tokens: 32}
  - trajectory: {tokens: 64, new_tokens: 32}
";

fn sweep(hold: &str) -> String {
    let gqa = if hold == "kv_bytes" {
        "{}"
    } else {
        "{n_kv_heads: 2}"
    };
    SWEEP.replace("HOLD", hold).replace("GQA", gqa)
}

fn cases(yaml: &str) -> Vec<Value> {
    let place = Place::with(yaml);
    let plan: Value =
        serde_json::from_str(&place.prints(&["plan", "sweep.yaml", "--format", "json"])).unwrap();
    plan["cases"].as_array().unwrap().clone()
}

/// What is held equal, as the predictions of a plan have it.
fn amount(case: &Value, hold: &str) -> f64 {
    let tokens = |case: &Value| {
        let size = |name: &str| case[name].as_f64().unwrap_or(0.0);
        size("context") + size("tokens") + size("new_tokens")
    };
    match hold {
        "params" => case["geometry"]["parameters"].as_f64().unwrap(),
        "flops" => case["flops"].as_f64().unwrap(),
        // Closed form over what a slot holds: the train step keeps no cache of its own.
        _ => {
            let geometry = &case["geometry"];
            let entry = &geometry["entry"];
            let own = entry["values"]["own"].as_f64().unwrap_or(0.0);
            let elements = entry["heads"].as_f64().unwrap() * (entry["key"].as_f64().unwrap() + own);
            let stride = geometry["stride"].as_f64().unwrap();
            elements * (tokens(case) / stride).ceil() / tokens(case)
        }
    }
}

fn assert_within(hold: &str, limits: &[(&str, f64)]) {
    let cases = cases(&sweep(hold));
    for group in cases.chunk_by(|a, b| a["group"] == b["group"]) {
        let target = amount(&group[0], hold);
        assert_eq!(group[0]["variant"], "mha");
        for case in group {
            let (variant, mismatch) = (
                case["variant"].as_str().unwrap(),
                case["fair"]["mismatch"].as_f64(),
            );
            let expected = amount(case, hold) / target - 1.0;
            assert!((mismatch.unwrap() - expected).abs() < 1e-9, "{hold} {case}");
            let limit = limits.iter().find(|(key, _)| *key == variant).unwrap().1;
            assert!(expected.abs() <= limit, "{hold} {variant} {expected} {case}");
            assert_eq!(case["fair"]["reference"], "MHA");
        }
    }
}

#[test]
fn parameters_are_held_to_what_integers_leave() {
    assert_within(
        "params",
        &[
            ("mha", 0.0),
            ("gqa", 0.002),
            ("mqa", 0.002),
            ("mla", 0.002),
            ("mtla", 0.004),
        ],
    );
}

#[test]
fn cache_bytes_are_held_to_what_integers_leave() {
    assert_within(
        "kv_bytes",
        &[
            ("mha", 0.0),
            ("gqa", 0.0),
            ("mqa", 0.0),
            ("mla", 0.0),
            ("mtla", 0.002),
        ],
    );
}

#[test]
fn operations_are_held_to_what_integers_leave() {
    assert_within(
        "flops",
        &[
            ("mha", 0.0),
            ("gqa", 0.07),
            ("mqa", 0.04),
            ("mla", 0.01),
            ("mtla", 0.015),
        ],
    );
}

#[test]
fn what_is_solved_is_the_best_there_is() {
    for (hold, variant, name, values) in [
        ("params", "mla", "kv_rank", 1..=400_u64),
        ("params", "mqa", "n_heads", 1..=20),
        ("flops", "mla", "kv_rank", 1..=400),
        ("flops", "mqa", "n_heads", 1..=20),
    ] {
        let all = cases(&sweep(hold));
        let group: Vec<&Value> = all.iter().filter(|case| case["group"] == 1).collect();
        let target = amount(group[0], hold);
        let solved = group.iter().find(|case| case["variant"] == variant).unwrap();
        let left = (amount(solved, hold) - target).abs();
        // The same layers, each value given: a list for a setting, a sweep for a size of the model.
        let base = "name: all\nmodel: {d_model: 256, n_heads: 8, head_dim: 32}\nvariants: [VARIANTS]\n\
                    workloads: [decode: {context: 512, batch: 3}]\n";
        let brute: Vec<Value> = if name == "kv_rank" {
            let list: Vec<String> = values.map(|value| value.to_string()).collect();
            let variants = format!("mla: {{rope_dim: 16, kv_rank: [{}]}}", list.join(", "));
            cases(&base.replace("VARIANTS", &variants))
        } else {
            let sized = |heads: u64| base.replace("n_heads: 8", &format!("n_heads: {heads}"));
            values
                .flat_map(|heads| cases(&sized(heads).replace("VARIANTS", variant)))
                .collect()
        };
        let least = brute
            .iter()
            .map(|case| (amount(case, hold) - target).abs())
            .fold(f64::INFINITY, f64::min);
        assert_eq!(left, least, "{hold} {variant}");
    }
}

#[test]
fn a_matched_sweep_runs_and_its_rows_say_what_was_held() {
    let place = Place::with(&(sweep("kv_bytes") + "measure: {warmup_ms: 1, max_s: 0.05, min_samples: 1}\n"));
    let args = [
        "run",
        "sweep.yaml",
        "--out",
        "done",
        "--filter",
        "workload=trajectory",
    ];
    place.prints(&args);
    let rows: Value = serde_json::from_str(&place.prints(&["export", "done", "--format", "json"])).unwrap();
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 6);
    for row in rows {
        assert_eq!(
            (&row["status"], &row["fair"]),
            (&"ok".into(), &"kv_bytes".into()),
            "{row}"
        );
        assert_eq!(row["fair_reference"], "MHA");
        assert!(row["fair_mismatch"].as_f64().unwrap().abs() < 0.01);
    }
}

#[test]
fn every_sweep_that_comes_with_the_project_is_planned() {
    let place = Place::with("");
    for entry in std::fs::read_dir(root().join("experiments")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "yaml") {
            place.prints(&["plan", path.to_str().unwrap()]);
        }
    }
}
