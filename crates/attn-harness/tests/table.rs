//! The summary of a run, as text, Markdown and JSON.

use attn_harness::row::Row;
use attn_harness::status::{Status, Trust};
use attn_harness::table::{TableFormat, summary_table};

fn row(variant: &str, label: &str, time_s: f64, kv_bytes: u64) -> Row {
    Row {
        case_id: label.to_lowercase(),
        variant: variant.into(),
        label: label.into(),
        workload: "decode".into(),
        scope: "layer".into(),
        batch: Some(1),
        context: Some(512),
        dtype_requested: "f32".into(),
        device_requested: "cpu".into(),
        device_resolved: Some("cpu".into()),
        path_requested: "fused".into(),
        status: Status::Ok,
        trust: Some(Trust::Clean),
        time_median_s: Some(time_s),
        time_ci_low_s: Some(time_s * 0.98),
        time_ci_high_s: Some(time_s * 1.02),
        tokens_per_s: Some(1.0 / time_s),
        kv_bytes: Some(kv_bytes),
        peak_bytes: Some(kv_bytes + (8 << 20)),
        error_max: Some(1.25e-6),
        ..Row::default()
    }
}

fn rows() -> Vec<Row> {
    let mut rows = vec![
        row("mha", "MHA", 2.4e-4, 2 << 20),
        row("mla", "MLA", 1.6e-4, 589_824),
        row("mtla", "MTLA s=2", 1.2e-4, 294_912),
        row("gqa", "GQA", 1.8e-4, 512 << 10),
        row("mqa", "MQA", 1.7e-4, 256 << 10),
    ];
    rows[3].trust = Some(Trust::Unconverged);
    rows[3].trust_reason = Some("interval still 4.0 % after 10 s".into());
    (
        rows[4].time_median_s,
        rows[4].tokens_per_s,
        rows[4].peak_bytes,
        rows[4].error_max,
    ) = (None, None, None, None);
    rows[4].status = Status::Oom;
    rows[4].reason = Some("needs 3.0 GiB, 1.0 GiB are free".into());
    let longer: Vec<Row> = rows[..2]
        .iter()
        .map(|row| Row {
            context: Some(8192),
            ..row.clone()
        })
        .collect();
    rows.extend(longer);
    rows
}

#[test]
fn the_table_fits_100_columns() {
    let text = summary_table(&rows(), TableFormat::Table);
    let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
    assert!(widest <= 100, "{widest}\n{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn the_markdown_is_a_table_for_each_point() {
    insta::assert_snapshot!(summary_table(&rows(), TableFormat::Markdown));
}

#[test]
fn json_has_base_units_and_speedups_against_mha_of_the_same_point() {
    let json: serde_json::Value = serde_json::from_str(&summary_table(&rows(), TableFormat::Json)).unwrap();
    let mla = &json[0]["variants"][1];
    assert_eq!(json[0]["title"], "decode B=1 L=512, layer, f32, cpu, fused");
    assert_eq!((&mla["label"], &mla["status"]), (&"MLA".into(), &"ok".into()));
    let near = |value: &serde_json::Value, expected: f64| (value.as_f64().unwrap() - expected).abs() < 1e-3;
    assert!(
        near(&mla["speedup"], 1.5) && near(&mla["speedup_low"], 1.458) && near(&mla["speedup_high"], 1.543)
    );
    assert!(near(&mla["kv_reduction"], 3.556));
    assert_eq!(json[0]["variants"][4]["speedup"], serde_json::Value::Null);
    assert_eq!(
        json[0]["variants"][4]["note"],
        "oom: needs 3.0 GiB, 1.0 GiB are free"
    );
}

#[test]
fn a_long_label_is_wrapped_and_not_cut() {
    let mut rows = rows();
    rows[2].label = "MTLA s=2 kv_rank=256 rope_dim=32 hyper_rank=64".into();
    let text = summary_table(&rows, TableFormat::Table);
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    assert!(
        text.contains("hyper_rank=64") && text.contains("2.00× [1.94, 2.06]"),
        "{text}"
    );
}

#[test]
fn rows_of_two_machines_are_never_compared() {
    let mut rows = rows();
    rows[0].fingerprint = Some("0123".into());
    let text = summary_table(&rows[..2], TableFormat::Table);
    assert!(
        text.contains("fused, unknown machine (0123)") && !text.contains("1.50×"),
        "{text}"
    );
}

#[test]
fn rows_of_two_gpus_are_never_compared() {
    let mut rows = rows();
    rows[0].gpu = Some("H100".into());
    rows[1].gpu = Some("V100".into());
    let text = summary_table(&rows[..2], TableFormat::Table);
    assert!(
        text.contains(", H100") && text.contains(", V100") && !text.contains("1.50×"),
        "{text}"
    );
}

#[test]
fn without_a_baseline_there_are_no_ratios() {
    let text = summary_table(&rows()[1..3], TableFormat::Table);
    assert!(!text.contains("vs MHA"), "{text}");
    assert_eq!(summary_table(&[], TableFormat::Table), "");
}
