//! The table of rows: packed for the page's script, and its first lines as they stand without one.

use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};

use super::Report;
use super::cells::{Cell, Cells, number, shortest};
use super::data::Table;

/// Bytes that the packed rows may take: a page of 5,000 rows stays below 3 MB.
const BUDGET: usize = 1_400_000;
/// Rows that stand in the page without a script.
const FIRST: usize = 60;
/// Columns that hold JSON or say the same of every row: they have places of their own in the page.
const ELSEWHERE: [&str; 5] = ["null_reasons", "question", "measure", "params", "training"];

/// Columns that are shown at first, where they hold something; those marked vary or they say nothing.
const SHOWN: [(&str, bool); 40] = [
    ("run", true),
    ("label", false),
    ("workload", false),
    ("task", false),
    ("scope", true),
    ("dtype_resolved", true),
    ("path_resolved", true),
    ("habits", true),
    ("prefix", true),
    ("cache_regime", true),
    ("launch_resolved", true),
    ("batch", true),
    ("context", true),
    ("tokens", true),
    ("new_tokens", true),
    ("beam", true),
    ("train_steps", true),
    ("downsample", true),
    ("lr", true),
    ("status", false),
    ("trust", false),
    ("quality_measure", true),
    ("quality", false),
    ("quality_ci_low", false),
    ("quality_ci_high", false),
    ("n_seeds", true),
    ("time_median_s", false),
    ("time_ci_low_s", false),
    ("time_ci_high_s", false),
    ("n_samples", false),
    ("tokens_per_s", false),
    ("time_over_floor", false),
    ("kv_bytes", false),
    ("kv_bytes_per_token", true),
    ("peak_bytes", false),
    ("parameters", false),
    ("cache_agreement", false),
    ("error_max", false),
    ("energy_per_token_j", false),
    ("reason", false),
];

/// The rows of all runs.
pub(super) struct Rows {
    /// For the script, with every `<` escaped: no text of a row can end its element.
    pub(super) packed: String,
    /// The first rows, in the columns that are shown at first.
    pub(super) first: Table,
    pub(super) n_rows: usize,
    /// Columns that did not fit.
    pub(super) left_out: Vec<String>,
}

/// A column with the cells of all runs.
struct Joined<'a> {
    name: &'a str,
    cells: Vec<Option<&'a Cell>>,
}

impl Joined<'_> {
    fn is_empty(&self) -> bool {
        self.cells.iter().all(Option::is_none)
    }

    fn varies(&self) -> bool {
        self.cells.iter().any(|cell| *cell != self.cells[0])
    }

    /// Whether it tells cases apart: what is empty in some of them does not apply there.
    fn tells_apart(&self) -> bool {
        let mut known = self.cells.iter().flatten();
        let first = known.next();
        known.any(|cell| Some(cell) != first)
    }

    fn is_text(&self) -> bool {
        self.cells
            .iter()
            .flatten()
            .any(|cell| matches!(cell, Cell::Text(_)))
    }
}

