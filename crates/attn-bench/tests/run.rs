//! `run`, and the commands that read what it leaves.

mod common;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use attn_harness::row::Row;
use attn_harness::status::Status;
use attn_harness::store::Run;
use common::Place;

/// Every workload, path and scope, as small and as short as they go.
const TINY: &str = "\
name: tiny
question: Does every part of a run work together?
model: {d_model: 32, n_heads: 4}
variants:
  - mha
  - gqa: {n_kv_heads: 2}
  - mqa
  - mla: {kv_rank: 16, rope_dim: 4}
  - mtla: {kv_rank: 16, rope_dim: 4, stride: [2, 3, 4]}
scopes: [layer, op]
workloads:
  - decode: {context: [1, 16, 64], batch: [1, 3]}
  - prefill: {tokens: [16, 33], batch: 2}
  - train_step: {tokens: [8, 16]}
measure: {warmup_ms: 1, min_samples: 2, max_samples: 3, max_s: 0.2}
";

#[test]
fn a_run_leaves_verified_rows_samples_and_figures() {
    let place = Place::with(TINY);
    let out = place.run(&["run", "sweep.yaml", "--out", "r"]);
    assert_eq!(
        out.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let run = Run::open(&place.path().join("r")).unwrap();
    assert_eq!(run.rows.len(), 7 * 2 * (6 + 2 + 2));
    assert_eq!(
        run.details.samples.len(),
        run.rows
            .iter()
            .map(|row| row.n_samples.unwrap() as usize)
            .sum::<usize>()
    );
    for row in &run.rows {
        assert_eq!(row.status, Status::Ok, "{row:?}");
        assert!(
            row.error_max.unwrap() < 1e-4 && row.verified_rows.unwrap() > 0,
            "{row:?}"
        );
        assert!(
            row.time_median_s.unwrap() > 0.0 && row.peak_bytes.unwrap() > 0,
            "{row:?}"
        );
        assert!(row.time_ci_low_s <= row.time_median_s && row.time_median_s <= row.time_ci_high_s);
        assert_eq!(
            (row.path_resolved.as_deref(), row.dtype_resolved.as_deref()),
            (Some("fused"), Some("f32"))
        );
        assert!(row.null_reasons().contains_key("energy_j"));
        assert_eq!(row.variant == "mtla", row.stride.is_some());
    }
    // math.md's table, per token and sequence: elements times four bytes, MTLA's rounded up to whole slots.
    let elements = |label: &str| match label {
        "MHA" => 64,
        "GQA Hkv=2" => 32,
        "MQA" => 16,
        _ => 20,
    };
    for row in run.rows.iter().filter(|row| row.workload == "decode") {
        let slots = row.context.unwrap().div_ceil(row.stride.unwrap_or(1));
        assert_eq!(
            row.kv_bytes.unwrap(),
            row.batch.unwrap() * slots * elements(&row.label) * 4,
            "{}",
            row.label
        );
    }
    for figure in [
        "latency-vs-context",
        "cache-vs-context",
        "compression-rate",
        "prefill-vs-tokens",
    ] {
        let layer = place.path().join("r/plots").join(format!("{figure}.svg"));
        let split = place.path().join("r/plots").join(format!("{figure}-layer.svg"));
        assert!(layer.is_file() || split.is_file(), "{figure}");
        assert!(
            layer.with_extension("png").is_file() || split.with_extension("png").is_file(),
            "{figure}"
        );
    }

    // Drawn again from the rows alone, to the byte.
    place.prints(&["plot", "r", "--out", "again"]);
    for entry in std::fs::read_dir(place.path().join("again")).unwrap() {
        let entry = entry.unwrap();
        let first = std::fs::read(place.path().join("r/plots").join(entry.file_name())).unwrap();
        assert!(
            first == std::fs::read(entry.path()).unwrap(),
            "{:?} differs",
            entry.file_name()
        );
    }
    let table = place.prints(&["show", "r", "--filter", "workload=prefill,tokens=33,scope=layer"]);
    assert!(table.contains("MTLA s=4") && !table.contains("decode"), "{table}");
    let csv = place.prints(&["export", "r", "--format", "csv"]);
    assert_eq!(csv.lines().count(), 1 + run.rows.len());

    // The folder is taken now.
    let (code, text) = place.fails(&["run", "sweep.yaml", "--out", "r"]);
    assert_eq!(code, 2);
    assert!(text.contains("exists already"), "{text}");
}

#[test]
fn positions_of_a_trajectory_count_its_samples_and_no_warm_up() {
    let place = Place::with(
        "name: steps\nmodel: {d_model: 32, n_heads: 4}\n\
         variants:\n  - mha\n  - mtla: {kv_rank: 16, rope_dim: 4, stride: 3}\n\
         workloads:\n  - trajectory: {tokens: 4, new_tokens: 7}\n\
         measure: {warmup_ms: 20, min_samples: 4, max_samples: 4, max_s: 5, ceilings: false}\n",
    );
    place.prints(&["run", "sweep.yaml", "--out", "r"]);
    let run = Run::open(&place.path().join("r")).unwrap();
    assert_eq!((run.rows.len(), run.details.positions.len()), (2, 2 * 7));
    for row in &run.rows {
        let of_row = run
            .details
            .positions
            .iter()
            .filter(|position| position.case_id == row.case_id);
        let places: Vec<u64> = of_row.clone().map(|position| position.position).collect();
        assert_eq!(places, [5, 6, 7, 8, 9, 10, 11]);
        for position in of_row {
            assert_eq!(Some(position.n_samples), row.n_samples, "{}", row.label);
            assert_eq!(
                position.closes_slot,
                position.position % row.stride.unwrap_or(1) == 0
            );
        }
    }
}

#[test]
fn what_cannot_run_here_is_a_row_with_its_reason() {
    let place = Place::with(
        "name: mixed\nmodel: {d_model: 32, n_heads: 4}\ndtype: [f32, bf16]\npaths: [fused, seedlike]\nvariants: [mha]\n\
         workloads:\n  - decode: {context: 8}\nmeasure: {warmup_ms: 1, min_samples: 2, max_samples: 2, max_s: 0.1}\n",
    );
    let out = place.run(&["run", "sweep.yaml", "--out", "r"]);
    assert_eq!(out.status.code(), Some(3));
    let rows = Run::open(&place.path().join("r")).unwrap().rows;
    let failed: Vec<_> = rows.iter().filter(|row| row.status != Status::Ok).collect();
    assert_eq!((rows.len(), failed.len()), (4, 1));
    assert_eq!(failed[0].status, Status::Unsupported);
    assert_eq!(
        failed[0].reason.as_deref(),
        Some("seedlike is not defined for bf16")
    );
    assert_eq!(failed[0].time_median_s, None);
}

#[test]
fn a_note_says_what_path_and_dtype_do_not() {
    let place = Place::with(
        "name: notes\nmodel: {d_model: 32, n_heads: 4}\ndtype: [f32, f16]\npaths: [fused, seedlike]\nvariants: [mha]\n\
         workloads:\n  - train_step: {tokens: 8}\nmeasure: {warmup_ms: 1, min_samples: 2, max_samples: 2, max_s: 0.1}\n",
    );
    place.run(&["run", "sweep.yaml", "--out", "r"]);
    let rows = Run::open(&place.path().join("r")).unwrap().rows;
    let noted = |path: &str, dtype: &str, text: &str| {
        let of = |row: &&Row| row.path_requested == path && row.dtype_requested == dtype;
        let row = rows.iter().find(of).unwrap();
        row.notes.as_deref().is_some_and(|notes| notes.contains(text))
    };
    assert!(noted("seedlike", "f32", "O(T^2) memory") && !noted("fused", "f32", "O(T^2) memory"));
    assert!(noted("fused", "f16", "widened") && !noted("fused", "f32", "widened"));
}

#[test]
#[cfg(unix)]
fn ctrl_c_stores_what_was_measured() {
    let sweep = TINY.replace(
        "max_samples: 3, max_s: 0.2",
        "max_samples: 100, target_ci: 0.000001, max_s: 0.1, ceilings: false",
    );
    let place = Place::with(&sweep);
    let child = Command::new(assert_cmd::cargo::cargo_bin!("attn-bench"))
        .args(["run", "sweep.yaml", "--out", "r"])
        .current_dir(place.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Once a group is stored, interrupt the next.
    let began = Instant::now();
    let log = place.path().join("r/log.jsonl");
    while std::fs::metadata(&log).map_or(0, |file| file.len()) == 0 {
        assert!(began.elapsed() < Duration::from_secs(120), "no group was stored");
        std::thread::sleep(Duration::from_millis(20));
    }
    let killed = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    let out = child.wait_with_output().unwrap();
    assert_eq!(
        out.status.code(),
        Some(130),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let run = Run::open(&place.path().join("r")).unwrap();
    assert!(
        !run.rows.is_empty() && run.rows.len() < 140,
        "{} rows",
        run.rows.len()
    );
    assert!(place.path().join("r/rows.parquet").is_file());
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(
        text.contains(
            "of 140 cases are stored in r; to continue: attn-bench run sweep.yaml --out r --resume"
        )
    );

    // Another sweep is not this run's; the same one continues it without repeating a case.
    std::fs::write(place.path().join("other.yaml"), TINY).unwrap();
    let (code, text) = place.fails(&["run", "other.yaml", "--out", "r", "--resume"]);
    assert!(
        code == 2 && text.contains("not the one that was begun here"),
        "{text}"
    );
    let out = place.run(&["run", "sweep.yaml", "--out", "r", "--resume"]);
    assert_eq!(
        out.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let whole = Run::open(&place.path().join("r")).unwrap();
    assert_eq!(whole.rows.len(), 140);
    // Groups run in random order and are stored in the plan's.
    for row in &run.rows {
        let kept = whole.rows.iter().find(|kept| kept.case_id == row.case_id);
        assert!(kept == Some(row), "{} changed", row.case_id);
    }
    assert_eq!(whole.commands().len(), 2);
}
