//! What a comparison found.

use serde::Serialize;

use super::quality::{Change, QualityCase};
use super::render;
use super::{Rules, Verdict};
use crate::row::Row;
use crate::status::Status;
use crate::table::point_title;

/// Two runs compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Every case that both runs timed, in the order of the new run.
    pub cases: Vec<Case>,
    /// Every training that both runs tested, in the order of the new run.
    pub qualities: Vec<QualityCase>,
    /// Cases of the base that the new run has no row of.
    pub missing_in_new: Vec<Named>,
    /// Cases of the new run that the base has no row of.
    pub missing_in_base: Vec<Named>,
    /// Cases that ended otherwise than before.
    pub status_changed: Vec<StatusChange>,
    /// What a reader should know of the two runs.
    pub warnings: Vec<String>,
    /// What was gone by.
    pub rules: Rules,
}

/// A case that both runs timed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Case {
    /// The case's hash.
    pub case_id: String,
    /// What is said of it.
    pub verdict: Verdict,
    /// Time new / time base: above 1 is slower.
    pub ratio: Option<f64>,
    /// Lower end of its interval, for this case alone.
    pub ratio_ci_low: Option<f64>,
    /// Upper end of its interval, for this case alone.
    pub ratio_ci_high: Option<f64>,
    /// Probability of such a ratio without a difference.
    pub p: Option<f64>,
    /// The same, adjusted for the number of cases.
    pub p_adjusted: Option<f64>,
    /// Samples of the base.
    pub n_base: usize,
    /// Samples of the new run.
    pub n_new: usize,
    /// Whether samples were compared with their neighbours in time.
    pub paired: bool,
    /// Whether both rows are clean.
    pub trusted: bool,
    /// Which is not, and why.
    pub untrusted_because: Option<String>,
    /// Why nothing can be said.
    pub why: Option<String>,
    /// Registry key of the variant.
    pub variant: String,
    /// Name of the variant.
    pub label: String,
    /// What was run.
    pub workload: String,
    /// The workload point in words.
    pub point: String,
    /// Median time of the base, in seconds.
    pub time_base_s: Option<f64>,
    /// Median time of the new run, in seconds.
    pub time_new_s: Option<f64>,
}

/// A case that is in one run alone.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Named {
    /// The case's hash.
    pub case_id: String,
    /// Registry key of the variant.
    pub variant: String,
    /// Name of the variant.
    pub label: String,
    /// The workload point in words.
    pub point: String,
    /// How it ended where it is.
    pub status: Status,
}

impl Named {
    pub(super) fn new(row: &Row) -> Self {
        Self {
            case_id: row.case_id.clone(),
            variant: row.variant.clone(),
            label: row.label.clone(),
            point: point_title(row),
            status: row.status,
        }
    }
}

/// A case that ended otherwise than before.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StatusChange {
    /// The case's hash.
    pub case_id: String,
    /// Registry key of the variant.
    pub variant: String,
    /// Name of the variant.
    pub label: String,
    /// The workload point in words.
    pub point: String,
    /// How it ended in the base.
    pub status_base: Status,
    /// How it ended in the new run.
    pub status_new: Status,
    /// Why it is not `ok` where it is not.
    pub reason: Option<String>,
}

impl StatusChange {
    pub(super) fn new(base: &Row, new: &Row) -> Self {
        let Named {
            case_id,
            variant,
            label,
            point,
            status,
        } = Named::new(new);
        Self {
            case_id,
            variant,
            label,
            point,
            status_base: base.status,
            status_new: status,
            reason: new.reason.clone().or_else(|| base.reason.clone()),
        }
    }
}

/// How many cases are what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Cases that both runs timed: the sum of the next four.
    pub compared: usize,
    /// Cases that take longer.
    pub slower: usize,
    /// Cases that take less time.
    pub faster: usize,
    /// Cases without a difference that matters.
    pub same: usize,
    /// Cases whose samples do not tell.
    pub unclear: usize,
    /// Cases whose rows are not clean on both sides, whatever is said of them.
    pub untrusted: usize,
    /// Trainings that both runs tested: the sum of the next four.
    pub trained: usize,
    /// Trainings whose quality is worse.
    pub worse: usize,
    /// Trainings whose quality is better.
    pub better: usize,
    /// Trainings with the very same qualities.
    pub equal: usize,
    /// Trainings whose seeds do not tell.
    pub open: usize,
    /// Cases of the base that the new run has no row of.
    pub missing_in_new: usize,
    /// Cases of the new run that the base has no row of.
    pub missing_in_base: usize,
    /// Cases that ended otherwise than before.
    pub status_changed: usize,
    /// What a gate refuses: trusted cases that take longer or are worse, and lost cases.
    pub regressions: usize,
}

