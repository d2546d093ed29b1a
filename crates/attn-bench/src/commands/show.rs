//! `show`: the summary table of stored runs again.

use std::borrow::Cow;
use std::cmp::Ordering;

use attn_harness::plan::Filter;
use attn_harness::row::Row;
use attn_harness::table::{TableFormat, summary_table};
use serde_json::{Map, Value};

use super::runs;
use crate::cli::{Format, ShowArgs};
use crate::failure::{Exit, Failure};
use crate::output::print;

/// Prints the table of every run.
pub fn execute(args: &ShowArgs) -> Result<Exit, Failure> {
    let columns = columns();
    let filter = row_filter(args.filter.as_deref())?;
    if let Some(column) = args
        .sort
        .as_ref()
        .filter(|column| !columns.contains(&column.as_str()))
    {
        return Err(attn_harness::Error::option(
            format!("--sort {column}"),
            format!("unknown column `{column}`"),
            "`attn-bench list metrics` names every column",
        )
        .into());
    }
    let runs = runs::open(&args.runs)?;
    let select = |rows: &[Row]| select(rows, filter.as_ref(), args.sort.as_deref());
    if args.format.format == Format::Json {
        return print(&summary_table(&select(&runs::rows(&runs)), TableFormat::Json)).map(|()| Exit::Done);
    }
    for run in &runs {
        if runs.len() > 1 {
            print(&format!("{}\n", run.dir.display()))?;
        }
        print(&summary_table(&select(&run.rows), TableFormat::Table))?;
    }
    Ok(Exit::Done)
}

fn columns() -> Vec<&'static str> {
    Row::columns().iter().map(|column| column.name).collect()
}

/// A filter over every column of stored rows.
pub(super) fn row_filter(expression: Option<&str>) -> Result<Option<Filter>, attn_harness::Error> {
    expression
        .map(|expression| Filter::parse(expression, &columns()))
        .transpose()
}

/// The rows that pass the filter, sorted.
pub(super) fn select(rows: &[Row], filter: Option<&Filter>, sort: Option<&str>) -> Vec<Row> {
    let mut kept: Vec<(Map<String, Value>, &Row)> = rows
        .iter()
        .map(|row| (cells(row), row))
        .filter(|(cells, _)| filter.is_none_or(|filter| filter.accepts(|column| cell(cells, column))))
        .collect();
    if let Some(column) = sort {
        kept.sort_by(|(a, _), (b, _)| order(a.get(column), b.get(column)));
    }
    kept.into_iter().map(|(_, row)| row.clone()).collect()
}

fn cells(row: &Row) -> Map<String, Value> {
    match serde_json::to_value(row) {
        Ok(Value::Object(cells)) => cells,
        _ => Map::new(),
    }
}

fn cell<'a>(cells: &'a Map<String, Value>, column: &str) -> Option<Cow<'a, str>> {
    match cells.get(column)? {
        Value::Null => None,
        Value::String(text) => Some(Cow::Borrowed(text)),
        other => Some(Cow::Owned(other.to_string())),
    }
}

/// Numbers by size, words by letter, empty cells last.
fn order(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    match (a, b) {
        (Some(Value::Number(a)), Some(Value::Number(b))) => a
            .as_f64()
            .unwrap_or(f64::NAN)
            .total_cmp(&b.as_f64().unwrap_or(f64::NAN)),
        (Some(Value::String(a)), Some(Value::String(b))) => a.cmp(b),
        (Some(Value::Bool(a)), Some(Value::Bool(b))) => a.cmp(b),
        (None | Some(Value::Null), None | Some(Value::Null)) => Ordering::Equal,
        (None | Some(Value::Null), _) => Ordering::Greater,
        (_, None | Some(Value::Null)) => Ordering::Less,
        _ => Ordering::Equal,
    }
}
