//! The tables of a run on their way to its folder.

use std::path::Path;

use polars::prelude::DataFrame;

use super::files::TableFile;
use super::{CURVES, POSITIONS, PROBES, ROWS, SAMPLES, SCHEMA_VERSION, StoreError, TRAININGS};
use crate::row::{CurvePoint, Details, Position, Probe, Row, Sample, Training};

/// The tables of some rows, by the names of their files.
pub(super) fn frames(rows: &[Row], details: &Details) -> Result<[(&'static str, DataFrame); 6], StoreError> {
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
}

impl<'a> Tables<'a> {
    pub(super) fn new(dir: &'a Path) -> Self {
        Self {
            dir,
            files: Vec::new(),
        }
    }

    pub(super) fn write(
        &mut self,
        rows: &[Row],
        details: &Details,
        metadata: &[(String, String)],
    ) -> Result<(), StoreError> {
        self.write_frames(frames(rows, details)?, metadata)
    }

    pub(super) fn write_frames(
        &mut self,
        frames: [(&'static str, DataFrame); 6],
        metadata: &[(String, String)],
    ) -> Result<(), StoreError> {
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

    pub(super) fn finish(mut self) -> Result<(), StoreError> {
        self.files.sort_by_key(|(name, _)| *name == ROWS);
        self.files.into_iter().try_for_each(|(_, file)| file.finish())
    }
}

/// What the parquet files say about themselves.
pub(super) fn describe_tables(rows: &[Row]) -> Vec<(String, String)> {
    let mut pairs = vec![(
        "attn_bench.schema_version".to_string(),
        SCHEMA_VERSION.to_string(),
    )];
    if let Some(row) = rows.first() {
        pairs.push(("attn_bench.sweep_name".to_string(), row.sweep_name.clone()));
        pairs.push((
            "attn_bench.commit".to_string(),
            row.commit.clone().unwrap_or_else(|| "unknown".to_string()),
        ));
    }
    pairs
}
