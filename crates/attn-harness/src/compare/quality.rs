//! Qualities of trainings: each seed of the new run against the same seed of the base.

use std::collections::HashMap;

use serde::Serialize;

use super::significance::{p_value, reach};
use super::{Rules, benjamini_hochberg};
use crate::row::Row;
use crate::store::Run;
use crate::table::point_title;

/// What is said of a training's quality.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// NEW is worse.
    Worse,
    /// NEW is better.
    Better,
    /// Every seed has the very same quality.
    Equal,
    /// The seeds do not tell.
    Open,
}

/// A case of `quality` that both runs tested.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QualityCase {
    /// The case's hash.
    pub case_id: String,
    /// What is said of it.
    pub change: Change,
    /// What `quality` is.
    pub measure: String,
    /// Mean over the seeds of the base.
    pub quality_base: f64,
    /// Mean over the seeds of the new run.
    pub quality_new: f64,
    /// Mean over the seeds that both have of new − base, in the unit of the measure.
    pub difference: Option<f64>,
    /// Lower end of its interval (Student's t), for this case alone; null with fewer than two seeds.
    pub difference_ci_low: Option<f64>,
    /// Upper end of its interval (Student's t), for this case alone; null with fewer than two seeds.
    pub difference_ci_high: Option<f64>,
    /// Probability of such a difference without a cause, adjusted for the number of cases.
    pub p_adjusted: Option<f64>,
    /// Seeds that both have.
    pub n_seeds: usize,
    /// Whether both rows are clean.
    pub trusted: bool,
    /// Registry key of the variant.
    pub variant: String,
    /// Name of the variant.
    pub label: String,
    /// The workload point in words.
    pub point: String,
}

/// Whether a row is judged by its quality.
pub(super) fn is_trained(row: &Row) -> bool {
    row.quality.is_some()
}

/// The qualities of a run's seeds, by case.
fn seeds(run: &Run) -> HashMap<&str, HashMap<u64, f64>> {
    let mut all: HashMap<&str, HashMap<u64, f64>> = HashMap::new();
    for training in &run.details.trainings {
        if let Some(quality) = training.quality {
            let seeds = all.entry(&training.case_id).or_default();
            seeds.insert(training.seed, quality);
        }
    }
    all
}

/// Compares the qualities of every case: the differences of single seeds, since both sides drew the same weights and
/// data for a seed, with Student's interval and p values adjusted over the cases that differ at all.
pub(super) fn judge(trained: &[(&Row, &Row)], base: &Run, new: &Run, rules: &Rules) -> Vec<QualityCase> {
    let (of_base, of_new) = (seeds(base), seeds(new));
    let none = HashMap::new();
    let mut tested: Vec<(QualityCase, Option<f64>)> = Vec::new();
    for (a, b) in trained {
        let (Some(quality_base), Some(quality_new)) = (a.quality, b.quality) else {
            continue;
        };
        let seeds_of = |all: &HashMap<&str, HashMap<u64, f64>>, row: &Row| {
            all.get(row.case_id.as_str()).unwrap_or(&none).clone()
        };
        let (before, after) = (seeds_of(&of_base, a), seeds_of(&of_new, b));
        let differences: Vec<f64> = before
            .iter()
            .filter_map(|(seed, quality)| Some(after.get(seed)? - quality))
            .collect();
        let mut case = QualityCase {
            case_id: b.case_id.clone(),
            change: Change::Open,
            measure: b.quality_measure.clone().unwrap_or_default(),
            quality_base,
            quality_new,
            difference: None,
            difference_ci_low: None,
            difference_ci_high: None,
            p_adjusted: None,
            n_seeds: differences.len(),
            trusted: a.is_clean() && b.is_clean(),
            variant: b.variant.clone(),
            label: b.label.clone(),
            point: point_title(b),
        };
        let is_equal = before == after && !differences.is_empty();
        if is_equal {
            case.change = Change::Equal;
        }
        let p = case.measure_difference(&differences, rules).filter(|_| !is_equal);
        tested.push((case, p));
    }
    let p_values: Vec<f64> = tested.iter().filter_map(|(_, p)| *p).collect();
    let mut adjusted = benjamini_hochberg(&p_values).into_iter();
    let higher_is_better: HashMap<&str, bool> = trained
        .iter()
        .filter_map(|(_, row)| Some((row.case_id.as_str(), row.quality_higher_is_better?)))
        .collect();
    for (case, _) in tested.iter_mut().filter(|(_, p)| p.is_some()) {
        case.p_adjusted = adjusted.next();
        let higher = higher_is_better.get(case.case_id.as_str()).copied();
        case.conclude(higher, rules);
    }
    tested.into_iter().map(|(case, _)| case).collect()
}

impl QualityCase {
    /// The mean difference with its interval; returns its p value.
    fn measure_difference(&mut self, differences: &[f64], rules: &Rules) -> Option<f64> {
        let n = differences.len() as f64;
        if differences.is_empty() {
            return None;
        }
        let mean = differences.iter().sum::<f64>() / n;
        self.difference = Some(mean);
        if differences.len() < 2 {
            return None;
        }
        let variance = differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / (n - 1.0);
        let error = (variance / n).sqrt();
        let half = reach(rules.confidence, n - 1.0) * error;
        (self.difference_ci_low, self.difference_ci_high) = (Some(mean - half), Some(mean + half));
        Some(p_value(mean, error, n - 1.0))
    }

    fn conclude(&mut self, higher_is_better: Option<bool>, rules: &Rules) {
        let (Some(difference), Some(higher_is_better)) = (self.difference, higher_is_better) else {
            return;
        };
        let excludes_0 = self.difference_ci_low.is_some_and(|low| low > 0.0)
            || self.difference_ci_high.is_some_and(|high| high < 0.0);
        if excludes_0 && self.p_adjusted.is_some_and(|p| p <= rules.fdr) {
            self.change = if (difference > 0.0) == higher_is_better {
                Change::Better
            } else {
                Change::Worse
            };
        }
    }
}
