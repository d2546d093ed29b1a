//! Every column of a table of rows, without types of its own, and how a cell is written.

use crate::Error;
use crate::units::Unit;
use polars::prelude::{AnyValue, DataFrame};
use std::collections::BTreeMap;

/// A cell that holds something.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    Number(f64),
    Text(String),
}

/// A table by columns.
#[derive(Debug, Clone)]
pub(super) struct Cells {
    pub(super) height: usize,
    pub(super) columns: Vec<(String, Vec<Option<Cell>>)>,
    places: BTreeMap<String, usize>,
}

impl Cells {
    pub(super) fn new(table: &DataFrame) -> Result<Self, Error> {
        let mut columns = Vec::new();
        for column in table.columns() {
            let name = column.name().to_string();
            let mut cells = Vec::with_capacity(table.height());
            for row in 0..table.height() {
                let value = column.get(row).map_err(|source| Error::Table {
                    column: "of a report",
                    source: Box::new(source),
                })?;
                cells.push(cell(&value));
            }
            columns.push((name, cells));
        }
        let places = columns.iter().enumerate();
        Ok(Self {
            height: table.height(),
            places: places.map(|(at, (name, _))| (name.clone(), at)).collect(),
            columns,
        })
    }

    pub(super) fn get(&self, row: usize, column: &str) -> Option<&Cell> {
        let at = *self.places.get(column)?;
        self.columns[at].1.get(row)?.as_ref()
    }

    pub(super) fn text(&self, row: usize, column: &str) -> Option<&str> {
        match self.get(row, column)? {
            Cell::Text(text) => Some(text),
            Cell::Number(_) => None,
        }
    }

    pub(super) fn number(&self, row: usize, column: &str) -> Option<f64> {
        match self.get(row, column)? {
            Cell::Number(value) => Some(*value),
            Cell::Text(_) => None,
        }
    }

    /// The different values of a column as they are written, in the order of the rows.
    pub(super) fn values(&self, column: &str) -> Vec<String> {
        let mut seen = std::collections::HashSet::new();
        (0..self.height)
            .filter_map(|row| self.get(row, column))
            .map(|cell| written(column, cell))
            .filter(|text| seen.insert(text.clone()))
            .collect()
    }

    /// The least and the largest number of a column.
    pub(super) fn range(&self, column: &str) -> Option<(f64, f64)> {
        let numbers = (0..self.height).filter_map(|row| self.number(row, column));
        numbers.fold(None, |range, value| {
            let (low, high) = range.unwrap_or((value, value));
            Some((low.min(value), high.max(value)))
        })
    }
}

fn cell(value: &AnyValue<'_>) -> Option<Cell> {
    match value {
        AnyValue::Null => None,
        AnyValue::String(text) => Some(Cell::Text((*text).to_owned())),
        AnyValue::StringOwned(text) => Some(Cell::Text(text.to_string())),
        AnyValue::Boolean(flag) => Some(Cell::Text(if *flag { "yes" } else { "no" }.to_owned())),
        other => other
            .extract::<f64>()
            .filter(|value| value.is_finite())
            .map(Cell::Number),
    }
}

/// A cell as a reader wants it; the unit is the end of its column's name.
pub(super) fn written(column: &str, cell: &Cell) -> String {
    match cell {
        Cell::Text(text) => text.clone(),
        Cell::Number(value) => number(column, *value),
    }
}

/// A number with the unit of its column.
pub(super) fn number(column: &str, value: f64) -> String {
    let is = |ending: &str| column.ends_with(ending);
    if is("bytes_per_s") {
        return format!("{}/s", Unit::Bytes.format(value, 3, true));
    }
    if is("flops_per_s") {
        return Unit::Flops.format(value, 3, true);
    }
    if is("_per_s") {
        return Unit::PerSecond.format(value, 3, true);
    }
    if is("_bytes") || column == "bytes_moved" {
        return Unit::Bytes.format(value, 4, true);
    }
    if is("_s") {
        return Unit::Seconds.format(value, 3, true);
    }
    plain(value)
}

/// Five significant digits, whole numbers in full.
pub(super) fn plain(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        return format!("{value}");
    }
    let digits = format!("{value:.4e}").parse::<f64>().unwrap_or(value);
    shortest(digits)
}

/// The shorter of `0.00012` and `1.2e-4`.
pub(super) fn shortest(value: f64) -> String {
    let (plain, scientific) = (format!("{value}"), format!("{value:e}"));
    if scientific.len() + 2 < plain.len() {
        scientific
    } else {
        plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_the_unit_of_its_columns_name() {
        let told = |column: &str, value: f64| number(column, value).replace(['\u{a0}', '\u{2009}'], " ");
        assert_eq!(told("time_median_s", 1.312e-4), "131 µs");
        assert_eq!(told("kv_bytes", 4_194_304.0), "4 MiB");
        assert_eq!(told("ceiling_bytes_per_s", 3.2e10), "29.8 GiB/s");
        assert_eq!(told("achieved_flops_per_s", 5e10), "50 GFLOP/s");
        assert_eq!(told("tokens_per_s", 50_233.89), "50 234");
        assert_eq!(told("context", 8192.0), "8192");
        assert_eq!(told("error_max", 1.014_443_98e-6), "1.0144e-6");
        assert_eq!(told("lr", 0.0005), "0.0005");
    }
}
