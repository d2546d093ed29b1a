//! What went wrong and what to doubt: statuses, trust, failures, and what was not measured.

use serde::Serialize;
use std::collections::BTreeMap;

use super::cells::Cells;
use super::data::Table;

/// Counts, and the cases behind them.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Doubts {
    pub(super) n_cases: usize,
    pub(super) n_ok: usize,
    pub(super) n_clean: usize,
    pub(super) statuses: Table,
    pub(super) trusts: Table,
    pub(super) failed: Table,
    pub(super) weak: Table,
    pub(super) nulls: Table,
}

pub(super) fn of(cells: &Cells) -> Doubts {
    let rows = 0..cells.height;
    let status = |row: usize| cells.text(row, "status").unwrap_or("unknown");
    let trust = |row: usize| cells.text(row, "trust").unwrap_or("not judged");
    let is_ok = |row: &usize| status(*row) == "ok";
    let is_clean = |row: &usize| matches!(trust(*row), "clean" | "not judged");
    let ok: Vec<usize> = rows.clone().filter(is_ok).collect();

    let mut failed = Table::new(&["case", "workload", "status", "reason"]);
    for row in rows.clone().filter(|row| !is_ok(row)) {
        failed.push(vec![
            label(cells, row),
            place(cells, row),
            status(row).to_owned(),
            cells.text(row, "reason").unwrap_or_default().to_owned(),
        ]);
    }
    let mut weak = Table::new(&["case", "workload", "trust", "reason"]);
    for row in ok.iter().copied().filter(|row| !is_clean(row)) {
        weak.push(vec![
            label(cells, row),
            place(cells, row),
            trust(row).to_owned(),
            cells.text(row, "trust_reason").unwrap_or_default().to_owned(),
        ]);
    }
    Doubts {
        n_cases: cells.height,
        n_ok: ok.len(),
        n_clean: ok.iter().filter(|row| is_clean(row)).count(),
        statuses: counts("status", rows.map(status)),
        trusts: counts("trust of measured cases", ok.iter().map(|row| trust(*row))),
        failed,
        weak,
        nulls: nulls(cells),
    }
}

fn counts<'a>(head: &str, words: impl Iterator<Item = &'a str>) -> Table {
    let mut all: BTreeMap<&str, usize> = BTreeMap::new();
    for word in words {
        *all.entry(word).or_default() += 1;
    }
    let mut table = Table::new(&[head, ">cases"]);
    for (word, n) in all {
        table.push(vec![word.to_owned(), n.to_string()]);
    }
    table
}

fn label(cells: &Cells, row: usize) -> String {
    cells
        .text(row, "label")
        .or(cells.text(row, "variant"))
        .unwrap_or_default()
        .to_owned()
}

/// `decode, batch 1, context 512, f32, fused`.
pub(super) fn place(cells: &Cells, row: usize) -> String {
    let mut parts = vec![cells.text(row, "workload").unwrap_or_default().to_owned()];
    parts.extend(cells.text(row, "task").map(str::to_owned));
    for (column, name) in [
        ("batch", "batch"),
        ("context", "context"),
        ("tokens", "tokens"),
        ("new_tokens", "new tokens"),
        ("beam", "beam"),
        ("lr", "lr"),
    ] {
        parts.extend(cells.number(row, column).map(|value| format!("{name} {value}")));
    }
    for column in ["scope", "dtype_requested", "path_requested", "habits", "prefix"] {
        parts.extend(cells.text(row, column).map(str::to_owned));
    }
    parts.retain(|part| !part.is_empty());
    parts.join(", ")
}

/// Columns that are empty, why, and in how many cases.
fn nulls(cells: &Cells) -> Table {
    let mut all: BTreeMap<(String, String), usize> = BTreeMap::new();
    for row in 0..cells.height {
        let reasons = cells.text(row, "null_reasons").unwrap_or("{}");
        let reasons: BTreeMap<String, String> = serde_json::from_str(reasons).unwrap_or_default();
        for reason in reasons {
            *all.entry(reason).or_default() += 1;
        }
    }
    // One line a reason: columns that are empty together are empty for the same cause.
    let mut by_reason: BTreeMap<(String, usize), Vec<String>> = BTreeMap::new();
    for ((column, reason), n) in all {
        by_reason.entry((reason, n)).or_default().push(column);
    }
    let mut table = Table::new(&["why", "columns", ">cases"]);
    for ((reason, n), columns) in by_reason {
        table.push(vec![reason, columns.join(", "), n.to_string()]);
    }
    table
}
