//! Sweeps that nothing can kill: failing cases, a killed runner, a full disk.

#![cfg(target_os = "linux")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use attn_harness::row::Row;
use attn_harness::status::Status;
use attn_harness::store::Run;
use common::Place;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value};

const SWEEP: &str = "\
name: hard
model: {d_model: 32, n_heads: 4}
variants:
  - mha
  - gqa: {n_kv_heads: 2}
  - mqa
  - mla: {kv_rank: 16, rope_dim: 4}
  - mtla: {kv_rank: 16, rope_dim: 4, stride: [2, 3]}
workloads:
  - decode: {context: [8, 16, 64], batch: [1, 3]}
  - prefill: {tokens: [16, 32], batch: 2}
measure: {warmup_ms: 1, min_samples: 2, max_samples: 3, max_s: 0.1, timeout_s: 3, memory_limit: 512 MiB, ceilings: false, seed: 2}
";

/// One of each, and a case that an out-of-memory case dominates: MHA at 64 tokens and batch 3, which the seed puts
/// after batch 1.
const FAULTS: &str = "variant=mha,context=64,batch=1:oom;variant=gqa,context=16,batch=1:abort;\
                      variant=mqa,context=8,batch=3:hang;variant=mla,context=64,batch=1:panic;\
                      variant=mtla,stride=3,context=16,batch=1:wrong;variant=gqa,tokens=32:kill";

fn attn_bench(place: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("attn-bench"));
    command
        .args(args)
        .current_dir(place)
        .env("ATTN_BENCH_PLANT", FAULTS)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn rows(dir: &Path) -> Vec<Row> {
    Run::open(dir).unwrap_or_else(|error| panic!("{error}")).rows
}

/// Rows by case, without what differs between two runs of the same sweep: times, and what follows from them.
fn lasting(rows: &[Row]) -> BTreeMap<String, Map<String, Value>> {
    let passing = |column: &str| {
        column.ends_with("_s")
            // What is allocated at once depends on how threads overlap.
            || column.starts_with("peak_")
            || column.starts_with("rss_")
            || column.starts_with("cpu_") && column != "cpu_level"
    };
    const PASSING: [&str; 11] = [
        "started_at",
        "n_samples",
        "n_outliers",
        "stop_rule",
        "trust",
        "trust_reason",
        "load_1m_start",
        "other_cpu_fraction",
        "stolen_cpu_fraction",
        "clock_ratio",
        "throttle_events",
    ];
    let mut all = BTreeMap::new();
    for row in rows {
        let Ok(Value::Object(mut cells)) = serde_json::to_value(row) else {
            panic!("a row is an object");
        };
        let reasons = row.null_reasons();
        let reasons: Map<String, Value> = reasons
            .into_iter()
            .filter(|(column, _)| !passing(column) && !PASSING.contains(&column.as_str()))
            .map(|(column, reason)| (column, reason.into()))
            .collect();
        cells.insert("null_reasons".to_string(), reasons.into());
        cells.retain(|column, _| !passing(column) && !PASSING.contains(&column.as_str()));
        assert!(
            all.insert(row.case_id.clone(), cells).is_none(),
            "{} twice",
            row.case_id
        );
    }
    all
}

/// Fails with the cells that differ, of which there should be few.
fn assert_same(
    got: &BTreeMap<String, Map<String, Value>>,
    expected: &BTreeMap<String, Map<String, Value>>,
    which: &str,
) {
    let ids = |rows: &BTreeMap<String, Map<String, Value>>| rows.keys().cloned().collect::<Vec<_>>();
    assert_eq!(ids(got), ids(expected), "{which}");
    for (id, cells) in expected {
        for (column, cell) in cells {
            assert_eq!(got[id].get(column), Some(cell), "{which}, {id}, {column}");
        }
    }
}

/// Workers of a runner that are still there.
fn workers_of(runner: u32) -> usize {
    let runner = runner.to_string();
    let is_one = |entry: &std::fs::DirEntry| {
        let Ok(command) = std::fs::read(entry.path().join("cmdline")) else {
            return false;
        };
        let words: Vec<&[u8]> = command.split(|byte| *byte == 0).collect();
        // The dead have no command line, so a zombie is none.
        words.get(1) == Some(&&b"worker"[..]) && words.get(3) == Some(&runner.as_bytes())
    };
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter(is_one).count()
}

