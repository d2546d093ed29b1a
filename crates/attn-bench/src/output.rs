//! Standard output, and tables on it.

use std::io::{self, Write as _};

use comfy_table::{Cell, CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};
use serde::Serialize;

use crate::failure::Failure;

/// One line below the header and none between rows, as in the summary of a run.
const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// Writes text to standard output.
///
/// # Errors
/// [`Failure::ClosedPipe`] where the reader has gone, [`Failure::Machine`] where the disk is full.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::ClosedPipe,
        _ => Failure::machine(format!("cannot write to standard output: {error}")),
    })
}

/// Writes a value as JSON.
///
/// # Errors
/// As [`print()`].
pub fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let json = serde_json::to_string_pretty(value).map_err(Failure::machine)?;
    print(&(json + "\n"))
}

/// A table; columns whose header begins with `>` are aligned to the right.
pub fn table(header: &[&str], lines: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    // Not arranged to the terminal: the same sweep prints the same table everywhere.
    table
        .load_style(STYLE)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(|name| Cell::new(name.trim_start_matches('>'))));
    for line in lines {
        let cells = line.into_iter().zip(header).map(|(text, name)| {
            let alignment = if name.starts_with('>') {
                CellAlignment::Right
            } else {
                CellAlignment::Left
            };
            Cell::new(text).set_alignment(alignment)
        });
        table.add_row(cells);
    }
    let text = table.to_string();
    text.lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}
