//! What can go wrong between a table of rows and a file with a figure in it.

use std::path::PathBuf;

/// An error of this crate. A figure without data is not one: see [`Skipped`](crate::Skipped).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A column that every run has is not there.
    #[error("the rows have no column `{column}`, were they written by attn-bench?")]
    MissingColumn {
        /// Its name.
        column: &'static str,
    },
    /// A column holds another type than its name promises.
    #[error("column `{column}` should hold {expected} and holds {got}")]
    ColumnType {
        /// Its name.
        column: &'static str,
        /// What the figures read from it.
        expected: &'static str,
        /// The type found.
        got: String,
    },
    /// A cell is null or out of range where a figure cannot do without it.
    #[error("column `{column}`, row {row}: expected {expected}, got {got}")]
    Value {
        /// The column's name.
        column: &'static str,
        /// The row, counted from 0.
        row: usize,
        /// What the figures read from it.
        expected: &'static str,
        /// The value found.
        got: String,
    },
    /// The table itself cannot be read.
    #[error("column `{column}` cannot be read")]
    Table {
        /// The column's name.
        column: &'static str,
        /// What polars says.
        #[source]
        source: Box<polars::error::PolarsError>,
    },
    /// A figure was asked for that does not exist.
    #[error("there is no figure `{name}`, the figures are: {known}")]
    UnknownFigure {
        /// The name as typed.
        name: String,
        /// Every name there is.
        known: String,
    },
    /// A figure could not be drawn.
    #[error("figure `{figure}` cannot be drawn: {message}")]
    Draw {
        /// The figure's name, with its suffix.
        figure: String,
        /// What the drawing library says.
        message: String,
    },
    /// A drawn figure could not be turned into pixels.
    #[error("the figure cannot be turned into a PNG: {message}")]
    Png {
        /// What the renderer says.
        message: String,
    },
    /// The template of a page failed, which no data should make it do.
    #[error("the page cannot be put together: {message}")]
    Page {
        /// What the template engine says, with its place.
        message: String,
    },
    /// A file or folder cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
}
