//! The log ratio of a case with what is known of its error.

use std::collections::BTreeMap;

use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use super::Rules;
use super::significance::{p_value, reach};
use crate::stats::{Interval, Sorted, draw, median, resamples_of};

/// Log times by replica, round, and place in the round.
pub(super) type LogTimes = BTreeMap<(u64, u64, usize), f64>;

/// A variance, and the degrees of freedom it is known with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Part {
    pub variance: f64,
    pub degrees: f64,
}

/// What varies independently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Processes, each by the median of its samples.
    Replica,
    /// Samples of one process.
    Sample,
}

/// The log of time new / time base.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Estimate {
    log_ratio: f64,
    /// Of the estimate.
    pub error: Part,
    /// What the error comes from.
    pub unit: Unit,
    /// Units that the variance shrank by: it is the variance of one over this.
    pub units: f64,
}

impl Estimate {
    /// From the log times of both sides, or why there is nothing to estimate.
    pub fn new(base: &LogTimes, new: &LogTimes, paired: bool, rules: &Rules) -> Result<Self, String> {
        let least = rules.min_samples;
        if paired {
            let ratios: LogTimes = new
                .iter()
                .filter_map(|(turn, time)| Some((*turn, time - base.get(turn)?)))
                .collect();
            if ratios.len() < least {
                return Err(format!("{} pairs are too few, {least} are needed", ratios.len()));
            }
            let unit = unit_of(&[&ratios]);
            let Centre { value, units, error } = Centre::new(&ratios, unit, rules.seed);
            return Ok(Self {
                log_ratio: value,
                error,
                unit,
                units,
            });
        }
        let fewest = base.len().min(new.len());
        if fewest < least {
            return Err(format!(
                "{fewest} samples of a side are too few, {least} are needed"
            ));
        }
        let unit = unit_of(&[base, new]);
        // Both sides are resampled on their own.
        let (base, new) = (
            Centre::new(base, unit, rules.seed),
            Centre::new(new, unit, rules.seed.wrapping_add(1)),
        );
        Ok(Self {
            log_ratio: new.value - base.value,
            error: sum(base.error, new.error),
            unit,
            units: 1.0 / (1.0 / base.units + 1.0 / new.units),
        })
    }

    pub fn ratio(&self) -> f64 {
        self.log_ratio.exp()
    }

    /// The two-sided p value of no difference.
    pub fn p(&self) -> f64 {
        let Part { variance, degrees } = self.error;
        p_value(self.log_ratio, variance.sqrt(), degrees)
    }

    /// The interval of the ratio.
    pub fn interval(&self, confidence: f64) -> Interval {
        let Part { variance, degrees } = self.error;
        let reach = if variance > 0.0 {
            variance.sqrt() * reach(confidence, degrees)
        } else {
            0.0
        };
        Interval {
            low: (self.log_ratio - reach).exp(),
            high: (self.log_ratio + reach).exp(),
        }
    }
}

/// The sum of independent variances (Welch, 1947; Satterthwaite, 1946).
fn sum(a: Part, b: Part) -> Part {
    let variance = a.variance + b.variance;
    let spread = a.variance.powi(2) / a.degrees + b.variance.powi(2) / b.degrees;
    let degrees = if spread > 0.0 {
        variance.powi(2) / spread
    } else {
        // No noise at all.
        a.degrees + b.degrees
    };
    Part { variance, degrees }
}

/// Replicas where every side has several, else samples.
fn unit_of(sides: &[&LogTimes]) -> Unit {
    let has_several = |times: &&LogTimes| {
        let first = times.keys().next().map(|turn| turn.0);
        times.keys().any(|turn| Some(turn.0) != first)
    };
    if sides.iter().all(has_several) {
        Unit::Replica
    } else {
        Unit::Sample
    }
}

/// The centre of log times or log ratios.
struct Centre {
    value: f64,
    units: f64,
    error: Part,
}

impl Centre {
    /// Of at least one value; of at least two replicas where these are the unit.
    fn new(values: &LogTimes, unit: Unit, seed: u64) -> Self {
        match unit {
            Unit::Replica => Self::of_replicas(values),
            Unit::Sample => Self::of_samples(values, seed),
        }
    }

    /// The mean of the medians.
    fn of_replicas(values: &LogTimes) -> Self {
        let mut replicas: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
        for (turn, value) in values {
            replicas.entry(turn.0).or_default().push(*value);
        }
        let medians: Vec<f64> = replicas.values().map(|values| median(values)).collect();
        let units = medians.len() as f64;
        let value = medians.iter().sum::<f64>() / units;
        let degrees = units - 1.0;
        let spread: f64 = medians.iter().map(|median| (median - value).powi(2)).sum();
        Self {
            value,
            units,
            error: Part {
                variance: spread / degrees / units,
                degrees,
            },
        }
    }

    /// The median, its variance from a bootstrap.
    fn of_samples(values: &LogTimes, seed: u64) -> Self {
        let mut values: Vec<f64> = values.values().copied().collect();
        values.sort_by(f64::total_cmp);
        let n = values.len();
        let sorted = Sorted::of_sorted(values);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut counts = sorted.counts();
        let variance = variance(resamples_of(n), || {
            counts.fill(0);
            for _ in 0..n {
                counts[draw(&mut rng, n)] += 1;
            }
            sorted.median_of(&counts, n)
        });
        Self {
            value: sorted.quantile(0.5),
            units: n as f64,
            error: Part {
                variance,
                degrees: n.saturating_sub(1).max(1) as f64,
            },
        }
    }
}

/// The variance of what `resample` gives.
fn variance(resamples: usize, mut resample: impl FnMut() -> f64) -> f64 {
    let estimates: Vec<f64> = (0..resamples).map(|_| resample()).collect();
    // Relative to the first, so that equal estimates have no variance at all.
    let shifted = estimates.iter().map(|estimate| estimate - estimates[0]);
    let n = resamples as f64;
    let mean = shifted.clone().sum::<f64>() / n;
    shifted.map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0)
}
