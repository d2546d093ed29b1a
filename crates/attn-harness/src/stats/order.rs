//! The interval of a median that needs no resampling.

use super::{CONFIDENCE, Interval, Sorted};

/// The 95 % interval of the median between two order statistics, `None` where there are no samples.
///
/// However the samples are distributed, the number of those below the median is binomial(n, 1/2), so its
/// quantiles are the ranks of the ends (Hahn and Meeker, Statistical Intervals, 1991, section 5.2; Conover,
/// Practical Nonparametric Statistics, 1999, section 3.2). The percentile bootstrap of a median draws from
/// nearly the same binomial and approaches this interval; it is never narrower than asked for, and costs
/// nothing but the sorting. Below 6 samples no pair of ranks reaches 95 %, and it is the range of the samples.
pub fn median_rank_interval(samples: &[f64]) -> Option<Interval> {
    Some(Sorted::new(samples)?.rank_interval())
}

impl Sorted {
    pub(crate) fn rank_interval(&self) -> Interval {
        let n = self.len();
        let low = lower_rank(n).max(1) - 1;
        Interval {
            low: self.at(low),
            high: self.at(n - 1 - low),
        }
    }
}

/// The smallest k with P(binomial(n, 1/2) <= k) >= 2.5 %; the rank, counted from 1, of the lower end.
fn lower_rank(n: usize) -> usize {
    // Probabilities relative to the middle one, which cannot underflow where 2^-n does.
    let middle = n / 2;
    let mut tail = vec![1.0];
    for k in (1..=middle).rev() {
        let next = tail[tail.len() - 1] * k as f64 / (n - k + 1) as f64;
        if next < 1e-17 {
            break;
        }
        tail.push(next);
    }
    let below_middle: f64 = tail[1..].iter().sum();
    // The upper half mirrors the lower; an odd n has two middles.
    let total = 2.0 * below_middle + if n % 2 == 0 { 1.0 } else { 2.0 };
    let target = (1.0 - CONFIDENCE) / 2.0 * total;
    let mut cumulated = 0.0;
    for (distance, weight) in tail.iter().enumerate().rev() {
        cumulated += weight;
        if cumulated >= target {
            return middle - distance;
        }
    }
    middle
}

#[cfg(test)]
mod tests {
    use super::lower_rank;

    #[test]
    fn ranks_are_those_of_the_binomial_distribution() {
        // scipy.stats.binom.ppf(0.025, n, 0.5)
        for (n, rank) in [
            (1, 0),
            (5, 0),
            (6, 1),
            (10, 2),
            (37, 13),
            (101, 41),
            (200, 86),
            (2000, 956),
        ] {
            assert_eq!(lower_rank(n), rank, "{n}");
        }
    }
}
