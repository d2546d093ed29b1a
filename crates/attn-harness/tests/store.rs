//! A run's folder through its whole life, and what can go wrong in it.
#![allow(clippy::unwrap_used)] // in helpers too

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use attn_harness::row::{CurvePoint, Details, Row, Sample};
use attn_harness::status::Status;
use attn_harness::store::{
    Run, RunDir, StoreError, StoredCase, columns_of, default_name, details_of, stored,
};
use polars::prelude::{ParquetReader, SerReader};
use serde_json::json;

const SWEEP: &str = "name: quick\nquestion: How fast is it?\n";
const COMMAND: &str = "attn-bench run experiments/quick.yaml";

fn case(id: &str, time_s: f64) -> (Row, Vec<Sample>) {
    let row = Row {
        case_id: id.into(),
        sweep_name: "quick".into(),
        commit: Some("abc".into()),
        status: Status::Ok,
        time_median_s: Some(time_s),
        ..Row::default()
    };
    let sample = |index| Sample {
        case_id: id.into(),
        index,
        time_s: time_s + index as f64 * 0.1,
        ..Sample::default()
    };
    (row, (0..3).map(sample).collect())
}

fn create(dir: &Path) -> RunDir {
    RunDir::create(dir, SWEEP, &json!({"cpu": "x"}), COMMAND).unwrap()
}

fn append(run: &mut RunDir, id: &str, time_s: f64) {
    let (row, samples) = case(id, time_s);
    run.append(&row, &Details::of_samples(samples)).unwrap();
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_run_is_written_case_by_case_and_read_back_exactly() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("deep/run");
    let mut writer = create(&dir);
    assert_eq!(
        names(&dir),
        ["README.md", "environment.json", "log.jsonl", "sweep.yaml"]
    );
    assert_eq!(names(dir.parent().unwrap()), ["run"]);
    // Times whose shortest decimal form needs all 17 digits.
    append(&mut writer, "a", 0.1 + 0.2);
    append(&mut writer, "b", 1.0 / 3.0);
    let before = Run::open(&dir).unwrap();
    let mut passed = Vec::new();
    writer
        .build_tables(&mut |rows| passed.extend_from_slice(rows))
        .unwrap();
    writer.finish("| a table |", &json!({})).unwrap();
    let after = Run::open(&dir).unwrap();
    assert_eq!((&before.rows, &before.details), (&after.rows, &after.details));
    assert_eq!(after.rows, [case("a", 0.1 + 0.2).0, case("b", 1.0 / 3.0).0]);
    assert_eq!(after.rows, passed);
    assert_eq!(after.details.samples.len(), 6);
    assert_eq!(
        (after.sweep_yaml.as_str(), after.commands()),
        (SWEEP, vec![COMMAND.to_string()])
    );
    assert_eq!(after.environment["cpu"], "x");

    assert_eq!(
        names(&dir),
        [
            "README.md",
            "environment.json",
            "log.jsonl",
            "rows.parquet",
            "samples.parquet",
            "sweep.yaml"
        ]
    );
    assert_eq!(
        fs::read_to_string(dir.join("README.md")).unwrap(),
        format!("# quick\n\n**Question.** How fast is it?\n\n```sh\n{COMMAND}\n```\n\n| a table |\n")
    );
    let log = fs::read_to_string(dir.join("log.jsonl")).unwrap();
    let first: serde_json::Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert_eq!(
        (
            log.lines().count(),
            &first["case_id"],
            &first["samples"][2]["index"]
        ),
        (2, &json!("a"), &json!(2))
    );
}

#[test]
fn parquet_files_say_what_they_are() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("run");
    let mut writer = create(&dir);
    append(&mut writer, "a", 1.0);
    writer.build_tables(&mut |_| {}).unwrap();
    for table in ["rows.parquet", "samples.parquet"] {
        let mut reader = ParquetReader::new(fs::File::open(dir.join(table)).unwrap());
        let pairs = reader
            .get_metadata()
            .unwrap()
            .key_value_metadata()
            .clone()
            .unwrap();
        let get = |key: &str| {
            pairs
                .iter()
                .find(|pair| pair.key == key)
                .and_then(|pair| pair.value.clone())
        };
        assert_eq!(get("attn_bench.schema_version").as_deref(), Some("1"));
        assert_eq!(get("attn_bench.sweep_name").as_deref(), Some("quick"));
        assert_eq!(get("attn_bench.commit").as_deref(), Some("abc"));
    }
}

