//! Statistics of samples: median, quantiles, bootstrap intervals, outliers, and when to stop sampling.
//!
//! Times of a computer are skewed, with a floor and a long tail, so everything here is about order and not
//! about means: medians, quartiles, percentile bootstrap (Efron and Tibshirani, 1993, chapter 13). The
//! bootstrap is our own because no well-kept crate has one; it is seeded, so the same samples give the same
//! interval on every machine.

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Resamples of a bootstrap: the ends of a 95 % interval are then steady to a few percent of its width.
pub const RESAMPLES: usize = 2_000;

/// Confidence of every interval.
pub const CONFIDENCE: f64 = 0.95;

/// What the samples of a case say, in the unit of the samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Samples.
    pub n: usize,
    /// Median.
    pub median: f64,
    /// 95 % bootstrap interval of the median.
    pub ci: Interval,
    /// Interquartile range.
    pub iqr: f64,
    /// Mean.
    pub mean: f64,
    /// Smallest sample.
    pub min: f64,
    /// Samples that [`outliers`] labels.
    pub n_outliers: usize,
}

impl Summary {
    /// The summary of samples, `None` where there are none.
    pub fn of(samples: &[f64], seed: u64) -> Option<Self> {
        let sorted = Sorted::new(samples)?;
        Some(Self {
            n: samples.len(),
            median: sorted.quantile(0.5),
            ci: sorted.median_interval(seed, RESAMPLES),
            iqr: sorted.quantile(0.75) - sorted.quantile(0.25),
            mean: samples.iter().sum::<f64>() / samples.len() as f64,
            min: sorted.0[0],
            n_outliers: outliers(samples)
                .into_iter()
                .filter(|is_outlier| *is_outlier)
                .count(),
        })
    }
}

/// An interval, both ends included.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// Half of its width, relative to `center`.
    pub fn relative_half_width(&self, center: f64) -> f64 {
        (self.high - self.low) / 2.0 / center.abs()
    }
}

/// A ratio of two medians with its interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio {
    /// The ratio of the medians.
    pub value: f64,
    /// Its 95 % interval.
    pub ci: Interval,
}

/// The quantile `q` in `0..=1` by linear interpolation (type 7 of Hyndman and Fan, numpy's default); NaN where
/// there are no samples.
pub fn quantile(samples: &[f64], q: f64) -> f64 {
    Sorted::new(samples).map_or(f64::NAN, |sorted| sorted.quantile(q))
}

/// The median; NaN where there are no samples.
pub fn median(samples: &[f64]) -> f64 {
    quantile(samples, 0.5)
}

/// The interquartile range; NaN where there are no samples.
pub fn iqr(samples: &[f64]) -> f64 {
    quantile(samples, 0.75) - quantile(samples, 0.25)
}

/// The 95 % percentile bootstrap interval of the median, `None` where there are no samples.
pub fn median_interval(samples: &[f64], seed: u64, resamples: usize) -> Option<Interval> {
    Some(Sorted::new(samples)?.median_interval(seed, resamples))
}

/// The ratio of two medians with its bootstrap interval: both sides are resampled on their own. `None` where
/// a side has no samples.
pub fn ratio_of_medians(
    numerator: &[f64],
    denominator: &[f64],
    seed: u64,
    resamples: usize,
) -> Option<Ratio> {
    let (above, below) = (Sorted::new(numerator)?, Sorted::new(denominator)?);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut counts_above, mut counts_below) = (above.counts(), below.counts());
    let ratios: Vec<f64> = (0..resamples.max(1))
        .map(|_| {
            above.resampled_median(&mut rng, &mut counts_above)
                / below.resampled_median(&mut rng, &mut counts_below)
        })
        .collect();
    Some(Ratio {
        value: above.quantile(0.5) / below.quantile(0.5),
        ci: percentile_interval(&ratios),
    })
}

/// The ratio of two medians from their intervals alone, where the samples are not at hand: limits recovered on
/// the log scale (MOVER: Zou and Donner, Statistics in Medicine 27, 2008). All values must be positive.
pub fn ratio_of_intervals(numerator: (f64, Interval), denominator: (f64, Interval)) -> Ratio {
    let ((a, a_ci), (b, b_ci)) = (numerator, denominator);
    let value = a / b;
    let down = (a / a_ci.low).ln().hypot((b_ci.high / b).ln());
    let up = (a_ci.high / a).ln().hypot((b / b_ci.low).ln());
    Ratio {
        value,
        ci: Interval {
            low: value * (-down).exp(),
            high: value * up.exp(),
        },
    }
}

