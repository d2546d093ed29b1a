//! Sweeps on a scheduler: what is submitted, what a task does, what is merged. The schedulers are stand-ins that record
//! what they are called with; `scripts/cluster/slurm_test.sh` does it with Slurm.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "in helpers of tests too")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use attn_harness::store::Run;
use common::{Place, command};
use insta::assert_snapshot;
use serde_json::Value;

const SWEEP: &str = "\
name: small
question: What is what?
model: {d_model: 32, n_heads: 4}
variants:
  - mha
  - mqa
workloads:
  - decode: {context: [8, 16, 32], batch: [1, 2]}
measure: {warmup_ms: 1, min_samples: 2, max_samples: 2, max_s: 0.1, ceilings: false, memory_limit: 512 MiB}
";

/// Variables of schedulers that a machine of CI may have itself.
const SCHEDULERS: [&str; 6] = [
    "SLURM_ARRAY_TASK_ID",
    "SLURM_ARRAY_TASK_COUNT",
    "SLURM_ARRAY_TASK_MIN",
    "SLURM_ARRAY_TASK_STEP",
    "HQ_TASK_ID",
    "JOB_COMPLETION_INDEX",
];

/// Exit code, standard output and standard error.
fn ask(place: &Place, environment: &[(&str, &str)], args: &[&str]) -> (i32, String, String) {
    let mut command = command();
    for name in SCHEDULERS {
        command.env_remove(name);
    }
    let output = command
        .current_dir(place.path())
        .envs(environment.iter().copied())
        .args(args)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code().unwrap(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// Standard output of what must succeed.
fn must(place: &Place, args: &[&str]) -> String {
    let (code, out, said) = ask(place, &[], args);
    assert_eq!(code, 0, "{args:?}: {said}");
    out
}

fn shard(place: &Place, index: usize, count: usize) {
    let (shard, out) = (format!("{index}/{count}"), format!("r/shards/{index}"));
    must(
        place,
        &[
            "run",
            "sweep.yaml",
            "--shard",
            &shard,
            "--out",
            &out,
            "--no-figures",
        ],
    );
}

fn ids(run: &Path) -> Vec<String> {
    let run = Run::open(run).unwrap();
    run.rows.into_iter().map(|row| row.case_id).collect()
}

/// A program of a name in a folder of its own, as PATH with what the machine has.
fn stand_in(place: &Place, name: &str, script: &str) -> String {
    let folder = place.path().join("bin");
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join(name);
    fs::write(&file, format!("#!/bin/sh\n{script}")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:{}", folder.display(), std::env::var("PATH").unwrap())
}

/// What a place has of its own, by a name.
fn without_places(text: &str, place: &Place) -> String {
    let program = assert_cmd::cargo::cargo_bin!("attn-bench");
    let folder = fs::canonicalize(place.path()).unwrap();
    text.replace(program.to_str().unwrap(), "/bin/attn-bench")
        .replace(folder.to_str().unwrap(), "/place")
        .replace(place.path().to_str().unwrap(), "/place")
}

#[test]
fn every_scheduler_says_which_shard_a_task_is() {
    let place = Place::with(SWEEP);
    let n_cases = |environment: &[(&str, &str)], shard: &str| {
        let (code, out, said) = ask(
            &place,
            environment,
            &["plan", "sweep.yaml", "--shard", shard, "--format", "json"],
        );
        assert_eq!(code, 0, "{said}");
        let plan: Value = serde_json::from_str(&out).unwrap();
        let ids = plan["cases"].as_array().unwrap().iter();
        let ids: Vec<String> = ids
            .map(|case| case["case_id"].as_str().unwrap().to_string())
            .collect();
        (ids, said)
    };
    let (second, said) = n_cases(&[], "2/3");
    assert_eq!((second.len(), said.as_str()), (4, ""));
    let slurm = [
        ("SLURM_ARRAY_TASK_ID", "3"),
        ("SLURM_ARRAY_TASK_COUNT", "3"),
        ("SLURM_ARRAY_TASK_MIN", "1"),
        ("SLURM_ARRAY_TASK_STEP", "2"),
    ];
    for (environment, shard, words) in [
        (
            &slurm[..],
            "auto",
            "shard 2/3 (SLURM_ARRAY_TASK_ID=3, SLURM_ARRAY_TASK_COUNT=3",
        ),
        (
            &[("SLURM_ARRAY_TASK_ID", "2")][..],
            "auto/3",
            "shard 2/3 (SLURM_ARRAY_TASK_ID=2 of a part",
        ),
        (
            &[("HQ_TASK_ID", "2")][..],
            "auto/3",
            "shard 2/3 (HQ_TASK_ID=2, tasks counted from 1)",
        ),
        (
            &[("JOB_COMPLETION_INDEX", "1")][..],
            "auto/3",
            "shard 2/3 (JOB_COMPLETION_INDEX=1, tasks counted from 0)",
        ),
    ] {
        let (ids, said) = n_cases(environment, shard);
        assert_eq!(ids, second);
        assert!(said.contains(words), "{said}");
    }
    let (code, _, said) = ask(
        &place,
        &[],
        &["run", "sweep.yaml", "--shard", "auto/4", "--out", "r"],
    );
    assert_eq!(code, 2);
    for name in [
        "SLURM_ARRAY_TASK_ID",
        "HQ_TASK_ID",
        "JOB_COMPLETION_INDEX",
        "--shard 1/4",
    ] {
        assert!(said.contains(name), "{said}");
    }
    assert!(!place.path().join("r").exists());
    let (code, _, said) = ask(
        &place,
        &[("HQ_TASK_ID", "1")],
        &["plan", "sweep.yaml", "--shard", "auto"],
    );
    assert!(code == 2 && said.contains("--shard auto/N"), "{said}");
}

#[test]
fn a_dry_run_prints_readable_scripts_and_writes_nothing() {
    let place = Place::with(SWEEP);
    let args = [
        "submit",
        "sweep.yaml",
        "--slurm",
        "--array",
        "3",
        "--at-once",
        "2",
        "--gres",
        "gpu:1",
        "--time",
        "01:00:00",
        "--cpus-per-task",
        "4",
        "--mem",
        "8G",
        "--partition",
        "fast",
        "--account",
        "me",
        "--sbatch-option=--constraint=a|b",
        "--out",
        "it's mine",
        "--filter",
        "batch=1",
        "--set",
        "name=other",
        "--dry-run",
    ];
    assert_snapshot!("slurm_dry_run", without_places(&must(&place, &args), &place));
    assert!(!place.path().join("it's mine").exists());
    let args = [
        "submit",
        "sweep.yaml",
        "--hq",
        "--array",
        "2",
        "--gres",
        "gpu:1",
        "--out",
        "r",
        "--dry-run",
    ];
    assert_snapshot!("hyperqueue_dry_run", without_places(&must(&place, &args), &place));
}

#[test]
fn what_cannot_be_submitted_is_said_before_anything_is_written() {
    let place = Place::with(SWEEP);
    let empty = place.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let path = [("PATH", empty.to_str().unwrap())];
    for (args, words) in [
        (&["--slurm", "--array", "7"][..], "the plan has 6 groups"),
        (&["--slurm"][..], "there is no `sbatch` here"),
        (&["--hq"][..], "there is no `hq` here"),
        (
            &["--slurm", "--dry-run", "--set", "model.d_model=33"][..],
            "d_model",
        ),
        (
            &["--slurm", "--dry-run", "--sbatch-option", "h100"][..],
            "begin with a dash",
        ),
        (&["--hq", "--dry-run", "--gres", "gpu:many"][..], "gpu:1"),
        (
            &["--slurm", "--dry-run", "--time", "1\n#SBATCH --x"][..],
            "no single line",
        ),
        (&["--slurm", "--dry-run", "--out", "empty"][..], "exists already"),
        (
            &["--hq", "--dry-run", "--gres", "gpu:1,gpu:2"][..],
            "asked for twice",
        ),
        (&["--hq", "--dry-run", "--gres", "cpus:2"][..], "--cpus-per-task"),
        (&["--hq", "--dry-run", "--time", "an hour"][..], "02:00:00"),
        (&["--hq", "--partition", "fast"][..], "cannot be used with"),
        (&[][..], "--slurm|--hq"),
    ] {
        let args = [&["submit", "sweep.yaml", "--out", "r"][..2], args].concat();
        let (code, out, said) = ask(&place, &path, &args);
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {said}");
        assert!(said.contains(words), "{said}");
    }
    assert!(!place.path().join("r").exists() && !place.path().join("results").exists());
}

#[test]
fn slurm_gets_an_array_and_a_job_that_depends_on_it() {
    let place = Place::with(SWEEP);
    let path = stand_in(
        &place,
        "sbatch",
        "for word in \"$@\"; do printf '%s\\n' \"$word\"; done >>calls\necho $((40 + $(wc -l <calls))) | sed 's/$/;mine/'\n",
    );
    let args = ["submit", "sweep.yaml", "--slurm", "--array", "2", "--out", "r r"];
    let (code, out, said) = ask(&place, &[("PATH", &path)], &args);
    assert_eq!(code, 0, "{said}");
    assert_snapshot!(without_places(&fs::read_to_string(place.path().join("calls")).unwrap(), &place), @"
    --parsable
    /place/r r/array.sbatch
    --parsable
    --dependency=afterany:42
    /place/r r/merge.sbatch
    ");
    for words in [
        "2 shards: as asked for",
        "job 42, and job 45 that merges",
        "attn-bench status 'r r'",
        "scancel 42 45",
    ] {
        assert!(out.contains(words), "{out}");
    }
    let status = must(&place, &["status", "r r"]);
    for words in [
        "r r: small, slurm job 42",
        " 2/2     waiting",
        "0 of 12 cases stored",
        "2 shards: 2 waiting",
    ] {
        assert!(status.contains(words), "{status}");
    }
    let (code, _, said) = ask(&place, &[], &["merge", "r r", "--out", "m"]);
    assert!(code == 2 && said.contains("no shard has begun"), "{said}");
}

#[test]
fn a_refusal_of_the_scheduler_leaves_nothing() {
    let place = Place::with(SWEEP);
    let path = stand_in(
        &place,
        "sbatch",
        "echo 'sbatch: error: Invalid account' >&2; exit 1\n",
    );
    let args = ["submit", "sweep.yaml", "--slurm", "--array", "2", "--out", "r"];
    let (code, _, said) = ask(&place, &[("PATH", &path)], &args);
    assert!(code == 4 && said.contains("Invalid account"), "{code}: {said}");
    assert!(!place.path().join("r").exists());
    // The array is taken and the merge is not.
    let path = stand_in(
        &place,
        "sbatch",
        "test $# -eq 2 && echo 7 || { echo 'no more jobs' >&2; exit 1; }\n",
    );
    let (code, out, said) = ask(&place, &[("PATH", &path)], &args);
    assert!(
        code == 4 && said.contains("no more jobs") && said.contains("attn-bench merge r"),
        "{said}"
    );
    assert!(out.contains("submitted: job 7"), "{out}");
}

#[test]
fn hyperqueue_gets_a_job_of_tasks_and_a_merge() {
    let place = Place::with(SWEEP);
    let path = stand_in(
        &place,
        "hq",
        "for word in \"$@\"; do printf '%s\\n' \"$word\"; done >>calls\necho 5\n",
    );
    let args = ["submit", "sweep.yaml", "--hq", "--array", "2", "--out", "r"];
    let (code, out, said) = ask(&place, &[("PATH", &path)], &args);
    assert_eq!(code, 0, "{said}");
    assert_snapshot!(without_places(&fs::read_to_string(place.path().join("calls")).unwrap(), &place), @"
    --output-mode
    quiet
    job
    submit-file
    /place/r/job.toml
    ");
    assert!(
        out.contains("submitted: job 5, its last task merges unless a shard fails"),
        "{out}"
    );
    // The tasks do what HyperQueue would have them do.
    for id in ["1", "2"] {
        let task = std::process::Command::new("bash")
            .arg(place.path().join("r/task.sh"))
            .env("HQ_TASK_ID", id)
            .output()
            .unwrap();
        assert!(task.status.success(), "{}", String::from_utf8_lossy(&task.stderr));
    }
    let merge = std::process::Command::new("bash")
        .arg(place.path().join("r/merge.sh"))
        .output()
        .unwrap();
    assert!(
        merge.status.success(),
        "{}",
        String::from_utf8_lossy(&merge.stderr)
    );
    assert_eq!(ids(&place.path().join("r/merged")).len(), 12);
}

/// The array's script as Slurm would run it for one task, twice.
#[test]
fn a_task_that_is_started_again_goes_on() {
    let place = Place::with(SWEEP);
    let path = stand_in(&place, "sbatch", "echo 9\n");
    let args = [
        "submit",
        "sweep.yaml",
        "--slurm",
        "--array",
        "2",
        "--out",
        "it's mine",
    ];
    assert_eq!(ask(&place, &[("PATH", &path)], &args).0, 0);
    let run = place.path().join("it's mine");
    // An empty folder, as a scheduler may make it, is no run yet.
    fs::create_dir(run.join("shards/1")).unwrap();
    let task = |id: &str| {
        let output = std::process::Command::new("bash")
            .arg(run.join("array.sbatch"))
            .envs([
                ("SLURM_ARRAY_TASK_ID", id),
                ("SLURM_ARRAY_TASK_COUNT", "2"),
                ("SLURM_ARRAY_TASK_MIN", "1"),
                ("SLURM_ARRAY_TASK_STEP", "1"),
                ("SLURM_ARRAY_JOB_ID", "9"),
            ])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        said
    };
    let said = task("1");
    assert!(said.contains("start 0, 0 rows stored"), "{said}");
    let log = fs::read(run.join("shards/1/log.jsonl")).unwrap();
    // Torn as by a kill, on another machine, and half of it gone.
    let half = log
        .split_inclusive(|byte| *byte == b'\n')
        .take(3)
        .flatten()
        .copied();
    let torn: Vec<u8> = half.chain(b"{\"case_id\":\"1".iter().copied()).collect();
    fs::write(run.join("shards/1/log.jsonl"), &torn).unwrap();
    fs::remove_file(run.join("shards/1/rows.parquet")).unwrap();
    elsewhere(&run.join("shards/1"));
    let said = task("1");
    assert!(said.contains("3 rows stored"), "{said}");
    task("2");
    must(&place, &["merge", "it's mine", "--out", "m"]);
    assert_eq!(ids(&place.path().join("m")).len(), 12);
    let environment: Value =
        serde_json::from_str(&fs::read_to_string(place.path().join("m/environment.json")).unwrap()).unwrap();
    let machines = environment["machines"].as_array().unwrap();
    assert_eq!(machines.len(), 2, "{machines:?}");
}

/// Makes a run one of another machine.
fn elsewhere(run: &Path) {
    for name in ["environment.json", "log.jsonl"] {
        let file = run.join(name);
        let text = fs::read_to_string(&file).unwrap();
        let at = text.find("\"fingerprint\"").unwrap();
        let value = &text[at..].split('"').nth(3).unwrap().to_string();
        fs::write(&file, text.replace(value.as_str(), "0123456789abcdef")).unwrap();
    }
}

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
    for index in ["1", "2"] {
        let (shard, out) = (format!("{index}/2"), format!("mine/{index}"));
        must(
            &place,
            &[
                "run",
                "sweep.yaml",
                "--shard",
                &shard,
                "--out",
                &out,
                "--no-figures",
            ],
        );
    }
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

#[test]
fn only_a_machine_that_changed_is_accepted_as_such() {
    let place = Place::with(SWEEP);
    shard(&place, 1, 3);
    elsewhere(&place.path().join("r/shards/1"));
    let run = |more: &[&str]| {
        let args = [
            "run",
            "sweep.yaml",
            "--shard",
            "1/3",
            "--out",
            "r/shards/1",
            "--resume",
            "--no-figures",
        ];
        ask(&place, &[], &[&args[..], more].concat())
    };
    let (code, _, said) = run(&[]);
    assert!(code == 2 && said.contains("another machine"), "{said}");
    assert_eq!(run(&["--accept-changes=machine"]).0, 0);
    let (code, _, said) = run(&["--accept-changes=machine", "--set", "measure.max_s=0.2"]);
    assert!(
        code == 2 && said.contains("not the one that was begun here"),
        "{said}"
    );
    assert_eq!(run(&["--accept-changes", "--set", "measure.max_s=0.2"]).0, 0);
    // Without --or-begin nothing is begun by a slip of the keyboard.
    let args = ["run", "sweep.yaml", "--out", "new", "--resume"];
    let (code, _, said) = ask(&place, &[], &args);
    assert!(code == 2 && said.contains("new is no run"), "{said}");
    assert!(!place.path().join("new").exists());
}
