//! The tables of a run on their way to its folder.

use std::path::Path;

use polars::prelude::DataFrame;

use super::files::TableFile;
use super::log::Entry;
use super::{CURVES, POSITIONS, PROBES, ROWS, SAMPLES, SCHEMA_VERSION, StoreError, TRAININGS};
use crate::row::{CurvePoint, Details, Position, Probe, Row, Sample, Training};

/// The tables of a run, by the names of their files; that of rows is the last.
pub(super) type Frames = [(&'static str, DataFrame); 6];

/// The tables of some rows.
pub(super) fn frames(rows: &[Row], details: &Details) -> Result<Frames, StoreError> {
    Ok([
        (SAMPLES, Sample::to_frame(&details.samples)?),
        (POSITIONS, Position::to_frame(&details.positions)?),
        (TRAININGS, Training::to_frame(&details.trainings)?),
        (CURVES, CurvePoint::to_frame(&details.curves)?),
        (PROBES, Probe::to_frame(&details.probes)?),
        // The last to appear: where there are rows, all is there.
        (ROWS, Row::to_frame(rows)?),
    ])
}

/// The tables of a run on their way to its folder: rows and samples always, others where they have something.
pub(super) struct Tables<'a> {
    dir: &'a Path,
    files: Vec<(&'static str, TableFile)>,
    /// What all of them say about themselves, by the first row.
    metadata: Option<Vec<(String, String)>>,
}

impl<'a> Tables<'a> {
    pub(super) fn new(dir: &'a Path) -> Self {
        Self {
            dir,
            files: Vec::new(),
            metadata: None,
        }
    }

    /// Writes some cases of a log, and gives back their rows.
    pub(super) fn write(&mut self, entries: Vec<Entry>) -> Result<Vec<Row>, StoreError> {
        let mut rows = Vec::with_capacity(entries.len());
        let mut details = Details::default();
        for entry in entries {
            rows.push(entry.row);
            details.extend(entry.details);
        }
        self.write_frames(frames(&rows, &details)?)?;
        Ok(rows)
    }

    /// Writes tables of some rows.
    pub(super) fn write_frames(&mut self, frames: Frames) -> Result<(), StoreError> {
        let metadata = match &self.metadata {
            Some(metadata) => metadata,
            None => {
                let [.., (_, rows)] = &frames;
                let first = Row::from_frame(&rows.head(Some(1)))?;
                self.metadata.insert(describe_tables(first.first()))
            }
        };
        for (name, table) in frames {
            let is_always = [ROWS, SAMPLES].contains(&name);
            let at = self.files.iter().position(|(known, _)| *known == name);
            let at = match at {
                Some(at) => at,
                None if table.height() == 0 && !is_always => continue,
                None => {
                    let file = TableFile::new(&self.dir.join(name), &table.clear(), metadata)?;
                    self.files.push((name, file));
                    self.files.len() - 1
                }
            };
            self.files[at].1.write(&table)?;
        }
        Ok(())
    }

    /// Gives the files their names. A run without cases has its tables too.
    pub(super) fn finish(mut self) -> Result<(), StoreError> {
        if self.files.is_empty() {
            self.write_frames(frames(&[], &Details::default())?)?;
        }
        self.files.sort_by_key(|(name, _)| *name == ROWS);
        self.files.into_iter().try_for_each(|(_, file)| file.finish())
    }
}

/// What the parquet files say about themselves.
fn describe_tables(first: Option<&Row>) -> Vec<(String, String)> {
    let mut pairs = vec![(
        "attn_bench.schema_version".to_string(),
        SCHEMA_VERSION.to_string(),
    )];
    if let Some(row) = first {
        pairs.push(("attn_bench.sweep_name".to_string(), row.sweep_name.clone()));
        pairs.push((
            "attn_bench.commit".to_string(),
            row.commit.clone().unwrap_or_else(|| "unknown".to_string()),
        ));
    }
    pairs
}
