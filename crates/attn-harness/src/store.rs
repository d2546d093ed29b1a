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
mod standing;

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use polars::prelude::DataFrame;
use serde_json::Value;
use tempfile::TempDir;

use self::files::{TableFile, read_parquet, read_text, replace_file, sync_folder, write_file};
use self::log::{Entry, Index};
use crate::columns::read_column;
use crate::row::{CurvePoint, Details, Position, Probe, Row, Sample, Training};
use crate::status::Status;

pub use self::error::StoreError;
pub use self::merge::{Duplicate, LOG_UP_TO, Merge, Source};
pub use self::planned::{Planned, Submission, is_run, runs_in};
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
const CHANGES: &str = "accepted_changes";
const MACHINES: &str = "machines";

/// How long and how often a log is tried for that another process has: one that only looks has it for no time.
const TRIES: u32 = 10;
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

/// Rows that are held at once while tables are built: with thousands of samples each, some hundred megabytes.
const ROWS_AT_ONCE: usize = 512;

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
        let mut metadata = None;
        let mut tables = Tables::new(&self.dir);
        index.read(ROWS_AT_ONCE, |entries| {
            let mut rows = Vec::with_capacity(entries.len());
            let mut details = Details::default();
            for entry in entries {
                rows.push(entry.row);
                details.extend(entry.details);
            }
            let metadata: &Vec<_> = metadata.get_or_insert_with(|| describe_tables(&rows));
            tables.write(&rows, &details, metadata)?;
            each(&rows);
            Ok(())
        })?;
        if metadata.is_none() {
            // A run without cases has its tables too.
            tables.write(&[], &Details::default(), &describe_tables(&[]))?;
        }
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

/// The tables of some rows, by the names of their files.
fn frames(rows: &[Row], details: &Details) -> Result<[(&'static str, DataFrame); 6], StoreError> {
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
struct Tables<'a> {
    dir: &'a Path,
    files: Vec<(&'static str, TableFile)>,
}

impl<'a> Tables<'a> {
    fn new(dir: &'a Path) -> Self {
        Self {
            dir,
            files: Vec::new(),
        }
    }

    fn write(
        &mut self,
        rows: &[Row],
        details: &Details,
        metadata: &[(String, String)],
    ) -> Result<(), StoreError> {
        self.write_frames(frames(rows, details)?, metadata)
    }

    fn write_frames(
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

    fn finish(mut self) -> Result<(), StoreError> {
        self.files.sort_by_key(|(name, _)| *name == ROWS);
        self.files.into_iter().try_for_each(|(_, file)| file.finish())
    }
}

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
    fn of_tables(dir: &Path) -> Result<Self, StoreError> {
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

fn case_ids(table: &DataFrame) -> Result<Vec<String>, StoreError> {
    read_column::<String>(table, "case_id")
}

/// What the parquet files say about themselves.
fn describe_tables(rows: &[Row]) -> Vec<(String, String)> {
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

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// The environment with one more command.
fn with_command(environment: Value, command: &str) -> Value {
    with_entry(environment, COMMANDS, command.into())
}

/// The environment with one more entry in the list `name`.
fn with_entry(mut environment: Value, name: &str, entry: Value) -> Value {
    if environment.is_null() {
        environment = Value::Object(serde_json::Map::new());
    }
    if let Some(object) = environment.as_object_mut() {
        let entries = object.entry(name).or_insert_with(|| Value::Array(Vec::new()));
        if let Some(entries) = entries.as_array_mut() {
            entries.push(entry);
        }
    }
    environment
}

const UNFINISHED: &str = "The run has not ended: `log.jsonl` holds the cases measured so far.";

fn readme(sweep_yaml: &str, commands: &[String], summary: &str) -> String {
    let sweep: serde_yaml::Value = serde_yaml::from_str(sweep_yaml).unwrap_or_default();
    let word = |key: &str| {
        sweep
            .get(key)
            .and_then(serde_yaml::Value::as_str)
            .unwrap_or_default()
    };
    let (name, question) = (word("name"), word("question"));
    let title = if name.is_empty() { "Run" } else { name };
    let mut text = format!("# {title}\n\n");
    if !question.is_empty() {
        text.push_str(&format!("**Question.** {question}\n\n"));
    }
    text.push_str(&format!("```sh\n{}\n```\n\n", commands.join("\n")));
    text.push_str(summary.trim_end());
    text.push('\n');
    text
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
