//! A run's folder: written case by case, so that what ends a run early loses nothing that was measured.
//!
//! | file | holds |
//! |---|---|
//! | `sweep.yaml` | the sweep as run |
//! | `environment.json` | the machine, the build, and the commands that wrote the folder |
//! | `log.jsonl` | one line a case, its samples included, flushed to the disk before the next case starts |
//! | `rows.parquet`, `samples.parquet` | built from the log when the run ends |
//! | `positions.parquet` | the same, where the sweep has trajectories |
//! | `trainings.parquet`, `curves.parquet`, `probes.parquet` | the same, where it trains: one row a seed, a point of its curve, a place of its test |
//! | `checkpoints/` | trainings that have not ended, to go on from |
//! | `README.md` | question, command, summary |

mod differences;
mod error;
mod files;
mod log;
mod merge;
mod planned;
mod read;
mod standing;
mod tables;
mod texts;

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tempfile::TempDir;

use self::files::{read_parquet, replace_file, sync_folder, write_file};
use self::log::{Entry, Index};
use self::read::case_ids;
use self::tables::Tables;
use self::texts::{UNFINISHED, pretty, readme, with_command, with_entry};
use crate::row::{Details, Row};

pub use self::error::StoreError;
pub use self::merge::{Duplicate, LOG_UP_TO, Merge, Source};
pub use self::planned::{Planned, Submission, is_run, runs_in};
pub use self::read::{Run, Stored, StoredCase, columns_of, details_of, is_live, stored};
pub use self::standing::{Standing, State};

/// Version of the columns, in the parquet files' metadata.
pub const SCHEMA_VERSION: u32 = 1;

const SWEEP: &str = "sweep.yaml";
const ENVIRONMENT: &str = "environment.json";
const LOG: &str = "log.jsonl";
const ROWS: &str = "rows.parquet";
const SAMPLES: &str = "samples.parquet";
const POSITIONS: &str = "positions.parquet";
const TRAININGS: &str = "trainings.parquet";
const CURVES: &str = "curves.parquet";
const PROBES: &str = "probes.parquet";
const CHECKPOINTS: &str = "checkpoints";
const README: &str = "README.md";
const COMMANDS: &str = "commands";
const SESSIONS: &str = "sessions";
/// In a merged run: of how many.
const MERGED: &str = "merged";
const CHANGES: &str = "accepted_changes";
const MACHINES: &str = "machines";

/// How long and how often a log is tried for that another process has: one that only looks has it for no time.
const TRIES: u32 = 10;
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

/// Rows that are held at once while tables are built: with thousands of samples each, some hundred megabytes.
const ROWS_AT_ONCE: usize = 512;

/// The name of a run's folder: `<sweep>-<utc time>-<machine>`, the machine in lower-case words.
pub fn default_name(sweep: &str, utc: SystemTime, machine: &str) -> String {
    let time = humantime::format_rfc3339_seconds(utc)
        .to_string()
        .replace(['-', ':'], "");
    let words = machine.to_lowercase();
    let words = words
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty());
    let words =
        words.filter(|word| !matches!(*word, "r" | "tm" | "c" | "cpu" | "processor" | "gen" | "with"));
    // Processors have long names; four words tell them apart.
    let machine = words.take(4).collect::<Vec<_>>().join("-");
    format!(
        "{sweep}-{time}-{}",
        if machine.is_empty() { "unknown" } else { &machine }
    )
}

/// A run being written. While it lives no other process can continue the run: its log is locked.
#[derive(Debug)]
pub struct RunDir {
    dir: PathBuf,
    log: File,
}

impl RunDir {
    /// A new folder, with everything known before the first case. It appears complete or not at all.
    ///
    /// # Errors
    /// [`StoreError::Exists`] where something is there, [`StoreError::Io`] where it cannot be written.
    pub fn create(
        dir: &Path,
        sweep_yaml: &str,
        environment: &Value,
        command: &str,
    ) -> Result<Self, StoreError> {
        let exists = || StoreError::Exists {
            dir: dir.to_path_buf(),
        };
        if dir.symlink_metadata().is_ok() {
            return Err(exists());
        }
        // Filled under another name beside its place and then renamed, which is atomic.
        let temporary = beside(dir)?;
        let inside = temporary.path();
        write_file(&inside.join(SWEEP), sweep_yaml.as_bytes())?;
        write_file(
            &inside.join(ENVIRONMENT),
            pretty(&with_command(environment.clone(), command)).as_bytes(),
        )?;
        write_file(&inside.join(LOG), b"")?;
        write_file(
            &inside.join(README),
            readme(sweep_yaml, &[command.to_string()], UNFINISHED).as_bytes(),
        )?;
        fs::rename(inside, dir).map_err(|source| match source.kind() {
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => exists(),
            _ => StoreError::io("create", dir)(source),
        })?;
        // Nothing is left under the temporary name.
        let _ = temporary.keep();
        sync_folder(parent_of(dir));
        Self::append_to(dir)
    }

