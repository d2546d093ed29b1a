//! What a worker is doing, for when it can no longer be asked.
//!
//! A small file that the runner makes and both hold open. The worker writes case and phase before each step and, from
//! within its allocator, the request it has to refuse; the runner reads it when the worker died or when it seems to
//! hang. Writing costs a microsecond and wakes nobody, which a message before every sample would.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

/// What is being done with a case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nothing, or nothing with any case.
    #[default]
    Idle,
    /// Layer, inputs and cache are made.
    Building,
    /// It is compared with the reference.
    Verifying,
    /// It is warmed up.
    Warming,
    /// A sample is taken.
    Sampling,
    /// A model is trained or tested.
    Training,
}

impl Phase {
    const ALL: [Self; 6] = [
        Self::Idle,
        Self::Building,
        Self::Verifying,
        Self::Warming,
        Self::Sampling,
        Self::Training,
    ];

    /// As in `while verifying`.
    pub fn words(self) -> &'static str {
        match self {
            Self::Idle => "waiting",
            Self::Building => "building",
            Self::Verifying => "verifying",
            Self::Warming => "warming up",
            Self::Sampling => "sampling",
            Self::Training => "training",
        }
    }
}

/// What a slate says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Note {
    /// Steps begun so far: while it stands still, the worker is in the same step.
    pub steps: u64,
    /// Number of the case in its request.
    pub case: usize,
    /// What is done with it.
    pub phase: Phase,
    /// Bytes of an allocation that was refused because it went beyond the limit.
    pub refused_bytes: Option<u64>,
}

/// Words of eight bytes: steps, case, phase, refused bytes.
const WORDS: usize = 4;
/// Where the refused bytes stand.
const REFUSED_AT: u64 = 24;

/// Whether a request was refused in this step: the first is the reason, those after it are made in saying so (a
/// backtrace allocates tens of megabytes).
static HAS_REFUSED: AtomicBool = AtomicBool::new(false);

/// The runner's end.
#[derive(Debug)]
pub struct Slate {
    file: tempfile::NamedTempFile,
}

impl Slate {
    /// A clean slate, in the folder for temporary files.
    ///
    /// # Errors
    /// The system's.
    pub fn new() -> io::Result<Self> {
        let file = tempfile::Builder::new().prefix("attn-bench-slate-").tempfile()?;
        // The room is taken now, so that no later note needs any.
        write_at(file.as_file(), &[0; 8 * WORDS], 0)?;
        Ok(Self { file })
    }

    /// Where a worker finds it.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// What it says; an empty note where it cannot be read.
    pub fn read(&self) -> Note {
        let mut bytes = [0; 8 * WORDS];
        if read_at(self.file.as_file(), &mut bytes).is_err() {
            return Note::default();
        }
        let word = |i: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[8 * i..8 * i + 8]);
            u64::from_le_bytes(word)
        };
        Note {
            steps: word(0),
            case: word(1) as usize,
            phase: Phase::ALL.get(word(2) as usize).copied().unwrap_or_default(),
            refused_bytes: Some(word(3)).filter(|bytes| *bytes > 0),
        }
    }
}

/// The worker's end.
#[derive(Debug)]
pub struct Chalk {
    file: File,
    steps: u64,
}

impl Chalk {
    /// For the slate at `path`.
    ///
    /// # Errors
    /// The system's.
    pub fn new(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).open(path)?;
        Ok(Self { file, steps: 0 })
    }

    /// Notes that a step begins.
    pub fn note(&mut self, case: usize, phase: Phase) {
        self.steps += 1;
        HAS_REFUSED.store(false, Relaxed);
        let words = [self.steps, case as u64, phase as u64, 0];
        let mut bytes = [0; 8 * WORDS];
        for (at, word) in bytes.chunks_exact_mut(8).zip(words) {
            at.copy_from_slice(&word.to_le_bytes());
        }
        // A note that is lost makes a reason less exact, no result wrong.
        let _ = write_at(&self.file, &bytes, 0);
    }

    /// The file, for the allocator to write to with [`refuse`].
    ///
    /// # Errors
    /// The system's.
    pub fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}

/// Notes the first refused allocation of a step. Allocates nothing: the allocator itself calls it.
pub fn refuse(file: &File, bytes: u64) {
    if !HAS_REFUSED.swap(true, Relaxed) {
        let _ = write_at(file, &bytes.to_le_bytes(), REFUSED_AT);
    }
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, at)
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, 0)
}

#[cfg(not(unix))]
fn write_at(mut file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    use std::io::{Seek, SeekFrom, Write};
    file.seek(SeekFrom::Start(at))?;
    file.write_all(bytes)
}

#[cfg(not(unix))]
fn read_at(mut file: &File, bytes: &mut [u8]) -> io::Result<()> {
    use std::io::{Read, Seek, SeekFrom};
    file.seek(SeekFrom::Start(0))?;
    file.read_exact(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_note_and_the_refusal_after_it_are_read_back() {
        let slate = Slate::new().unwrap();
        assert_eq!(slate.read(), Note::default());
        let mut chalk = Chalk::new(slate.path()).unwrap();
        chalk.note(3, Phase::Verifying);
        chalk.note(5, Phase::Sampling);
        refuse(&chalk.file().unwrap(), 1 << 40);
        refuse(&chalk.file().unwrap(), 1 << 16);
        let note = slate.read();
        assert_eq!((note.steps, note.case, note.phase), (2, 5, Phase::Sampling));
        assert_eq!(note.refused_bytes, Some(1 << 40));
        // The next step is a new one.
        chalk.note(6, Phase::Sampling);
        assert_eq!(slate.read().refused_bytes, None);
    }
}
