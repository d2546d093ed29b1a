//! The log ratio of a case with what is known of its error.

use std::collections::BTreeMap;

use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use super::Rules;
use super::significance::{p_value, reach};
use crate::stats::{Interval, Sorted, draw, resamples_of};

/// Log times by replica, round, and place in the round.
pub(super) type LogTimes = BTreeMap<(u64, u64, usize), f64>;

/// A variance, and the degrees of freedom it is known with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Part {
    pub variance: f64,
    pub degrees: f64,
}

/// The log of time new / time base.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Estimate {
    log_ratio: f64,
    /// Of the estimate, from noise within replicas.
    pub within: Part,
    /// Excess of the differences between replicas.
    between: Vec<Part>,
    /// Samples that the variance within shrank by: it is the variance of a sample over this.
    pub samples: f64,
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
            let side = Median::new(&ratios, rules.seed);
            return Ok(Self {
                log_ratio: side.median,
                within: side.within,
                between: side.between.into_iter().collect(),
                samples: side.n,
            });
        }
        let fewest = base.len().min(new.len());
        if fewest < least {
            return Err(format!(
                "{fewest} samples of a side are too few, {least} are needed"
            ));
        }
        // Both sides are resampled on their own.
        let (base, new) = (
            Median::new(base, rules.seed),
            Median::new(new, rules.seed.wrapping_add(1)),
        );
        Ok(Self {
            log_ratio: new.median - base.median,
            within: sum(&[base.within, new.within]),
            between: [base.between, new.between].into_iter().flatten().collect(),
            samples: 1.0 / (1.0 / base.n + 1.0 / new.n),
        })
    }

    pub fn ratio(&self) -> f64 {
        self.log_ratio.exp()
    }

    /// The two-sided p value of no difference.
    pub fn p(&self) -> f64 {
        let Part { variance, degrees } = self.error();
        p_value(self.log_ratio, variance.sqrt(), degrees)
    }

    /// The interval of the ratio.
    pub fn interval(&self, confidence: f64) -> Interval {
        let Part { variance, degrees } = self.error();
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

    fn error(&self) -> Part {
        let parts: Vec<Part> = [self.within].into_iter().chain(self.between.clone()).collect();
        sum(&parts)
    }
}

/// The sum of independent variances (Welch, 1947; Satterthwaite, 1946).
fn sum(parts: &[Part]) -> Part {
    let variance: f64 = parts.iter().map(|part| part.variance).sum();
    let spread: f64 = parts
        .iter()
        .map(|part| part.variance.powi(2) / part.degrees)
        .sum();
    let degrees = if spread > 0.0 {
        variance.powi(2) / spread
    } else {
        // No noise at all.
        parts.iter().map(|part| part.degrees).sum()
    };
    Part { variance, degrees }
}

/// A median with the parts of its variance.
struct Median {
    n: f64,
    median: f64,
    within: Part,
    between: Option<Part>,
}

impl Median {
    /// Of at least one value.
    fn new(values: &LogTimes, seed: u64) -> Self {
        let mut order: Vec<(f64, u64)> = values.iter().map(|(turn, value)| (*value, turn.0)).collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        let n = order.len();
        // Which ranks each replica has.
        let mut replicas: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (rank, (_, replica)) in order.iter().enumerate() {
            replicas.entry(*replica).or_default().push(rank);
        }
        let replicas: Vec<Vec<usize>> = replicas.into_values().collect();
        let sorted = Sorted::of_sorted(order.into_iter().map(|(value, _)| value).collect());

        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut counts = sorted.counts();
        let resamples = resamples_of(n);
        let within = variance(resamples, || {
            counts.fill(0);
            for ranks in &replicas {
                for _ in ranks {
                    counts[ranks[draw(&mut rng, ranks.len())]] += 1;
                }
            }
            sorted.median_of(&counts, n)
        });
        let r = replicas.len();
        let between = (r > 1).then(|| {
            let whole = variance(resamples, || {
                counts.fill(0);
                let mut total = 0;
                for _ in 0..r {
                    let ranks = &replicas[draw(&mut rng, r)];
                    ranks.iter().for_each(|rank| counts[*rank] += 1);
                    total += ranks.len();
                }
                sorted.median_of(&counts, total)
            });
            // Resampling few things shows too little of their spread, by (r - 1) / r (Davison and Hinkley,
            // Bootstrap Methods, 1997, section 3.8). What noise within replicas explains is counted already.
            let variance = (whole * r as f64 / (r - 1) as f64 - within).max(0.0);
            Part {
                variance,
                degrees: (r - 1) as f64,
            }
        });
        Self {
            n: n as f64,
            median: sorted.quantile(0.5),
            within: Part {
                variance: within,
                degrees: n.saturating_sub(r).max(1) as f64,
            },
            between,
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
