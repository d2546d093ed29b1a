//! Bad input ends with exit code 2, before anything runs, and shows file, line and column.

mod common;

use std::process::Stdio;

use common::{Place, SWEEP, command};
use insta::assert_snapshot;

/// What `plan` says of a sweep.
fn said(sweep: &str, args: &[&str]) -> String {
    let (code, text) = Place::with(sweep).fails(&[&["plan", "sweep.yaml"], args].concat());
    assert_eq!(code, 2, "{text}");
    text
}

#[test]
fn impossible_geometry_shows_every_key() {
    let sweep = SWEEP
        .replace("n_kv_heads: 2", "n_kv_heads: 3")
        .replace("rope_dim: 8", "rope_dim: 7");
    assert_snapshot!(said(&sweep, &[]), @"");
}

#[test]
fn misspelt_keys_and_names_have_a_suggestion() {
    let sweep =
        SWEEP.replace("mtla", "mlta").replace("question", "qestion") + "figures: [latency-vs-contxt]\n";
    assert_snapshot!(said(&sweep, &[]), @"");
}

#[test]
fn wrong_types_and_empty_axes_and_duplicates() {
    assert_snapshot!(said(&SWEEP.replace("d_model: 64", "d_model: wide"), &[]), @"");
    assert_snapshot!(said(&SWEEP.replace("[64, 256]", "[]"), &[]), @"");
    assert_snapshot!(said(&SWEEP.replace("[64, 256]", "[64, 64]"), &[]), @"");
}

#[test]
fn syntax_and_files() {
    assert_snapshot!(said("name: [a\n", &[]), @"");
    assert_snapshot!(said("", &[]), @"");
    let place = Place::with("");
    assert_snapshot!(place.fails(&["plan", "none.yaml"]).1, @"");
    assert_snapshot!(place.fails(&["plan", "."]).1, @"");
}

#[test]
fn options_are_named() {
    assert_snapshot!(said(SWEEP, &["--set", "model.n_heads=5"]), @"");
    assert_snapshot!(said(SWEEP, &["--set", "model.n_heads"]), @"");
    assert_snapshot!(said(SWEEP, &["--filter", "varient=mha"]), @"");
    assert_snapshot!(said(SWEEP, &["--shard", "1/9"]), @"");
    assert_snapshot!(said(SWEEP, &["--shard", "3/2"]), @"");
    assert_snapshot!(said(SWEEP, &["--device", "gpu"]), @"");
}

#[test]
fn the_folder_of_a_run_must_be_new_and_writable() {
    let place = Place::with(SWEEP);
    let run = |out: &str| {
        let (code, text) = place.fails(&["run", "sweep.yaml", "--out", out]);
        assert_eq!(code, 2, "{text}");
        text
    };
    assert_snapshot!(run("."), @"");
    assert_snapshot!(run("sweep.yaml"), @"");
    assert_snapshot!(run("sweep.yaml/below"), @"");
    assert!(run("/proc/none/run").contains("cannot write in /proc"));
}

#[test]
fn runs_that_are_none() {
    let place = Place::with(SWEEP);
    for command in [
        vec!["show", "."],
        vec!["plot", "."],
        vec!["export", ".", "--format", "csv"],
    ] {
        let (code, text) = place.fails(&command);
        assert!(code == 2 && text.contains("is no run"), "{text}");
    }
    assert!(
        place
            .fails(&["show", ".", "--sort", "speed"])
            .1
            .contains("unknown column `speed`")
    );
    assert!(
        place
            .fails(&["show", ".", "--filter", "speed=1"])
            .1
            .contains("unknown column `speed`")
    );
    assert!(place.fails(&["plot", ".", "."]).1.contains("--out"));
}

#[test]
fn a_command_line_that_is_none_exits_2() {
    let place = Place::with(SWEEP);
    for args in [
        vec![],
        vec!["runn"],
        vec!["plan"],
        vec!["plan", "sweep.yaml", "--resume"],
        vec!["export", "."],
    ] {
        assert_eq!(place.run(&args).status.code(), Some(2), "{args:?}");
    }
    assert_eq!(place.run(&["--version"]).status.code(), Some(0));
}

#[test]
fn a_closed_pipe_is_no_error_and_a_full_disk_is_one() {
    use std::process::Command;
    let binary = command().get_program().to_owned();
    for args in [&["schema"][..], &["list"], &["completions", "bash"], &["--help"]] {
        let mut child = Command::new(&binary)
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{args:?}");
        assert_eq!(output.status.code(), Some(0), "{args:?}");
    }
    if let Ok(full) = std::fs::File::options().write(true).open("/dev/full") {
        let status = Command::new(&binary)
            .arg("schema")
            .stdout(full)
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(4));
    }
}
