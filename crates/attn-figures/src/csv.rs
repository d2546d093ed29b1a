//! Reads the small tables that are compiled in: comma-separated, a header, `#` for remarks.

/// One line of a table.
#[derive(Debug, PartialEq)]
pub(crate) struct Record {
    /// Of the file, from 1.
    pub(crate) line: usize,
    /// As many as the header has.
    pub(crate) cells: Vec<String>,
}

/// The lines under a header that must be the given one.
///
/// # Errors
/// What is wrong, with the number of the line: another header or none, a quote that does not end, another
/// number of cells.
pub(crate) fn read(text: &str, header: &[&str]) -> Result<Vec<Record>, String> {
    let mut records = Vec::new();
    let mut has_header = false;
    for (at, content) in text.lines().enumerate() {
        let line = at + 1;
        if content.trim().is_empty() || content.starts_with('#') {
            continue;
        }
        let cells = cells(content).ok_or_else(|| format!("line {line}: a quote does not end"))?;
        if !has_header {
            if cells != header {
                return Err(format!("line {line}: the header should be {}", header.join(",")));
            }
            has_header = true;
            continue;
        }
        if cells.len() != header.len() {
            return Err(format!(
                "line {line}: {} cells instead of {}",
                cells.len(),
                header.len()
            ));
        }
        records.push(Record { line, cells });
    }
    if has_header {
        Ok(records)
    } else {
        Err(format!("no header, it should be {}", header.join(",")))
    }
}

/// The cells of a line; one in quotes may hold commas, and two quotes for one. `None` where a quote does not end.
fn cells(line: &str) -> Option<Vec<String>> {
    let mut cells = vec![String::new()];
    let mut is_quoted = false;
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        let last = cells.len() - 1;
        match letter {
            '"' if is_quoted && letters.peek() == Some(&'"') => {
                letters.next();
                cells[last].push('"');
            }
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => cells.push(String::new()),
            other => cells[last].push(other),
        }
    }
    let trimmed = cells.into_iter().map(|cell| cell.trim().to_owned());
    (!is_quoted).then(|| trimmed.collect())
}

impl Record {
    /// A cell as text; `None` where it is empty.
    pub(crate) fn text(&self, at: usize) -> Option<String> {
        self.cells.get(at).filter(|cell| !cell.is_empty()).cloned()
    }

    /// A cell as a number; `None` where it is empty.
    ///
    /// # Errors
    /// The line and the cell where it is no number.
    pub(crate) fn number<T: std::str::FromStr>(&self, at: usize) -> Result<Option<T>, String> {
        let parsed = self.text(at).map(|cell| {
            cell.parse()
                .map_err(|_| format!("line {}: `{cell}` is no number of its kind", self.line))
        });
        parsed.transpose()
    }

    /// A cell as a positive number.
    ///
    /// # Errors
    /// The line and what it has instead.
    pub(crate) fn positive(&self, at: usize) -> Result<f64, String> {
        let number = self.number::<f64>(at)?;
        number
            .filter(|value| value.is_finite() && *value > 0.0)
            .ok_or_else(|| {
                let cell = self.cells.get(at).map_or("", String::as_str);
                format!("line {}: `{cell}` should be a positive number", self.line)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_hold_commas_and_remarks_are_left_out() {
        let text = "# remark\n\na,b\r\n1,\"x, \"\"y\"\"\"\r\n 2 ,\n";
        let records = read(text, &["a", "b"]).unwrap();
        assert_eq!(records[0].cells, ["1", "x, \"y\""]);
        assert_eq!((records[1].line, records[1].text(1)), (5, None));
        assert_eq!(records[1].number::<u64>(0), Ok(Some(2)));
        assert_eq!(records[0].positive(0), Ok(1.0));
    }

    #[test]
    fn what_is_wrong_has_its_line() {
        let error = |text: &str| read(text, &["a", "b"]).unwrap_err();
        assert_eq!(error("a,c\n"), "line 1: the header should be a,b");
        assert_eq!(error("a,b\n1\n"), "line 2: 1 cells instead of 2");
        assert_eq!(error("a,b\n1,\"2\n"), "line 2: a quote does not end");
        assert_eq!(error("# only a remark\n"), "no header, it should be a,b");
        let records = read("a,b\nx,-1\n", &["a", "b"]).unwrap();
        assert_eq!(
            records[0].number::<u64>(0),
            Err("line 2: `x` is no number of its kind".to_owned())
        );
        assert_eq!(
            records[0].positive(1),
            Err("line 2: `-1` should be a positive number".to_owned())
        );
    }
}
