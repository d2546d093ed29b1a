//! When a case has enough samples.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{Sorted, resamples_of};
use crate::sweep::Measure;

/// Above this many samples a look costs order statistics and no resampling.
const BOOTSTRAP_UP_TO: usize = 100;

/// Looks whose noise must agree before it counts as stable.
const STABLE_LOOKS: usize = 5;

/// How far those may differ: largest less smallest, over their mean.
const STABLE_SPREAD: f64 = 0.1;

/// Fewest samples whose noise can be called stable.
const STABLE_SAMPLES: usize = 10;

/// What ended the sampling of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopRule {
    /// The interval of the median is narrow enough.
    TargetCi,
    /// The noise no longer changes, and the target is out of reach: more samples cannot help.
    StableNoise,
    /// The largest number of samples was reached.
    MaxSamples,
    /// The wall limit passed.
    MaxTime,
}

impl StopRule {
    /// The name in rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::TargetCi => "target_ci",
            Self::StableNoise => "stable_noise",
            Self::MaxSamples => "max_samples",
            Self::MaxTime => "max_s",
        }
    }
}

/// Decides after every sample whether a case has enough.
///
/// It looks at `min_samples` and then after every tenth more samples. Where several rules hold at once, the
/// first of [`StopRule`]'s order is named.
///
/// **Stable noise.** Every look remembers the relative interquartile range. Sampling ends once the last 5
/// agree within 10 % of their mean, and the target is out of reach: the interval narrows with the root of the
/// number of samples, so that n (half width / target)² are needed, and these are more than `max_samples` or
/// take longer than `max_s` at the rate so far. Never before 10 samples. The idea is that of nvbench's `stdrel`
/// criterion, which also ends a measurement whose relative noise has settled above what was asked for; we take
/// the interquartile range, which one outlier does not move, and insist that going on could not have helped.
///
/// **Interval.** Up to 100 samples it is the bootstrap interval of the final [`Summary`](super::Summary). Above
/// that it is [`median_rank_interval`](super::median_rank_interval), which the bootstrap approaches: looks then
/// cost microseconds, where resampling would take longer than short samples do.
#[derive(Debug, Clone)]
pub struct Stop {
    min_samples: usize,
    max_samples: usize,
    target_ci: f64,
    max_s: f64,
    seed: u64,
    next_look: usize,
    noise: VecDeque<f64>,
}

impl Stop {
    /// The rule of a sweep's settings.
    pub fn of(settings: &Measure) -> Self {
        Self::new(
            settings.min_samples,
            settings.max_samples,
            settings.target_ci,
            settings.max_s,
            settings.seed.unwrap_or(0),
        )
    }

    /// A rule: at least `min_samples` and at most `max_samples`, until the interval of the median is no wider
    /// than `target_ci` (half its width, relative to the median), for at most `max_s` seconds.
    ///
    /// `max_s` ends a case even below `min_samples` (one sample is enough then): a slow case must not hold up
    /// a sweep. The seed should be that of the final [`Summary`](super::Summary), so that the row shows the
    /// interval that was accepted.
    pub fn new(min_samples: usize, max_samples: usize, target_ci: f64, max_s: f64, seed: u64) -> Self {
        let min_samples = min_samples.max(1);
        Self {
            min_samples,
            max_samples: max_samples.max(min_samples),
            target_ci,
            max_s,
            seed,
            next_look: min_samples,
            noise: VecDeque::with_capacity(STABLE_LOOKS),
        }
    }

    /// Why sampling is over, `None` while it is not.
    pub fn check(&mut self, samples: &[f64], elapsed_s: f64) -> Option<StopRule> {
        let n = samples.len();
        if n >= self.next_look {
            self.next_look = n + (n / 10).max(1);
            if let Some(rule) = self.look(&Sorted::new(samples)?, elapsed_s) {
                return Some(rule);
            }
        }
        if n >= self.max_samples {
            return Some(StopRule::MaxSamples);
        }
        (n > 0 && elapsed_s >= self.max_s).then_some(StopRule::MaxTime)
    }

    fn look(&mut self, sorted: &Sorted, elapsed_s: f64) -> Option<StopRule> {
        let (n, median) = (sorted.len(), sorted.quantile(0.5));
        let interval = if n > BOOTSTRAP_UP_TO {
            sorted.rank_interval()
        } else {
            sorted.median_interval(self.seed, resamples_of(n))
        };
        let half_width = interval.relative_half_width(median);
        if half_width <= self.target_ci {
            return Some(StopRule::TargetCi);
        }
        if self.noise.len() == STABLE_LOOKS {
            self.noise.pop_front();
        }
        self.noise.push_back(sorted.iqr() / median.abs());
        let samples_needed = n as f64 * (half_width / self.target_ci).powi(2);
        let seconds_needed = elapsed_s * samples_needed / n as f64;
        let out_of_reach = samples_needed > self.max_samples as f64 || seconds_needed > self.max_s;
        (n >= self.min_samples.max(STABLE_SAMPLES) && out_of_reach && self.noise_is_stable())
            .then_some(StopRule::StableNoise)
    }

    fn noise_is_stable(&self) -> bool {
        let largest = self.noise.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let smallest = self.noise.iter().copied().fold(f64::INFINITY, f64::min);
        let mean = self.noise.iter().sum::<f64>() / self.noise.len() as f64;
        self.noise.len() == STABLE_LOOKS && largest - smallest <= STABLE_SPREAD * mean
    }
}
