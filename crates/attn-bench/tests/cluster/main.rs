//! Sweeps on a scheduler: what is submitted, what a task does, what is merged. The schedulers are stand-ins that record
//! what they are called with; `scripts/cluster/slurm_test.sh` does it with Slurm.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "in helpers of tests too")]

#[path = "../common/mod.rs"]
mod common;
mod merging;
mod submitting;

use std::fs;
use std::path::Path;

use attn_harness::store::Run;
use common::{Place, command};

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
