//! `quality` from a sweep to its rows: trained, tested, killed and taken up again, diverged, and refused.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use attn_harness::status::{Status, Trust};
use attn_harness::store::Run;
use common::Place;

fn sweep(steps: usize, rest: &str) -> String {
    format!(
        "name: learn\nmodel: {{d_model: 16, n_heads: 2, n_layers: 2, d_ff: 32}}\n\
         variants: [mha, mtla: {{kv_rank: 8, rope_dim: 4}}]\n\
         workloads:\n  - quality: {{task: [recall, summarisation], steps: {steps}, batch: 4}}\n\
         tasks: {{recall: {{recall: {{pairs: {{min: 4, max: 4}}, tokens: 16}}}}}}\n{rest}\n"
    )
}

const TRAINING: &str =
    "training: {warmup: 2, eval_every: 4, eval_examples: 4, test_examples: 6, seeds: 3, average: 2}";

#[test]
fn trainings_become_rows_with_intervals_curves_and_places() {
    let place = Place::with(&sweep(10, TRAINING));
    let printed = place.prints(&["run", "sweep.yaml", "--out", "r"]);
    assert!(printed.contains("quality of recall, 10 updates B=4"), "{printed}");
    let run = Run::open(&place.path().join("r")).unwrap();
    assert_eq!(run.rows.len(), 4);
    for row in &run.rows {
        assert_eq!(
            (row.status, row.trust),
            (Status::Ok, Some(Trust::Clean)),
            "{row:?}"
        );
        let (low, high) = (row.quality_ci_low.unwrap(), row.quality_ci_high.unwrap());
        let quality = row.quality.unwrap();
        assert!(
            low <= quality && quality <= high && row.quality_sd.unwrap() >= 0.0,
            "{row:?}"
        );
        assert_eq!(
            (row.n_seeds, row.n_diverged, row.train_steps),
            (Some(3), Some(0), Some(10))
        );
        assert_eq!(row.cache_agreement, Some(1.0), "{row:?}");
        assert!(row.error_max.unwrap() < 1e-4 && row.time_median_s.is_none());
        assert!(row.peak_bytes.unwrap() > row.parameters.unwrap() * 4 * 3);
        assert!(row.train_time_s.unwrap() > 0.0 && row.kv_bytes_per_token.unwrap() > 0.0);
        assert!(row.null_reasons().contains_key("time_median_s"));
        let of_row = run
            .details
            .trainings
            .iter()
            .filter(|training| training.case_id == row.case_id);
        let seeds: Vec<u64> = of_row.map(|training| training.seed).collect();
        assert_eq!(seeds, [42, 43, 44]);
        let points = run
            .details
            .curves
            .iter()
            .filter(|point| point.case_id == row.case_id);
        let lowest = |seed: u64| {
            let own = points.clone().filter(|point| point.seed == seed);
            own.map(|point| point.valid_nats).fold(f64::INFINITY, f64::min)
        };
        let mean = seeds.iter().map(|seed| lowest(*seed)).sum::<f64>() / 3.0;
        assert!((row.valid_nats.unwrap() - mean).abs() < 1e-12, "{row:?}");
        assert_eq!(row.lr, Some(0.002));
        let steps: Vec<u64> = points.map(|point| point.step).collect();
        assert_eq!(steps, [4, 8, 10, 4, 8, 10, 4, 8, 10]);
        // Only recall has axes of its own.
        let has_places = run
            .details
            .probes
            .iter()
            .any(|probe| probe.case_id == row.case_id);
        assert_eq!(has_places, row.task.as_deref() == Some("recall"));
    }
    assert!(!place.path().join("r/checkpoints").exists());
    let half = |stride: Option<u64>| {
        let row = run
            .rows
            .iter()
            .find(|row| row.stride == stride && row.task.as_deref() == Some("recall"));
        row.unwrap().kv_bytes.unwrap()
    };
    // 16 tokens enter the cache: 2 heads of 8, keys and values, against 8 + 4 of every other token.
    assert_eq!((half(None), half(Some(2))), (2 * 16 * 32 * 4, 2 * 8 * 12 * 4));
}

/// What of a run does not depend on how long anything took.
fn lasting(dir: &Path) -> Vec<String> {
    let run = Run::open(dir).unwrap();
    let mut lines: Vec<String> = run
        .details
        .curves
        .iter()
        .map(|point| format!("{point:?}"))
        .collect();
    lines.extend(run.details.probes.iter().map(|probe| format!("{probe:?}")));
    for row in &run.rows {
        lines.push(format!(
            "{} {:?} {:?} {:?}",
            row.case_id, row.quality, row.quality_sd, row.test_nats
        ));
    }
    lines
}

