//! `compare` on stored runs: what it prints and how it exits.
#![allow(clippy::unwrap_used)] // in helpers too

mod common;

use std::process::Output;

use attn_harness::row::{Details, Row, Sample};
use attn_harness::status::{Status, Trust};
use attn_harness::store::RunDir;
use common::Place;
use serde_json::{Value, json};

/// A case's name, its time in seconds (none where memory ran out), and its trust.
type Case = (&'static str, Option<f64>, Trust);

/// Stores a run of these cases in the folder `name`.
fn store(place: &Place, name: &str, cases: &[Case], machine: &str) {
    let dir = place.path().join(name);
    let mut run = RunDir::create(&dir, "name: small\n", &json!({}), "attn-bench run").unwrap();
    for (id, time_s, trust) in cases {
        let row = Row {
            case_id: (*id).into(),
            variant: "mha".into(),
            label: format!("MHA {id}"),
            workload: "decode".into(),
            batch: Some(1),
            status: if time_s.is_some() { Status::Ok } else { Status::Oom },
            trust: Some(*trust),
            fingerprint: Some(machine.into()),
            ..Row::default()
        };
        let sample = |index: u64| Sample {
            case_id: (*id).into(),
            index,
            round: index,
            time_s: time_s.unwrap_or_default() * (1.0 + 0.002 * (index % 3) as f64),
            ..Sample::default()
        };
        let samples: Vec<Sample> = (0..time_s.map_or(0, |_| 8)).map(sample).collect();
        run.append(&row, &Details::of_samples(samples)).unwrap();
    }
    run.build_tables(&mut |_| {}).unwrap();
}

/// `base` with two cases, and `new` with these.
fn place(new: &[Case]) -> Place {
    let place = Place::with("");
    let base = [("a", Some(1.0), Trust::Clean), ("b", Some(2.0), Trust::Clean)];
    store(&place, "base", &base, "machine");
    store(&place, "new", new, "machine");
    place
}

fn exit(output: &Output) -> i32 {
    output.status.code().unwrap()
}

#[test]
fn equal_runs_pass_the_gate() {
    let place = place(&[("a", Some(1.0), Trust::Clean), ("b", Some(2.0), Trust::Clean)]);
    let text = place.prints(&["compare", "base", "new", "--gate"]);
    assert!(
        text.starts_with("2 cases compared: 0 slower, 0 faster, 2 same, 0 unclear."),
        "{text}"
    );
}

#[test]
fn a_slower_case_fails_the_gate_and_only_the_gate() {
    let place = place(&[("a", Some(1.2), Trust::Clean), ("b", Some(2.0), Trust::Clean)]);
    let compare = |args: &[&str]| exit(&place.run(&[&["compare", "base", "new"], args].concat()));
    assert_eq!(compare(&[]), 0);
    assert_eq!(compare(&["--gate"]), 1);
    assert_eq!(compare(&["--gate", "--format", "json"]), 1);
    assert_eq!(compare(&["--gate", "--min-effect", "0.3"]), 0);
    assert_eq!(compare(&["--gate", "--filter", "case_id=b"]), 0);
    assert_eq!(
        exit(&place.run(&["compare", "new", "base", "--gate"])),
        0,
        "faster"
    );
}

#[test]
fn a_lost_case_fails_the_gate() {
    let failed = place(&[("a", None, Trust::Clean), ("b", Some(2.0), Trust::Clean)]);
    let missing = place(&[("b", Some(2.0), Trust::Clean)]);
    for place in [failed, missing] {
        let output = place.run(&["compare", "base", "new", "--gate", "--format", "markdown"]);
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        assert!(
            text.starts_with("**attn-bench: 1 regression.**") && text.contains("lost: MHA a"),
            "{text}"
        );
        assert_eq!(exit(&output), 1);
        assert_eq!(
            exit(&place.run(&["compare", "new", "base", "--gate"])),
            0,
            "found"
        );
    }
}

#[test]
fn a_case_that_is_not_trusted_fails_the_gate_where_asked_for() {
    let place = place(&[("a", Some(1.2), Trust::Throttled), ("b", Some(2.0), Trust::Clean)]);
    assert_eq!(exit(&place.run(&["compare", "base", "new", "--gate"])), 0);
    assert_eq!(
        exit(&place.run(&["compare", "base", "new", "--gate", "--include-untrusted"])),
        1
    );
}

#[test]
fn the_json_is_the_librarys() {
    let place = place(&[("a", Some(1.2), Trust::Clean), ("c", Some(2.0), Trust::Clean)]);
    let text = place.prints(&["compare", "base", "new", "--format", "json"]);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["cases"][0]["verdict"], "SLOWER");
    assert_eq!(json["missing_in_new"][0]["case_id"], "b");
    assert_eq!(json["missing_in_base"][0]["case_id"], "c");
    assert_eq!(json["summary"]["regressions"], 2);
}

