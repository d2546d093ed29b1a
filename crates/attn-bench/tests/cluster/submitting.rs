//! What a scheduler is given, and what its tasks do.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use insta::assert_snapshot;
use serde_json::Value;

use super::common::Place;
use super::{SWEEP, ask, elsewhere, ids, must, shard};

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
