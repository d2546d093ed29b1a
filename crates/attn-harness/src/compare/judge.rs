//! From samples to verdicts.

use std::collections::HashMap;

use rayon::prelude::*;

use super::estimate::{Estimate, LogTimes};
use super::moderate::moderate;
use super::{Case, Rules, Verdict, benjamini_hochberg};
use crate::row::{Row, Sample};
use crate::stats::{Interval, median};
use crate::store::Run;
use crate::table::point_title;

/// A run, by case.
pub(super) struct Side<'a> {
    pub rows: HashMap<&'a str, &'a Row>,
    samples: HashMap<&'a str, Vec<&'a Sample>>,
}

impl<'a> Side<'a> {
    pub fn new(run: &'a Run) -> Self {
        let mut samples: HashMap<&str, Vec<&Sample>> = HashMap::new();
        for sample in &run.details.samples {
            samples.entry(&sample.case_id).or_default().push(sample);
        }
        Self {
            rows: run.rows.iter().map(|row| (row.case_id.as_str(), row)).collect(),
            samples,
        }
    }

    /// The log times of a case: by replica and round, in the order they were taken within a round.
    fn log_times(&self, row: &Row) -> LogTimes {
        let mut times = LogTimes::new();
        let mut taken: HashMap<(u64, u64), usize> = HashMap::new();
        for sample in self.samples.get(row.case_id.as_str()).into_iter().flatten() {
            let turn = (sample.replica.unwrap_or(0), sample.round);
            let place = taken.entry(turn).or_default();
            // Neither time nor its logarithm where a clock failed.
            if sample.time_s > 0.0 && sample.time_s.is_finite() {
                times.insert((turn.0, turn.1, *place), sample.time_s.ln());
            }
            *place += 1;
        }
        times
    }
}

/// Estimates every case, moderates the variances, adjusts the p values, and concludes.
pub(super) fn judge(measured: &[(&Row, &Row)], base: &Side<'_>, new: &Side<'_>, rules: &Rules) -> Vec<Case> {
    // Thousands of resamples a case: in parallel, each with the same seed, so that no case depends on another.
    let (mut cases, mut estimates): (Vec<Case>, Vec<_>) = measured
        .par_iter()
        .map(|(base_row, new_row)| {
            let (a, b) = (base.log_times(base_row), new.log_times(new_row));
            let paired = base_row.pair.is_some() && base_row.pair == new_row.pair;
            let mut case = Case::new(base_row, new_row, paired, [a.len(), b.len()]);
            case.time_base_s = base_row.time_median_s.or_else(|| median_s(&a));
            case.time_new_s = new_row.time_median_s.or_else(|| median_s(&b));
            (case, Estimate::new(&a, &b, paired, rules))
        })
        .unzip();
    moderate(&mut estimates, rules.min_cases_to_moderate);

    let p_values: Vec<Option<f64>> = estimates
        .iter()
        .map(|estimate| estimate.as_ref().ok().map(Estimate::p))
        .collect();
    let tested: Vec<f64> = p_values.iter().copied().flatten().collect();
    let mut adjusted = benjamini_hochberg(&tested).into_iter();
    for ((case, estimate), p) in cases.iter_mut().zip(&estimates).zip(p_values) {
        match estimate {
            Err(reason) => case.why = Some(reason.clone()),
            Ok(estimate) => {
                let ci = estimate.interval(rules.confidence);
                case.p = p;
                case.p_adjusted = adjusted.next();
                conclude(case, estimate.ratio(), ci, rules);
            }
        }
    }
    cases
}

/// The median of log times, as a time.
fn median_s(log_times: &LogTimes) -> Option<f64> {
    let logs: Vec<f64> = log_times.values().copied().collect();
    (!logs.is_empty()).then(|| median(&logs).exp())
}

/// The verdict of a case whose ratio, interval and p values are known.
fn conclude(case: &mut Case, ratio: f64, ci: Interval, rules: &Rules) {
    (case.ratio, case.ratio_ci_low, case.ratio_ci_high) = (Some(ratio), Some(ci.low), Some(ci.high));
    let least = 1.0 + rules.min_effect;
    let excludes_1 = ci.low > 1.0 || ci.high < 1.0;
    let differs = excludes_1 && case.p_adjusted.is_some_and(|p| p <= rules.fdr);
    case.verdict = if differs && ratio > least {
        Verdict::Slower
    } else if differs && ratio < 1.0 / least {
        Verdict::Faster
    } else if ci.low >= 1.0 / least && ci.high <= least {
        Verdict::Same
    } else {
        let percent = rules.min_effect * 100.0;
        case.why = Some(if differs {
            format!("a difference is certain, but not that it is above {percent} %")
        } else if excludes_1 {
            "a difference is likely for this case alone, but not certain among so many".to_string()
        } else {
            format!("the interval is too wide to exclude a difference of {percent} %")
        });
        Verdict::Unclear
    };
}

/// Which of two rows is not clean, and why.
pub(super) fn doubts(base: &Row, new: &Row) -> Option<String> {
    let doubts: Vec<String> = [("base", base), ("new", new)]
        .into_iter()
        .filter(|(_, row)| !row.is_clean())
        .map(|(side, row)| {
            let word = row.trust.map_or("unknown", |trust| trust.name());
            let reason = row.trust_reason.as_deref().unwrap_or("no reason is stored");
            format!("{side} is {word}: {reason}")
        })
        .collect();
    (!doubts.is_empty()).then(|| doubts.join("; "))
}

impl Case {
    /// A case before anything is concluded.
    fn new(base: &Row, new: &Row, paired: bool, [n_base, n_new]: [usize; 2]) -> Self {
        let untrusted_because = doubts(base, new);
        Self {
            case_id: new.case_id.clone(),
            verdict: Verdict::Unclear,
            ratio: None,
            ratio_ci_low: None,
            ratio_ci_high: None,
            p: None,
            p_adjusted: None,
            n_base,
            n_new,
            paired,
            trusted: untrusted_because.is_none(),
            untrusted_because,
            why: None,
            variant: new.variant.clone(),
            label: new.label.clone(),
            workload: new.workload.clone(),
            point: point_title(new),
            time_base_s: None,
            time_new_s: None,
        }
    }
}
