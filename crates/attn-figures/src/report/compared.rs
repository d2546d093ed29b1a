//! Two runs case by case, as whoever can judge samples found it.

use crate::units::Unit;
use serde::Deserialize;

use super::cells::plain;
use super::data::Table;
use super::findings::decimals;

/// A run against the first one. The fields are those of `compare --format json`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Compared {
    /// Why nothing was compared.
    pub refused: Option<String>,
    /// What a reader should know of the two runs.
    pub warnings: Vec<String>,
    /// Cases that both timed.
    pub cases: Vec<ComparedCase>,
    /// Trainings that both tested.
    pub qualities: Vec<ComparedQuality>,
    /// Cases of the first run alone.
    pub missing_in_new: Vec<OnlyInOne>,
    /// Cases of the other run alone.
    pub missing_in_base: Vec<OnlyInOne>,
}

/// A case that both runs timed.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ComparedCase {
    /// SLOWER, FASTER, SAME or UNCLEAR.
    pub verdict: String,
    /// Time of the other run over that of the first.
    pub ratio: Option<f64>,
    /// Lower end of its interval.
    pub ratio_ci_low: Option<f64>,
    /// Upper end of its interval.
    pub ratio_ci_high: Option<f64>,
    /// Whether both rows are clean.
    pub trusted: bool,
    /// Which is not, and why.
    pub untrusted_because: Option<String>,
    /// Why nothing can be said.
    pub why: Option<String>,
    /// Name of the variant.
    pub label: String,
    /// The workload point in words.
    pub point: String,
    /// Median time of the first run, in seconds.
    pub time_base_s: Option<f64>,
    /// Median time of the other run, in seconds.
    pub time_new_s: Option<f64>,
}

/// A training that both runs tested.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ComparedQuality {
    /// worse, better, equal or open.
    pub change: String,
    /// What the quality is.
    pub measure: String,
    /// Mean over the seeds of the first run.
    pub quality_base: f64,
    /// Mean over the seeds of the other run.
    pub quality_new: f64,
    /// Other − first, seed by seed.
    pub difference: Option<f64>,
    /// Lower end of its interval.
    pub difference_ci_low: Option<f64>,
    /// Upper end of its interval.
    pub difference_ci_high: Option<f64>,
    /// Whether both rows are clean.
    pub trusted: bool,
    /// Which is not, and why.
    pub untrusted_because: Option<String>,
    /// Name of the variant.
    pub label: String,
    /// The workload point in words.
    pub point: String,
}

/// A case that is in one run alone.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct OnlyInOne {
    /// Name of the variant.
    pub label: String,
    /// The workload point in words.
    pub point: String,
    /// How it ended where it is.
    pub status: String,
}

impl Compared {
    /// How many cases are what, in words.
    pub(super) fn counts(&self) -> String {
        let timed = ["SLOWER", "FASTER", "SAME", "UNCLEAR"];
        let trained = ["worse", "better", "equal", "open"];
        let count = |word: &str| {
            let n = self.cases.iter().filter(|case| case.verdict == word).count();
            n + self.qualities.iter().filter(|case| case.change == word).count()
        };
        let parts: Vec<String> = (timed.iter().chain(&trained))
            .filter(|word| count(word) > 0)
            .map(|word| format!("{} {word}", count(word)))
            .collect();
        let untrusted = self.cases.iter().filter(|case| !case.trusted).count()
            + self.qualities.iter().filter(|case| !case.trusted).count();
        let mut text = parts.join(", ");
        if untrusted > 0 {
            text.push_str(&format!("; {untrusted} of them not clean on both sides"));
        }
        text
    }

    /// Every case that was timed.
    pub(super) fn timed(&self) -> Table {
        let mut table = Table::new(&[
            "variant",
            "workload",
            ">first",
            ">this run",
            ">ratio of times",
            "95 % interval",
            "verdict",
            "doubt",
        ]);
        for case in &self.cases {
            let time = |seconds: Option<f64>| {
                seconds
                    .map(|s| Unit::Seconds.format(s, 3, false))
                    .unwrap_or_default()
            };
            let interval = case.ratio_ci_low.zip(case.ratio_ci_high);
            table.push(vec![
                case.label.clone(),
                case.point.clone(),
                time(case.time_base_s),
                time(case.time_new_s),
                case.ratio.map(decimals).unwrap_or_default(),
                interval
                    .map(|(low, high)| format!("{} to {}", decimals(low), decimals(high)))
                    .unwrap_or_default(),
                case.verdict.clone(),
                case.untrusted_because
                    .clone()
                    .or_else(|| case.why.clone())
                    .unwrap_or_default(),
            ]);
        }
        table.compact()
    }

    /// Every training that was tested.
    pub(super) fn trained(&self) -> Table {
        let mut table = Table::new(&[
            "variant",
            "training",
            "measure",
            ">first",
            ">this run",
            ">difference",
            "95 % interval",
            "verdict",
            "doubt",
        ]);
        for case in &self.qualities {
            let interval = case.difference_ci_low.zip(case.difference_ci_high);
            table.push(vec![
                case.label.clone(),
                case.point.clone(),
                case.measure.clone(),
                plain(case.quality_base),
                plain(case.quality_new),
                case.difference.map(plain).unwrap_or_default(),
                interval
                    .map(|(low, high)| format!("{} to {}", plain(low), plain(high)))
                    .unwrap_or_default(),
                case.change.clone(),
                case.untrusted_because.clone().unwrap_or_default(),
            ]);
        }
        table.compact()
    }

    /// Cases that only one side has.
    pub(super) fn alone(&self) -> Table {
        let mut table = Table::new(&["variant", "workload", "in", "status"]);
        for (all, place) in [
            (&self.missing_in_new, "the first run alone"),
            (&self.missing_in_base, "this run alone"),
        ] {
            for case in all {
                table.push(vec![
                    case.label.clone(),
                    case.point.clone(),
                    place.to_owned(),
                    case.status.clone(),
                ]);
            }
        }
        table
    }
}
