//! A plan in a few numbers.

use std::collections::HashSet;

use serde::Serialize;

use super::{Case, Fair, Plan};

/// Mismatches up to this are what integers leave; more is said.
pub const NOTABLE_MISMATCH: f64 = 0.05;

/// Sums and maxima over the cases of a plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Totals {
    /// Cases, whatever becomes of them.
    pub cases: usize,
    /// Groups of comparable cases.
    pub groups: usize,
    /// Different workloads with their sizes.
    pub points: usize,
    /// Points given more than once and measured once.
    pub duplicates_removed: usize,
    /// Cases that nothing is known to keep from running.
    pub runnable: usize,
    /// Cases predicted not to fit in memory.
    pub oom: usize,
    /// Those of them that need at least what another one of them needs.
    pub dominated: usize,
    /// Cases that cannot run here.
    pub unsupported: usize,
    /// Largest cache of a runnable case.
    pub max_kv_bytes: u64,
    /// Most weights of a runnable case.
    pub max_weights_bytes: u64,
    /// Largest predicted peak of a runnable case.
    pub max_predicted_peak_bytes: u64,
    /// Operations of one run of each runnable case.
    pub flops: f64,
    /// Roofline floors of one run of each runnable case, in seconds.
    pub predicted_floor_s: f64,
    /// Estimated time of the runnable cases.
    pub predicted_time_s: f64,
    /// Cases that are stored already.
    pub stored: usize,
    /// Estimated time of the runnable cases that are not.
    pub time_left_s: f64,
}

impl Plan {
    /// The plan in a few numbers; `stored` are ids of cases that need not be run again.
    pub fn totals(&self, stored: &HashSet<String>) -> Totals {
        let count = |which: &dyn Fn(&Case) -> bool| self.cases.iter().filter(|case| which(case)).count();
        let runnable = || self.cases.iter().filter(|case| case.runs_here());
        let most = |of: fn(&Case) -> u64| runnable().map(of).max().unwrap_or(0);
        let trained = |case: &Case| case.quality.as_ref().map(|quality| quality.training.point());
        let points: HashSet<_> = self
            .cases
            .iter()
            .map(|case| (case.workload, trained(case)))
            .collect();
        let left = runnable().filter(|case| !stored.contains(&case.id));
        Totals {
            cases: self.cases.len(),
            groups: self.groups().count(),
            points: points.len(),
            duplicates_removed: self.duplicates_removed,
            runnable: runnable().count(),
            oom: count(&|case| case.predicted_oom),
            dominated: count(&|case| case.dominated_by.is_some()),
            unsupported: count(&|case| case.unsupported.is_some()),
            max_kv_bytes: most(|case| case.kv_bytes),
            max_weights_bytes: most(|case| case.weights_bytes),
            max_predicted_peak_bytes: most(|case| case.predicted_peak_bytes),
            flops: total(runnable().map(|case| case.cost.flops as f64)),
            predicted_floor_s: total(runnable().map(|case| case.predicted_floor_s)),
            predicted_time_s: self.predicted_time_s(),
            stored: count(&|case| stored.contains(&case.id)),
            time_left_s: total(left.map(Case::predicted_part_s)),
        }
    }

    /// What the cases have in common, and the case that is furthest from it, where the sweep holds something equal.
    pub fn worst_match(&self) -> Option<(&Fair, &Case)> {
        let matched = self
            .cases
            .iter()
            .filter_map(|case| Some((case.fair.as_ref()?, case)));
        matched.max_by(|(a, _), (b, _)| a.mismatch.abs().total_cmp(&b.mismatch.abs()))
    }
}

impl Case {
    /// Whether the case differs notably from the reference in what is held equal.
    pub fn is_off(&self) -> bool {
        self.fair
            .as_ref()
            .is_some_and(|fair| fair.mismatch.abs() > NOTABLE_MISMATCH)
    }
}
/// The sum, 0 for nothing: that of the standard library is -0 there.
fn total(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, |sum, value| sum + value)
}
