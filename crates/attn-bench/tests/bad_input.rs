//! Bad input ends with exit code 2, before anything runs, and shows file, line and column.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::process::Stdio;

use common::{Place, SWEEP, command};
use insta::assert_snapshot;

/// What `plan` says of a sweep.
fn said(sweep: &str, args: &[&str]) -> String {
    let (code, text) = Place::with(sweep).fails(&[&["plan", "sweep.yaml"], args].concat());
    assert_eq!(code, 2, "{text}");
    without_registry(&text)
}

/// A message without what grows with every variant and its settings.
fn without_registry(text: &str) -> String {
    let list = Place::with("").prints(&["list", "variants", "--format", "json"]);
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    let names = list
        .as_array()
        .unwrap()
        .iter()
        .map(|variant| variant["name"].as_str());
    let names = names.collect::<Option<Vec<_>>>().unwrap().join(", ");
    let text = text.replace(&names, "[variants]");
    match text.split_once("expected one of: case_id") {
        Some((before, after)) => {
            let rest = after.split_once('\n').map_or("", |(_, rest)| rest);
            format!("{before}expected one of: [columns]\n{rest}")
        }
        None => text,
    }
}

#[test]
fn impossible_geometry_shows_every_key() {
    let sweep = SWEEP
        .replace("n_kv_heads: 2", "n_kv_heads: 3")
        .replace("rope_dim: 8", "rope_dim: 7");
    assert_snapshot!(said(&sweep, &[]), @r#"
      × impossible geometry: 4 query heads cannot share 3 KV heads evenly, n_heads must be a multiple of n_kv_heads (`model.n_heads`, `variants[1].gqa.n_kv_heads`)
       ╭─[sweep.yaml:3:22]
     2 │ question: What is what?
     3 │ model: {d_model: 64, n_heads: 4}
       ·                      ───┬───
       ·                         ╰── n_heads
     4 │ variants:
     5 │   - mha
     6 │   - gqa: {n_kv_heads: 3}
       ·           ─────┬────
       ·                ╰── n_kv_heads
     7 │   - mtla: {kv_rank: 32, rope_dim: 7, stride: [2, 3]}
       ╰────

      × impossible geometry: rope turns pairs of elements, so rope_dim 7 must be even (`variants[2].mtla.rope_dim`)
       ╭─[sweep.yaml:7:25]
     6 │   - gqa: {n_kv_heads: 3}
     7 │   - mtla: {kv_rank: 32, rope_dim: 7, stride: [2, 3]}
       ·                         ────┬───
       ·                             ╰── rope_dim
     8 │ workloads:
       ╰────

    2 problems in sweep.yaml
    "#);
}

#[test]
fn misspelt_keys_and_names_have_a_suggestion() {
    let sweep =
        SWEEP.replace("mtla", "mlta").replace("question", "qestion") + "figures: [latency-vs-contxt]\n";
    assert_snapshot!(said(&sweep, &[]), @r#"
      × unknown key `qestion`, expected one of: name, question, device, dtype, seed, model, variants, fair, paths, habits, prefixes, scopes, regimes, launches, workloads, grid, scenarios, tasks, training, measure, figures
       ╭─[sweep.yaml:2:1]
     1 │ name: small
     2 │ qestion: What is what?
       · ───┬───
       ·    ╰── qestion
     3 │ model: {d_model: 64, n_heads: 4}
       ╰────
      help: did you mean `question`?

      × unknown figure `latency-vs-contxt`, expected one of: latency-vs-context, tokens-vs-context, latency-vs-batch, tokens-vs-batch, cache-vs-context, prefill-vs-tokens, train-vs-tokens, compression-rate, speedup-bars, memory-bars, generate-bars, decode-trajectory, roofline, paper-table, speedup-waterfall, time-breakdown, memory-breakdown, time-vs-cache, quality-vs-cache, quality-vs-time, quality-vs-stride, quality-vs-lr, ablation-bars, recall-heatmap, learning-curves
        ╭─[sweep.yaml:12:11]
     11 │ measure: {warmup_ms: 50, max_s: 1}
     12 │ figures: [latency-vs-contxt]
        ·           ────────┬────────
        ·                   ╰── figures[0]
        ╰────
      help: did you mean `latency-vs-context`?

      × unknown variant `mlta`, expected one of: [variants]
       ╭─[sweep.yaml:7:5]
     6 │   - gqa: {n_kv_heads: 2}
     7 │   - mlta: {kv_rank: 32, rope_dim: 8, stride: [2, 3]}
       ·     ──┬─
       ·       ╰── variants[2].mlta
     8 │ workloads:
       ╰────
      help: did you mean `mtla`?

    3 problems in sweep.yaml
    "#);
}

#[test]
fn wrong_types_and_empty_axes_and_duplicates() {
    assert_snapshot!(said(&SWEEP.replace("d_model: 64", "d_model: wide"), &[]), @r#"
     × `model.d_model` is the word "wide", expected an integer of at least 1
      ╭─[sweep.yaml:3:9]
    2 │ question: What is what?
    3 │ model: {d_model: wide, n_heads: 4}
      ·         ───┬───
      ·            ╰── model.d_model
    4 │ variants:
      ╰────
    "#);
    assert_snapshot!(said(&SWEEP.replace("[64, 256]", "[]"), &[]), @r#"
     × `workloads[0].decode.context` is an empty list, expected at least one value
       ╭─[sweep.yaml:9:14]
     8 │ workloads:
     9 │   - decode: {context: [], batch: 2}
       ·              ───┬───
       ·                 ╰── workloads[0].decode.context
    10 │   - prefill: {tokens: 64}
       ╰────
     help: a list multiplies the cases by its length: give it a value or remove it
    "#);
    assert_snapshot!(said(&SWEEP.replace("[64, 256]", "[64, 64]"), &[]), @r#"
     × `workloads[0].decode.context` lists 64 twice
       ╭─[sweep.yaml:9:24]
     8 │ workloads:
     9 │   - decode: {context: [64, 64], batch: 2}
       ·                        ─┬  ─┬
       ·                         │   ╰── and again here
       ·                         ╰── first here
    10 │   - prefill: {tokens: 64}
       ╰────
     help: the same case would be measured twice: remove one of them
    "#);
}

#[test]
fn syntax_and_files() {
    assert_snapshot!(said("name: [a\n", &[]), @r#"
     × this cannot be read as YAML: while parsing a flow sequence, expected ',' or ']'
      ╭─[sweep.yaml:1:8]
    1 │ name: [a
      ·        ┬
      ·        ╰── here
      ╰────
    "#);
    assert_snapshot!(said("", &[]), @r#"
    × sweep.yaml: the file is empty, expected a mapping with at least name, model, variants and workloads
    help: experiments/quick.yaml is a complete example, `attn-bench schema` lists every key
    "#);
    let place = Place::with("");
    assert_snapshot!(place.fails(&["plan", "none.yaml"]).1, @r#"
    × cannot read none.yaml: No such file or directory (os error 2)
    help: check the path; the sweeps that come with the project are in experiments/
    "#);
    assert_snapshot!(place.fails(&["plan", "."]).1, @r#"
    × cannot read .: it is a folder
    help: name a sweep file in it, for example experiments/quick.yaml
    "#);
}

#[test]
fn options_are_named() {
    assert_snapshot!(said(SWEEP, &["--set", "model.n_heads=5"]), @r#"
     × impossible geometry: `model.d_model` 64 is not divisible by `model.n_heads` 5, so that `model.head_dim` has no default (set by --set model.n_heads=5)
      ╭─[sweep.yaml:3:9]
    2 │ question: What is what?
    3 │ model: {d_model: 64, n_heads: 4}
      ·         ───┬───
      ·            ╰── d_model
    4 │ variants:
      ╰────
     help: choose n_heads so that it divides d_model, or give head_dim
    "#);
    assert_snapshot!(said(SWEEP, &["--set", "model.n_heads"]), @r#"
    × --set model.n_heads: there is no `=` in it
    help: write it as key=value with a dotted key, for example --set model.d_model=1024, --set variants.mtla.stride=[2,4] or --set workloads.0.decode.batch=8
    "#);
    assert_snapshot!(said(SWEEP, &["--filter", "varient=mha"]), @r#"
    × --filter varient=mha: unknown column `varient`, expected one of: [columns]
    help: did you mean `variant`?
    "#);
    assert_snapshot!(said(SWEEP, &["--shard", "1/9"]), @r#"
    × --shard 1/9: the plan has 3 groups of comparable cases, which stay together
    help: ask for at most 3 shards
    "#);
    assert_snapshot!(said(SWEEP, &["--shard", "3/2"]), @r#"
    error: invalid value '3/2' for '--shard <I/N>': `3/2` is no shard, expected I/N with 1 <= I <= N, for example 1/4

    For more information, try '--help'.
    "#);
    assert_snapshot!(said(SWEEP, &["--device", "gpu"]), @r#"
    error: invalid value 'gpu' for '--device <DEVICE>': unknown device `gpu`, expected cpu, cuda, cuda:N or auto

    For more information, try '--help'.
    "#);
}

#[test]
fn a_level_of_instructions_that_does_not_exist_is_refused() {
    let place = Place::with(SWEEP);
    let output = command()
        .current_dir(place.path())
        .env("ATTN_CPU_LEVEL", "sse9")
        .args(["run", "sweep.yaml", "--out", "r"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
    assert!(
        text.contains("ATTN_CPU_LEVEL `sse9` is not supported, name portable, avx2, avx512 or amx"),
        "{text}"
    );
    assert!(!place.path().join("r").exists());
}

#[test]
fn the_folder_of_a_run_must_be_new_and_writable() {
    let place = Place::with(SWEEP);
    let run = |out: &str| {
        let (code, text) = place.fails(&["run", "sweep.yaml", "--out", out]);
        assert_eq!(code, 2, "{text}");
        text
    };
    assert_snapshot!(run("."), @r#"
    × --out .: this exists already
    help: a run has its own folder: name one that does not exist
    "#);
    assert_snapshot!(run("sweep.yaml"), @r#"
    × --out sweep.yaml: this exists already
    help: a run has its own folder: name one that does not exist
    "#);
    assert_snapshot!(run("sweep.yaml/below"), @r#"
    × --out sweep.yaml/below: sweep.yaml is a file
    help: name a folder below a folder
    "#);
    assert!(run("/proc/none/run").contains("cannot write in /proc"));
}

#[test]
fn runs_that_are_none() {
    let place = Place::with(SWEEP);
    for command in [
        vec!["show", "."],
        vec!["plot", "."],
        vec!["report", "."],
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
