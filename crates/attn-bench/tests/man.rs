//! The manual pages: one for every command, and as troff wants them.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use common::Place;

/// Commands that `--help` shows.
fn commands(place: &Place) -> BTreeSet<String> {
    let help = place.prints(&["--help"]);
    let list = help.split("Commands:\n").nth(1).unwrap_or_default();
    let names = list.split("\n\n").next().unwrap_or_default().lines();
    names
        .filter_map(|line| line.split_whitespace().next())
        .filter(|&name| name != "help")
        .map(str::to_string)
        .collect()
}

#[test]
fn every_command_has_a_page_with_its_options_and_examples() {
    let place = Place::with("");
    let printed = place.prints(&["man", "share/man1"]);
    let pages: BTreeSet<String> = printed
        .lines()
        .map(|path| path.trim_start_matches("share/man1/").to_string())
        .collect();
    let commands = commands(&place);
    assert!(commands.len() >= 13, "{commands:?}");
    let mut expected: BTreeSet<String> = commands
        .iter()
        .map(|name| format!("attn-bench-{name}.1"))
        .collect();
    expected.insert("attn-bench.1".to_string());
    assert_eq!(pages, expected);
    let read = |name: &str| fs::read_to_string(place.path().join("share/man1").join(name)).unwrap();
    let program = read("attn-bench.1");
    assert!(
        program.contains("attn\\-bench\\-run(1)") && program.contains(".SH \"EXIT STATUS\""),
        "{program}"
    );
    let run = read("attn-bench-run.1");
    for part in [
        "\\-\\-resume",
        ".SH EXAMPLES\n.nf",
        "experiments/quick.yaml",
        ".SH \"SEE ALSO\"",
    ] {
        assert!(run.contains(part), "{part}: {run}");
    }
}

#[test]
fn pages_are_what_troff_wants() {
    let place = Place::with("");
    let printed = place.prints(&["man", "."]);
    let mut n_checked = 0;
    for path in printed.lines() {
        // Each where it is installed. Errors of mandoc alone: it warns of breaks that clap_mangen writes and that do nothing.
        for (program, args) in [
            ("mandoc", ["-T", "lint", "-W", "error"].as_slice()),
            ("man", ["--warnings", "--local-file", "-Tutf8"].as_slice()),
        ] {
            let Ok(output) = Command::new(program)
                .args(args)
                .arg(path)
                .current_dir(place.path())
                .env("LC_ALL", "C.UTF-8")
                .env("MANPAGER", "cat")
                .output()
            else {
                continue;
            };
            let mut complaints = String::from_utf8_lossy(&output.stderr).into_owned();
            if program == "mandoc" {
                complaints += &String::from_utf8_lossy(&output.stdout);
            }
            assert!(
                output.status.success() && complaints.is_empty(),
                "{program} {path}:\n{complaints}"
            );
            n_checked += 1;
        }
    }
    if n_checked == 0 {
        eprintln!("neither man nor mandoc is installed, the pages were not rendered");
    }
}

#[test]
fn a_folder_that_is_a_file_is_bad_input() {
    let place = Place::with("");
    let (code, error) = place.fails(&["man", "sweep.yaml/man1"]);
    assert_eq!(code, 2);
    assert!(
        error.contains("sweep.yaml/man1: a part of it is a file, name a folder"),
        "{error}"
    );
    let (code, error) = place.fails(&["man"]);
    assert_eq!(code, 2);
    assert!(error.contains("<DIR>"), "{error}");
}