#[test]
fn trainings_that_were_killed_go_on_as_if_nothing_had_happened() {
    let place = Place::with(&sweep(60, TRAINING));
    place.prints(&["run", "sweep.yaml", "--out", "whole"]);
    let mut child = Command::new(assert_cmd::cargo::cargo_bin!("attn-bench"))
        .args(["run", "sweep.yaml", "--out", "killed"])
        .current_dir(place.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let kept = place.path().join("killed/checkpoints");
    let has_ended = || {
        let cases = std::fs::read_dir(&kept).into_iter().flatten().flatten();
        cases
            .flat_map(|case| std::fs::read_dir(case.path()).into_iter().flatten().flatten())
            .any(|file| file.file_name().to_string_lossy().ends_with(".json"))
    };
    let began = Instant::now();
    while !has_ended() {
        assert!(began.elapsed() < Duration::from_secs(60), "no training ended");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    place.prints(&["run", "sweep.yaml", "--out", "killed", "--resume"]);
    assert_eq!(
        lasting(&place.path().join("killed")),
        lasting(&place.path().join("whole"))
    );
    assert!(!kept.exists());
}

#[test]
fn a_loss_that_is_not_finite_is_a_row_that_says_so() {
    let place = Place::with(&sweep(
        20,
        "training: {lr: 1.0e+30, warmup: 0, clip_norm: 0, seeds: 2, test_examples: 4, eval_examples: 4}",
    ));
    let output = place.run(&[
        "run",
        "sweep.yaml",
        "--out",
        "r",
        "--filter",
        "task=recall,variant=mha",
    ]);
    assert_eq!(
        output.status.code(),
        Some(3),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let run = Run::open(&place.path().join("r")).unwrap();
    let [row] = run.rows.as_slice() else {
        panic!("{:?}", run.rows)
    };
    assert_eq!(
        (row.status, row.quality, row.n_diverged),
        (Status::Diverged, None, Some(2))
    );
    assert!(
        row.reason.as_deref().unwrap().contains("seed 42 at update"),
        "{:?}",
        row.reason
    );
    assert!(
        run.details
            .trainings
            .iter()
            .all(|training| training.diverged_at.is_some())
    );
}

/// So many samples of a tone as 16-bit WAV at 16 kHz.
fn wav(samples: usize, hertz: f64) -> Vec<u8> {
    let tone = |i: usize| (8000.0 * (i as f64 * hertz * 2.0 * std::f64::consts::PI / 16_000.0).sin()) as i16;
    let data: Vec<u8> = (0..samples).flat_map(|i| tone(i).to_le_bytes()).collect();
    let mut bytes = b"RIFF".to_vec();
    bytes.extend((36 + data.len() as u32).to_le_bytes());
    bytes.extend(b"WAVEfmt ");
    bytes.extend(16_u32.to_le_bytes());
    bytes.extend([1_u16, 1].iter().flat_map(|word| word.to_le_bytes()));
    bytes.extend([16_000_u32, 32_000].iter().flat_map(|word| word.to_le_bytes()));
    bytes.extend([2_u16, 16].iter().flat_map(|word| word.to_le_bytes()));
    bytes.extend(b"data");
    bytes.extend((data.len() as u32).to_le_bytes());
    bytes.extend(data);
    bytes
}

#[test]
fn speech_of_ones_own_is_trained_on_and_what_is_missing_is_named() {
    let place = Place::with(
        "name: mine\nmodel: {d_model: 16, n_heads: 2, n_layers: 1, d_ff: 16, encoder_layers: 1, encoder_kernel: 3}\n\
         variants: [mtla: {kv_rank: 8, rope_dim: 4}]\nworkloads: [quality: {task: mine, steps: 4, batch: 2, downsample: 2}]\n\
         tasks: {mine: {speech: {manifest_train: train.tsv, manifest_valid: valid.tsv, manifest_test: test.tsv, \
         task: understanding}}}\ntraining: {seeds: 1, eval_every: 2}\n",
    );
    for part in ["train", "valid", "test"] {
        let mut manifest = "audio\ttgt_text\n".to_string();
        for (i, label) in ["high", "low"].iter().enumerate() {
            let name = format!("{part}{i}.wav");
            std::fs::write(
                place.path().join(&name),
                wav(6_000 + 800 * i, 400.0 / (1 + i) as f64),
            )
            .unwrap();
            manifest += &format!("{name}\t{label}\n");
        }
        std::fs::write(place.path().join(format!("{part}.tsv")), manifest).unwrap();
    }
    place.prints(&["run", "sweep.yaml", "--out", "r"]);
    let run = Run::open(&place.path().join("r")).unwrap();
    let row = &run.rows[0];
    assert_eq!(
        (row.quality_measure.as_deref(), row.downsample),
        (Some("token_accuracy"), Some(2))
    );
    assert!(
        row.notes.as_deref().unwrap().contains("2 examples"),
        "{:?}",
        row.notes
    );
    std::fs::remove_file(place.path().join("valid1.wav")).unwrap();
    let (code, said) = place.fails(&["run", "sweep.yaml", "--out", "again"]);
    assert!(
        code == 2 && said.contains("valid.tsv") && said.contains("valid1.wav"),
        "{said}"
    );
}

#[test]
fn data_that_cannot_be_used_end_a_sweep_before_it_begins() {
    let data = "workloads: [quality: {task: mine, steps: 5}]\n\
                tasks: {mine: {text: {train: train.txt, valid: valid.txt, test: test.txt, tokenizer: {train: 280}, block: 16}}}\n";
    let head = "name: mine\nmodel: {d_model: 16, n_heads: 2, n_layers: 1}\nvariants: [mha]\n";
    let place = Place::with(&format!("{head}{data}"));
    let (code, said) = place.fails(&["run", "sweep.yaml", "--out", "r"]);
    assert!(
        code == 2 && said.contains("task `mine` cannot be used") && said.contains("train.txt"),
        "{said}"
    );
    for part in ["train", "valid", "test"] {
        std::fs::write(place.path().join(format!("{part}.txt")), "").unwrap();
    }
    let (code, said) = place.fails(&["run", "sweep.yaml", "--out", "r"]);
    assert!(code == 2 && said.contains("cannot be used"), "{said}");
    assert!(!place.path().join("r").exists());
    for part in ["train", "valid", "test"] {
        let text: String = (0..40)
            .map(|i| format!("{part} number {i} of a text\n"))
            .collect();
        std::fs::write(place.path().join(format!("{part}.txt")), text).unwrap();
    }
    place.prints(&["run", "sweep.yaml", "--out", "r"]);
    let run = Run::open(&place.path().join("r")).unwrap();
    assert_eq!(run.rows[0].quality_measure.as_deref(), Some("perplexity"));
    assert!(run.rows[0].quality.unwrap() > 1.0);
}
