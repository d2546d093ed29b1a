//! The schema accepts what the planner accepts, and refuses what an editor can see is wrong.

#![allow(clippy::unwrap_used, reason = "a helper of tests, outside of a test function")]

mod fake;

use fake::{FIGURES, SWEEP, VARIANTS, with};
use serde_json::Value;

fn errors(yaml: &str) -> Vec<String> {
    let schema = attn_harness::schema::sweep_schema(&VARIANTS, &FIGURES);
    let sweep: Value = serde_yaml::from_str(yaml).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    validator
        .iter_errors(&sweep)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

#[test]
fn accepts_sweeps() {
    let full = SWEEP.to_string()
        + "grid: {dtype: [f32, bf16]}\nscenarios: [{workload: generate, tokens: 8, new_tokens: 4}]\nscopes: op\n\
           paths: [fused, seedlike]\nfigures: [cache]\nseed: 3\ndevice: cuda:1\nregimes: [hot, cold]\nlaunches: [graph, eager]\n\
           measure: {max_s: 0.5, replicas: 3, cooldown_ms: 50, timeout_s: 9.5, memory_limit: 8 GiB, llc_bytes: 33554432}\n";
    for yaml in [
        SWEEP,
        &full,
        &with("- full: {}", "- full"),
        &with("- full: {}", "- full:"),
        &with("question:", "fair: width\nquestion:"),
        &with("question:", "fair: kv_bytes\nquestion:")
            .replace("kv_rank: 32, ", "")
            .replace("  - full: {n_kv_heads: 2}\n", ""),
        &with("question:", "fair: {hold: width, reference: merged}\nquestion:"),
    ] {
        assert_eq!(errors(yaml), Vec::<String>::new(), "{yaml}");
        fake::plan(yaml);
    }
}

#[test]
fn refuses_what_an_editor_can_see() {
    for (from, to) in [
        ("question:", "qestion:"),
        ("- full: {}", "- ful: {}"),
        ("- full: {}", "- merged"),
        ("stride: [2, 3]", "strid: 2"),
        ("stride: [2, 3]", "stride: 0"),
        ("stride: [2, 3]", "stride: [2, 2]"),
        ("stride: [2, 3]", "stride: []"),
        ("d_model: 64", "d_model: wide"),
        ("tokens: 32", "context: 32"),
        ("question:", "dtype: fp32\nquestion:"),
        ("question:", "device: gpu\nquestion:"),
        ("question:", "figures: [none]\nquestion:"),
        ("question:", "measure: {max: 1}\nquestion:"),
        ("question:", "measure: {memory_limit: 8 gigs}\nquestion:"),
        ("question:", "regimes: [warm]\nquestion:"),
        ("question:", "launches: [lazy]\nquestion:"),
        ("question:", "fair: size\nquestion:"),
        ("question:", "fair: {reference: full}\nquestion:"),
        ("name: test\n", ""),
    ] {
        assert!(!errors(&with(from, to)).is_empty(), "{from} -> {to}");
    }
}

#[test]
fn every_key_is_explained() {
    let schema = attn_harness::schema::sweep_schema(&VARIANTS, &FIGURES);
    let properties = schema["properties"].as_object().unwrap();
    assert_eq!(properties.len(), 21);
    for (key, value) in properties {
        assert!(value["description"].is_string(), "{key}: {value}");
    }
}