/// Which samples lie more than 3 interquartile ranges outside the quartiles (Tukey's outer fences). They are
/// labelled and never deleted: on a shared machine they are part of the truth.
pub fn outliers(samples: &[f64]) -> Vec<bool> {
    let Some(sorted) = Sorted::new(samples) else {
        return Vec::new();
    };
    let (q1, q3) = (sorted.quantile(0.25), sorted.quantile(0.75));
    let reach = 3.0 * (q3 - q1);
    samples
        .iter()
        .map(|sample| *sample < q1 - reach || *sample > q3 + reach)
        .collect()
}

/// What ended the sampling of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopRule {
    /// The interval of the median is narrow enough.
    TargetCi,
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
            Self::MaxSamples => "max_samples",
            Self::MaxTime => "max_s",
        }
    }
}

/// Decides after every sample whether a case has enough.
#[derive(Debug, Clone)]
pub struct Stop {
    max_samples: usize,
    target_ci: f64,
    max_s: f64,
    seed: u64,
    next_look: usize,
}

impl Stop {
    /// A rule: at least `min_samples` and at most `max_samples`, until the interval of the median is no wider
    /// than `target_ci` (half its width, relative to the median), for at most `max_s` seconds.
    ///
    /// `max_s` ends a case even below `min_samples` (one sample is enough then): a slow case must not hold up
    /// a sweep. The seed should be that of the final [`Summary`], so that the row shows the interval that was
    /// accepted.
    pub fn new(min_samples: usize, max_samples: usize, target_ci: f64, max_s: f64, seed: u64) -> Self {
        let min_samples = min_samples.max(1);
        Self {
            max_samples: max_samples.max(min_samples),
            target_ci,
            max_s,
            seed,
            next_look: min_samples,
        }
    }

    /// Why sampling is over, `None` while it is not.
    pub fn check(&mut self, samples: &[f64], elapsed_s: f64) -> Option<StopRule> {
        let n = samples.len();
        if n >= self.next_look {
            // The bootstrap costs up to a millisecond: look again after a tenth more samples, not after each.
            self.next_look = n + (n / 10).max(1);
            let sorted = Sorted::new(samples)?;
            let interval = sorted.median_interval(self.seed, RESAMPLES);
            if interval.relative_half_width(sorted.quantile(0.5)) <= self.target_ci {
                return Some(StopRule::TargetCi);
            }
        }
        if n >= self.max_samples {
            return Some(StopRule::MaxSamples);
        }
        (n > 0 && elapsed_s >= self.max_s).then_some(StopRule::MaxTime)
    }
}

/// Samples in ascending order, at least one.
struct Sorted(Vec<f64>);

impl Sorted {
    fn new(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        (!sorted.is_empty()).then_some(Self(sorted))
    }

    fn quantile(&self, q: f64) -> f64 {
        let rank = (self.0.len() - 1) as f64 * q.clamp(0.0, 1.0);
        let (below, above) = (self.0[rank.floor() as usize], self.0[rank.ceil() as usize]);
        below + (above - below) * rank.fract()
    }

    fn median_interval(&self, seed: u64, resamples: usize) -> Interval {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut counts = self.counts();
        let medians: Vec<f64> = (0..resamples.max(1))
            .map(|_| self.resampled_median(&mut rng, &mut counts))
            .collect();
        percentile_interval(&medians)
    }

    fn counts(&self) -> Vec<u32> {
        vec![0; self.0.len()]
    }

    /// The median of as many draws with replacement. Counting the draws of each sorted sample and walking to
    /// the middle is several times faster than selecting among the drawn values.
    fn resampled_median(&self, rng: &mut ChaCha8Rng, counts: &mut [u32]) -> f64 {
        let n = self.0.len();
        counts.fill(0);
        for _ in 0..n {
            // Multiply and shift: the bias is n / 2^32, far below what resampling can show.
            counts[((u64::from(rng.next_u32()) * n as u64) >> 32) as usize] += 1;
        }
        // The two middle ranks are one where n is odd.
        let (low_rank, high_rank) = ((n - 1) / 2, n / 2);
        let (mut seen, mut low) = (0usize, None);
        for (value, count) in self.0.iter().zip(counts.iter()) {
            seen += *count as usize;
            if low.is_none() && seen > low_rank {
                low = Some(*value);
            }
            if let (Some(low), true) = (low, seen > high_rank) {
                return low + (value - low) / 2.0;
            }
        }
        self.0[n - 1]
    }
}

fn percentile_interval(estimates: &[f64]) -> Interval {
    let tail = (1.0 - CONFIDENCE) / 2.0;
    Interval {
        low: quantile(estimates, tail),
        high: quantile(estimates, 1.0 - tail),
    }
}
