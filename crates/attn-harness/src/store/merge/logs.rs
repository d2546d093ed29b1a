//! A merge of logs: their lines pass by once and become the new log, from which the tables are built in the order of the
//! plan.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::Path;

use rayon::prelude::*;

use super::{Merge, Place, ROWS_AT_ONCE};
use crate::digest::Digest;
use crate::row::{Details, Row};
use crate::status::Status;
use crate::store::log::{Entry, Head, Lines, complete_lines};
use crate::store::tables::Tables;
use crate::store::{LOG, ROWS, Run, StoreError};

/// Bytes of log lines that are parsed at once.
const BYTES_AT_ONCE: usize = 8 << 20;

/// Lines that wait to be parsed together.
#[derive(Default)]
pub(super) struct Batch {
    text: Vec<u8>,
    lines: Vec<Line>,
}

struct Line {
    begin: usize,
    end: usize,
    source: usize,
    number: usize,
}

impl Batch {
    fn add(&mut self, line: &[u8], source: usize, number: usize) {
        let begin = self.text.len();
        self.text.extend_from_slice(line);
        self.lines.push(Line {
            begin,
            end: self.text.len(),
            source,
            number,
        });
    }
}

impl Merge {
    /// Takes the rows of one run: those of its log, and those that only its table has.
    pub(super) fn take_run(
        &mut self,
        source: usize,
        table_rows: Option<usize>,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        let dir = self.sources[source].dir.clone();
        let log = dir.join(LOG);
        if log.is_file() {
            let is_torn = complete_lines(&log, |line, number| {
                batch.add(line, source, number);
                if batch.text.len() >= BYTES_AT_ONCE {
                    self.take(batch)?;
                }
                Ok(())
            })?;
            // A runner at work may be in the middle of a line.
            if is_torn && self.sources[source].is_live != Some(true) {
                self.warnings.push(format!(
                    "the last line of {} is incomplete and was left out: its case was being written when the run ended",
                    log.display()
                ));
            }
            if table_rows.is_none() {
                return Ok(());
            }
            // Counted only now: a table that has more rows than the log has cases is a log that was cut.
            self.take(batch)?;
            if table_rows.is_some_and(|rows| rows <= self.sources[source].cases) {
                return Ok(());
            }
            self.warnings.push(format!(
                "rows.parquet of {} has more cases than its log.jsonl, both were read",
                dir.display()
            ));
        }
        self.take(batch)?;
        for entry in of_tables(&dir)? {
            if self.source_of(&entry.row.case_id) == Some(source) {
                continue;
            }
            let mut line = serde_json::to_vec(&entry).map_err(|error| StoreError::Damaged {
                path: dir.join(ROWS),
                reason: error.to_string(),
            })?;
            line.push(b'\n');
            batch.add(&line, source, 0);
            if batch.text.len() >= BYTES_AT_ONCE {
                self.take(batch)?;
            }
        }
        Ok(())
    }

    /// Takes lines into the log, but those of cases that are there already.
    pub(super) fn take(&mut self, batch: &mut Batch) -> Result<(), StoreError> {
        let heads = batch.lines.par_iter().map(|line| {
            let log = self.sources[line.source].dir.join(LOG);
            Head::parse(&log, &batch.text[line.begin..line.end], &|| {
                format!("line {}", line.number)
            })
        });
        let heads: Vec<Head<'_>> = heads.collect::<Result<_, _>>()?;
        let mut kept = Vec::with_capacity(batch.text.len());
        for (line, head) in batch.lines.iter().zip(heads) {
            let is_ok = head.status == Status::Ok;
            let bytes = line.end - line.begin;
            let place = Place {
                group: head.group,
                offset: self.end + kept.len() as u64,
                bytes: u32::try_from(bytes).map_err(|_| StoreError::Damaged {
                    path: self.sources[line.source].dir.join(LOG),
                    reason: format!("line {} has {bytes} bytes", line.number),
                })?,
                source: u32::try_from(line.source).unwrap_or(u32::MAX),
                is_ok,
            };
            if !self.note(&head.case_id, place) {
                continue;
            }
            kept.extend_from_slice(&batch.text[line.begin..line.end]);
        }
        let path = self.temporary.path().join(LOG);
        if let Some(log) = &mut self.log {
            log.write_all(&kept).map_err(StoreError::io("write", &path))?;
        }
        self.end += kept.len() as u64;
        batch.text.clear();
        batch.lines.clear();
        Ok(())
    }

    /// Builds the tables from the new log.
    pub(super) fn join_logs(&mut self) -> Result<Digest, StoreError> {
        let mut digest = Digest::default();
        let path = self.temporary.path().join(LOG);
        let mut lines = Lines::open(&path)?;
        let mut tables = Tables::new(self.temporary.path());
        for places in chunks(&self.places) {
            let mut text = Vec::with_capacity(places.iter().map(|place| place.bytes as usize).sum());
            let mut spans = Vec::with_capacity(places.len());
            for place in places {
                let begin = text.len();
                lines.read(place.offset, place.bytes as usize, &mut text)?;
                spans.push((begin..text.len(), place.source));
            }
            let entries = spans.par_iter().map(|(span, source)| {
                let dir = &self.sources[*source as usize].dir;
                Entry::parse(&dir.join(LOG), &text[span.clone()], "a line")
            });
            let entries: Vec<Entry> = entries.collect::<Result<_, _>>()?;
            drop(text);
            digest.add(&tables.write(entries)?);
        }
        tables.finish()?;
        Ok(digest)
    }
}

/// So many places that neither rows nor bytes are too many at once.
fn chunks(places: &[Place]) -> impl Iterator<Item = &[Place]> {
    let mut left = places;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |place: &&Place| {
            bytes += place.bytes as usize;
            bytes <= 4 * BYTES_AT_ONCE
        };
        let n = left.iter().take(ROWS_AT_ONCE).take_while(fits).count().max(1);
        let (now, later) = left.split_at_checked(n)?;
        left = later;
        Some(now)
    })
}

/// A run whose log was not kept, case by case.
fn of_tables(dir: &Path) -> Result<Vec<Entry>, StoreError> {
    let mut details: HashMap<String, Details> = HashMap::new();
    let of_table = Run::of_tables(dir)?;
    macro_rules! deal {
        ($($table:ident),+) => {$(
            for cell in of_table.details.$table {
                details.entry(cell.case_id.clone()).or_default().$table.push(cell);
            }
        )+};
    }
    deal!(samples, positions, trainings, curves, probes);
    let entry = |row: Row| Entry {
        details: details.remove(&row.case_id).unwrap_or_default(),
        row,
    };
    Ok(of_table.rows.into_iter().map(entry).collect())
}
