//! How far a run is, by its folder alone: it asks no runner and no scheduler.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;

use super::log::{Entry, Head, complete_lines};
use super::planned::Planned;
use super::{LOG, ROWS, Run, StoreError, columns_of, is_live};
use crate::columns::read_column;
use crate::status::Status;
use crate::table::point_title;

/// What a run is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// All of its cases have a row.
    Done,
    /// A runner has its log.
    Running,
    /// It has begun, is not done, and nobody is at work on it.
    Stopped,
    /// It has not begun.
    Waiting,
    /// A file of it is not what its name says.
    Damaged,
}

impl State {
    /// The word in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Waiting => "waiting",
            Self::Damaged => "damaged",
        }
    }
}

/// How far a run is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Standing {
    /// Its folder.
    pub dir: PathBuf,
    /// Part of the sweep, `I/N`; none is all of it.
    pub shard: Option<String>,
    /// What it is at.
    pub state: State,
    /// Cases it has to do; none where it does not say.
    pub cases: Option<usize>,
    /// Cases that were measured.
    pub ok: usize,
    /// Cases whose row says why they were not.
    pub failed: usize,
    /// Cases without a row, those that are being measured among them.
    pub left: Option<usize>,
    /// The case that was stored last, while there is no table of all.
    pub last_case: Option<String>,
    /// Time since then, in seconds.
    pub last_row_age_s: Option<f64>,
    /// Estimated time of the cases that are left, in seconds; none where it does not say.
    pub predicted_time_left_s: Option<f64>,
    /// Whether the file system tells if a runner is at work.
    pub knows_runner: bool,
    /// What is damaged, and how.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damage: Option<String>,
}

impl Standing {
    /// Looks at a run.
    ///
    /// # Errors
    /// [`StoreError::NotARun`], [`StoreError::Io`], [`StoreError::Damaged`] or [`StoreError::Column`].
    pub fn of(dir: &Path) -> Result<Self, StoreError> {
        let run = Run::describe(dir)?;
        let planned = Planned::read(&run.environment);
        let live = is_live(dir)?;
        let counted = Counted::of(dir, live == Some(true))?;
        let (ok, stored) = (counted.ok, counted.cases);
        let left = planned
            .as_ref()
            .map(|planned| planned.cases.saturating_sub(stored));
        let state = match (live, left) {
            (Some(true), _) => State::Running,
            (_, Some(0)) => State::Done,
            // An older run does not say what it was to do; it has its tables where it came to an end.
            (_, None) if dir.join(ROWS).is_file() => State::Done,
            _ => State::Stopped,
        };
        let time_left_s = |planned: &Planned| match left {
            Some(0) => 0.0,
            _ => (planned.predicted_time_s - counted.predicted_time_s).max(0.0),
        };
        Ok(Self {
            dir: dir.to_path_buf(),
            shard: planned.as_ref().and_then(|planned| planned.shard.clone()),
            state,
            cases: planned.as_ref().map(|planned| planned.cases),
            ok,
            failed: stored - ok,
            left,
            last_case: counted.last_case,
            last_row_age_s: counted.last_row_age_s,
            predicted_time_left_s: planned.as_ref().map(time_left_s),
            knows_runner: live.is_some(),
            damage: None,
        })
    }

    /// Looks at runs, several at a time; one that is damaged says so among the others.
    ///
    /// # Errors
    /// [`StoreError::NotARun`] or [`StoreError::Io`].
    pub fn of_all(dirs: &[PathBuf]) -> Result<Vec<Self>, StoreError> {
        let of = |dir: &PathBuf| match Self::of(dir) {
            Err(error @ (StoreError::Damaged { .. } | StoreError::Column { .. })) => {
                Ok(Self::damaged(dir, error.to_string()))
            }
            other => other,
        };
        dirs.par_iter().map(of).collect()
    }

    fn damaged(dir: &Path, damage: String) -> Self {
        let described = Run::describe(dir).ok();
        let planned = described.and_then(|run| Planned::read(&run.environment));
        Self {
            state: State::Damaged,
            cases: planned.as_ref().map(|planned| planned.cases),
            shard: planned.and_then(|planned| planned.shard),
            left: None,
            predicted_time_left_s: None,
            damage: Some(damage),
            ..Self::waiting(dir.to_path_buf(), String::new(), 0, 0.0)
        }
    }

    /// A run that has not begun.
    pub fn waiting(dir: PathBuf, shard: String, cases: usize, predicted_time_s: f64) -> Self {
        Self {
            dir,
            shard: Some(shard),
            state: State::Waiting,
            cases: Some(cases),
            ok: 0,
            failed: 0,
            left: Some(cases),
            last_case: None,
            last_row_age_s: None,
            predicted_time_left_s: Some(predicted_time_s),
            knows_runner: true,
            damage: None,
        }
    }
}

/// The rows of a run in short.
#[derive(Default)]
struct Counted {
    cases: usize,
    ok: usize,
    /// Estimated time of those that took some.
    predicted_time_s: f64,
    last_case: Option<String>,
    last_row_age_s: Option<f64>,
}

impl Counted {
    /// A runner removes its tables when it begins and builds them at its end; they say the same as the log, which is
    /// a hundred times as long.
    fn of(dir: &Path, is_running: bool) -> Result<Self, StoreError> {
        let (log, rows) = (dir.join(LOG), dir.join(ROWS));
        if !log.is_file() || (!is_running && rows.is_file()) {
            return Self::of_table(dir, &rows);
        }
        let mut known: HashMap<String, (Status, f64)> = HashMap::new();
        let mut last = Vec::new();
        complete_lines(&log, |line, number| {
            let head = Head::parse(&log, line, &|| format!("line {number}"))?;
            let time_s = head.predicted_time_s.unwrap_or(0.0);
            known.insert(head.case_id.into_owned(), (head.status, time_s));
            last.clear();
            last.extend_from_slice(line);
            Ok(())
        })?;
        let mut counted = Self::default();
        for (status, time_s) in known.into_values() {
            counted.add(status, time_s);
        }
        if !last.is_empty() {
            let row = Entry::parse(&log, &last, "the last line")?.row;
            counted.last_case = Some(format!("{} {}", row.label, point_title(&row)));
            counted.last_row_age_s = age_s(&log);
        }
        Ok(counted)
    }

    fn of_table(dir: &Path, rows: &Path) -> Result<Self, StoreError> {
        let table = columns_of(dir, &["status", "predicted_time_s"])?;
        let status = read_column::<Status>(&table, "status")?;
        let mut times = read_column::<Option<f64>>(&table, "predicted_time_s")?.into_iter();
        let mut counted = Self {
            last_row_age_s: age_s(rows),
            ..Self::default()
        };
        for status in status {
            counted.add(status, times.next().flatten().unwrap_or(0.0));
        }
        Ok(counted)
    }

    fn add(&mut self, status: Status, time_s: f64) {
        self.cases += 1;
        self.ok += usize::from(status == Status::Ok);
        if !matches!(status, Status::SkippedOom | Status::Unsupported) {
            self.predicted_time_s += time_s;
        }
    }
}

/// Time since a file was written last, in seconds.
fn age_s(file: &Path) -> Option<f64> {
    let modified = file.metadata().and_then(|file| file.modified()).ok()?;
    Some(modified.elapsed().ok()?.as_secs_f64())
}
