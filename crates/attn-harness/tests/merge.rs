//! Merged runs: by their logs in the order of the plan, and by their tables where they are many.
#![allow(clippy::unwrap_used)] // in helpers too

use std::path::{Path, PathBuf};

use attn_harness::row::{Details, Row, Sample};
use attn_harness::status::Status;
use attn_harness::store::{Merge, Run, RunDir};
use serde_json::json;

const SWEEP: &str = "name: quick\nquestion: How fast is it?\n";

/// A run of some cases: id, group and status. One that is not finished has no tables.
fn write(dir: &Path, cases: &[(&str, u64, Status)], is_finished: bool) -> PathBuf {
    let environment = json!({
        "fingerprint": dir.file_name().unwrap().to_string_lossy(),
        "plan": {"cases": 3, "predicted_time_s": 1.0, "shard": null, "shard_by": null, "filter": null},
    });
    let mut run = RunDir::create(dir, SWEEP, &environment, "attn-bench run").unwrap();
    for (id, group, status) in cases {
        let row = Row {
            case_id: (*id).to_string(),
            group: *group,
            status: *status,
            sweep_name: "quick".to_string(),
            fingerprint: Some(dir.file_name().unwrap().to_string_lossy().into_owned()),
            time_median_s: (*status == Status::Ok).then_some(0.1 + *group as f64),
            ..Row::default()
        };
        let sample = |index| Sample {
            case_id: (*id).to_string(),
            index,
            time_s: 0.1 * index as f64,
            ..Sample::default()
        };
        let samples = (0..3).map(sample).collect();
        run.append(&row, &Details::of_samples(samples)).unwrap();
    }
    if is_finished {
        run.build_tables(&mut |_| {}).unwrap();
    }
    dir.to_path_buf()
}

/// What a merge of up to so many cases by their logs makes of the runs.
fn merge(runs: &[PathBuf], out: &Path, log_up_to: usize) -> (Run, Vec<(String, usize, usize)>) {
    let mut merge = Merge::read_with(runs, out, log_up_to).unwrap();
    let seen = merge.build_tables().unwrap().rows();
    assert_eq!((seen, merge.cases()), (seen, seen));
    assert_eq!(merge.has_log(), log_up_to > 0);
    let duplicates = merge.duplicates.iter();
    let duplicates = duplicates
        .map(|it| (it.case_id.clone(), it.kept, it.left_out))
        .collect();
    merge.finish("attn-bench merge", "a summary", None).unwrap();
    (Run::open(out).unwrap(), duplicates)
}

fn sorted(mut run: Run) -> (Vec<Row>, Vec<Sample>) {
    run.rows.sort_by(|a, b| a.case_id.cmp(&b.case_id));
    let key = |sample: &Sample| (sample.case_id.clone(), sample.index);
    run.details.samples.sort_by_key(key);
    (run.rows, run.details.samples)
}

#[test]
fn a_large_merge_holds_what_a_small_one_does() {
    let temporary = tempfile::tempdir().unwrap();
    let at = |name: &str| temporary.path().join(name);
    let (ok, crash) = (Status::Ok, Status::Crash);
    let runs = [
        write(&at("a"), &[("d", 3, ok), ("a", 0, crash), ("e", 4, crash)], true),
        write(&at("b"), &[("b", 1, ok), ("d", 3, ok), ("a", 0, ok)], true),
        // Still without tables, and a case was written twice.
        write(
            &at("c"),
            &[("c", 2, crash), ("e", 4, crash), ("c", 2, ok), ("b", 1, crash)],
            false,
        ),
    ];
    let (small, of_small) = merge(&runs, &at("small"), 100);
    let ids: Vec<&str> = small.rows.iter().map(|row| row.case_id.as_str()).collect();
    assert_eq!(ids, ["a", "b", "c", "d", "e"], "the order of the plan");
    let from: Vec<&str> = small
        .rows
        .iter()
        .map(|row| row.fingerprint.as_deref().unwrap())
        .collect();
    // `ok` before not `ok`, else the run named first.
    assert_eq!(from, ["b", "b", "c", "a", "a"]);
    assert_eq!(small.details.samples.len(), 15);
    assert_eq!(small.environment["machines"].as_array().unwrap().len(), 3);

    let (large, of_large) = merge(&runs, &at("large"), 0);
    assert!(!at("large").join("log.jsonl").exists());
    assert_eq!(sorted(large), sorted(small));
    let by_case = |mut duplicates: Vec<(String, usize, usize)>| {
        duplicates.sort();
        duplicates
    };
    assert_eq!(by_case(of_small.clone()), by_case(of_large));
    let told = [("a", 1, 0), ("b", 1, 2), ("d", 0, 1), ("e", 0, 2)];
    assert_eq!(
        by_case(of_small),
        told.map(|(id, kept, left)| (id.to_string(), kept, left))
    );

    // A merge is a run that can be merged.
    let (again, _) = merge(&[at("large"), at("c")], &at("again"), 100);
    assert_eq!(sorted(again).0.len(), 5);
}

#[test]
fn a_merge_replaces_nothing_but_a_merge() {
    let temporary = tempfile::tempdir().unwrap();
    let run = write(&temporary.path().join("a"), &[("a", 0, Status::Ok)], true);
    let other = write(&temporary.path().join("b"), &[("b", 1, Status::Ok)], true);
    let error = Merge::read(std::slice::from_ref(&run), &other).err().unwrap();
    assert!(error.to_string().contains("already exists"), "{error}");
    let out = temporary.path().join("m");
    merge(std::slice::from_ref(&run), &out, 100);
    let (both, _) = merge(&[run, other], &out, 100);
    assert_eq!(both.rows.len(), 2);
    let names = std::fs::read_dir(temporary.path()).unwrap();
    assert_eq!(names.count(), 3, "nothing is left beside it");
}