/// A case that is worse than before.
#[derive(Debug, Clone, PartialEq)]
pub enum Regression<'a> {
    /// It takes longer.
    Slower(&'a Case),
    /// Its quality is worse.
    Worse(&'a QualityCase),
    /// It was measured and is not any more.
    Lost(Lost<'a>),
}

/// How a case was lost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Lost<'a> {
    /// It ended otherwise.
    Status(&'a StatusChange),
    /// The new run has no row of it.
    Missing(&'a Named),
}

impl Comparison {
    /// What a gate refuses: cases whose row was `ok` and is not any more, then trainings that are worse, then cases that
    /// take longer, the worst first; of both kinds those that are trusted, or all, if the rules say so.
    pub fn regressions(&self) -> Vec<Regression<'_>> {
        let changed = self
            .status_changed
            .iter()
            .filter(|change| change.status_base == Status::Ok);
        let missing = self
            .missing_in_new
            .iter()
            .filter(|named| named.status == Status::Ok);
        let worse = self
            .qualities
            .iter()
            .filter(|case| case.change == Change::Worse && (case.trusted || self.rules.include_untrusted));
        let mut slower: Vec<&Case> = self
            .cases
            .iter()
            .filter(|case| self.is_regression(case))
            .collect();
        slower.sort_by(|a, b| b.ratio.unwrap_or(0.0).total_cmp(&a.ratio.unwrap_or(0.0)));
        changed
            .map(|change| Regression::Lost(Lost::Status(change)))
            .chain(missing.map(|named| Regression::Lost(Lost::Missing(named))))
            .chain(worse.map(Regression::Worse))
            .chain(slower.into_iter().map(Regression::Slower))
            .collect()
    }

    pub(super) fn is_regression(&self, case: &Case) -> bool {
        case.verdict == Verdict::Slower && (case.trusted || self.rules.include_untrusted)
    }

    /// How many cases are what.
    pub fn counts(&self) -> Counts {
        let changed = |change| self.qualities.iter().filter(|case| case.change == change).count();
        let doubted = self.qualities.iter().filter(|case| !case.trusted).count();
        let with = |verdict| self.cases.iter().filter(|case| case.verdict == verdict).count();
        Counts {
            compared: self.cases.len(),
            slower: with(Verdict::Slower),
            faster: with(Verdict::Faster),
            same: with(Verdict::Same),
            unclear: with(Verdict::Unclear),
            untrusted: self.cases.iter().filter(|case| !case.trusted).count() + doubted,
            trained: self.qualities.len(),
            worse: changed(Change::Worse),
            better: changed(Change::Better),
            equal: changed(Change::Equal),
            open: changed(Change::Open),
            missing_in_new: self.missing_in_new.len(),
            missing_in_base: self.missing_in_base.len(),
            status_changed: self.status_changed.len(),
            regressions: self.regressions().len(),
        }
    }

    /// For a terminal: counts, then every case, what matters first.
    pub fn table(&self) -> String {
        render::table(self)
    }

    /// For a pull request: counts and regressions, the whole table folded.
    pub fn markdown(&self) -> String {
        render::markdown(self)
    }

    /// For other programs: numbers in base units, null where nothing is known. The words of [`Verdict`] are
    /// values of `verdict` and nothing else.
    pub fn json(&self) -> String {
        #[derive(Serialize)]
        struct Json<'a> {
            cases: &'a [Case],
            qualities: &'a [QualityCase],
            missing_in_new: &'a [Named],
            missing_in_base: &'a [Named],
            status_changed: &'a [StatusChange],
            summary: Counts,
        }
        let json = Json {
            cases: &self.cases,
            qualities: &self.qualities,
            missing_in_new: &self.missing_in_new,
            missing_in_base: &self.missing_in_base,
            status_changed: &self.status_changed,
            summary: self.counts(),
        };
        // Serialising plain structs of numbers and text cannot fail.
        serde_json::to_string_pretty(&json).unwrap_or_default() + "\n"
    }
}