    /// Continues a run: what it already holds comes back beside it. A torn last line is cut off, and the tables are removed until [`build_tables`](Self::build_tables) is called again. `changes` are
    /// what the user accepted to be different from when the run was begun; `sweep_yaml` is the sweep as it runs now.
    ///
    /// # Errors
    /// [`StoreError::NotARun`], [`StoreError::LogIncomplete`], [`StoreError::Damaged`] or [`StoreError::Io`].
    pub fn resume(
        dir: &Path,
        command: &str,
        sweep_yaml: &str,
        changes: &[String],
    ) -> Result<(Self, Stored), StoreError> {
        let (rows, log) = (dir.join(ROWS), dir.join(LOG));
        if !log.is_file() {
            if !rows.is_file() {
                return Err(StoreError::NotARun {
                    dir: dir.to_path_buf(),
                });
            }
            return Err(StoreError::LogIncomplete {
                dir: dir.to_path_buf(),
                missing: read_parquet(&rows, Some(&["case_id"]))?.height(),
            });
        }
        // Nothing is read or changed before the run is ours.
        let ours = Self::append_to(dir)?;
        let index = Index::of(&log)?;
        let complete_bytes = index.complete_bytes;
        let Stored { cases, warnings } = index.stored();
        if rows.is_file() {
            let stored = case_ids(&read_parquet(&rows, Some(&["case_id"]))?)?;
            let known: HashSet<&str> = cases.iter().map(|case| case.case_id.as_str()).collect();
            let missing = stored.iter().filter(|id| !known.contains(id.as_str())).count();
            if missing > 0 {
                return Err(StoreError::LogIncomplete {
                    dir: dir.to_path_buf(),
                    missing,
                });
            }
        }
        let run = Run::describe(dir)?;
        let mut environment = with_command(run.environment, command);
        for change in changes {
            environment = with_entry(environment, CHANGES, change.as_str().into());
        }
        replace_file(&dir.join(ENVIRONMENT), pretty(&environment).as_bytes())?;
        if sweep_yaml != run.sweep_yaml {
            replace_file(&dir.join(SWEEP), sweep_yaml.as_bytes())?;
        }
        let tables = [SAMPLES, POSITIONS, TRAININGS, CURVES, PROBES].map(|name| dir.join(name));
        for table in std::iter::once(rows).chain(tables) {
            match fs::remove_file(&table) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::io("remove", &table)(source));
                }
                _ => {}
            }
        }
        ours.log
            .set_len(complete_bytes)
            .map_err(StoreError::io("write", &log))?;
        Ok((ours, Stored { cases, warnings }))
    }

    fn append_to(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(LOG);
        let log = OpenOptions::new()
            .append(true)
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        // The lock goes with the process, however that ends.
        for tries in 1.. {
            match log.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if tries < TRIES => std::thread::sleep(BETWEEN_TRIES),
                Err(TryLockError::WouldBlock) => {
                    return Err(StoreError::Locked {
                        dir: dir.to_path_buf(),
                    });
                }
                // Some network file systems know no locks; what they then allow is the user's to avoid.
                Err(TryLockError::Error(source)) if source.kind() == io::ErrorKind::Unsupported => break,
                Err(TryLockError::Error(source)) => return Err(StoreError::io("lock", &path)(source)),
            }
        }
        Ok(Self {
            dir: dir.to_path_buf(),
            log,
        })
    }

    /// Notes that the run goes on on another machine or with another build than it was begun with.
    ///
    /// # Errors
    /// [`StoreError::Io`] or [`StoreError::Damaged`].
    pub fn note_machine(&mut self, machine: &Value) -> Result<(), StoreError> {
        let environment = with_entry(Run::describe(&self.dir)?.environment, MACHINES, machine.clone());
        replace_file(&self.dir.join(ENVIRONMENT), pretty(&environment).as_bytes())
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Where a case keeps what it has not ended: a folder that is removed once its row is stored.
    fn checkpoint(dir: &Path, case_id: &str) -> PathBuf {
        dir.join(CHECKPOINTS).join(case_id)
    }

    /// The folder of a case in `dir`, made where it is not there yet.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn make_checkpoint(dir: &Path, case_id: &str) -> Result<PathBuf, StoreError> {
        let folder = Self::checkpoint(dir, case_id);
        fs::create_dir_all(&folder).map_err(StoreError::io("create", &folder))?;
        Ok(folder)
    }

    /// Writes a case as one line of the log, down to the disk. A case written again replaces the earlier one
    /// when the run is read.
    ///
    /// # Errors
    /// [`StoreError::Io`]; the log then ends where it did before.
    pub fn append(&mut self, row: &Row, details: &Details) -> Result<(), StoreError> {
        self.append_all(std::iter::once((row, details)))
    }

    /// Writes cases that ended together as [`append`](Self::append) does, and waits for the disk once.
    ///
    /// # Errors
    /// [`StoreError::Io`]; the log then ends where it did before.
    pub fn append_all<'a>(
        &mut self,
        cases: impl Iterator<Item = (&'a Row, &'a Details)>,
    ) -> Result<(), StoreError> {
        let path = self.dir.join(LOG);
        let start = self.log.metadata().map_err(StoreError::io("read", &path))?.len();
        let mut stored = Vec::new();
        let write = || {
            for (row, details) in cases {
                let entry = Entry {
                    row: row.clone(),
                    details: details.clone(),
                };
                let mut line = serde_json::to_vec(&entry)?;
                line.push(b'\n');
                // One write a case, so that a full disk tears one line at most.
                self.log.write_all(&line)?;
                stored.push(&row.case_id);
            }
            self.log.sync_data()
        };
        write().map_err(|source| {
            let _ = self.log.set_len(start);
            StoreError::io("write", &path)(source)
        })?;
        let checkpoints = self.dir.join(CHECKPOINTS);
        if checkpoints.exists() {
            // What is left of a training that is stored wastes room and does no harm.
            for case_id in stored {
                let _ = fs::remove_dir_all(Self::checkpoint(&self.dir, case_id));
            }
            let _ = fs::remove_dir(checkpoints);
        }
        Ok(())
    }

    /// Builds the parquet files from the log; `each` sees all rows on their way, some at a time, in the order of the
    /// plan. May be called again.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Damaged`] or [`StoreError::Table`]; a file is either replaced or as it was.
    pub fn build_tables(&mut self, each: &mut dyn FnMut(&[Row])) -> Result<(), StoreError> {
        let index = Index::of(&self.dir.join(LOG))?;
        let mut tables = Tables::new(&self.dir);
        index.read(ROWS_AT_ONCE, |entries| {
            each(&tables.write(entries)?);
            Ok(())
        })?;
        tables.finish()?;
        sync_folder(&self.dir);
        Ok(())
    }

    /// Writes the README around the summary; `session` says of the environment file what is known only now.
    ///
    /// # Errors
    /// [`StoreError::Io`] or [`StoreError::Damaged`]; a file is either replaced or as it was.
    pub fn finish(&mut self, summary_markdown: &str, session: &Value) -> Result<(), StoreError> {
        let run = Run::describe(&self.dir)?;
        let text = readme(&run.sweep_yaml, &run.commands(), summary_markdown);
        replace_file(&self.dir.join(README), text.as_bytes())?;
        let environment = with_entry(run.environment, SESSIONS, session.clone());
        replace_file(&self.dir.join(ENVIRONMENT), pretty(&environment).as_bytes())?;
        sync_folder(&self.dir);
        Ok(())
    }
}

/// The folder that one is in.
fn parent_of(dir: &Path) -> &Path {
    match dir.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// A folder of another name beside `dir`, to be renamed once it is complete.
fn beside(dir: &Path) -> Result<TempDir, StoreError> {
    let parent = parent_of(dir);
    fs::create_dir_all(parent).map_err(StoreError::io("create", parent))?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".attn-bench-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777)); // less the umask
    builder
        .tempdir_in(parent)
        .map_err(StoreError::io("create a folder in", parent))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// `/dev/full` refuses every write as a full disk does.
    #[test]
    fn a_full_disk_ends_an_append_with_its_own_error() {
        let temporary = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/full", temporary.path().join(LOG)).unwrap();
        let mut writer = RunDir::append_to(temporary.path()).unwrap();
        let error = writer.append(&Row::default(), &Details::default()).unwrap_err();
        let text = error.to_string();
        assert!(
            error.is_machine_fault() && text.contains(LOG) && text.contains("free some space"),
            "{text}"
        );
    }
}
