//! Fairness modes over two variants without tensors: what is solved, what is refused, and what a case says of it.

#![allow(clippy::unwrap_used, reason = "a helper of tests, outside of a test function")]

mod fake;

use attn_harness::Plan;
use attn_harness::sweep::Hold;
use fake::{problems, with};
use insta::assert_snapshot;

/// The sweep of the fakes with `fair` as given, and nothing given that would be solved for.
fn fair(rule: &str) -> String {
    let yaml = with("  - full: {n_kv_heads: 2}\n", "  - full: {n_kv_heads: 4}\n")
        .replace("  - full: {}\n", "")
        .replace("kv_rank: 32, ", "");
    yaml.replace("question:", &format!("fair: {rule}\nquestion:"))
}

fn labels(plan: &Plan) -> Vec<&str> {
    plan.groups()
        .next()
        .unwrap()
        .iter()
        .map(|case| case.label.as_str())
        .collect()
}

#[test]
fn cache_bytes_are_held_at_the_length_of_each_workload() {
    let plan = fake::plan(&fair("kv_bytes"));
    // 2 * 4 heads of 16 are 128 elements a token; at 16 tokens ceil(16 / 2) slots of r + 8 and ceil(16 / 3) of them.
    assert_eq!(
        labels(&plan),
        ["Full", "Merged s=2 kv_rank=248", "Merged s=3 kv_rank=332"]
    );
    let fair = plan.cases[2].fair.clone().unwrap();
    assert_eq!((fair.hold, fair.reference.as_str()), (Hold::KvBytes, "Full"));
    assert!((fair.mismatch - (6.0 * 340.0 / (16.0 * 128.0) - 1.0)).abs() < 1e-12);
    assert_eq!(plan.cases[0].fair.as_ref().unwrap().mismatch, 0.0);
    // At 64 tokens there are ceil(64 / 3) slots: another rank is nearest.
    let long = plan
        .cases
        .iter()
        .find(|case| case.workload.cached_tokens() == 64 && case.geometry.stride == 3);
    assert_eq!(long.unwrap().geometry.entry.key, 364 + 8);
    assert_eq!(long.unwrap().params.int("kv_rank", 0).unwrap(), 364);
}

#[test]
fn solved_values_are_part_of_what_a_case_is() {
    let solved = fake::plan(&fair("kv_bytes"));
    let given = fake::plan(&fair("width").replace("stride: [2, 3]", "stride: 2, kv_rank: 248"));
    assert_eq!(given.cases[1].label, "Merged s=2");
    assert_eq!(solved.cases[1].id, given.cases[1].id);
    assert_eq!(solved.cases[1].params, given.cases[1].params);
}

#[test]
fn width_solves_nothing_and_says_so() {
    let plan = fake::plan(&with("question:", "fair: width\nquestion:"));
    let plain = fake::plan(fake::SWEEP);
    assert_eq!(plan.cases.len(), plain.cases.len());
    for (case, plain) in plan.cases.iter().zip(&plain.cases) {
        let fair = case.fair.clone().unwrap();
        assert_eq!(
            (fair.hold, fair.mismatch, &case.id),
            (Hold::Width, 0.0, &plain.id)
        );
        assert_eq!(fair.reference, "Full n_kv_heads=4");
        assert_eq!(plain.fair, None);
    }
}

#[test]
fn the_reference_can_be_named() {
    let yaml = fair("{hold: kv_bytes, reference: merged}")
        .replace("stride: [2, 3]", "kv_rank: 56, stride: 2")
        .replace("{n_kv_heads: 4}", "{}");
    let plan = fake::plan(&yaml);
    // 64 elements for two tokens are one head of 16.
    assert_eq!(labels(&plan), ["Full n_kv_heads=1", "Merged s=2"]);
    assert_eq!(plan.cases[0].fair.as_ref().unwrap().reference, "Merged s=2");
}

#[test]
fn variants_that_become_the_same_are_measured_once() {
    let yaml = fair("kv_bytes").replace(
        "  - full: {n_kv_heads: 4}\n",
        "  - full: {n_kv_heads: 4}\n  - full\n",
    );
    let plan = fake::plan(&yaml);
    assert_eq!((plan.cases.len(), plan.duplicates_removed), (3 * 5, 3));
}

#[test]
fn what_cannot_be_matched_names_its_keys() {
    assert_snapshot!(problems(&fair("kv_bytes").replace("stride: [2, 3]", "kv_rank: 8"), &[]).join("\n"), @r#"`variants[1].merged.kv_rank` is given, and `fair: kv_bytes` solves for it | 7:kv_rank (kv_rank), 2:fair (fair)"#);
    assert_snapshot!(problems(&fair("kv_bytes").replace("n_kv_heads: 4", "n_kv_heads: [2, 4]"), &[]).join("\n"), @r#"`variants[0].full.n_kv_heads` is given, and `fair: kv_bytes` solves for it | 6:n_kv_heads (n_kv_heads), 2:fair (fair)"#);
    assert_snapshot!(problems(&fair("kv_bytes").replace("stride: [2, 3]", "stride: 512"), &[]).join("\n"), @r#"`variants[1].merged` cannot be matched: the reference has 128 cache elements per token, the nearest `kv_rank` is 1024 with 16.1 | 7:merged (variants[1].merged), 2:fair (fair)"#);
    assert_snapshot!(problems(&fair("{hold: kv_bytes, reference: none}"), &[]).join("\n"), @r#"
    unknown reference: `none`, expected one of: full, merged | 2:reference (fair.reference)
    `variants[0].full.n_kv_heads` is given, and `fair: kv_bytes` solves for it | 6:n_kv_heads (n_kv_heads), 2:fair (fair)
    "#);
    assert_snapshot!(problems(&fair("bytes"), &[]).join("\n"), @r#"unknown value of `fair`: `bytes`, expected one of: width, params, kv_bytes, flops | 2:fair (fair)"#);
    assert_snapshot!(problems(&fair("{holds: params}"), &[]).join("\n"), @r#"
    unknown key `fair.holds`, expected one of: hold, reference | 2:holds (fair.holds)
    `fair.hold` is missing | 2:fair (here)
    "#);
    assert_snapshot!(problems(&fair("[params]"), &[]).join("\n"), @r#"`fair` is a list, expected width, params, kv_bytes or flops, or a mapping as in {hold: params, reference: mha} | 2:fair (fair)"#);
    assert_snapshot!(problems(&fair("kv_bytes").replace("stride: [2, 3]", "rope_dim: 7"), &[]).join("\n"), @r#"impossible geometry: rope rotates pairs, 7 is odd (`variants[1].merged.rope_dim`) | 7:rope_dim (rope_dim)"#);
}
