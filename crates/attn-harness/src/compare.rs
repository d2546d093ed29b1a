//! Whether a change made anything slower: two stored runs, case by case.
//!
//! Every case that both runs measured gets a [`Verdict`] on NEW against BASE. All constants are in [`Rules`].
//!
//! **Estimate.** The median on the log scale, where slower and faster are mirror images.
//! - *Paired*, where both rows carry the same `pair`: samples of one round and replica are neighbours in time,
//!   so the drift of the machine cancels in their log ratio (Georges, Buytaert and Eeckhout, OOPSLA 2007, on
//!   why drift must; google/benchmark 1051 on interleaving). The estimate is the median of these ratios.
//! - *Unpaired* otherwise: the difference of the medians of the log times of both sides.
//!
//! **Error.** It comes from what varies independently.
//! - *Replicas*, where both sides have several: they are processes, and processes of one and the same binary differ
//!   (Kalibera and Jones, ISMM 2013), by more than samples within them tell. Each replica, or pair of replicas, is
//!   one value, the median of its samples; the estimate is then their mean, with their variance and replicas less
//!   one degrees of freedom.
//! - *Samples* otherwise: the variance of the median comes from a seeded bootstrap (Efron and Tibshirani, 1993,
//!   chapter 6), its degrees of freedom are samples less one. What differs between processes is then taken for a
//!   difference between builds.
//! - *Few values* say little of their own noise: four alike may be luck. With at least 10 cases, variances are
//!   drawn towards what is usual in the comparison, as strongly as the data say that they are alike (moderated
//!   variances: Smyth, Statistical Applications in Genetics and Molecular Biology 3, 2004; limma).
//! - Two sides add up with Welch and Satterthwaite's degrees of freedom, and interval and p value are Student's.
//!
//! **Many cases.** One in twenty of equal cases has p < 0.05 by chance. p values are adjusted over all compared
//! cases (Benjamini and Hochberg, JRSS B 57, 1995), so that at most the part `fdr` of all differences found is
//! expected to be none. That is the same as asking that the intervals widened for the number of differences
//! (Benjamini and Yekutieli, JASA 100, 2005) exclude 1.
//!
//! **Verdict.** With a ratio r = time new / time base and e = `min_effect`:
//!
//! | verdict | where |
//! |---|---|
//! | SLOWER | adjusted p <= `fdr`, the interval excludes 1, r > 1 + e |
//! | FASTER | adjusted p <= `fdr`, the interval excludes 1, r < 1 / (1 + e) |
//! | SAME | the interval lies within [1 / (1 + e), 1 + e] (two one-sided tests: Schuirmann, 1987) |
//! | UNCLEAR | otherwise, and with fewer than `min_samples` pairs, or samples of a side |
//!
//! **Trainings** are compared by their quality, seed by seed, and not by time ([`QualityCase`]): the same weights and data
//! were drawn for a seed, so its noise is in both. The very same qualities are `equal`; else `better` or `worse` where the
//! interval of the mean difference excludes 0 and its adjusted p value is at most `fdr`, `open` otherwise.
//!
//! A case whose row is not `clean` on both sides keeps its verdict, but is not `trusted` and is no regression
//! unless asked for.

mod check;
mod estimate;
mod judge;
mod moderate;
mod outcome;
mod quality;
mod render;
mod significance;

use serde::{Serialize, Serializer};

use crate::row::Row;
use crate::store::Run;

use self::check::{check, warnings};
use self::judge::{Side, judge};

pub use self::check::CompareError;
pub use self::outcome::{Case, Comparison, Counts, Lost, Named, Regression, StatusChange};
pub use self::quality::{Change, QualityCase};
pub use self::significance::benjamini_hochberg;

/// What a comparison goes by.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// Differences below this are nobody's concern: 0.05 is 5 % (0.05).
    pub min_effect: f64,
    /// Part of the differences found that may be none: Benjamini and Hochberg's q (0.05).
    pub fdr: f64,
    /// Confidence of the intervals (0.95).
    pub confidence: f64,
    /// Fewest pairs, or samples of a side, from which anything is concluded (4).
    pub min_samples: usize,
    /// Fewest cases from which the usual noise is learned (10).
    pub min_cases_to_moderate: usize,
    /// Seed of the bootstrap (1).
    pub seed: u64,
    /// Compares runs of different machines, profiles or thread counts, with a warning (no).
    pub other_hardware: bool,
    /// Counts cases that are not trusted as regressions too (no).
    pub include_untrusted: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            min_effect: 0.05,
            fdr: 0.05,
            confidence: 0.95,
            min_samples: 4,
            min_cases_to_moderate: 10,
            seed: 1,
            other_hardware: false,
            include_untrusted: false,
        }
    }
}

/// What is said of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// NEW takes longer.
    Slower,
    /// NEW takes less time.
    Faster,
    /// Any difference is smaller than matters.
    Same,
    /// The samples do not tell.
    Unclear,
}

impl Verdict {
    /// The word in tables and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Slower => "SLOWER",
            Self::Faster => "FASTER",
            Self::Same => "SAME",
            Self::Unclear => "UNCLEAR",
        }
    }
}

impl Serialize for Verdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Rows of one case, the base's and the new run's.
type Pairs<'a> = Vec<(&'a Row, &'a Row)>;

/// Compares two runs by the rules of this module.
///
/// # Errors
/// [`CompareError::Differs`] for runs whose times do not compare, unless `rules.other_hardware`;
/// [`CompareError::NothingInCommon`] where no case is in both.
pub fn compare(base: &Run, new: &Run, rules: &Rules) -> Result<Comparison, CompareError> {
    let (base_side, new_side) = (Side::new(base), Side::new(new));
    let matched: Pairs<'_> = new
        .rows
        .iter()
        .filter_map(|row| Some((*base_side.rows.get(row.case_id.as_str())?, row)))
        .collect();
    if matched.is_empty() {
        return Err(CompareError::nothing_in_common(base, new));
    }
    let mut notes = warnings(&matched);
    // A quality is the same wherever it was trained.
    let is_timed = |(base, new): &(&Row, &Row)| !(quality::is_trained(base) && quality::is_trained(new));
    let timed: Pairs<'_> = matched.iter().copied().filter(is_timed).collect();
    notes.extend(check(&timed, rules)?);

    let missing = |from: &Run, in_side: &Side<'_>| -> Vec<Named> {
        let rows = from
            .rows
            .iter()
            .filter(|row| !in_side.rows.contains_key(row.case_id.as_str()));
        rows.map(Named::new).collect()
    };
    let status_changed = matched.iter().filter(|(a, b)| a.status != b.status);
    let (measured, trained): (Pairs<'_>, Pairs<'_>) = matched
        .iter()
        .copied()
        .filter(|(a, b)| a.is_ok() && b.is_ok())
        .partition(is_timed);
    Ok(Comparison {
        cases: judge(&measured, &base_side, &new_side, rules),
        qualities: quality::judge(&trained, base, new, rules),
        missing_in_new: missing(base, &new_side),
        missing_in_base: missing(new, &base_side),
        status_changed: status_changed.map(|(a, b)| StatusChange::new(a, b)).collect(),
        warnings: notes,
        rules: rules.clone(),
    })
}
