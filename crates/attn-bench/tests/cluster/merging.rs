//! Shards as one run, and how far they are.

use std::fs;

use attn_harness::store::Run;
use serde_json::Value;

use super::common::Place;
use super::{SWEEP, ask, elsewhere, ids, must, shard};

#[test]
fn merged_shards_are_the_run_in_one_piece() {
    let place = Place::with(SWEEP);
    must(&place, &["run", "sweep.yaml", "--out", "whole", "--no-figures"]);
    for index in 1..=3 {
        shard(&place, index, 3);
    }
    // One of another machine, one whose log was not kept.
    elsewhere(&place.path().join("r/shards/2"));
    fs::remove_file(place.path().join("r/shards/3/log.jsonl")).unwrap();
    let out = must(&place, &["merge", "r", "--out", "m"]);
    assert!(
        out.contains("merged 3 runs of 2 machines and builds: 12 cases, 12 measured, 0 failed"),
        "{out}"
    );
    let (whole, merged) = (place.path().join("whole"), place.path().join("m"));
    assert_eq!(ids(&whole), ids(&merged));
    let run = Run::open(&merged).unwrap();
    let mut prints: Vec<String> = run
        .rows
        .iter()
        .map(|row| row.fingerprint.clone().unwrap())
        .collect();
    prints.sort();
    prints.dedup();
    assert_eq!(prints.len(), 2);
    assert_eq!(run.details.samples.len(), 24);
    assert_eq!(run.sweep_yaml, SWEEP);
    for file in [
        "README.md",
        "environment.json",
        "log.jsonl",
        "rows.parquet",
        "samples.parquet",
        "sweep.yaml",
    ] {
        assert!(merged.join(file).is_file(), "{file}");
    }
    // All that reads runs reads it, by its log too.
    must(&place, &["show", "m"]);
    must(&place, &["plot", "m"]);
    must(&place, &["compare", "m", "m"]);
    assert_eq!(
        must(&place, &["export", "m", "--format", "csv"]).lines().count(),
        13
    );
    fs::remove_file(merged.join("rows.parquet")).unwrap();
    assert_eq!(ids(&whole), ids(&merged));
    // And again into the same place, but not into another run.
    must(&place, &["merge", "r", "--out", "m"]);
    let (code, _, said) = ask(&place, &[], &["merge", "r", "--out", "whole"]);
    assert!(code == 2 && said.contains("whole already exists"), "{said}");
    let names = fs::read_dir(place.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = names
        .filter(|name| name.to_string_lossy().starts_with('.'))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn missing_and_duplicate_cases_are_told() {
    let place = Place::with(SWEEP);
    for index in [1, 3] {
        shard(&place, index, 3);
    }
    let (code, out, said) = ask(&place, &[], &["merge", "r", "--out", "m"]);
    assert_eq!(code, 3, "{said}");
    for words in [
        "no run of shard: 2/3",
        "missing: 4 cases without a row",
        "shard 2",
    ] {
        assert!(out.contains(words), "{out}");
    }
    assert!(
        said.contains("cases are missing: 4 without a row, 1 shards have no run"),
        "{said}"
    );
    let readme = fs::read_to_string(place.path().join("m/README.md")).unwrap();
    assert!(readme.contains("missing: 4 cases"), "{readme}");

    // The whole sweep beside the shards: nothing is missing, and shards come first or last as they are named.
    must(&place, &["run", "sweep.yaml", "--out", "whole", "--no-figures"]);
    let (code, out, said) = ask(&place, &[], &["merge", "r", "whole", "--out", "m"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("8 cases were there more than once"), "{said}");
    assert!(
        out.contains("kept that of r/shards/1, not that of whole"),
        "{out}"
    );
    let started = |run: &str| {
        let rows = Run::open(&place.path().join(run)).unwrap().rows.into_iter();
        rows.map(|row| (row.case_id, row.time_median_s))
            .collect::<Vec<_>>()
    };
    let (merged, whole, first) = (started("m"), started("whole"), started("r/shards/1"));
    assert_eq!(merged.len(), 12);
    assert!(first.iter().all(|row| merged.contains(row)));
    assert_eq!(merged.iter().filter(|row| whole.contains(row)).count(), 4);

    // A row that is ok goes before one that is not, wherever it stands.
    let log = place.path().join("r/shards/1/log.jsonl");
    let text = fs::read_to_string(&log).unwrap();
    fs::write(&log, text.replace("\"status\":\"ok\"", "\"status\":\"crash\"")).unwrap();
    fs::remove_file(place.path().join("r/shards/1/rows.parquet")).unwrap();
    let (code, out, _) = ask(&place, &[], &["merge", "r", "whole", "--out", "m"]);
    assert!(
        code == 0 && out.contains("kept that of whole, not that of r/shards/1"),
        "{out}"
    );
    assert!(
        Run::open(&place.path().join("m"))
            .unwrap()
            .rows
            .iter()
            .all(|row| row.is_ok())
    );
}

/// Rows that nobody else has are not given up for a merge that lacks them.
#[test]
fn a_merge_that_went_on_is_kept() {
    let place = Place::with(SWEEP);
    shard(&place, 1, 2);
    let merge = ["merge", "r", "--out", "r/merged"];
    assert_eq!(ask(&place, &[], &merge).0, 3);
    // Again is no harm, and what lies there is no shard.
    let (code, _, said) = ask(&place, &[], &merge);
    assert!(code == 3 && !said.contains("more than once"), "{said}");
    let args = [
        "run",
        "sweep.yaml",
        "--resume",
        "--out",
        "r/merged",
        "--no-figures",
    ];
    must(&place, &args);
    let (code, _, said) = ask(&place, &[], &merge);
    assert!(code == 2 && said.contains("another folder with --out"), "{said}");
    assert_eq!(ids(&place.path().join("r/merged")).len(), 12);
    // All cases are there, whatever became of the other shard.
    must(&place, &["merge", "r", "r/merged", "--out", "all"]);
    assert_eq!(ids(&place.path().join("all")).len(), 12);
}

#[test]
fn merged_shards_in_a_folder_of_the_users_are_no_shard() {
    let place = Place::with(SWEEP);
    shard(&place, 1, 2);
    shard(&place, 2, 2);
    fs::rename(place.path().join("r/shards"), place.path().join("mine")).unwrap();
    for _ in 0..2 {
        let (code, _, said) = ask(&place, &[], &["merge", "mine", "--out", "mine/merged"]);
        assert!(code == 0 && !said.contains("more than once"), "{said}");
    }
    assert!(must(&place, &["status", "mine"]).contains("12 of 12 cases stored, 0 failed; 2 shards: 2 done"));
}

#[test]
fn a_damaged_shard_hides_no_other() {
    let place = Place::with(SWEEP);
    shard(&place, 1, 2);
    shard(&place, 2, 2);
    fs::write(place.path().join("r/shards/2/rows.parquet"), "garbage").unwrap();
    let (code, out, said) = ask(&place, &[], &["status", "r"]);
    assert!(
        code == 2 && said.contains("r/shards/2/rows.parquet is damaged"),
        "{said}"
    );
    assert!(out.contains("2 shards: 1 done, 1 damaged"), "{out}");
}

#[test]
fn mixed_sweeps_are_refused_by_the_keys_that_differ() {
    let place = Place::with(SWEEP);
    shard(&place, 1, 3);
    let other = SWEEP
        .replace("max_s: 0.1", "max_s: 0.2")
        .replace("[8, 16, 32]", "[8, 16]");
    fs::write(place.path().join("other.yaml"), other).unwrap();
    must(
        &place,
        &[
            "run",
            "other.yaml",
            "--shard",
            "1/2",
            "--out",
            "other",
            "--no-figures",
        ],
    );
    let (code, _, said) = ask(&place, &[], &["merge", "r", "other", "--out", "m"]);
    assert_eq!(code, 2);
    assert!(said.contains("workloads.decode.context, measure.max_s"), "{said}");
    assert!(!place.path().join("m").exists());
    for (args, words) in [
        (&["merge", "nothing", "--out", "m"][..], "nothing is no run"),
        (&["merge", "r"][..], "--out"),
        (&["status", "sweep.yaml"][..], "sweep.yaml is no run"),
    ] {
        let (code, _, said) = ask(&place, &[], args);
        assert!(code == 2 && said.contains(words), "{said}");
    }
}

#[test]
fn shards_that_still_run_are_merged_and_said_to_run() {
    let place = Place::with(SWEEP);
    shard(&place, 1, 2);
    shard(&place, 2, 2);
    // As a runner has it: its log is locked, the last line half written, no tables yet.
    let dir = place.path().join("r/shards/2");
    let log = dir.join("log.jsonl");
    let text = fs::read_to_string(&log).unwrap();
    let first = text.lines().next().unwrap();
    fs::write(&log, format!("{first}\n{{\"case")).unwrap();
    fs::remove_file(dir.join("rows.parquet")).unwrap();
    let runner = fs::File::options().append(true).open(&log).unwrap();
    runner.lock().unwrap();

    let status = |run: &str| -> Value {
        serde_json::from_str(&must(&place, &["status", run, "--format", "json"])).unwrap()
    };
    let shards = &status("r")[0]["shards"];
    assert_eq!(
        (&shards[0]["state"], &shards[1]["state"]),
        (&"done".into(), &"running".into())
    );
    assert_eq!((&shards[1]["ok"], &shards[1]["left"]), (&1.into(), &5.into()));
    assert!(
        shards[1]["last_case"].as_str().unwrap().contains("decode"),
        "{shards}"
    );
    assert!(shards[1]["last_row_age_s"].as_f64().unwrap() < 60.0);
    assert!(shards[1]["predicted_time_left_s"].as_f64().unwrap() > 0.0);
    assert_eq!(shards[0]["predicted_time_left_s"], 0.0);

    let (code, out, said) = ask(&place, &[], &["merge", "r", "--out", "m"]);
    assert_eq!(code, 3, "{said}");
    assert!(
        out.contains("r/shards/2 (shard 2/2): still running, 1 of 6 cases"),
        "{out}"
    );
    assert_eq!(ids(&place.path().join("m")).len(), 7);
    assert_eq!(status("m")[0]["shards"][0]["left"], 5);

    // The runner is gone. Unlocked by hand: a command that another test is about to start may have the file too.
    runner.unlock().unwrap();
    drop(runner);
    let shards = &status("r")[0]["shards"];
    assert_eq!(shards[1]["state"], "stopped");
    must(
        &place,
        &[
            "run",
            "sweep.yaml",
            "--shard",
            "2/2",
            "--out",
            "r/shards/2",
            "--resume",
            "--no-figures",
        ],
    );
    assert_eq!(status("r")[0]["totals"]["done"], 2);
    must(&place, &["merge", "r", "--out", "m"]);
    assert_eq!(ids(&place.path().join("m")).len(), 12);
}
