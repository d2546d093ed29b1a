//! The ways in which a whole decoder is run: path, habits, prefix and element type.

use super::points::latest;
use crate::frame::Row;
use crate::habits::Habits;
use crate::sheet::Measured;
use crate::slice::Slice;
use crate::style::{SeriesKey, series_key};

/// What rows of one slice of whole decoders still differ in, in the order of figures: the seed's way first, the
/// one with least work last.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Way {
    is_fused: bool,
    path: String,
    /// Seen from all of them, so that all come first.
    habits: Option<std::cmp::Reverse<Habits>>,
    /// The wider type first: `f32`, `f16`, `bf16`.
    dtype: std::cmp::Reverse<String>,
    prefix: Prefix,
    launch: String,
}

/// Where the hypotheses of a beam keep the encoder's prefix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Prefix {
    /// There is no beam, or the row does not say.
    Unknown,
    Replicated,
    Copied,
    Shared,
    Other(String),
}

impl Prefix {
    pub(super) fn of(row: &Row) -> Self {
        match row.prefix.as_deref() {
            None | Some("") => Self::Unknown,
            Some("replicated") => Self::Replicated,
            Some("copied") => Self::Copied,
            Some("shared") => Self::Shared,
            Some(other) => Self::Other(other.to_owned()),
        }
    }

    /// `copied`; nothing where it is not known.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Unknown => "",
            Self::Replicated => "replicated",
            Self::Copied => "copied",
            Self::Shared => "shared",
            Self::Other(other) => other,
        }
    }
}

impl Way {
    pub(super) fn of(row: &Row) -> Self {
        let either = |a: &Option<String>, b: &Option<String>| a.clone().or_else(|| b.clone());
        let path = either(&row.path_resolved, &row.path_requested).unwrap_or_default();
        Self {
            is_fused: path != "seedlike",
            path,
            habits: habits(row).map(std::cmp::Reverse),
            dtype: std::cmp::Reverse(either(&row.dtype_resolved, &row.dtype_requested).unwrap_or_default()),
            prefix: Prefix::of(row),
            launch: either(&row.launch_resolved, &row.launch_requested).unwrap_or_default(),
        }
    }

    pub(crate) fn is_seedlike(&self) -> bool {
        !self.is_fused
    }

    pub(crate) fn habits(&self) -> Option<Habits> {
        self.habits.map(|habits| habits.0)
    }

    pub(super) fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    pub(super) fn dtype(&self) -> &str {
        &self.dtype.0
    }

    /// `copied prefix, f32`: what tells ways of one path apart.
    pub(super) fn details(&self) -> String {
        let prefix = match &self.prefix {
            Prefix::Unknown => String::new(),
            known => format!("{} prefix", known.name()),
        };
        let parts = [prefix, self.dtype.0.clone(), self.launch.clone()];
        let known: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        known.join(", ")
    }

    /// `seed-like path, all habits, replicated prefix, f32`.
    pub(crate) fn title(&self) -> String {
        let path = if self.is_fused {
            format!("{} path", self.path)
        } else {
            "seed-like path".to_owned()
        };
        let habits = self.habits().map(Habits::name).unwrap_or_default();
        let parts = [path, habits, self.details()];
        let known: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        known.join(", ")
    }
}

/// The habits a row names, where it is of the seed-like path and they are known.
pub(super) fn habits(row: &Row) -> Option<Habits> {
    row.habits.as_deref().and_then(Habits::parse)
}

/// Whether the row has all of the seed's habits or none, or they are no question.
pub(crate) fn is_end(row: &Row) -> bool {
    row.habits
        .as_deref()
        .is_none_or(|text| matches!(Habits::parse(text), Some(Habits::ALL | Habits::NONE)))
}

/// Why a variant has no value in a way: what became of it, or that it was not measured.
pub(super) fn why_missing(slice: &Slice<'_>, way: &Way, key: &SeriesKey) -> String {
    // A case that failed may not know how it would have been launched.
    let is_of = |other: &Way| {
        (&other.path, other.habits, &other.prefix, &other.dtype)
            == (&way.path, way.habits, &way.prefix, &way.dtype)
    };
    let failed = slice
        .failed
        .iter()
        .find(|row| series_key(row) == *key && is_of(&Way::of(row)));
    failed.map_or_else(|| "not measured".to_owned(), |row| row.status.replace('_', " "))
}

/// The rows of a slice that have a value, by way: each variant once, its last row. Their number that were
/// measured again comes second.
pub(crate) fn by_way<'a>(
    slice: &Slice<'a>,
    value: fn(&Row) -> Option<Measured>,
) -> (Vec<(Way, Vec<&'a Row>)>, usize) {
    let known: Vec<&Row> = slice
        .rows
        .iter()
        .copied()
        .filter(|row| value(row).is_some())
        .collect();
    let (rows, n_replaced) = latest(&known, Way::of, value);
    let mut ways: Vec<Way> = rows.iter().map(|row| Way::of(row)).collect();
    ways.sort();
    ways.dedup();
    let of_way = |way: Way| {
        let own = rows.iter().copied().filter(|row| Way::of(row) == way);
        let own = own.collect();
        (way, own)
    };
    (ways.into_iter().map(of_way).collect(), n_replaced)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(path: &str, habits: Option<&str>, prefix: Option<&str>) -> Row {
        Row {
            path_resolved: Some(path.into()),
            habits: habits.map(str::to_owned),
            prefix: prefix.map(str::to_owned),
            dtype_resolved: Some("f32".into()),
            ..Row::default()
        }
    }

    #[test]
    fn the_seeds_way_comes_first_and_the_shared_prefix_last() {
        let all = "cat+expand+reorder-copy+dense-mask+f32";
        let rows = [
            row("fused", None, Some("shared")),
            row("seedlike", Some("none"), Some("replicated")),
            row("fused", None, Some("copied")),
            row("seedlike", Some(all), Some("replicated")),
        ];
        let mut ways: Vec<Way> = rows.iter().map(Way::of).collect();
        ways.sort();
        let titles: Vec<String> = ways.iter().map(Way::title).collect();
        assert_eq!(
            titles,
            [
                "seed-like path, all habits, replicated prefix, f32",
                "seed-like path, no habits, replicated prefix, f32",
                "fused path, copied prefix, f32",
                "fused path, shared prefix, f32",
            ]
        );
    }

    #[test]
    fn ends_are_all_habits_none_and_where_they_are_no_question() {
        assert!(is_end(&row("fused", None, None)));
        assert!(is_end(&row("seedlike", Some("none"), None)));
        assert!(!is_end(&row("seedlike", Some("cat"), None)));
        assert!(!is_end(&row("seedlike", Some("what"), None)));
    }
}
