//! `export`: rows for other tools.

use polars::prelude::{CsvWriter, SerWriter as _};

use super::runs;
use crate::cli::{ExportArgs, ExportFormat};
use crate::failure::{Exit, Failure};
use crate::output::{print, print_json};

/// Writes the rows of all runs to standard output.
pub fn execute(args: &ExportArgs) -> Result<Exit, Failure> {
    let rows = runs::rows(&runs::open(&args.runs)?);
    match args.format {
        ExportFormat::Json => print_json(&rows)?,
        ExportFormat::Csv => {
            let mut bytes = Vec::new();
            CsvWriter::new(&mut bytes)
                .finish(&mut runs::frame(&rows)?)
                .map_err(Failure::input)?;
            print(&String::from_utf8_lossy(&bytes))?;
        }
    }
    Ok(Exit::Done)
}