pub(super) fn of(report: &Report, all: &[Cells]) -> Rows {
    let names: Vec<Cell> = report
        .runs
        .iter()
        .map(|run| Cell::Text(run.name.clone()))
        .collect();
    let mut columns: Vec<Joined<'_>> = Vec::new();
    if report.is_many() {
        let cells = all
            .iter()
            .zip(&names)
            .flat_map(|(cells, name)| vec![Some(name); cells.height]);
        columns.push(Joined {
            name: "run",
            cells: cells.collect(),
        });
    }
    let mut known: Vec<&str> = Vec::new();
    for (name, _) in all.iter().flat_map(|cells| &cells.columns) {
        if !known.contains(&name.as_str()) && !ELSEWHERE.contains(&name.as_str()) {
            known.push(name);
        }
    }
    for name in known {
        let cells = all
            .iter()
            .flat_map(|cells| (0..cells.height).map(move |row| cells.get(row, name)));
        let joined = Joined {
            name,
            cells: cells.collect(),
        };
        if !joined.is_empty() {
            columns.push(joined);
        }
    }
    let is_shown = |column: &Joined<'_>| {
        let rule = SHOWN.iter().find(|(name, _)| *name == column.name);
        rule.is_some_and(|(_, must_vary)| !must_vary || column.tells_apart())
    };
    // What is shown comes first, in the order above, then the others in the order of the table.
    columns.sort_by_key(|column| {
        let at = SHOWN.iter().position(|(name, _)| *name == column.name);
        (
            !is_shown(column),
            at.filter(|_| is_shown(column)).unwrap_or(usize::MAX),
        )
    });
    let n_rows = all.iter().map(|cells| cells.height).sum();
    let mut left_out = Vec::new();
    let docs: HashMap<&str, &str> = report
        .columns
        .iter()
        .map(|(name, doc)| (name.as_str(), doc.as_str()))
        .collect();
    let mut packed = String::from("{\"columns\":[");
    let mut n_packed = 0;
    for column in &columns {
        let text = pack(
            column,
            docs.get(column.name).copied().unwrap_or_default(),
            is_shown(column),
        );
        if packed.len() + text.len() > BUDGET && !is_shown(column) {
            left_out.push(column.name.to_owned());
            continue;
        }
        if n_packed > 0 {
            packed.push(',');
        }
        packed.push_str(&text);
        n_packed += 1;
    }
    packed.push_str(&format!("],\"rows\":{n_rows}}}"));
    Rows {
        packed: packed.replace('<', "\\u003c"),
        first: first(columns.iter().filter(|column| is_shown(column)), n_rows),
        n_rows,
        left_out,
    }
}

fn first<'a>(columns: impl Iterator<Item = &'a Joined<'a>>, n_rows: usize) -> Table {
    let columns: Vec<&Joined<'_>> = columns.collect();
    Table {
        heads: columns.iter().map(|column| column.name.to_owned()).collect(),
        is_number: columns.iter().map(|column| !column.is_text()).collect(),
        rows: (0..n_rows.min(FIRST))
            .map(|row| {
                let cell = |column: &&Joined<'_>| {
                    let text = column.cells[row].map(|cell| match cell {
                        // As the script sees it.
                        Cell::Number(value) => number(column.name, rounded(*value)),
                        Cell::Text(text) => text.clone(),
                    });
                    text.unwrap_or_default()
                };
                columns.iter().map(cell).collect()
            })
            .collect(),
        n_more: n_rows.saturating_sub(FIRST),
    }
}

/// A column as JSON: one value for all rows; or words and, for every row, which; or the values themselves.
fn pack(column: &Joined<'_>, doc: &str, is_shown: bool) -> String {
    let value = |cell: &Option<&Cell>| match cell {
        None => "null".to_owned(),
        Some(Cell::Text(text)) => Value::String(text.clone()).to_string(),
        Some(Cell::Number(value)) => packed_number(*value),
    };
    let head =
        json!({"name": column.name, "doc": doc, "text": column.is_text(), "shown": is_shown}).to_string();
    let head = head.trim_end_matches('}').to_owned();
    if !column.varies() {
        let all = column.cells.first().map_or_else(|| "null".to_owned(), &value);
        return format!("{head},\"all\":{all}}}");
    }
    let values: Vec<String> = column.cells.iter().map(value).collect();
    let mut words: BTreeMap<&str, usize> = BTreeMap::new();
    for text in &values {
        let next = words.len();
        words.entry(text).or_insert(next);
    }
    if words.len() * 3 < values.len() || column.is_text() {
        let mut list: Vec<(&usize, &&str)> = words.iter().map(|(text, at)| (at, text)).collect();
        list.sort();
        let list: Vec<&str> = list.into_iter().map(|(_, text)| *text).collect();
        let at: Vec<String> = values
            .iter()
            .map(|text| words[text.as_str()].to_string())
            .collect();
        return format!(
            "{head},\"words\":[{}],\"at\":[{}]}}",
            list.join(","),
            at.join(",")
        );
    }
    format!("{head},\"values\":[{}]}}", values.join(","))
}

fn packed_number(value: f64) -> String {
    let value = rounded(value);
    if is_whole(value) {
        return format!("{value}");
    }
    shortest(value)
}

/// Six significant digits: more than any of them is known to. Whole numbers are kept in full.
fn rounded(value: f64) -> f64 {
    if is_whole(value) {
        return value;
    }
    format!("{value:.5e}").parse::<f64>().unwrap_or(value)
}

fn is_whole(value: f64) -> bool {
    value.fract() == 0.0 && value.abs() < 1e15
}
