//! What can go wrong between results and a disk, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use polars::prelude::PolarsError;

/// What can go wrong between results and a disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A new run was to be written where something is.
    #[error("{} already exists, name another folder with --out or continue that run with --resume", dir.display())]
    Exists {
        /// The folder.
        dir: PathBuf,
    },
    /// A run that another process is writing.
    #[error("another attn-bench is writing {}, wait for it to end or name another folder with --out", dir.display())]
    Locked {
        /// The folder.
        dir: PathBuf,
    },
    /// A merge that has rows of its own, which another merge in its place would not have.
    #[error("{} has rows that it measured since it was merged, merge into another folder with --out, this one among the runs", dir.display())]
    MergeWentOn {
        /// The folder.
        dir: PathBuf,
    },
    /// A folder without results.
    #[error("{} is no run: it has neither rows.parquet nor log.jsonl", dir.display())]
    NotARun {
        /// The folder.
        dir: PathBuf,
    },
    /// Runs that cannot be one.
    #[error("{} and {} are of different sweeps, which differ in {}: merge runs of one sweep, and `show` or `plot` several together", first.display(), other.display(), keys.join(", "))]
    MixedSweeps {
        /// A run.
        first: PathBuf,
        /// One of another sweep.
        other: PathBuf,
        /// The keys in which the sweeps differ.
        keys: Vec<String>,
    },
    /// The operating system refused.
    #[error("cannot {action} {}: {source}{}", path.display(), remedy(source))]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
    /// A file that is not what its name says.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where and how.
        reason: String,
    },
    /// A run whose table and log disagree, so that continuing could lose rows.
    #[error("cannot resume {}: rows.parquet has {missing} cases that log.jsonl lacks, merge the folder into a new one instead", dir.display())]
    LogIncomplete {
        /// The folder.
        dir: PathBuf,
        /// How many.
        missing: usize,
    },
    /// A column that is missing or holds something else.
    #[error("column `{column}` should hold {expected}, got {got}")]
    Column {
        /// Its name.
        column: &'static str,
        /// What it should hold.
        expected: &'static str,
        /// What was found.
        got: String,
    },
    /// The table library refused.
    #[error("cannot build the table: {0}")]
    Table(#[from] PolarsError),
}

impl StoreError {
    /// Whether the machine is at fault (a full disk, a folder without permission) and not the path or the file
    /// that was asked for.
    pub fn is_machine_fault(&self) -> bool {
        use io::ErrorKind::{AlreadyExists, NotADirectory, NotFound};
        matches!(self, Self::Io { source, .. } if !matches!(source.kind(), AlreadyExists | NotADirectory | NotFound))
    }

    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}

/// What to do about an answer of the operating system.
fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ", free some space and continue with --resume, or name a folder on another disk with --out"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ", name a folder you may write to with --out"
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            ", a part of the path is a file: name another folder with --out"
        }
        _ => "",
    }
}
