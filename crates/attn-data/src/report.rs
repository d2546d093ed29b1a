//! What became of the examples that were read.

use std::fmt;

use attn_tasks::Part;
use serde::Serialize;

use crate::error::{Error, Result, part_name};
use crate::parts::Parts;

/// What became of the examples that were read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Tokens of the texts' vocabulary.
    pub vocab: usize,
    /// What became of each part.
    pub parts: Parts<PartReport>,
}

/// What became of the examples of a part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PartReport {
    /// Examples that can be asked for.
    pub kept: u64,
    /// Left out: sources longer than `limits.max_source`.
    pub source_too_long: u64,
    /// Left out: sources without a single frame.
    pub source_too_short: u64,
    /// Left out: texts longer than `limits.max_text`.
    pub text_too_long: u64,
    /// Kept with a source that was cut to `limits.max_source`.
    pub cut: u64,
    /// Tokens behind the last whole block of a text.
    pub tail_tokens: u64,
    /// Kept though a training example has the same source and the same text.
    pub also_in_train: u64,
}

impl PartReport {
    /// Examples that were read and cannot be asked for.
    pub fn left_out(&self) -> u64 {
        self.source_too_long + self.source_too_short + self.text_too_long
    }

    /// Fails where examples were read and none can be asked for.
    pub(crate) fn none_left(&self, part: Part) -> Result<()> {
        match self.kept {
            0 => Err(Error::NothingLeft {
                part,
                left_out: self.to_string(),
            }),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for PartReport {
    /// `98 examples, left out 2 (source too long 2)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} examples", self.kept)?;
        let mut sep = format!(", left out {} (", self.left_out());
        for (count, why) in [
            (self.source_too_long, "source too long"),
            (self.source_too_short, "source too short"),
            (self.text_too_long, "text too long"),
        ] {
            if count > 0 {
                write!(f, "{sep}{why} {count}")?;
                sep = ", ".into();
            }
        }
        if self.left_out() > 0 {
            write!(f, ")")?;
        }
        for (count, what) in [
            (self.cut, "sources cut"),
            (self.tail_tokens, "tokens behind the last block"),
            (self.also_in_train, "examples that training has too"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    /// A line for the vocabulary and one for each part.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vocabulary: {} tokens", self.vocab)?;
        for (part, report) in self.parts.iter() {
            write!(f, "\n{}: {report}", part_name(part))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_happened_is_told() {
        let mut part = PartReport {
            kept: 98,
            ..PartReport::default()
        };
        assert_eq!(part.to_string(), "98 examples");
        part.source_too_long = 2;
        part.text_too_long = 1;
        part.cut = 4;
        assert_eq!(
            part.to_string(),
            "98 examples, left out 3 (source too long 2, text too long 1), 4 sources cut"
        );
    }

    #[test]
    fn a_report_has_a_line_for_each_part() {
        let report = Report {
            vocab: 8000,
            ..Report::default()
        };
        assert_eq!(
            report.to_string(),
            "vocabulary: 8000 tokens\ntrain: 0 examples\nvalid: 0 examples\ntest: 0 examples"
        );
    }
}
