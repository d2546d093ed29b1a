//! Rows through tables and JSON, and back.

use attn_core::{ParamValue, Params};
use attn_harness::columns::ColumnKind;
use attn_harness::row::{Row, Sample};
use attn_harness::status::{Status, Trust};
use polars::prelude::DataType;

#[test]
fn an_all_null_row_keeps_names_order_and_types() {
    let frame = Row::to_frame(&[Row::default()]).unwrap();
    let names: Vec<_> = frame
        .get_column_names()
        .iter()
        .map(|name| name.to_string())
        .collect();
    assert_eq!(
        names,
        Row::columns()
            .iter()
            .map(|column| column.name)
            .collect::<Vec<_>>()
    );
    for (column, declared) in frame.columns().iter().zip(Row::columns()) {
        let expected = match declared.kind {
            ColumnKind::Text => DataType::String,
            ColumnKind::Count => DataType::UInt64,
            ColumnKind::Real => DataType::Float64,
            ColumnKind::Flag => DataType::Boolean,
        };
        assert_eq!(*column.dtype(), expected, "{}", declared.name);
    }
    assert_eq!(Row::to_frame(&[]).unwrap().schema(), frame.schema());
    assert_eq!(Row::from_frame(&frame).unwrap(), [Row::default()]);
}

#[test]
fn rows_and_samples_survive_the_way_through_a_table() {
    let mut row = Row {
        case_id: "a1".into(),
        kv_bytes: Some(u64::MAX),
        ..Row::default()
    };
    row.time_median_s = Some(1.25e-4);
    row.dirty = Some(true);
    row.status = Status::SkippedOom;
    row.trust = Some(Trust::Throttled);
    row.explain_null("energy_j", "not measured: no energy counter on cpu");
    let rows = [row, Row::default()];
    assert_eq!(Row::from_frame(&Row::to_frame(&rows).unwrap()).unwrap(), rows);

    let sample = Sample {
        case_id: "a1".into(),
        index: 3,
        time_s: 0.1,
        outlier: true,
        ..Sample::default()
    };
    let samples = [sample, Sample::default()];
    assert_eq!(
        Sample::from_frame(&Sample::to_frame(&samples).unwrap()).unwrap(),
        samples
    );
}

#[test]
fn older_runs_may_lack_nullable_columns_but_not_the_others() {
    let frame = Row::to_frame(&[Row {
        energy_j: Some(1.0),
        ..Row::default()
    }])
    .unwrap();
    let older = frame.drop("energy_j").unwrap();
    assert_eq!(Row::from_frame(&older).unwrap()[0].energy_j, None);
    let error = Row::from_frame(&frame.drop("case_id").unwrap()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "column `case_id` should hold text, got no such column"
    );
}

#[test]
fn a_column_of_another_kind_is_an_error_and_another_width_is_not() {
    let mut frame = Row::to_frame(&[Row {
        stride: Some(2),
        ..Row::default()
    }])
    .unwrap();
    let wider = frame.column("stride").unwrap().cast(&DataType::Float64).unwrap();
    frame.with_column(wider).unwrap();
    assert_eq!(Row::from_frame(&frame).unwrap()[0].stride, Some(2));
    let text = frame.column("stride").unwrap().cast(&DataType::String).unwrap();
    frame.with_column(text).unwrap();
    assert!(Row::from_frame(&frame).is_err());
}

#[test]
fn settings_fill_their_columns_and_the_rest_stays_in_params() {
    let params = Params::default()
        .with("stride", ParamValue::Int(2))
        .with("bias", ParamValue::Bool(true))
        .with("rope_theta", ParamValue::Int(10_000))
        .with("window", ParamValue::Int(128));
    let mut row = Row::default();
    row.set_params(&params);
    assert_eq!(
        (row.stride, row.bias, row.rope_theta, row.kv_rank),
        (Some(2), Some(true), Some(1e4), None)
    );
    assert_eq!(
        row.params,
        r#"{"bias":true,"rope_theta":10000,"stride":2,"window":128}"#
    );
}

#[test]
fn json_reads_rows_of_older_schemas_and_words_as_stored() {
    let row: Row =
        serde_json::from_str(r#"{"case_id":"x","status":"skipped_oom","trust":"shared"}"#).unwrap();
    assert_eq!((row.status, row.trust), (Status::SkippedOom, Some(Trust::Shared)));
    assert_eq!(serde_json::to_value(Status::Diverged).unwrap(), "diverged");
}