fn kill(mut child: Child) {
    let pid = child.id();
    child.kill().unwrap_or_else(|error| panic!("{error}"));
    child.wait().unwrap_or_else(|error| panic!("{error}"));
    let began = Instant::now();
    while workers_of(pid) > 0 {
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "a worker outlives its runner"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn whatever_happens_to_a_case_is_its_row_and_the_sweep_goes_on() {
    let place = Place::with(SWEEP);
    let output = attn_bench(place.path(), &["run", "sweep.yaml", "--out", "r"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    let rows = rows(&place.path().join("r"));
    assert_eq!(rows.len(), 6 * (6 + 2));
    let find = |variant: &str, context: Option<u64>, tokens: Option<u64>, batch: u64, stride: Option<u64>| {
        let found = rows.iter().find(|row| {
            row.variant == variant
                && (row.context, row.tokens) == (context, tokens)
                && row.batch == Some(batch)
                && row.stride == stride
        });
        found.unwrap_or_else(|| panic!("no {variant}"))
    };
    let expected = [
        (
            find("mha", Some(64), None, 1, None),
            Status::Oom,
            "beyond the memory limit of 512 MiB",
        ),
        (
            find("mha", Some(64), None, 3, None),
            Status::SkippedOom,
            "ran out of memory",
        ),
        (
            find("gqa", Some(16), None, 1, None),
            Status::Crash,
            "ended by signal 6 (abort)",
        ),
        (
            find("mqa", Some(8), None, 3, None),
            Status::Timeout,
            "longer than measure.timeout_s, 3 s",
        ),
        (
            find("mla", Some(64), None, 1, None),
            Status::Crash,
            "panicked: planted",
        ),
        (
            find("mtla", Some(16), None, 1, Some(3)),
            Status::Wrong,
            "differs from",
        ),
        (
            find("gqa", None, Some(32), 2, None),
            Status::Crash,
            "ended by signal 9 (killed)",
        ),
    ];
    for (row, status, reason) in &expected {
        assert_eq!(row.status, *status, "{}: {:?}", row.label, row.reason);
        assert!(
            row.reason.as_deref().is_some_and(|text| text.contains(reason)),
            "{:?}",
            row.reason
        );
        assert_eq!(row.time_median_s, None);
        assert_eq!(row.planted.is_some(), *status != Status::SkippedOom);
    }
    let failed = rows.iter().filter(|row| row.status != Status::Ok).count();
    assert_eq!(failed, expected.len());
}

#[test]
fn a_killed_runner_loses_and_repeats_nothing() {
    const KILLS: usize = 20;
    let place = Place::with(SWEEP);
    let began = Instant::now();
    let output = attn_bench(place.path(), &["run", "sweep.yaml", "--out", "whole"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    let whole_s = began.elapsed().as_secs_f64();
    let whole = lasting(&rows(&place.path().join("whole")));

    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let (mut kills, mut folder, mut finished) = (0, 0, 0);
    while kills < KILLS {
        let out = format!("r{folder}");
        let dir = place.path().join(&out);
        let mut args = vec!["run", "sweep.yaml", "--out", &out];
        // Killed so early that there is no run yet, it has to begin again.
        if dir.exists() {
            args.push("--resume");
        }
        let mut child = attn_bench(place.path(), &args).spawn().unwrap();
        let until = Instant::now() + Duration::from_secs_f64(whole_s * rng.random_range(0.0..0.4));
        let ended = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if Instant::now() >= until {
                break None;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        if let Some(status) = ended {
            assert_eq!(
                status.code(),
                Some(3),
                "{}",
                text(&child.wait_with_output().unwrap())
            );
            assert_same(&lasting(&rows(&dir)), &whole, &out);
            (folder, finished) = (folder + 1, finished + 1);
            continue;
        }
        kill(child);
        kills += 1;
        if dir.exists() {
            lasting(&rows(&dir));
        }
    }
    let out = format!("r{folder}");
    let mut args = vec!["run", "sweep.yaml", "--out", &out];
    if place.path().join(&out).exists() {
        args.push("--resume");
    }
    let output = attn_bench(place.path(), &args).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert_same(&lasting(&rows(&place.path().join(&out))), &whole, &out);
    eprintln!(
        "{kills} kills, {} runs, one took {whole_s:.1} s undisturbed",
        finished + 1
    );
}

#[test]
fn two_runners_cannot_write_one_run() {
    let slow = SWEEP.replace(
        "max_samples: 3, max_s: 0.1",
        "max_samples: 1000000, target_ci: 1e-9, max_s: 60",
    );
    let place = Place::with(&slow);
    let first = attn_bench(place.path(), &["run", "sweep.yaml", "--out", "r"])
        .spawn()
        .unwrap();
    let began = Instant::now();
    while workers_of(first.id()) == 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "no worker was started");
        std::thread::sleep(Duration::from_millis(5));
    }
    let second = attn_bench(place.path(), &["run", "sweep.yaml", "--out", "r", "--resume"])
        .output()
        .unwrap();
    kill(first);
    assert_eq!(second.status.code(), Some(2));
    assert!(
        text(&second).contains("another attn-bench is writing r"),
        "{}",
        text(&second)
    );
}

#[test]
fn a_full_disk_ends_a_run_clearly_and_resume_goes_on_once_there_is_room() {
    let place = Place::with(SWEEP);
    // A small tmpfs in a namespace of its own, with a file that takes most of it.
    let script = "set -e\n\
        mkdir disk && mount -t tmpfs -o size=160k tmpfs disk || exit 77\n\
        head -c 80k /dev/zero > disk/ballast\n\
        code=0; \"$1\" run sweep.yaml --out disk/r > out1 2> err1 || code=$?\n\
        test $code -eq 4 || { cat err1; echo \"code $code\"; exit 1; }\n\
        grep -c . disk/r/log.jsonl > rows1 || true\n\
        rm disk/ballast; mount -o remount,size=64m disk\n\
        code=0; \"$1\" run sweep.yaml --out disk/r --resume > out2 2> err2 || code=$?\n\
        test $code -eq 0 || { cat err2; echo \"code $code\"; exit 2; }\n\
        cp -r disk/r kept\n";
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", script, "sh"])
        .arg(assert_cmd::cargo::cargo_bin!("attn-bench"))
        .current_dir(place.path())
        .output();
    let output = match output {
        Ok(output) if output.status.code() != Some(77) && !text(&output).contains("unshare failed") => output,
        _ => {
            eprintln!("not tested: this system lets no one mount a tmpfs in a namespace");
            return;
        }
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &text(&output);
    assert!(output.status.success(), "{said}");
    let error = std::fs::read_to_string(place.path().join("err1")).unwrap();
    assert!(
        error.contains("free some space") && error.contains("--out disk/r --resume"),
        "{error}"
    );
    let before: usize = std::fs::read_to_string(place.path().join("rows1"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let rows = rows(&place.path().join("kept"));
    assert!(before > 0 && before < rows.len(), "{before} of {}", rows.len());
    assert!(rows.len() == 6 * (6 + 2) && rows.iter().all(Row::is_ok));
}
