//! Files, and their lines one by one.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Place, Result};

/// Bytes of the longest line that is read: a file without line ends must not fill the memory.
const LINE_LIMIT: u64 = 64 << 20;

/// Opens a file for reading. Whatever is no regular file is refused: opening a pipe would wait for a writer.
pub(crate) fn open(path: &Path) -> Result<File> {
    let failed = |reason: String| Error::Read {
        path: path.to_owned(),
        reason,
    };
    let metadata = fs::metadata(path).map_err(|error| failed(error.to_string()))?;
    if !metadata.is_file() {
        return Err(failed("it is no regular file".into()));
    }
    File::open(path).map_err(|error| failed(error.to_string()))
}

/// A line with its place, without its end.
pub(crate) struct Line {
    pub at: Place,
    pub text: String,
}

/// The lines of a file. A byte order mark is no part of the first one, a line end after the last begins no other.
pub(crate) struct Lines {
    reader: BufReader<File>,
    path: Arc<Path>,
    number: u64,
    limit: u64,
}

impl Lines {
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self {
            reader: BufReader::with_capacity(1 << 16, open(path)?),
            path: path.into(),
            number: 0,
            limit: LINE_LIMIT,
        })
    }

    fn read(&mut self) -> Result<Option<Line>> {
        let mut bytes = Vec::new();
        self.reader
            .by_ref()
            .take(self.limit + 1)
            .read_until(b'\n', &mut bytes)
            .map_err(|error| Error::Read {
                path: self.path.to_path_buf(),
                reason: error.to_string(),
            })?;
        if bytes.is_empty() {
            return Ok(None);
        }
        self.number += 1;
        let at = Place {
            path: self.path.clone(),
            line: self.number,
        };
        if bytes.len() as u64 > self.limit {
            return Err(Error::LongLine {
                at,
                limit: self.limit,
            });
        }
        let mut line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        line = line.strip_suffix(b"\r").unwrap_or(line);
        if self.number == 1 {
            line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        }
        match std::str::from_utf8(line) {
            Ok(text) => Ok(Some(Line {
                at,
                text: text.to_owned(),
            })),
            Err(error) => Err(Error::Utf8 {
                at,
                byte: error.valid_up_to() + 1,
            }),
        }
    }
}

impl Iterator for Lines {
    type Item = Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(bytes: &[u8]) -> Vec<Result<Line>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        let mut lines = Lines::open(file.path()).unwrap();
        lines.limit = 10;
        lines.collect()
    }

    fn texts_of(bytes: &[u8]) -> Vec<String> {
        lines_of(bytes)
            .into_iter()
            .map(|line| line.unwrap().text)
            .collect()
    }

    #[test]
    fn line_ends_of_both_kinds_are_no_part_of_a_line() {
        assert_eq!(texts_of(b"a\r\nb\n\nc"), ["a", "b", "", "c"]);
        assert_eq!(texts_of(b"a\n"), ["a"]);
        assert!(texts_of(b"").is_empty());
    }

    #[test]
    fn a_byte_order_mark_is_no_text() {
        assert_eq!(texts_of(b"\xEF\xBB\xBFa\nb"), ["a", "b"]);
    }

    #[test]
    fn a_line_that_is_not_utf8_is_named() {
        let lines = lines_of(b"fine\nab\xFFc\n");
        assert!(lines[0].is_ok());
        let error = lines[1].as_ref().err().unwrap().to_string();
        assert!(
            error.ends_with(":2: invalid UTF-8 at byte 3 of the line"),
            "{error}"
        );
    }

    #[test]
    fn a_line_without_an_end_does_not_fill_the_memory() {
        assert_eq!(texts_of(b"0123456789"), ["0123456789"]);
        assert!(matches!(
            lines_of(b"0123456789a")[0],
            Err(Error::LongLine { limit: 10, .. })
        ));
    }

    #[test]
    fn a_folder_is_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let error = open(folder.path()).unwrap_err().to_string();
        assert!(error.ends_with("it is no regular file"), "{error}");
    }
}
