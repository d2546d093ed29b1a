//! The log of a run: one line of JSON a case.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::row::{Position, Row, Sample};

/// A line of the log.
#[derive(Serialize, Deserialize)]
pub(super) struct Entry {
    #[serde(flatten)]
    pub(super) row: Row,
    #[serde(default)]
    pub(super) samples: Vec<Sample>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) positions: Vec<Position>,
}

#[derive(Default)]
pub(super) struct Contents {
    pub(super) rows: Vec<Row>,
    pub(super) samples: Vec<Sample>,
    pub(super) positions: Vec<Position>,
    pub(super) warnings: Vec<String>,
    /// Length of the log up to its last complete line.
    pub(super) complete_bytes: u64,
}

/// Reads a log. A process that was killed may leave a torn last line, which is left out with a warning;
/// anything else unreadable is an error. The last entry of a case counts, in the place of its first. Groups run in
/// random order; rows come in that of the plan.
pub(super) fn read_log(path: &Path) -> Result<Contents, StoreError> {
    let bytes = fs::read(path).map_err(StoreError::io("read", path))?;
    let complete = bytes
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |end| end + 1);
    let mut contents = Contents {
        complete_bytes: complete as u64,
        ..Contents::default()
    };
    if complete < bytes.len() {
        contents.warnings.push(format!(
            "the last line of {} is incomplete and was left out: its case was being written when the run ended",
            path.display()
        ));
    }
    let (mut entries, mut places) = (Vec::<Entry>::new(), HashMap::new());
    for (index, line) in bytes[..complete].split(|byte| *byte == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let entry: Entry = serde_json::from_slice(line).map_err(|error| StoreError::Damaged {
            path: path.to_path_buf(),
            reason: format!("line {}: {error}", index + 1),
        })?;
        let place = *places.entry(entry.row.case_id.clone()).or_insert(entries.len());
        if place < entries.len() {
            entries[place] = entry;
        } else {
            entries.push(entry);
        }
    }
    entries.sort_by_key(|entry| entry.row.group);
    for entry in entries {
        contents.rows.push(entry.row);
        contents.samples.extend(entry.samples);
        contents.positions.extend(entry.positions);
    }
    Ok(contents)
}
