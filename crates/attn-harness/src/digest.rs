//! What the report of a run needs of its rows, collected while they pass by: they may be more than memory should hold.

use polars::prelude::DataFrame;

use crate::predicted::Lookback;
use crate::row::Row;
use crate::store::StoreError;
use crate::table::{TableFormat, summary_table};

/// Rows that a report shows; nobody reads more in a terminal or in a README.
const SHOWN: usize = 1_000;

/// Rows in short.
#[derive(Debug, Clone, Default, PartialEq)]
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

    /// Takes a table of rows into account: all columns of those that are shown, of the others those that count.
    ///
    /// # Errors
    /// [`StoreError::Column`] where a column is missing or holds what its name does not promise.
    pub(crate) fn add_frame(&mut self, rows: &DataFrame) -> Result<(), StoreError> {
        let room = SHOWN - self.first.len();
        self.add(&Row::from_frame(&rows.head(Some(room)))?);
        let counted = Row::columns()
            .iter()
            .filter(|column| !column.nullable || Lookback::COLUMNS.contains(&column.name));
        let rest = rows
            .slice(i64::try_from(room).unwrap_or(i64::MAX), rows.height())
            .select(counted.map(|column| column.name))?;
        self.add(&Row::from_frame(&rest)?);
        Ok(())
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

    #[test]
    fn a_table_of_rows_counts_as_its_rows_do() {
        let row = |n: u64| Row {
            workload: "decode".into(),
            label: "MHA".into(),
            status: if n % 7 == 0 { Status::Oom } else { Status::Ok },
            batch: Some(1),
            context: Some(n),
            tokens: Some(n),
            new_tokens: Some(n),
            beam: Some(n),
            task: (n % 2 == 0).then(|| "copy".into()),
            train_steps: Some(n),
            downsample: Some(n),
            lr: Some(n as f64),
            kv_bytes: Some(n),
            predicted_kv_bytes: Some(SHOWN as u64),
            peak_bytes: Some(n),
            predicted_peak_bytes: Some(2 * SHOWN as u64),
            build_s: Some(1.0),
            verify_s: Some(2.0),
            warmup_s: Some(3.0),
            sampling_s: Some(4.0),
            reset_s: Some(n as f64),
            predicted_time_s: Some(5.0),
            ..Row::default()
        };
        let rows: Vec<Row> = (1..=2 * SHOWN as u64).map(row).collect();
        let (mut of_rows, mut of_frames) = (Digest::default(), Digest::default());
        for some in rows.chunks(SHOWN - 1) {
            of_rows.add(some);
            of_frames.add_frame(&Row::to_frame(some).unwrap()).unwrap();
        }
        assert_eq!(of_frames, of_rows);
        assert!(of_rows.lookback().contains("to 2.00"), "{}", of_rows.lookback());
    }
}
