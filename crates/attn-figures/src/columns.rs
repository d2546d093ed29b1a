//! Reads one column of a polars table as text, a count or a real number, whatever width it was stored in.

use crate::Error;
use polars::prelude::{Column, DataFrame, DataType};

/// Reads columns into the fields of their names, one value an element: `fill!(rows, table, real: a, b)`.
macro_rules! fill {
    ($all:ident, $table:ident, $read:ident: $($field:ident),+) => {$(
        for (element, value) in $all.iter_mut().zip($read($table, stringify!($field))?) {
            element.$field = value;
        }
    )+};
}
pub(crate) use fill;

/// The table's column, or `None` where an older run does not have it (or holds nothing but nulls).
fn find<'a>(table: &'a DataFrame, column: &'static str) -> Option<&'a Column> {
    table.column(column).ok().filter(|c| c.dtype() != &DataType::Null)
}

/// One optional text a row.
pub(crate) fn text(table: &DataFrame, column: &'static str) -> Result<Vec<Option<String>>, Error> {
    let Some(found) = find(table, column) else {
        return Ok(vec![None; table.height()]);
    };
    let texts = found.str().map_err(|_| wrong_type(column, "text", found))?;
    Ok(texts.iter().map(|text| text.map(str::to_owned)).collect())
}

/// One text a row: the column must be there and hold no null.
pub(crate) fn required_text(table: &DataFrame, column: &'static str) -> Result<Vec<String>, Error> {
    if table.column(column).is_err() {
        return Err(Error::MissingColumn { column });
    }
    let null = |row| Error::Value {
        column,
        row,
        expected: "text",
        got: "null".to_owned(),
    };
    text(table, column)?
        .into_iter()
        .enumerate()
        .map(|(row, text)| text.ok_or_else(|| null(row)))
        .collect()
}

/// One optional truth a row.
pub(crate) fn flag(table: &DataFrame, column: &'static str) -> Result<Vec<Option<bool>>, Error> {
    let Some(found) = find(table, column) else {
        return Ok(vec![None; table.height()]);
    };
    let flags = found
        .bool()
        .map_err(|_| wrong_type(column, "true or false", found))?;
    Ok(flags.iter().collect())
}

/// One optional real number a row, from integers and floats of any width.
pub(crate) fn real(table: &DataFrame, column: &'static str) -> Result<Vec<Option<f64>>, Error> {
    let Some(found) = find(table, column) else {
        return Ok(vec![None; table.height()]);
    };
    if !found.dtype().is_primitive_numeric() {
        return Err(wrong_type(column, "numbers", found));
    }
    let table_error = |source| Error::Table {
        column,
        source: Box::new(source),
    };
    let cast = found.cast(&DataType::Float64).map_err(table_error)?;
    Ok(cast.f64().map_err(table_error)?.iter().collect())
}

/// One count a row: the column must be there and hold no null.
pub(crate) fn required_count(table: &DataFrame, column: &'static str) -> Result<Vec<u64>, Error> {
    if table.column(column).is_err() {
        return Err(Error::MissingColumn { column });
    }
    let null = |row| Error::Value {
        column,
        row,
        expected: "a count",
        got: "null".to_owned(),
    };
    count(table, column)?
        .into_iter()
        .enumerate()
        .map(|(row, count)| count.ok_or_else(|| null(row)))
        .collect()
}

/// One optional count a row. A float is accepted where it is whole, since other tools store counts with
/// nulls that way.
pub(crate) fn count(table: &DataFrame, column: &'static str) -> Result<Vec<Option<u64>>, Error> {
    // 2^53: up to here every whole number survives the way through f64.
    const LARGEST: f64 = 9_007_199_254_740_992.0;
    let whole = |(row, value): (usize, Option<f64>)| match value {
        None => Ok(None),
        Some(v) if v.is_nan() => Ok(None),
        Some(v) if v.fract() == 0.0 && (0.0..=LARGEST).contains(&v) => Ok(Some(v as u64)),
        Some(v) => Err(Error::Value {
            column,
            row,
            expected: "a count",
            got: v.to_string(),
        }),
    };
    real(table, column)?.into_iter().enumerate().map(whole).collect()
}

fn wrong_type(column: &'static str, expected: &'static str, found: &Column) -> Error {
    Error::ColumnType {
        column,
        expected,
        got: found.dtype().to_string(),
    }
}
