//! Every public item of the crate has an example, which `cargo test --doc` runs.
//!
//! Items are modules, types, traits, functions, constants and aliases at the top of a file; methods, fields and variants
//! are shown by the examples of their types.
#![allow(clippy::unwrap_used, reason = "a helper of tests, outside of a test function")]

use std::fs;
use std::path::{Path, PathBuf};

const KINDS: [&str; 7] = ["fn", "struct", "enum", "trait", "const", "static", "type"];

/// The sources whose items others can reach: what `ops/cuda.rs`, `ops/native/` and their like have is the crate's own.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The lines of documentation right before line `i`, attributes between them left out.
fn has_example(lines: &[&str], i: usize) -> bool {
    let before = lines[..i].iter().rev();
    before
        .skip_while(|line| !line.starts_with("///") && !line.is_empty())
        .take_while(|line| line.starts_with("///"))
        .any(|line| line.contains("```"))
}

#[test]
fn every_public_item_has_an_example() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut n_items, mut without) = (0, Vec::new());
    for path in sources(&folder) {
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (i, line) in lines.iter().enumerate() {
            let mut words = line.split_whitespace();
            let is_public =
                line.starts_with("pub ") && words.nth(1).is_some_and(|kind| KINDS.contains(&kind));
            if is_public {
                n_items += 1;
                if !has_example(&lines, i) {
                    without.push(format!("{}:{}: {line}", path.display(), i + 1));
                }
            }
            // A module's example is in the file it names.
            if let Some(module) = line
                .strip_prefix("pub mod ")
                .and_then(|rest| rest.strip_suffix(';'))
            {
                n_items += 1;
                let beside = path.parent().unwrap();
                let beside = match path.file_stem().and_then(|stem| stem.to_str()) {
                    Some("lib" | "mod") => beside.to_path_buf(),
                    stem => beside.join(stem.unwrap_or_default()),
                };
                let file = [
                    beside.join(format!("{module}.rs")),
                    beside.join(module).join("mod.rs"),
                ];
                let file = file.iter().find(|file| file.exists()).unwrap();
                let header = fs::read_to_string(file).unwrap();
                let header = header.lines().take_while(|line| line.starts_with("//!"));
                if !header.into_iter().any(|line| line.contains("```")) {
                    without.push(format!("{}: its module", file.display()));
                }
            }
        }
    }
    assert!(n_items > 80, "{n_items}");
    assert!(without.is_empty(), "without an example:\n{}", without.join("\n"));
}
