//! `doctor` on the machine of the tests, with its GPUs hidden where it has any.

#![allow(clippy::unwrap_used, reason = "helpers of tests, outside of a test function")]

mod common;

use std::process::Output;

use common::command;
use serde_json::Value;

fn doctor(args: &[&str]) -> Output {
    command()
        .env("CUDA_VISIBLE_DEVICES", "")
        .env_remove("ATTN_CPU_LEVEL")
        .arg("doctor")
        .args(args)
        .output()
        .unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_processor_can_always_be_used() {
    for (device, verdict) in [
        ("cpu", "device cpu can be used"),
        ("auto", "device auto can be used, it is cpu here"),
    ] {
        let output = doctor(&["--device", device]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(0), "{text}");
        assert!(text.ends_with(&format!("\n{verdict}\n")), "{text}");
        for what in [
            "processor",
            "memory",
            "build",
            "cuda",
            "nvcc",
            "libcuda",
            "libcublas",
        ] {
            assert!(
                text.lines().any(|line| line.trim_start().starts_with(what)),
                "{what}: {text}"
            );
        }
    }
    // What it is asked for where nothing is.
    let text = String::from_utf8(doctor(&[]).stdout).unwrap();
    assert!(
        text.ends_with("\ndevice auto can be used, it is cpu here\n"),
        "{text}"
    );
}

#[test]
fn cuda_that_cannot_be_used_is_told_with_its_remedy() {
    let output = doctor(&["--device", "cuda", "--format", "json"]);
    assert_eq!(output.status.code(), Some(2));
    let report = json(&output);
    assert_eq!(report["usable"], false);
    assert_eq!(report["device"]["requested"], "cuda");
    assert_eq!(report["device"]["resolved"], Value::Null);
    let missing = report["device"]["missing"].as_str().unwrap();
    let remedy = report["device"]["remedy"].as_str().unwrap();
    assert!(remedy.contains("use device cpu"), "{remedy}");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        error.contains(&format!("device cuda: {missing}")) && error.contains(remedy),
        "{error}"
    );
}

#[test]
fn findings_name_what_is_off_and_how_to_mend_it() {
    let output = doctor(&["--format", "json"]);
    assert_eq!(output.status.code(), Some(0));
    let report = json(&output);
    assert_eq!(report["usable"], true);
    let findings = report["findings"].as_array().unwrap();
    for finding in findings {
        assert_eq!(finding["state"] == "ok", finding["remedy"].is_null(), "{finding}");
    }
    let of = |what: &str| findings.iter().find(|finding| finding["what"] == what).unwrap();
    let cuda = of("cuda");
    if cfg!(feature = "cuda") {
        assert!(
            cuda["found"].as_str().unwrap().starts_with("compiled in, CUDA "),
            "{cuda}"
        );
        // It would not have started without.
        for library in ["libcudart", "libcublas", "libcurand"] {
            assert_eq!(of(library)["state"], "ok", "{library}");
        }
        // The driver's own may be a stub.
        let path = of("libcuda")["found"].as_str().unwrap();
        assert!(path.contains("/libcuda.so."), "{path}");
        assert_eq!(of("driver")["state"], "missing");
    } else {
        assert_eq!(cuda["state"], "off");
        assert!(cuda["remedy"].as_str().unwrap().contains("--features cuda"));
    }
}

#[test]
fn a_level_that_was_lowered_or_misspelt_is_off() {
    let with_level = |level: &str| {
        let mut command = command();
        command
            .env("ATTN_CPU_LEVEL", level)
            .args(["doctor", "--format", "json"]);
        let report = json(&command.output().unwrap());
        let mut findings = report["findings"].as_array().unwrap().iter();
        let finding = findings
            .find(|finding| finding["what"] == "instructions")
            .unwrap();
        (
            finding["state"].clone(),
            finding["found"].as_str().unwrap().to_string(),
        )
    };
    if cfg!(target_arch = "x86_64") {
        let (state, found) = with_level("portable");
        assert!(state == "off" && found.contains("kernels portable"), "{found}");
        let (state, found) = with_level("fastest");
        assert!(state == "off" && found.contains("fastest"), "{found}");
    }
}
