//! The book, the README and the other texts: what they show works, and where they lead exists.
//!
//! Every fenced block says what it is. `sh` is run, block after block of a text in one folder; `sh,norun=WHY` is not.
//! `yaml` is a whole sweep, which must plan; `yaml,file=NAME` is also there for the commands after it; `yaml,fragment`
//! stands in for the same keys of a small sweep; `yaml,norun=WHY` is neither. `text,output` is what the block of commands
//! before it prints, or a part of it; other `text` is formulas, and output that differs from run to run. `rust` is compiled
//! and run as documentation of attn-model.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests, outside of test functions")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::markdown::{Block, Document, chapters, documents};
use common::{Place, SWEEP, command, root};
use serde_yaml::Mapping;

/// A folder that looks like the repository's to a command, and keeps what commands write.
fn scratch() -> Place {
    let place = Place::with("");
    for folder in ["results", "plots"] {
        fs::create_dir(place.path().join(folder)).unwrap();
        for entry in root().join(folder).canonicalize().unwrap().read_dir().unwrap() {
            let entry = entry.unwrap();
            symlink(entry.path(), place.path().join(folder).join(entry.file_name())).unwrap();
        }
    }
    let experiments = root().join("experiments").canonicalize().unwrap();
    symlink(experiments, place.path().join("experiments")).unwrap();
    place
}

/// Runs a block with the binary as `attn-bench`; what it prints, without spaces at the ends of lines.
fn run(block: &Block, place: &Place) -> String {
    let binary = PathBuf::from(command().get_program());
    let path = format!(
        "{}:{}",
        binary.parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let text = block
        .text
        .replace("cargo run --release -- ", "attn-bench ")
        .replace("target/release/attn-bench", "attn-bench");
    let output = Command::new("sh")
        .args(["-euc", &text])
        .current_dir(place.path())
        .env("PATH", path)
        .env("NO_COLOR", "1")
        .env("LC_ALL", "C.UTF-8")
        .env("COLUMNS", "100")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}: {}\n{errors}",
        block.place,
        output.status
    );
    trimmed(&String::from_utf8_lossy(&output.stdout))
}

