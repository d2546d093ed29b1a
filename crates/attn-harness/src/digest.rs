//! What the report of a run needs of its rows, collected while they pass by: they may be more than memory should hold.

use crate::predicted::Lookback;
use crate::row::Row;
use crate::table::{TableFormat, summary_table};

/// Rows that a report shows; nobody reads more in a terminal or in a README.
const SHOWN: usize = 1_000;

/// Rows in short.
#[derive(Debug, Clone, Default)]
pub struct Digest {
    first: Vec<Row>,
    rows: usize,
    ok: usize,
    lookback: Lookback,
}

impl Digest {
    /// Takes rows into account, in the order in which they are to be shown.
    pub fn add(&mut self, rows: &[Row]) {
        let room = SHOWN - self.first.len();
        self.first.extend(rows.iter().take(room).cloned());
        self.rows += rows.len();
        self.ok += rows.iter().filter(|row| row.is_ok()).count();
        rows.iter().for_each(|row| self.lookback.add(row));
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Rows that have times.
    pub fn ok(&self) -> usize {
        self.ok
    }

    /// The summary of the first thousand rows as text, and how many more there are.
    pub fn table(&self, format: TableFormat) -> String {
        let table = summary_table(&self.first, format);
        match self.rows - self.first.len() {
            0 => table,
            more => format!("{table}\n{more} more rows: `attn-bench show` prints all of them\n"),
        }
    }

    /// Predictions looked back on.
    pub fn lookback(&self) -> String {
        self.lookback.summary()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Status;

    #[test]
    fn a_digest_counts_all_rows_and_shows_the_first() {
        let row = |status| Row {
            workload: "decode".into(),
            label: "MHA".into(),
            status,
            ..Row::default()
        };
        let mut digest = Digest::default();
        digest.add(&vec![row(Status::Ok); SHOWN - 1]);
        assert!(!digest.table(TableFormat::Table).contains("more rows"));
        digest.add(&[row(Status::Oom), row(Status::Ok), row(Status::Oom)]);
        assert_eq!((digest.rows(), digest.ok()), (SHOWN + 2, SHOWN));
        let table = digest.table(TableFormat::Table);
        assert!(
            table.ends_with("2 more rows: `attn-bench show` prints all of them\n"),
            "{}",
            &table[table.len() - 200..]
        );
    }
}
