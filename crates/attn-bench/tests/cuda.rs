//! What asks for CUDA where there is none: it says what is missing, and does nothing else.
//!
//! A machine with a GPU has it hidden here, so that the tests say the same everywhere.

#![allow(clippy::unwrap_used, reason = "helpers of tests, outside of a test function")]

mod common;

use std::process::Output;

use attn_harness::store::Run;
use common::{Place, command};

const TINY: &str = "\
name: tiny
model: {d_model: 32, n_heads: 4}
variants: [mha, mqa]
workloads:
  - decode: {context: 16}
measure: {warmup_ms: 1, min_samples: 2, max_samples: 3, max_s: 0.2}
";

fn without_gpu(place: &Place, args: &[&str]) -> Output {
    command()
        .current_dir(place.path())
        .env("CUDA_VISIBLE_DEVICES", "")
        .args(args)
        .output()
        .unwrap()
}

/// What the error says is missing, and what to do about it.
fn expected() -> [&'static [&'static str]; 2] {
    if cfg!(feature = "cuda") {
        // The stub of a driver, or a driver with its GPUs hidden.
        [
            &["there is no NVIDIA driver", "the NVIDIA driver finds no GPU"],
            &["install NVIDIA's driver", "CUDA_VISIBLE_DEVICES"],
        ]
    } else {
        [&["CUDA is not compiled into this build"], &["--features cuda"]]
    }
}

fn refuses(place: &Place, args: &[&str]) {
    let output = without_gpu(place, args);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
    assert!(output.stdout.is_empty(), "{args:?}");
    for words in expected() {
        assert!(words.iter().any(|word| text.contains(word)), "{args:?}: {text}");
    }
    assert!(
        text.contains("device cuda") && text.contains("use device cpu"),
        "{args:?}: {text}"
    );
}

#[test]
fn a_run_on_cuda_is_refused_before_it_leaves_anything() {
    let place = Place::with(TINY);
    refuses(&place, &["run", "sweep.yaml", "--out", "r", "--device", "cuda"]);
    refuses(&place, &["run", "sweep.yaml", "--out", "r", "--device", "cuda:1"]);
    refuses(
        &place,
        &["run", "sweep.yaml", "--out", "r", "--set", "device=cuda"],
    );
    let asks = TINY.replace("name: tiny", "name: tiny\ndevice: cuda");
    std::fs::write(place.path().join("asks.yaml"), asks).unwrap();
    refuses(&place, &["run", "asks.yaml", "--out", "r"]);
    assert!(!place.path().join("r").exists());
}

#[test]
fn gpus_that_share_a_run_are_each_named_once_and_have_to_be_there() {
    let place = Place::with(TINY);
    let run = |devices: &[&str]| {
        let args: Vec<&str> = ["run", "sweep.yaml", "--out", "r"]
            .iter()
            .chain(devices)
            .copied()
            .collect();
        let output = without_gpu(&place, &args);
        assert!(output.stdout.is_empty() && !place.path().join("r").exists());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), text)
    };
    refuses(
        &place,
        &["run", "sweep.yaml", "--out", "r", "--devices", "cuda:0,cuda:1"],
    );
    let bad: [(&[&str], &str); 5] = [
        (&["--devices", "cuda:0,cuda:0"], "cuda:0 is named twice"),
        (&["--devices", "cuda:0,cpu"], "cpu cannot share a sweep with GPUs"),
        (&["--devices", "cuda"], "does not say which GPU"),
        (&["--devices", ""], "unknown device ``"),
        (
            &["--devices", "cuda:0,cuda:1", "--device", "cuda"],
            "cannot be used with",
        ),
    ];
    for (devices, words) in bad {
        let (code, text) = run(devices);
        assert!(code == Some(2) && text.contains(words), "{devices:?}: {text}");
    }
}

#[test]
fn verifying_on_cuda_is_refused() {
    refuses(&Place::with(""), &["verify", "--device", "cuda"]);
}

#[test]
fn a_plan_for_cuda_is_made_anywhere_and_says_what_is_missing() {
    let place = Place::with(TINY);
    let output = without_gpu(&place, &["plan", "sweep.yaml", "--device", "cuda"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("2 cases unsupported: "), "{text}");
    let [missing, _] = expected();
    assert!(missing.iter().any(|word| text.contains(word)), "{text}");
}

#[test]
fn auto_is_the_processor_and_the_rows_say_so() {
    let place = Place::with(TINY);
    let output = without_gpu(&place, &["run", "sweep.yaml", "--out", "r", "--device", "auto"]);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let run = Run::open(&place.path().join("r")).unwrap();
    assert_eq!(run.rows.len(), 2);
    for row in &run.rows {
        assert_eq!(row.device_requested, "auto");
        assert_eq!(row.device_resolved.as_deref(), Some("cpu"));
        assert!(row.time_median_s.unwrap() > 0.0);
    }
}