fn trimmed(text: &str) -> String {
    text.lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

#[test]
fn every_block_says_what_it_is() {
    let mut unknown = Vec::new();
    for block in documents().iter().flat_map(|document| &document.blocks) {
        let has_reason = block.value("norun").is_some_and(|reason| !reason.is_empty());
        let is_known = match block.language.as_str() {
            "sh" => block.mark.is_none() || has_reason,
            "yaml" => {
                matches!(block.mark.as_deref(), None | Some("fragment"))
                    || has_reason
                    || block.value("file").is_some_and(|name| !name.contains('/'))
            }
            "text" => matches!(block.mark.as_deref(), None | Some("output")),
            "rust" | "bibtex" => block.mark.is_none(),
            _ => false,
        };
        if !is_known {
            unknown.push(format!("{}: `{}` {:?}", block.place, block.language, block.mark));
        }
    }
    assert!(
        unknown.is_empty(),
        "blocks that nothing tests, mark them as this file says:\n{}",
        unknown.join("\n")
    );
}

#[test]
fn commands_run_and_print_what_is_shown() {
    let (mut n_run, mut n_shown) = (0, 0);
    for document in documents() {
        let place = scratch();
        let mut printed = String::new();
        for block in &document.blocks {
            if let Some(name) = block.value("file") {
                fs::write(place.path().join(name), &block.text).unwrap();
            } else if block.is("sh", None) {
                printed = run(block, &place);
                n_run += 1;
            } else if block.is("text", Some("output")) {
                let shown = trimmed(&block.text);
                assert!(
                    printed.contains(&shown),
                    "{}: the command prints\n{printed}",
                    block.place
                );
                n_shown += 1;
            }
        }
    }
    assert!(n_run >= 15 && n_shown >= 3, "{n_run} {n_shown}");
}

#[test]
fn sweeps_plan() {
    let mut n_planned = 0;
    for block in documents().iter().flat_map(|document| &document.blocks) {
        if block.language != "yaml" || block.value("norun").is_some() {
            continue;
        }
        let text = match block.mark.as_deref() {
            Some("fragment") => {
                let mut sweep: Mapping = serde_yaml::from_str(SWEEP).unwrap();
                let fragment: Mapping = serde_yaml::from_str(&block.text).unwrap();
                sweep.extend(fragment);
                serde_yaml::to_string(&sweep).unwrap()
            }
            _ => block.text.clone(),
        };
        let output = Place::with(&text).run(&["plan", "sweep.yaml"]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}\n{errors}", block.place);
        n_planned += 1;
    }
    assert!(n_planned >= 4, "{n_planned}");
}

#[test]
fn rust_is_documentation_of_a_crate() {
    let host = fs::read_to_string(root().join("crates/attn-model/src/lib.rs")).unwrap();
    for document in documents() {
        if document.blocks.iter().any(|block| block.language == "rust") {
            let included = format!("include_str!(\"../../../{}\")", document.path.display());
            assert!(
                host.contains(&included),
                "attn-model/src/lib.rs does not have {included}"
            );
        }
    }
}

#[test]
fn links_lead_somewhere() {
    for document in documents() {
        let folder = document.path.parent().unwrap();
        for link in &document.links {
            let place = format!("{}: {link}", document.path.display());
            if link.contains("://") {
                // The book is to be read without a network; papers are named, and linked from the README alone.
                assert!(
                    link.starts_with("https://arxiv.org/") && !folder.starts_with("docs"),
                    "{place}"
                );
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() {
                document.path.clone()
            } else {
                folder.join(path)
            };
            assert!(root().join(&target).exists(), "{place}");
            // What is outside of its folder is not in a built book.
            assert!(!folder.starts_with("docs") || !path.starts_with(".."), "{place}");
            if !anchor.is_empty() {
                assert!(
                    Document::read(&target)
                        .anchors
                        .iter()
                        .any(|known| known == anchor),
                    "{place}"
                );
            }
        }
    }
}

#[test]
fn every_chapter_is_in_the_summary() {
    let summary: BTreeSet<String> = Document::read(Path::new("docs/SUMMARY.md"))
        .links
        .into_iter()
        .collect();
    let chapters = chapters();
    let name = |chapter: &Document| chapter.path.file_name().unwrap().to_str().unwrap().to_string();
    assert_eq!(chapters.iter().map(name).collect::<BTreeSet<_>>(), summary);
}

/// A code host shows no picture from beside the folder of the book, and mdbook copies none: the book has copies.
#[test]
fn figures_are_those_of_the_committed_runs() {
    let folder = root().join("docs/figures");
    let links: BTreeSet<String> = chapters().into_iter().flat_map(|chapter| chapter.links).collect();
    let mut n_figures = 0;
    for run in folder.read_dir().unwrap() {
        for figure in run.unwrap().path().read_dir().unwrap() {
            let copy = figure.unwrap().path();
            let name = copy.strip_prefix(&folder).unwrap();
            let original = root().join("plots").join(name);
            let is_same = fs::read(&copy).unwrap() == fs::read(&original).unwrap();
            assert!(is_same, "cp plots/{0} docs/figures/{0}", name.display());
            let is_shown = links.contains(&format!("figures/{}", name.display()));
            assert!(is_shown, "no chapter shows docs/figures/{}", name.display());
            n_figures += 1;
        }
    }
    assert!(n_figures >= 5, "{n_figures}");
}

#[test]
fn readme_is_two_screens_and_tables_of_commands_and_keys_are_whole() {
    let text = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let (readme, chapter) = (text("README.md"), text("docs/commands.md"));
    assert!(readme.lines().count() <= 120, "{} lines", readme.lines().count());
    let help = Place::with("").prints(&["--help"]);
    let commands = help
        .split("Commands:\n")
        .nth(1)
        .unwrap()
        .split("\n\n")
        .next()
        .unwrap();
    let names = commands.lines().filter_map(|line| line.split_whitespace().next());
    let schema: serde_json::Value = serde_json::from_str(&Place::with("").prints(&["schema"])).unwrap();
    let keys = schema["properties"].as_object().unwrap().keys();
    let unknown: Vec<&String> = keys
        .filter(|key| !chapter.contains(&format!("`{key}`")))
        .collect();
    assert!(
        unknown.is_empty(),
        "keys that docs/commands.md does not have: {unknown:?}"
    );
    let mut n_commands = 0;
    for name in names.filter(|&name| name != "help") {
        for (table, path) in [(&readme, "README.md"), (&chapter, "docs/commands.md")] {
            let is_listed = table
                .lines()
                .filter(|line| line.starts_with("| `"))
                .any(|line| line.contains(&format!("`{name} ")) || line.contains(&format!("`{name}`")));
            assert!(is_listed, "{path} has no row for {name}");
        }
        n_commands += 1;
    }
    assert!(n_commands >= 12, "{n_commands}");
}
