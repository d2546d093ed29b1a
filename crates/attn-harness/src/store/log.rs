//! The log of a run: one line of JSON a case. It may be larger than memory, and is never held as a whole.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{StoreError, Stored, StoredCase};
use crate::row::{Details, Row, valid_nats};
use crate::status::Status;

/// A line of the log.
#[derive(Serialize)]
pub(super) struct Entry {
    #[serde(flatten)]
    pub(super) row: Row,
    #[serde(flatten)]
    pub(super) details: Details,
}

/// Where the entries of a log are.
pub(super) struct Index {
    path: PathBuf,
    /// Those that count, in the order of the plan.
    places: Vec<Place>,
    pub(super) warnings: Vec<String>,
    /// Length of the log up to its last complete line.
    pub(super) complete_bytes: u64,
}

struct Place {
    case: StoredCase,
    group: u64,
    offset: u64,
    bytes: usize,
}

impl Index {
    /// Looks through a log. A process that was killed may leave a torn last line, which is left out with a warning;
    /// anything else unreadable is an error. The last entry of a case counts, in the place of its first. Groups run
    /// in random order; entries come in that of the plan.
    pub(super) fn of(path: &Path) -> Result<Self, StoreError> {
        let file = File::open(path).map_err(StoreError::io("read", path))?;
        let mut log = BufReader::new(file);
        let mut index = Self {
            path: path.to_path_buf(),
            places: Vec::new(),
            warnings: Vec::new(),
            complete_bytes: 0,
        };
        let mut known: HashMap<String, usize> = HashMap::new();
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let bytes = log
                .read_until(b'\n', &mut line)
                .map_err(StoreError::io("read", path))?;
            if line.last() != Some(&b'\n') {
                if bytes > 0 {
                    index.warnings.push(format!(
                        "the last line of {} is incomplete and was left out: its case was being written when the \
                         run ended",
                        path.display()
                    ));
                }
                break;
            }
            let offset = index.complete_bytes;
            index.complete_bytes += bytes as u64;
            if line.trim_ascii().is_empty() {
                continue;
            }
            // All of it is read here and again later: a damaged line is found before hours are spent beside it.
            let row = Entry::parse(path, &line, &format!("line {number}"))?.row;
            let place = Place {
                group: row.group,
                offset,
                bytes,
                case: StoredCase {
                    case_id: row.case_id,
                    status: row.status,
                },
            };
            match known.get(&place.case.case_id) {
                Some(&earlier) => index.places[earlier] = place,
                None => {
                    known.insert(place.case.case_id.clone(), index.places.len());
                    index.places.push(place);
                }
            }
        }
        index.places.sort_by_key(|place| place.group);
        Ok(index)
    }

    /// What the log holds.
    pub(super) fn stored(self) -> Stored {
        Stored {
            cases: self.places.into_iter().map(|place| place.case).collect(),
            warnings: self.warnings,
        }
    }

    /// Passes all entries on, so many at once.
    pub(super) fn read(
        &self,
        at_once: usize,
        mut pass: impl FnMut(Vec<Entry>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut lines = Lines::open(&self.path)?;
        let mut line = Vec::new();
        for places in self.places.chunks(at_once) {
            let mut entries = Vec::with_capacity(places.len());
            for place in places {
                line.clear();
                lines.read(place.offset, place.bytes, &mut line)?;
                entries.push(Entry::parse(
                    &self.path,
                    &line,
                    &format!("byte {}", place.offset),
                )?);
            }
            pass(entries)?;
        }
        Ok(())
    }
}

/// Lines of a log, wherever they are.
pub(super) struct Lines {
    path: PathBuf,
    log: BufReader<File>,
    at: u64,
}

impl Lines {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let file = File::open(path).map_err(StoreError::io("read", path))?;
        Ok(Self {
            path: path.to_path_buf(),
            log: BufReader::new(file),
            at: 0,
        })
    }

    /// Appends so many bytes from `offset` on to `text`.
    pub(super) fn read(&mut self, offset: u64, bytes: usize, text: &mut Vec<u8>) -> Result<(), StoreError> {
        let begin = text.len();
        text.resize(begin + bytes, 0);
        // Groups lie in one piece: most steps stay within the buffer.
        let steps = offset as i64 - self.at as i64;
        let read = self.log.seek_relative(steps);
        let read = read.and_then(|()| self.log.read_exact(&mut text[begin..]));
        read.map_err(StoreError::io("read", &self.path))?;
        self.at = offset + bytes as u64;
        Ok(())
    }
}

/// What a line says of its case, without what was measured.
#[derive(Debug, Deserialize)]
pub(super) struct Head<'a> {
    #[serde(borrow)]
    pub(super) case_id: Cow<'a, str>,
    #[serde(default)]
    pub(super) group: u64,
    pub(super) status: Status,
    #[serde(default)]
    pub(super) predicted_time_s: Option<f64>,
}

impl<'a> Head<'a> {
    pub(super) fn parse(path: &Path, line: &'a [u8], place: &dyn Fn() -> String) -> Result<Self, StoreError> {
        serde_json::from_slice(line).map_err(|error| damaged(path, &place(), &error))
    }
}

/// Passes the complete lines of a log on, with the number of each, and says whether a torn one follows them.
pub(super) fn complete_lines(
    path: &Path,
    mut pass: impl FnMut(&[u8], usize) -> Result<(), StoreError>,
) -> Result<bool, StoreError> {
    let file = File::open(path).map_err(StoreError::io("read", path))?;
    let mut log = BufReader::with_capacity(1 << 17, file);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let bytes = log
            .read_until(b'\n', &mut line)
            .map_err(StoreError::io("read", path))?;
        if line.last() != Some(&b'\n') {
            return Ok(bytes > 0);
        }
        if !line.trim_ascii().is_empty() {
            pass(&line, number)?;
        }
    }
    Ok(false)
}

impl Entry {
    pub(super) fn parse(path: &Path, line: &[u8], place: &str) -> Result<Self, StoreError> {
        // Twice over the line, and still several times as fast as once by way of `flatten`, which keeps every cell.
        let read = || {
            Ok(Self {
                row: serde_json::from_slice(line)?,
                details: serde_json::from_slice(line)?,
            })
        };
        read()
            .map(Self::with_rates)
            .map_err(|error: serde_json::Error| damaged(path, place, &error))
    }

    /// In a log that is older than the columns `lr` and `valid_nats`, `training` knows the first and the curves the second.
    fn with_rates(mut self) -> Self {
        if let (None, Some(training)) = (self.row.lr, &self.row.training) {
            let training: Value = serde_json::from_str(training).unwrap_or_default();
            self.row.lr = training["options"]["lr"].as_f64();
            self.row.valid_nats = valid_nats(&self.details.curves);
        }
        self
    }
}

fn damaged(path: &Path, place: &str, error: &serde_json::Error) -> StoreError {
    StoreError::Damaged {
        path: path.to_path_buf(),
        reason: format!("{place}: {error}"),
    }
}
