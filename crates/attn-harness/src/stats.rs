//! Statistics of samples: median, quantiles, bootstrap intervals, outliers, and when to stop sampling.
//!
//! Times of a computer are skewed, with a floor and a long tail, so everything here is about order and not
//! about means: medians, quartiles, percentile bootstrap (Efron and Tibshirani, 1993, chapter 13). The
//! bootstrap is our own because no well-kept crate has one; it is seeded, so the same samples give the same
//! interval on every machine.

mod order;
mod sorted;
mod stop;
mod student;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

pub use self::order::median_rank_interval;
use self::sorted::percentile_interval;
pub(crate) use self::sorted::{Sorted, draw};
pub use self::stop::{Stop, StopRule};
pub(crate) use self::student::{digamma, inverse_trigamma, student_p, student_quantile, trigamma};

/// Resamples of a bootstrap: the ends of a 95 % interval are then steady to a few percent of its width.
pub const RESAMPLES: usize = 2_000;

/// Draws that one bootstrap may cost, a fraction of a second: more samples get fewer resamples.
const MAX_DRAWS: usize = 4_000_000;

/// Fewest resamples from which a 95 % interval is read.
const MIN_RESAMPLES: usize = 500;

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
            ci: sorted.median_interval(seed, resamples_of(samples.len())),
            iqr: sorted.iqr(),
            mean: samples.iter().sum::<f64>() / samples.len() as f64,
            min: sorted.quantile(0.0),
            n_outliers: outliers(samples)
                .into_iter()
                .filter(|is_outlier| *is_outlier)
                .count(),
        })
    }
}

/// Resamples of a bootstrap of `n` samples: [`RESAMPLES`] of up to 2,000 samples, then so many that the draws
/// stay at 4 million, but not below 500. With thousands of samples the interval is narrow, and what fewer
/// resamples add to its ends is a few percent of its width.
pub fn resamples_of(n: usize) -> usize {
    (MAX_DRAWS / n.max(1)).clamp(MIN_RESAMPLES, RESAMPLES)
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
    Sorted::new(samples).map_or(f64::NAN, |sorted| sorted.iqr())
}

/// The 95 % percentile bootstrap interval of the median, `None` where there are no samples.
pub fn median_interval(samples: &[f64], seed: u64, resamples: usize) -> Option<Interval> {
    Some(Sorted::new(samples)?.median_interval(seed, resamples))
}

/// Standard deviation, and the 95 % interval of the mean by Student's t; `None` for fewer than two values.
pub fn mean_interval(values: &[f64]) -> Option<(f64, Interval)> {
    if values.len() < 2 {
        return None;
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let sd = (squares / (n - 1.0)).sqrt();
    let half = student_quantile(1.0 - CONFIDENCE, n - 1.0) * sd / n.sqrt();
    Some((
        sd,
        Interval {
            low: mean - half,
            high: mean + half,
        },
    ))
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
