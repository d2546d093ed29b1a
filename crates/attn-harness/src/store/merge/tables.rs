//! A large merge: from the tables of finished runs to new ones, without the logs in between.
//!
//! A million rows are ten gigabytes of log and less than one of tables. So a large merge reads the tables of what is
//! finished, and the log of what is not, twice: first which case is where, then all else, run by run.

use polars::prelude::{BooleanChunked, DataFrame, NewChunkedArray as _};
use rayon::prelude::*;

use super::{Merge, Place, ROWS_AT_ONCE};
use crate::columns::read_column;
use crate::digest::Digest;
use crate::row::{CurvePoint, Details, Position, Probe, Row, Sample, Training};
use crate::status::Status;
use crate::store::files::read_parquet;
use crate::store::log::{Entry, Head, complete_lines};
use crate::store::tables::{Frames, Tables, frames};
use crate::store::{LOG, ROWS, StoreError};

/// Runs whose cases are looked up at once.
const RUNS_AT_ONCE: usize = 256;

impl Merge {
    /// Finds out which case is where.
    pub(super) fn take_heads(&mut self) -> Result<(), StoreError> {
        let sources: Vec<usize> = (0..self.sources.len()).collect();
        for some in sources.chunks(RUNS_AT_ONCE) {
            let heads: Vec<Vec<(String, Status)>> = some
                .par_iter()
                .map(|source| self.heads(*source))
                .collect::<Result<_, _>>()?;
            for (source, heads) in some.iter().zip(heads) {
                for (case_id, status) in heads {
                    let place = Place {
                        source: u32::try_from(*source).unwrap_or(u32::MAX),
                        is_ok: status == Status::Ok,
                        ..Place::default()
                    };
                    self.note(&case_id, place);
                }
            }
        }
        Ok(())
    }

    fn heads(&self, source: usize) -> Result<Vec<(String, Status)>, StoreError> {
        let dir = &self.sources[source].dir;
        if self.has_tables[source] {
            let table = read_parquet(&dir.join(ROWS), Some(&["case_id", "status"]))?;
            let ids = read_column::<String>(&table, "case_id")?;
            return Ok(ids
                .into_iter()
                .zip(read_column::<Status>(&table, "status")?)
                .collect());
        }
        let (log, mut heads) = (dir.join(LOG), Vec::new());
        complete_lines(&log, |line, number| {
            let head = Head::parse(&log, line, &|| format!("line {number}"))?;
            heads.push((head.case_id.into_owned(), head.status));
            Ok(())
        })?;
        Ok(heads)
    }

    /// Builds the tables run by run.
    pub(super) fn join_tables(&self) -> Result<Digest, StoreError> {
        let mut digest = Digest::default();
        let empty = frames(&[], &Details::default())?;
        let mut tables = Tables::new(self.temporary.path());
        let mut sources: Vec<usize> = (0..self.sources.len()).collect();
        while !sources.is_empty() {
            // So many runs that their rows are a row group.
            let mut cases = 0;
            let fits = |source: &&usize| {
                cases += self.sources[**source].cases;
                cases <= ROWS_AT_ONCE
            };
            let n = sources.iter().take_while(fits).count().max(1);
            let some: Vec<usize> = sources.drain(..n).collect();
            let of_runs: Vec<Frames> = some
                .par_iter()
                .map(|source| self.frames_of(*source, &empty))
                .collect::<Result<_, _>>()?;
            let mut joined = empty.clone();
            for frames in of_runs {
                for ((_, all), (_, more)) in joined.iter_mut().zip(frames) {
                    all.vstack_mut_owned(more)?;
                }
            }
            for (_, table) in &mut joined {
                // One piece is one row group.
                table.rechunk_mut();
            }
            let [.., (_, rows)] = &joined;
            digest.add_frame(rows)?;
            tables.write_frames(joined)?;
        }
        tables.finish()?;
        Ok(digest)
    }

    /// What is kept of a run, in the columns that `empty` tables have.
    fn frames_of(&self, source: usize, empty: &Frames) -> Result<Frames, StoreError> {
        let dir = &self.sources[source].dir;
        if !self.has_tables[source] {
            let log = dir.join(LOG);
            let (mut rows, mut details) = (Vec::new(), Details::default());
            let mut last = std::collections::HashMap::new();
            let mut entries = Vec::new();
            complete_lines(&log, |line, number| {
                let entry = Entry::parse(&log, line, &format!("line {number}"))?;
                last.insert(entry.row.case_id.clone(), number);
                entries.push((number, entry));
                Ok(())
            })?;
            entries.sort_by_key(|(_, entry)| entry.row.group);
            for (number, entry) in entries {
                // The last entry of a case counts.
                let is_last = last.get(&entry.row.case_id) == Some(&number);
                if is_last && self.source_of(&entry.row.case_id) == Some(source) {
                    rows.push(entry.row);
                    details.extend(entry.details);
                }
            }
            return frames(&rows, &details);
        }
        let read = |name: &str| {
            let path = dir.join(name);
            path.is_file().then(|| read_parquet(&path, None)).transpose()
        };
        macro_rules! today {
            ($Table:ident, $at:literal) => {{
                let (name, empty) = &empty[$at];
                let table = match read(name)? {
                    Some(table) if table.schema() == empty.schema() => table,
                    // Of an older version, or written by another tool.
                    Some(table) => $Table::to_frame(&$Table::from_frame(&table)?)?,
                    None => empty.clone(),
                };
                (*name, self.kept(source, table)?)
            }};
        }
        Ok([
            today!(Sample, 0),
            today!(Position, 1),
            today!(Training, 2),
            today!(CurvePoint, 3),
            today!(Probe, 4),
            today!(Row, 5),
        ])
    }

    /// The rows of a table whose cases are kept from this run.
    fn kept(&self, source: usize, table: DataFrame) -> Result<DataFrame, StoreError> {
        if !self.lost[source] || table.height() == 0 {
            return Ok(table);
        }
        let ids = read_column::<String>(&table, "case_id")?;
        let keep: Vec<bool> = ids.iter().map(|id| self.source_of(id) == Some(source)).collect();
        Ok(table.filter(&BooleanChunked::from_slice("keep".into(), &keep))?)
    }
}
