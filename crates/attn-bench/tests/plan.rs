//! `plan` on a small sweep: its table, its JSON, its options.

mod common;

use common::{Place, SWEEP, root};
use insta::assert_snapshot;

fn json(place: &Place, args: &[&str]) -> serde_json::Value {
    serde_json::from_str(&place.prints(&[args, &["--format", "json"]].concat())).unwrap()
}

#[test]
fn a_small_plan_is_a_line_a_case() {
    assert_snapshot!(Place::with(SWEEP).prints(&["plan", "sweep.yaml"]), @"");
}

#[test]
fn a_large_plan_is_a_line_a_workload_and_variant() {
    // A hundred million tokens fit few machines, ten trillion no machine, so that the table is the same on all.
    let sweep = SWEEP.replace(
        "[64, 256], batch: 2",
        "[64, 100000000], batch: [1, 2, 3, 4, 5, 6, 7, 100000]",
    );
    let sweep = sweep.replace(
        "\nmodel:",
        "\ndtype: [f32, bf16]\npaths: [fused, seedlike]\nmodel:",
    );
    assert_snapshot!(Place::with(&sweep).prints(&["plan", "sweep.yaml"]), @"");
}

#[test]
fn json_has_every_case_with_its_predictions() {
    let plan = json(&Place::with(SWEEP), &["plan", "sweep.yaml"]);
    assert_eq!(plan["totals"]["cases"], 12);
    let case = &plan["cases"][2];
    assert_eq!(
        (&case["variant"], &case["params"]["stride"]),
        (&"mtla".into(), &2.into())
    );
    assert_eq!(case["kv_bytes"], 2 * 32 * (32 + 8) * 4);
    assert_eq!(case["case_id"].as_str().unwrap().len(), 16);
    for number in [
        "kv_capacity_bytes",
        "weights_bytes",
        "predicted_peak_bytes",
        "predicted_time_s",
    ] {
        assert!(case[number].as_f64().unwrap() > 0.0, "{number}");
    }
}

#[test]
fn options_narrow_and_change_the_plan() {
    let place = Place::with(SWEEP);
    let n_cases =
        |args: &[&str]| json(&place, &[&["plan", "sweep.yaml"], args].concat())["totals"]["cases"].clone();
    assert_eq!(n_cases(&["--filter", "variant=mtla,context=64"]), 2);
    assert_eq!(
        n_cases(&[
            "--set",
            "variants.mtla.stride=4",
            "--set",
            "workloads.prefill.tokens=[8,16]"
        ]),
        12
    );
    assert_eq!(n_cases(&["--shard", "2/3"]), 4);
    let cuda = json(&place, &["plan", "sweep.yaml", "--device", "cuda:1"]);
    assert_eq!(
        (&cuda["device"], &cuda["totals"]["unsupported"]),
        (&"cuda:1".into(), &12.into())
    );
}

#[test]
fn quick_is_the_designs_example() {
    let quick = root().join("experiments/quick.yaml");
    let plan = json(&Place::with(""), &["plan", quick.to_str().unwrap()]);
    assert_eq!(plan["totals"]["cases"], 84);
    assert_eq!(plan["totals"]["oom"], 0);
    assert!(plan["totals"]["predicted_time_s"].as_f64().unwrap() < 90.0);
    let text = std::fs::read_to_string(quick).unwrap();
    for spelling in ["dtype: f32", "n_heads: 8", "stride: [2, 3, 4]", "d_model: 512"] {
        assert!(text.contains(spelling), "{spelling}");
    }
}
