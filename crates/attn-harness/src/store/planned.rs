//! What a run was to do, as its folder says: so that nobody has to plan a sweep again to see what is missing.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::files::{read_text, replace_file};
use super::{ENVIRONMENT, LOG, MERGED, ROWS, Run, RunDir, StoreError, pretty};
use crate::plan::{Part, Plan, Shard, Which};

const PLAN: &str = "plan";
const SUBMISSION: &str = "submit.json";
const SHARDS: &str = "shards";

/// What a run was to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// Cases.
    pub cases: usize,
    /// Their estimated time on the machine that planned them, in seconds.
    pub predicted_time_s: f64,
    /// Part of the sweep, `I/N`; none is all of it.
    pub shard: Option<String>,
    /// Which variables of a scheduler said so.
    pub shard_by: Option<String>,
    /// What was kept of the sweep.
    pub filter: Option<String>,
}

impl Planned {
    /// What a plan says of itself, once it was filtered and cut.
    pub fn of(plan: &Plan, filter: Option<&str>, which: Option<&Which>) -> Self {
        Self {
            cases: plan.cases.len(),
            predicted_time_s: plan.predicted_time_s(),
            shard: which.map(|which| which.shard.to_string()),
            shard_by: which.map(|which| which.by.clone()).filter(|by| !by.is_empty()),
            filter: filter.map(str::to_string),
        }
    }

    /// The part, where it is one.
    pub fn shard(&self) -> Option<Shard> {
        self.shard.as_deref()?.parse().ok()
    }

    /// What an environment file says; none in one of an older version, or of a run that went on as another part.
    pub fn read(environment: &Value) -> Option<Self> {
        serde_json::from_value(environment.get(PLAN)?.clone()).ok()
    }

    /// Writes it into an environment.
    pub fn write(&self, environment: &mut Value) {
        if let Some(object) = environment.as_object_mut() {
            object.insert(PLAN.to_string(), json!(self));
        }
    }

    fn is_as(&self, other: &Self) -> bool {
        (&self.shard, &self.filter) == (&other.shard, &other.filter)
    }
}

impl RunDir {
    /// Notes what a resumed run is to do: nothing new where that is what it was to do from the start. A run that goes
    /// on as another part of its sweep is known no more.
    ///
    /// # Errors
    /// [`StoreError::Io`] or [`StoreError::Damaged`].
    pub fn note_plan(&mut self, planned: &Planned) -> Result<(), StoreError> {
        let mut environment = Run::describe(&self.dir)?.environment;
        if Planned::read(&environment).is_some_and(|known| known.is_as(planned)) {
            return Ok(());
        }
        if let Some(object) = environment.as_object_mut() {
            object.remove(PLAN);
        }
        replace_file(&self.dir.join(ENVIRONMENT), pretty(&environment).as_bytes())
    }
}

/// A sweep that was handed to a scheduler: the file that says so lies beside its shards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Submission {
    /// `slurm` or `hyperqueue`.
    pub scheduler: String,
    /// Name of the sweep.
    pub name: String,
    /// The command that submitted it.
    pub command: String,
    /// What was kept of the sweep.
    pub filter: Option<String>,
    /// The scheduler's number of the array; none before it took it.
    pub job: Option<String>,
    /// The scheduler's number of the job that merges.
    pub merge_job: Option<String>,
    /// Each shard's cases and estimated time.
    pub shards: Vec<Part>,
}

impl Submission {
    /// Writes it into its folder.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn write(&self, dir: &Path) -> Result<(), StoreError> {
        replace_file(&dir.join(SUBMISSION), pretty(&json!(self)).as_bytes())
    }

    /// What lies in a folder; none where nothing was submitted from there.
    ///
    /// # Errors
    /// [`StoreError::Io`] or [`StoreError::Damaged`].
    pub fn read(dir: &Path) -> Result<Option<Self>, StoreError> {
        let path = dir.join(SUBMISSION);
        // A file has nothing below it.
        let text = if dir.is_dir() { read_text(&path)? } else { None };
        let Some(text) = text else {
            return Ok(None);
        };
        let damaged = |error: serde_json::Error| StoreError::Damaged {
            path,
            reason: error.to_string(),
        };
        serde_json::from_str(&text).map(Some).map_err(damaged)
    }

    /// Where a shard's run is.
    pub fn shard_dir(dir: &Path, index: usize) -> PathBuf {
        dir.join(SHARDS).join(index.to_string())
    }
}

/// Whether a folder is a run.
pub fn is_run(dir: &Path) -> bool {
    dir.join(LOG).is_file() || dir.join(ROWS).is_file()
}

/// Whether a run says that it was merged of others; one that cannot be read is said to be damaged by who reads it.
fn is_merge(dir: &Path) -> bool {
    let text = fs::read_to_string(dir.join(ENVIRONMENT)).unwrap_or_default();
    serde_json::from_str::<Value>(&text).is_ok_and(|environment| environment.get(MERGED).is_some())
}

/// The runs that a folder stands for: itself, or those in its `shards`, or those in it, by their numbers. What was merged
/// of them and lies beside them is none of them.
///
/// # Errors
/// [`StoreError::NotARun`] where there are none, [`StoreError::Io`].
pub fn runs_in(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    if is_run(dir) {
        return Ok(vec![dir.to_path_buf()]);
    }
    let shards = dir.join(SHARDS);
    let has_shards = shards.is_dir();
    let folder = if has_shards { shards } else { dir.to_path_buf() };
    let mut runs = Vec::new();
    if folder.is_dir() {
        let read = StoreError::io("read", &folder);
        let entries = fs::read_dir(&folder).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
        let names = entries.map_err(read)?.into_iter().map(|entry| entry.path());
        // A folder on its way to its name begins with a dot.
        let is_hidden = |path: &PathBuf| {
            path.file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
        };
        runs = names
            // A folder of shards holds nothing else, and there may be thousands.
            .filter(|path| !is_hidden(path) && is_run(path) && (has_shards || !is_merge(path)))
            .collect();
        runs.sort_by_key(|path| {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            (name.parse::<u64>().unwrap_or(u64::MAX), name)
        });
    }
    // What was submitted may not have begun yet.
    if runs.is_empty() && !dir.join(SUBMISSION).is_file() {
        return Err(StoreError::NotARun {
            dir: dir.to_path_buf(),
        });
    }
    Ok(runs)
}
