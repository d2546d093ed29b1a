//! A run read back: all of it, or as much as a question needs.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use polars::prelude::DataFrame;
use serde_json::Value;

use super::files::{read_parquet, read_text};
use super::log::Index;
use super::{
    COMMANDS, CURVES, ENVIRONMENT, LOG, POSITIONS, PROBES, ROWS, ROWS_AT_ONCE, SAMPLES, SWEEP, StoreError,
    TRAININGS,
};
use crate::columns::read_column;
use crate::row::{CurvePoint, Details, Position, Probe, Row, Sample, Training};
use crate::status::Status;

/// A run read back.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Run {
    /// Its folder.
    pub dir: PathBuf,
    /// One row a case.
    pub rows: Vec<Row>,
    /// What belongs to the rows; without samples where `samples.parquet` was not kept.
    pub details: Details,
    /// The machine and the build; null where the file is missing.
    pub environment: Value,
    /// The sweep as run; empty where the file is missing.
    pub sweep_yaml: String,
    /// What had to be left out, for the user to see.
    pub warnings: Vec<String>,
}

impl Run {
    /// Reads a run: its tables or, where they are not built yet, its log.
    ///
    /// # Errors
    /// [`StoreError::NotARun`], [`StoreError::Io`], [`StoreError::Damaged`] or [`StoreError::Column`].
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        if !dir.join(ROWS).is_file() {
            let mut run = Self::describe(dir)?;
            let index = Index::of(&dir.join(LOG))?;
            index.read(ROWS_AT_ONCE, |entries| {
                for entry in entries {
                    run.rows.push(entry.row);
                    run.details.extend(entry.details);
                }
                Ok(())
            })?;
            run.warnings = index.warnings;
            return Ok(run);
        }
        Self::of_tables(dir)
    }

    /// A run by its tables alone.
    pub(super) fn of_tables(dir: &Path) -> Result<Self, StoreError> {
        let mut run = Self::describe(dir)?;
        let (rows, samples) = (dir.join(ROWS), dir.join(SAMPLES));
        run.rows = Row::from_frame(&read_parquet(&rows, None)?)?;
        run.details = details_of(dir)?;
        if samples.is_file() {
            run.details.samples = Sample::from_frame(&read_parquet(&samples, None)?)?;
        }
        Ok(run)
    }

    /// A run without what it measured: where it is, what was asked, and on which machine.
    ///
    /// # Errors
    /// [`StoreError::NotARun`], [`StoreError::Io`] or [`StoreError::Damaged`].
    pub fn describe(dir: &Path) -> Result<Self, StoreError> {
        if !dir.join(ROWS).is_file() && !dir.join(LOG).is_file() {
            return Err(StoreError::NotARun {
                dir: dir.to_path_buf(),
            });
        }
        let path = dir.join(ENVIRONMENT);
        let damaged = |error: serde_json::Error| StoreError::Damaged {
            path: path.clone(),
            reason: error.to_string(),
        };
        let environment = match read_text(&path)? {
            Some(text) => serde_json::from_str(&text).map_err(damaged)?,
            None => Value::Null,
        };
        Ok(Self {
            dir: dir.to_path_buf(),
            environment,
            sweep_yaml: read_text(&dir.join(SWEEP))?.unwrap_or_default(),
            ..Self::default()
        })
    }

    /// The commands that wrote the folder, the first run first.
    pub fn commands(&self) -> Vec<String> {
        let commands = self.environment.get(COMMANDS).and_then(Value::as_array);
        commands
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_string)
            .collect()
    }
}

/// Whether a runner is at work on a run; none where the file system knows no locks.
///
/// # Errors
/// [`StoreError::Io`].
pub fn is_live(dir: &Path) -> Result<Option<bool>, StoreError> {
    let path = dir.join(LOG);
    let log = match File::open(&path) {
        Ok(log) => log,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Some(false)),
        Err(source) => return Err(StoreError::io("open", &path)(source)),
    };
    match log.try_lock_shared() {
        Ok(()) => Ok(Some(false)),
        Err(TryLockError::WouldBlock) => Ok(Some(true)),
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

/// What a run holds, without what was measured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    /// The cases.
    pub cases: Vec<StoredCase>,
    /// What had to be left out, for the user to see.
    pub warnings: Vec<String>,
}

/// A case that a run holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCase {
    /// The case's hash.
    pub case_id: String,
    /// How it ended.
    pub status: Status,
}

/// What a run holds, without what was measured.
///
/// # Errors
/// [`StoreError::NotARun`], [`StoreError::Io`], [`StoreError::Damaged`] or [`StoreError::Column`].
pub fn stored(dir: &Path) -> Result<Stored, StoreError> {
    let (rows, log) = (dir.join(ROWS), dir.join(LOG));
    if log.is_file() {
        return Ok(Index::of(&log)?.stored());
    }
    Run::describe(dir)?;
    let table = read_parquet(&rows, Some(&["case_id", "status"]))?;
    let status = read_column::<Status>(&table, "status")?;
    let cases = case_ids(&table)?.into_iter().zip(status);
    let cases = cases.map(|(case_id, status)| StoredCase { case_id, status });
    Ok(Stored {
        cases: cases.collect(),
        warnings: Vec::new(),
    })
}

/// Some columns of a run's rows; those that an older run does not have are missing.
///
/// # Errors
/// [`StoreError::NotARun`], [`StoreError::Io`], [`StoreError::Damaged`] or [`StoreError::Table`].
pub fn columns_of(dir: &Path, columns: &[&str]) -> Result<DataFrame, StoreError> {
    let rows = dir.join(ROWS);
    if rows.is_file() {
        return read_parquet(&rows, Some(columns));
    }
    let table = Row::to_frame(&Run::open(dir)?.rows)?;
    let known = columns.iter().filter(|name| table.column(name).is_ok());
    Ok(table.select(known.copied())?)
}

/// What belongs to a run's rows, its samples left out.
///
/// # Errors
/// [`StoreError::Io`], [`StoreError::Damaged`] or [`StoreError::Column`].
pub fn details_of(dir: &Path) -> Result<Details, StoreError> {
    if !dir.join(ROWS).is_file() {
        return Ok(Details {
            samples: Vec::new(),
            ..Run::open(dir)?.details
        });
    }
    let read = |name: &str| -> Result<Option<DataFrame>, StoreError> {
        let path = dir.join(name);
        path.is_file().then(|| read_parquet(&path, None)).transpose()
    };
    let mut details = Details::default();
    if let Some(table) = read(POSITIONS)? {
        details.positions = Position::from_frame(&table)?;
    }
    if let Some(table) = read(TRAININGS)? {
        details.trainings = Training::from_frame(&table)?;
    }
    if let Some(table) = read(CURVES)? {
        details.curves = CurvePoint::from_frame(&table)?;
    }
    if let Some(table) = read(PROBES)? {
        details.probes = Probe::from_frame(&table)?;
    }
    Ok(details)
}

pub(super) fn case_ids(table: &DataFrame) -> Result<Vec<String>, StoreError> {
    read_column::<String>(table, "case_id")
}
