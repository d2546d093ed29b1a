//! Samples in ascending order, and the bootstrap of their median.

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{CONFIDENCE, Interval, quantile};

/// Samples in ascending order, at least one.
pub(crate) struct Sorted(Vec<f64>);

impl Sorted {
    pub(crate) fn new(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        (!sorted.is_empty()).then_some(Self(sorted))
    }

    /// Of values that are sorted already, at least one.
    pub(crate) fn of_sorted(sorted: Vec<f64>) -> Self {
        Self(sorted)
    }

    pub(crate) fn quantile(&self, q: f64) -> f64 {
        let rank = (self.0.len() - 1) as f64 * q.clamp(0.0, 1.0);
        let (below, above) = (self.0[rank.floor() as usize], self.0[rank.ceil() as usize]);
        below + (above - below) * rank.fract()
    }

    pub(crate) fn iqr(&self) -> f64 {
        self.quantile(0.75) - self.quantile(0.25)
    }

    /// Sample `rank`, counted from 0.
    pub(crate) fn at(&self, rank: usize) -> f64 {
        self.0[rank]
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn median_interval(&self, seed: u64, resamples: usize) -> Interval {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut counts = self.counts();
        let medians: Vec<f64> = (0..resamples.max(1))
            .map(|_| self.resampled_median(&mut rng, &mut counts))
            .collect();
        percentile_interval(&medians)
    }

    /// Scratch space of [`resampled_median`](Self::resampled_median).
    pub(crate) fn counts(&self) -> Vec<u32> {
        vec![0; self.0.len()]
    }

    /// The median of as many draws with replacement.
    pub(crate) fn resampled_median(&self, rng: &mut ChaCha8Rng, counts: &mut [u32]) -> f64 {
        let n = self.0.len();
        counts.fill(0);
        for _ in 0..n {
            counts[draw(rng, n)] += 1;
        }
        self.median_of(counts, n)
    }

    /// The median of `total` draws, of which `counts` met each sorted sample. Counting draws and walking to the
    /// middle is several times faster than selecting among the drawn values.
    pub(crate) fn median_of(&self, counts: &[u32], total: usize) -> f64 {
        // The two middle ranks are one where the total is odd.
        let (low_rank, high_rank) = ((total - 1) / 2, total / 2);
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
        self.0[self.0.len() - 1]
    }
}

/// One of `n`. Multiply and shift: the bias is n / 2^32, far below what resampling can show.
pub(crate) fn draw(rng: &mut ChaCha8Rng, n: usize) -> usize {
    ((u64::from(rng.next_u32()) * n as u64) >> 32) as usize
}

/// The middle 95 % of bootstrap estimates.
pub(crate) fn percentile_interval(estimates: &[f64]) -> Interval {
    let tail = (1.0 - CONFIDENCE) / 2.0;
    Interval {
        low: quantile(estimates, tail),
        high: quantile(estimates, 1.0 - tail),
    }
}
