//! What a finding is, and how ratios are judged and written.

use crate::figures::points::listed;
use crate::frame::Row;
use crate::sheet::Measured;
use crate::style::series_key;
use serde::Serialize;
use std::collections::BTreeSet;

use super::data::Table;

/// What is known of a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// The interval excludes equality.
    Shown,
    /// It does not.
    Open,
    /// By formula: there is nothing to be unsure of.
    Exact,
    /// One value, of which no interval is known.
    Single,
    /// What a reader has to know of the others.
    Note,
}

/// A sentence that follows from rows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Sentence {
    pub(super) text: String,
    pub(super) state: State,
    /// Why not to trust it: rows that are not clean.
    pub(super) doubt: Option<String>,
}

impl Sentence {
    pub(super) fn new(state: State, text: String) -> Self {
        Self {
            text,
            state,
            doubt: None,
        }
    }
}

/// What is said of the variants at one point, or of one task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Block {
    pub(super) title: String,
    /// What tells it from blocks of the same title.
    pub(super) setting: String,
    pub(super) sentences: Vec<Sentence>,
    pub(super) table: Table,
    /// A variant and what is said of it in a few words, for runs beside each other.
    pub(super) short: Vec<(String, String)>,
}

/// How a ratio stands to 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Above,
    Below,
    Open,
    Unknown,
}

pub(super) fn side(ratio: Measured) -> Side {
    match ratio.interval {
        Some((low, _)) if low > 1.0 => Side::Above,
        Some((_, high)) if high < 1.0 => Side::Below,
        Some(_) => Side::Open,
        None => Side::Unknown,
    }
}

impl Side {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Above => "shown faster",
            Self::Below => "shown slower",
            Self::Open => "open",
            Self::Unknown => "no interval",
        }
    }

    pub(super) fn state(self) -> State {
        match self {
            Self::Above | Self::Below => State::Shown,
            Self::Open => State::Open,
            Self::Unknown => State::Single,
        }
    }
}

/// Which rows are not clean, and how.
pub(super) fn doubt<'a>(rows: impl Iterator<Item = &'a Row>) -> Option<String> {
    let weak = rows.filter(|row| !row.is_clean());
    let named: BTreeSet<String> = weak
        .map(|row| {
            format!(
                "{} is {}",
                series_key(row).1,
                row.trust.as_deref().unwrap_or("doubtful")
            )
        })
        .collect();
    let named = some(named.into_iter().collect());
    (!named.is_empty()).then(|| listed(&named))
}

/// Not more names than a sentence holds; the table has them all.
pub(super) fn some(mut names: Vec<String>) -> Vec<String> {
    const MOST: usize = 12;
    if names.len() > MOST {
        let n_more = names.len() - MOST;
        names.truncate(MOST);
        names.push(format!("{n_more} more"));
    }
    names
}

/// On one line: an interval is not torn apart.
pub(super) fn unbroken(text: &str) -> String {
    text.replace(' ', "\u{a0}")
}

/// `2.31×`.
pub(super) fn times(value: f64) -> String {
    format!("{}×", decimals(value))
}

/// Two digits after the point, three below a tenth.
pub(super) fn decimals(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v if v >= 0.1 => format!("{v:.2}"),
        v => format!("{v:.3}"),
    }
}

/// `(2.20 to 2.44)`, nothing where it is not known.
pub(super) fn within(ratio: Measured) -> String {
    ratio
        .interval
        .map(|(low, high)| format!("({} to {})", decimals(low), decimals(high)))
        .unwrap_or_default()
}

/// The same in a sentence.
pub(super) fn interval_of(ratio: Measured) -> String {
    ratio.interval.map_or_else(
        || " (no interval)".to_owned(),
        |(low, high)| format!(" (95\u{a0}% interval {} to {})", decimals(low), decimals(high)),
    )
}

/// With a capital letter.
pub(super) fn capital(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sheet::Grade;

    #[test]
    fn a_ratio_is_shown_where_its_interval_excludes_one() {
        let of = |interval| {
            side(Measured {
                value: 1.2,
                interval,
                grade: Grade::Clean,
            })
        };
        assert_eq!(of(Some((1.1, 1.3))), Side::Above);
        assert_eq!(of(Some((0.7, 0.9))), Side::Below);
        assert_eq!(of(Some((1.0, 1.3))), Side::Open);
        assert_eq!(of(Some((0.9, 1.0))), Side::Open);
        assert_eq!(of(None), Side::Unknown);
    }

    #[test]
    fn ratios_have_the_digits_they_are_known_to() {
        assert_eq!(
            [0.0123, 0.97, 2.306, 14.22, 731.4].map(times),
            ["0.012×", "0.97×", "2.31×", "14.2×", "731×"]
        );
    }
}
