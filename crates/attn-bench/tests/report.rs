//! `report` on stored runs: where the page goes, what it refuses, and what it says of several runs.
#![allow(clippy::unwrap_used)] // in helpers too

mod common;

use std::fs;
use std::path::Path;

use common::{Place, root};
use serde_json::Value;

fn stored(name: &str) -> String {
    root().join("results").join(name).to_str().unwrap().to_owned()
}

/// A copy of a committed run that may be changed.
fn copy(name: &str, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(stored(name)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

#[test]
fn a_page_goes_beside_the_figures_of_its_run_and_replaces_itself_alone() {
    let place = Place::with("");
    copy("growth-2cores", &place.path().join("results/growth"));
    assert_eq!(
        place.prints(&["report", "results/growth"]),
        "plots/growth/report.html\n"
    );
    let page = place.path().join("plots/growth/report.html");
    let first = fs::read(&page).unwrap();
    place.prints(&["report", "results/growth/"]);
    assert_eq!(
        first,
        fs::read(&page).unwrap(),
        "the same run gives the same bytes"
    );

    fs::write(&page, "my notes").unwrap();
    let (code, text) = place.fails(&["report", "results/growth"]);
    assert!(code == 2 && text.contains("no report of attn-bench"), "{text}");
    assert_eq!(fs::read_to_string(&page).unwrap(), "my notes");
    for (out, reason) in [
        ("plots", ".html"),
        ("plots/growth", ".html"),
        ("page.pdf", ".html"),
    ] {
        let (code, text) = place.fails(&["report", "results/growth", "--out", out]);
        assert!(code == 2 && text.contains(reason), "{text}");
    }
    fs::create_dir(place.path().join("folder.html")).unwrap();
    let (code, text) = place.fails(&["report", "results/growth", "--out", "folder.html"]);
    assert!(code == 2 && text.contains("is a folder"), "{text}");
    assert_eq!(
        place.prints(&["report", "results/growth", "--out", "new/page.html"]),
        "new/page.html\n"
    );
}

#[test]
fn an_interrupted_run_has_a_page_of_its_log() {
    let place = Place::with("");
    let run = place.path().join("mine");
    copy("growth-2cores", &run);
    fs::remove_file(run.join("rows.parquet")).unwrap();
    assert_eq!(place.prints(&["report", "mine"]), "mine/plots/report.html\n");
    let html = fs::read_to_string(run.join("plots/report.html")).unwrap();
    assert!(html.contains("BLAKE3 of <code>log.jsonl</code>") && html.contains("24 cases"));
}

#[test]
fn two_runs_are_compared_case_by_case() {
    let place = Place::with("");
    copy("growth-2cores", &place.path().join("again"));
    let (first, other) = (stored("growth-2cores"), stored("quick-2cores"));
    place.prints(&["report", &first, "again", &other, "--out", "all.html"]);
    let html = fs::read_to_string(place.path().join("all.html")).unwrap();
    assert!(html.contains("<h3>again against growth-2cores</h3>"));
    let compared: Value =
        serde_json::from_str(&place.prints(&["compare", &first, "again", "--format", "json"])).unwrap();
    let n = |word: &str| compared["summary"][word].as_u64().unwrap();
    assert_eq!(
        (n("compared"), n("faster"), n("slower")),
        (24, 0, 0),
        "a run is no other than itself"
    );
    let told = [("same", "SAME"), ("unclear", "UNCLEAR")];
    let told = told.iter().filter(|(word, _)| n(word) > 0);
    let told: Vec<String> = told
        .map(|(word, verdict)| format!("{} {verdict}", n(word)))
        .collect();
    let counts = format!("<p>{}", told.join(", "));
    assert!(html.contains(&counts), "{counts}");
    assert!(html.contains("no case in common"), "other cases are not compared");
    assert!(html.contains("24 cases, 24 measured") && html.contains("84 cases, 84 measured"));
}