#[test]
fn a_run_without_cases_still_has_its_tables() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("run");
    create(&dir).build_tables(&mut |_| {}).unwrap();
    assert!(Run::open(&dir).unwrap().rows.is_empty());
}

#[test]
fn an_existing_folder_is_never_written_into() {
    let temporary = tempfile::tempdir().unwrap();
    let error = RunDir::create(temporary.path(), SWEEP, &json!({}), COMMAND).unwrap_err();
    assert!(matches!(error, StoreError::Exists { .. }));
    assert!(error.to_string().contains("--resume"), "{error}");
    assert!(names(temporary.path()).is_empty());
}

#[test]
fn a_torn_last_line_is_left_out_and_cut_off_on_resume() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("run");
    let mut writer = create(&dir);
    append(&mut writer, "a", 1.0);
    append(&mut writer, "b", 2.0);
    drop(writer);
    let log = dir.join("log.jsonl");
    let whole = fs::read(&log).unwrap();
    fs::write(&log, &whole[..whole.len() - 20]).unwrap();

    let run = Run::open(&dir).unwrap();
    assert_eq!((run.rows.len(), run.warnings.len()), (1, 1));
    assert!(run.warnings[0].contains("incomplete"), "{:?}", run.warnings);

    assert_eq!(stored(&dir).unwrap().warnings, run.warnings);
    let (mut writer, held) = RunDir::resume(&dir, "attn-bench run --resume", SWEEP, &[]).unwrap();
    let a = StoredCase {
        case_id: "a".to_string(),
        status: Status::Ok,
    };
    assert_eq!((held.cases, held.warnings), (vec![a], run.warnings));
    append(&mut writer, "b", 2.0);
    writer.build_tables(&mut |_| {}).unwrap();
    let run = Run::open(&dir).unwrap();
    assert_eq!(
        (run.rows.len(), run.warnings.len(), run.commands().len()),
        (2, 0, 2)
    );
}

#[test]
fn a_case_written_again_replaces_the_earlier_one() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("run");
    let mut writer = create(&dir);
    append(&mut writer, "a", 1.0);
    append(&mut writer, "b", 2.0);
    writer.build_tables(&mut |_| {}).unwrap();
    drop(writer);
    let (mut writer, _) = RunDir::resume(&dir, COMMAND, SWEEP, &[]).unwrap();
    append(&mut writer, "a", 3.0);
    drop(writer);
    let times: Vec<_> = Run::open(&dir)
        .unwrap()
        .rows
        .iter()
        .map(|row| row.time_median_s)
        .collect();
    assert_eq!(times, [Some(3.0), Some(2.0)]);
}

#[test]
fn more_rows_than_are_held_at_once_come_in_the_order_of_the_plan() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("run");
    let mut writer = create(&dir);
    let n: u64 = 1_500;
    // Groups run in another order than the plan's.
    for i in (0..n).map(|i| i * 7 % n) {
        let (row, samples) = case(&format!("{i}"), i as f64);
        let row = Row { group: i, ..row };
        writer.append(&row, &Details::of_samples(samples)).unwrap();
    }
    let before = Run::open(&dir).unwrap();
    let columns = ["case_id", "time_median_s", "no_such_column"];
    let from_log = columns_of(&dir, &columns).unwrap();
    assert_eq!(stored(&dir).unwrap().cases.len(), n as usize);
    let mut passed = 0;
    writer.build_tables(&mut |rows| passed += rows.len()).unwrap();
    let after = Run::open(&dir).unwrap();
    assert_eq!((passed, after.rows.len()), (n as usize, n as usize));
    assert!(after.rows.iter().map(|row| row.group).eq(0..n));
    assert_eq!((&before.rows, &before.details), (&after.rows, &after.details));
    let from_table = columns_of(&dir, &columns).unwrap();
    assert_eq!(from_table.get_column_names(), ["case_id", "time_median_s"]);
    assert!(from_table.equals(&from_log));
    assert_eq!(details_of(&dir).unwrap(), Details::default());
    // Without the log, the table tells what is held.
    drop(writer);
    fs::remove_file(dir.join("log.jsonl")).unwrap();
    assert_eq!(stored(&dir).unwrap().cases.len(), n as usize);
}