#[test]
fn other_hardware_is_refused_unless_told() {
    let place = place(&[]);
    store(
        &place,
        "elsewhere",
        &[("a", Some(1.0), Trust::Clean)],
        "another machine",
    );
    let (code, text) = place.fails(&["compare", "base", "elsewhere"]);
    assert_eq!(code, 2);
    assert!(
        text.contains("`fingerprint`") && text.contains("--other-hardware"),
        "{text}"
    );
    let text = place.prints(&["compare", "base", "elsewhere", "--other-hardware"]);
    assert!(text.contains("warning: the machine differs"), "{text}");
}

#[test]
fn bad_input_exits_2() {
    let place = place(&[("c", Some(2.0), Trust::Clean)]);
    for (args, expected) in [
        (&["compare", "base", "new"][..], "no case in common"),
        (&["compare", "base", "none"], "is no run"),
        (&["compare", "base", "base", "--min-effect=-1"], "zero or more"),
        (
            &["compare", "base", "base", "--min-effect", "NaN"],
            "zero or more",
        ),
        (
            &["compare", "base", "base", "--filter", "speed=1"],
            "unknown column `speed`",
        ),
        (
            &["compare", "base", "base", "--filter", "case_id=z"],
            "no row is left",
        ),
    ] {
        let (code, text) = place.fails(args);
        assert_eq!(code, 2, "{text}");
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn the_help_says_what_the_words_mean() {
    insta::assert_snapshot!(Place::with("").prints(&["compare", "--help"]), @r#"
    Say case by case whether a run got slower or faster than another

    Usage: attn-bench compare [OPTIONS] <BASE> <NEW>

    Arguments:
      <BASE>
              Folder of the run to compare with

      <NEW>
              Folder of the run that is judged

    Options:
          --gate
              Exit with 1 where a trusted case is SLOWER or worse, or one that was measured is not any
              more

          --format <FORMAT>
              How to print

              Possible values:
              - table:    A table for people
              - markdown: Markdown for a pull request: counts and regressions, the rest folded
              - json:     JSON for programs, numbers in base units

              [default: table]

          --min-effect <F>
              Smallest difference that matters, as a part of the time: 0.05 is 5 %

              [default: 0.05]

          --other-hardware
              Compare runs of different machines, build profiles or thread counts all the same

          --include-untrusted
              Count SLOWER or worse cases that are not trusted as regressions too

          --filter <EXPR>
              Keep the rows for which all conditions hold, over any column of `list metrics`

      -h, --help
              Print help (see a summary with '-h')

    Examples:
      attn-bench compare results/before results/after
      attn-bench compare results/before results/after --gate --format markdown > comment.md
      attn-bench compare results/before results/after --filter variant=mla,workload=decode

    A case is SLOWER or FASTER where the difference is certain, with all cases taken into account, and
    above --min-effect; SAME where a difference above it is excluded; otherwise UNCLEAR. Trainings are
    compared by the qualities of the same seeds: worse, better, equal to the last digit, or open.
    "#);
}
