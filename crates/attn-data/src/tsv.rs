//! Tables as fairseq's manifests are: a header, then rows, fields separated by tabs, no quotes.

use std::path::Path;

use crate::error::{Error, Place, Result};
use crate::files::Lines;

/// A table of which chosen columns are read.
pub(crate) struct Table<const N: usize> {
    lines: Lines,
    columns: [usize; N],
    width: usize,
}

impl<const N: usize> Table<N> {
    /// Finds the columns by their names.
    pub fn open(path: &Path, columns: [&str; N]) -> Result<Self> {
        let mut lines = Lines::open(path)?;
        let header = lines.next().transpose()?.ok_or_else(|| Error::Empty {
            path: path.to_owned(),
        })?;
        let names: Vec<&str> = header.text.split('\t').map(str::trim).collect();
        let mut found = [0; N];
        for (slot, column) in found.iter_mut().zip(columns) {
            let mut places = names.iter().enumerate().filter(|(_, name)| **name == column);
            let problem = match (places.next(), places.next()) {
                (Some((i, _)), None) => {
                    *slot = i;
                    continue;
                }
                (None, _) => "lacks",
                (Some(_), Some(_)) => "repeats",
            };
            return Err(Error::Column {
                at: header.at.clone(),
                column: column.to_owned(),
                problem,
                found: names.join(", "),
            });
        }
        Ok(Self {
            lines,
            columns: found,
            width: names.len(),
        })
    }

    /// The next row's place and chosen fields, trimmed.
    fn read(&mut self) -> Result<Option<(Place, [String; N])>> {
        let Some(line) = self.lines.next().transpose()? else {
            return Ok(None);
        };
        let fields: Vec<&str> = line.text.split('\t').collect();
        if fields.len() != self.width {
            return Err(Error::Fields {
                at: line.at,
                expected: self.width,
                got: fields.len(),
            });
        }
        Ok(Some((
            line.at,
            self.columns.map(|column| fields[column].trim().to_owned()),
        )))
    }
}

impl<const N: usize> Iterator for Table<N> {
    type Item = Result<(Place, [String; N])>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows_of(text: &str) -> Result<Vec<[String; 2]>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Table::open(file.path(), ["text", "audio"])?
            .map(|row| row.map(|(_, fields)| fields))
            .collect()
    }

    fn error_of(text: &str) -> String {
        rows_of(text).unwrap_err().to_string()
    }

    #[test]
    fn columns_are_found_by_name_in_any_order() {
        let rows = rows_of("id\taudio\tn\ttext\na\ta.wav\t5\t \"hi\" there \n").unwrap();
        assert_eq!(rows, [["\"hi\" there", "a.wav"]]);
    }

    #[test]
    fn a_missing_column_is_named_with_those_there_are() {
        let error = error_of("id\taudio\nx\ty\n");
        assert!(
            error.ends_with(":1: the header lacks a column `text`, it has id, audio"),
            "{error}"
        );
    }

    #[test]
    fn a_column_may_stand_there_once() {
        let error = error_of("text\taudio\ttext\n");
        assert!(error.contains("repeats a column `text`"), "{error}");
    }

    #[test]
    fn a_row_has_as_many_fields_as_the_header() {
        let error = error_of("text\taudio\nx\ty\nx\n");
        assert!(error.contains(":3: 1 fields, the header has 2"), "{error}");
    }

    #[test]
    fn an_empty_file_has_no_header() {
        assert!(error_of("").ends_with("has no examples"));
    }
}
