//! Qualities of trainings: each seed of the new run against the same seed of the base.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::judge::doubts;
use super::significance::{p_value, reach};
use super::{Rules, benjamini_hochberg};
use crate::row::Row;
use crate::stats::mean_interval;
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
    /// Whether more of it is better.
    pub higher_is_better: Option<bool>,
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
    /// Which is not, and why.
    pub untrusted_because: Option<String>,
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

/// The qualities of a case's seeds.
type Seeds = BTreeMap<u64, f64>;

fn seeds(run: &Run) -> HashMap<&str, Seeds> {
    let mut all: HashMap<&str, Seeds> = HashMap::new();
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
    let none = Seeds::new();
    let estimate = |(a, b): &(&Row, &Row)| {
        let [before, after] =
            [(&of_base, a), (&of_new, b)].map(|(all, row)| all.get(row.case_id.as_str()).unwrap_or(&none));
        QualityCase::new(a, b, before, after, rules)
    };
    let (mut cases, p_values): (Vec<QualityCase>, Vec<Option<f64>>) =
        trained.iter().filter_map(estimate).unzip();
    let tested: Vec<f64> = p_values.iter().copied().flatten().collect();
    let mut adjusted = benjamini_hochberg(&tested).into_iter();
    for (case, _) in cases.iter_mut().zip(p_values).filter(|(_, p)| p.is_some()) {
        case.p_adjusted = adjusted.next();
        case.conclude(rules);
    }
    cases
}

impl QualityCase {
    /// A case with its difference, and the p value of that where its seeds differ.
    fn new(
        base: &Row,
        new: &Row,
        before: &Seeds,
        after: &Seeds,
        rules: &Rules,
    ) -> Option<(Self, Option<f64>)> {
        let differences: Vec<f64> = before
            .iter()
            .filter_map(|(seed, quality)| Some(after.get(seed)? - quality))
            .collect();
        let n = differences.len() as f64;
        let is_equal = before == after && !differences.is_empty();
        let difference = (n > 0.0).then(|| differences.iter().sum::<f64>() / n);
        let error = mean_interval(&differences).map(|(sd, _)| sd / n.sqrt());
        let half = error.map(|error| reach(rules.confidence, n - 1.0) * error);
        let untrusted_because = doubts(base, new);
        let case = Self {
            case_id: new.case_id.clone(),
            change: if is_equal { Change::Equal } else { Change::Open },
            measure: new.quality_measure.clone().unwrap_or_default(),
            higher_is_better: new.quality_higher_is_better,
            quality_base: base.quality?,
            quality_new: new.quality?,
            difference,
            difference_ci_low: difference.zip(half).map(|(mean, half)| mean - half),
            difference_ci_high: difference.zip(half).map(|(mean, half)| mean + half),
            p_adjusted: None,
            n_seeds: differences.len(),
            trusted: untrusted_because.is_none(),
            untrusted_because,
            variant: new.variant.clone(),
            label: new.label.clone(),
            point: point_title(new),
        };
        let p = difference.zip(error).filter(|_| !is_equal);
        Some((case, p.map(|(mean, error)| p_value(mean, error, n - 1.0))))
    }

    fn conclude(&mut self, rules: &Rules) {
        let (Some(difference), Some(higher_is_better)) = (self.difference, self.higher_is_better) else {
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
