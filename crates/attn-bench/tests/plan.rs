//! `plan` on a small sweep: its table, its JSON, its options.

#![allow(clippy::unwrap_used, reason = "a helper of tests, outside of a test function")]

mod common;

use common::{Place, SWEEP, root};
use insta::assert_snapshot;

fn json(place: &Place, args: &[&str]) -> serde_json::Value {
    serde_json::from_str(&place.prints(&[args, &["--format", "json"]].concat())).unwrap()
}

#[test]
fn a_small_plan_is_a_line_a_case() {
    assert_snapshot!(Place::with(SWEEP).prints(&["plan", "sweep.yaml"]), @r#"
    small: What is what?
    cpu, seed 42

     workload           variant     KV cache   weights    peak       FLOPs    floor     time      note
    ───────────────────────────────────────────────────────────────────────────────────────────────────
     decode L=64 B=2    MHA         64.0 KiB   65.0 KiB    141 KiB   98.3 k   13.5 µs   66.7 ms
     decode L=64 B=2    GQA Hkv=2   32.0 KiB   48.8 KiB   89.8 KiB   81.9 k   8.52 µs   60.5 ms
     decode L=64 B=2    MTLA s=2    10.0 KiB   68.3 KiB   85.0 KiB    105 k   8.38 µs   60.4 ms
     decode L=64 B=2    MTLA s=3    6.88 KiB   68.3 KiB   80.6 KiB   93.2 k   8.06 µs   60.0 ms
     decode L=256 B=2   MHA          256 KiB   65.0 KiB    345 KiB    197 k   33.2 µs   91.0 ms
     decode L=256 B=2   GQA Hkv=2    128 KiB   48.8 KiB    198 KiB    180 k   18.4 µs   72.7 ms
     decode L=256 B=2   MTLA s=2    40.0 KiB   68.3 KiB    121 KiB    215 k   11.5 µs   64.2 ms
     decode L=256 B=2   MTLA s=3    26.9 KiB   68.3 KiB    105 KiB    167 k   10.1 µs   62.5 ms
     prefill T=64 B=1   MHA         32.0 KiB   65.0 KiB    289 KiB   2.63 M   52.6 µs   60.8 ms
     prefill T=64 B=1   GQA Hkv=2   16.0 KiB   48.8 KiB    241 KiB   2.11 M   42.1 µs   58.7 ms
     prefill T=64 B=1   MTLA s=2    5.00 KiB   68.3 KiB    281 KiB   2.51 M   50.2 µs   60.3 ms
     prefill T=64 B=1   MTLA s=3    3.44 KiB   68.3 KiB    280 KiB   2.40 M   48.0 µs   59.9 ms

    12 cases in 3 groups at 3 points, about 1 s
    at most: KV cache 256 KiB, weights 68.3 KiB, peak 345 KiB
    one run of each: 10.8 MFLOPs, no less than 304 µs at 10.0 GB/s and 50.0 GFLOP/s
    peak, floor and time are estimates
    "#);
}

#[test]
fn a_large_plan_is_a_line_a_workload_and_variant() {
    // What does not fit is larger than any machine, so that the table is the same on all.
    let scenario = "scenarios: [{workload: decode, context: 1000000000, batch: 100000}]\n";
    let sweep = SWEEP.replace("batch: 2", "batch: [1, 2, 3, 4]").replace(
        "\nmodel:",
        "\ndtype: [f32, bf16]\npaths: [fused, seedlike]\nmodel:",
    ) + scenario;
    assert_snapshot!(Place::with(&sweep).prints(&["plan", "sweep.yaml"]), @r#"
    small: What is what?
    cpu, seed 42

     workload   variant     cases   KV cache                weights    peak, most   FLOPs, all   time     note
    ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
     decode     MHA            36   16.0 KiB to 46566 TiB   65.0 KiB   142609 TiB     102400 T   1.88 s   3 oom, 9 unsupported
     decode     GQA Hkv=2      36   8.00 KiB to 23283 TiB   48.8 KiB   119326 TiB     102400 T   1.58 s   3 oom, 9 unsupported
     decode     MTLA s=2       36    2.50 KiB to 7276 TiB   68.3 KiB    66939 TiB     115200 T   1.46 s   3 oom, 9 unsupported
     decode     MTLA s=3       36    1.72 KiB to 4851 TiB   68.3 KiB    44626 TiB      76800 T   1.44 s   3 oom, 9 unsupported
     prefill    MHA             4    16.0 KiB to 32.0 KiB   65.0 KiB      385 KiB       10.5 M   183 ms   1 unsupported
     prefill    GQA Hkv=2       4    8.00 KiB to 16.0 KiB   48.8 KiB      337 KiB       8.42 M   176 ms   1 unsupported
     prefill    MTLA s=2        4    2.50 KiB to 5.00 KiB   68.3 KiB      377 KiB       10.0 M   181 ms   1 unsupported
     prefill    MTLA s=3        4    1.72 KiB to 3.44 KiB   68.3 KiB      376 KiB       9.60 M   180 ms   1 unsupported

    160 cases in 40 groups at 10 points, about 7 s
    at most: KV cache 512 KiB, weights 68.3 KiB, peak 1.61 MiB
    one run of each: 46.0 MFLOPs, no less than 1.85 ms at 10.0 GB/s and 50.0 GFLOP/s
    16 cases predicted not to fit in memory: skipped, with a row each
    40 cases unsupported: seedlike is not defined for bf16
    peak, floor and time are estimates
    "#);
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
    assert_eq!(
        (&case["workload"], &case["context"]),
        (&"decode".into(), &64.into())
    );
    assert_eq!(
        (&case["batch"], &case["tokens"]),
        (&2.into(), &serde_json::Value::Null)
    );
    assert!(case["flops"].as_u64() > Some(0) && case["d_model"] == 64);
    assert_eq!(case["kv_bytes"], 2 * 32 * (32 + 8) * 4);
    assert_eq!(case["case_id"].as_str().unwrap().len(), 16);
    for number in [
        "kv_capacity_bytes",
        "weights_bytes",
        "predicted_peak_bytes",
        "predicted_floor_s",
        "predicted_time_s",
    ] {
        assert!(case[number].as_f64().unwrap() > 0.0, "{number}");
    }
}

#[test]
fn totals_say_what_was_removed_what_is_matched_and_what_is_left() {
    let sweep = SWEEP.replace("  - gqa: {n_kv_heads: 2}\n", "  - mqa\n").replace(
        "question:",
        "fair: kv_bytes\nregimes: [hot, cold]\nscenarios: [{workload: prefill, tokens: 64}]\nquestion:",
    );
    let place = Place::with(&sweep.replace("kv_rank: 32, ", ""));
    let text = place.prints(&["plan", "sweep.yaml", "--filter", "workload=prefill"]);
    assert_snapshot!(text, @r#"
    small: What is what?
    cpu, seed 42

     workload                variant                KV cache   weights    peak      FLOPs    floor     time      note
    ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────
     prefill T=64 B=1 hot    MHA                    32.0 KiB   65.0 KiB   289 KiB   2.63 M   52.6 µs   60.8 ms
     prefill T=64 B=1 hot    MQA D=64               32.0 KiB    162 KiB   482 KiB   7.37 M    147 µs   80.4 ms
     prefill T=64 B=1 hot    MTLA s=2 kv_rank=248   32.0 KiB    351 KiB   592 KiB   7.87 M    157 µs   82.4 ms
     prefill T=64 B=1 hot    MTLA s=3 kv_rank=364   32.0 KiB    577 KiB   819 KiB   10.6 M    213 µs   93.9 ms
     prefill T=64 B=1 cold   MHA                    32.0 KiB   65.0 KiB   289 KiB   2.63 M   52.6 µs   60.8 ms
     prefill T=64 B=1 cold   MQA D=64               32.0 KiB    162 KiB   482 KiB   7.37 M    147 µs   80.4 ms
     prefill T=64 B=1 cold   MTLA s=2 kv_rank=248   32.0 KiB    351 KiB   592 KiB   7.87 M    157 µs   82.4 ms
     prefill T=64 B=1 cold   MTLA s=3 kv_rank=364   32.0 KiB    577 KiB   819 KiB   10.6 M    213 µs   93.9 ms

    8 cases in 2 groups at 1 point, about 1 s
    1 duplicate removed
    at most: KV cache 32.0 KiB, weights 577 KiB, peak 819 KiB
    one run of each: 57.0 MFLOPs, no less than 1.14 ms at 10.0 GB/s and 50.0 GFLOP/s
    held equal: kv_bytes of MHA
    peak, floor and time are estimates
    "#);
    let plan = json(&place, &["plan", "sweep.yaml"]);
    assert_eq!(plan["totals"]["duplicates_removed"], 1);
    assert_eq!(plan["cases"][1]["fair"]["hold"], "kv_bytes");
    assert_eq!(plan["totals"]["points"], 3);
}

#[test]
fn a_run_is_counted_against_its_plan() {
    let place = Place::with(SWEEP);
    let only = ["--filter", "workload=prefill,variant=mha"];
    place.prints(&[&["run", "sweep.yaml", "--out", "done"][..], &only].concat());
    let args = ["plan", "sweep.yaml", "--out", "done"];
    let text = place.prints(&args);
    assert!(
        text.contains("1 of 12 cases stored in done, about 1 s left"),
        "{text}"
    );
    let totals = &json(&place, &args)["totals"];
    assert_eq!((&totals["stored"], &totals["cases"]), (&1.into(), &12.into()));
    assert!(totals["time_left_s"].as_f64() < totals["predicted_time_s"].as_f64());
    let (code, said) = place.fails(&["plan", "sweep.yaml", "--out", "none"]);
    assert!(code == 2 && said.contains("none"), "{said}");
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
    assert!(plan["totals"]["predicted_time_s"].as_f64().unwrap() < 120.0);
    let text = std::fs::read_to_string(quick).unwrap();
    for spelling in ["dtype: f32", "n_heads: 8", "stride: [2, 3, 4]", "d_model: 512"] {
        assert!(text.contains(spelling), "{spelling}");
    }
}