#[test]
fn learning_rates_of_older_logs_are_found_again() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("run");
    let mut writer = create(&dir);
    let row = Row {
        training: Some(r#"{"task_name": "copy", "options": {"steps": 20, "lr": 0.002}}"#.into()),
        ..case("a", 1.0).0
    };
    let point = |(seed, step, valid_nats)| CurvePoint {
        case_id: "a".into(),
        seed,
        step,
        valid_nats,
        ..CurvePoint::default()
    };
    let details = Details {
        curves: [(42, 10, 2.0), (42, 20, 0.5), (43, 10, 1.5), (43, 20, 1.75)]
            .map(point)
            .to_vec(),
        ..Details::default()
    };
    writer.append(&row, &details).unwrap();
    writer.build_tables(&mut |_| {}).unwrap();
    drop(writer);
    let row = &Run::open(&dir).unwrap().rows[0];
    assert_eq!((row.lr, row.valid_nats), (Some(0.002), Some(1.0)));
}

#[test]
fn resuming_never_loses_rows_that_only_the_table_has() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().join("run");
    let mut writer = create(&dir);
    append(&mut writer, "a", 1.0);
    writer.build_tables(&mut |_| {}).unwrap();
    drop(writer);
    fs::remove_file(dir.join("log.jsonl")).unwrap();
    let error = RunDir::resume(&dir, COMMAND, SWEEP, &[]).unwrap_err();
    assert!(
        matches!(error, StoreError::LogIncomplete { missing: 1, .. }),
        "{error}"
    );
    assert_eq!(Run::open(&dir).unwrap().rows.len(), 1);
}

#[test]
fn damage_and_absence_are_told_apart() {
    let temporary = tempfile::tempdir().unwrap();
    assert!(matches!(
        Run::open(temporary.path()),
        Err(StoreError::NotARun { .. })
    ));
    assert!(matches!(
        RunDir::resume(temporary.path(), COMMAND, SWEEP, &[]),
        Err(StoreError::NotARun { .. })
    ));
    fs::write(temporary.path().join("log.jsonl"), "{\"case_id\": 3}\n").unwrap();
    let error = Run::open(temporary.path()).unwrap_err();
    assert!(
        error.to_string().contains("log.jsonl is damaged: line 1"),
        "{error}"
    );
    fs::write(temporary.path().join("rows.parquet"), "PAR?").unwrap();
    assert!(matches!(
        Run::open(temporary.path()),
        Err(StoreError::Damaged { .. })
    ));
}

#[test]
fn a_path_through_a_file_is_said_with_a_remedy() {
    let temporary = tempfile::tempdir().unwrap();
    let file = temporary.path().join("file");
    fs::write(&file, "").unwrap();
    let error = RunDir::create(&file.join("run"), SWEEP, &json!({}), COMMAND).unwrap_err();
    let text = error.to_string();
    assert!(
        !error.is_machine_fault() && text.contains("cannot create") && text.contains("--out"),
        "{text}"
    );
}

#[test]
fn folders_are_named_by_sweep_time_and_machine() {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_252_588);
    assert_eq!(
        default_name("quick", time, "Intel(R) Xeon(R) Platinum 8480+ @ 2.00GHz"),
        "quick-20261121T091628Z-intel-xeon-platinum-8480"
    );
    assert_eq!(default_name("quick", time, ""), "quick-20261121T091628Z-unknown");
}
