//! Variances that learn from each other.

use super::estimate::{Estimate, Part, Unit};
use crate::stats::{digamma, inverse_trigamma, trigamma};

/// Draws the variance of every case towards what is usual in the comparison, that of replicas and that of samples each
/// towards its own.
///
/// Sample variances are taken as chi-squared around true ones, and those as scaled inverse chi-squared with
/// d0 degrees of freedom around s0². Both come from mean and variance of the log variances; the moderated
/// variance is (d0 s0² + d s²) / (d0 + d), with d0 + d degrees of freedom. Cases of very different noise
/// give a small d0, and then nearly keep their own.
///
/// With fewer than `min_cases` cases, or without noise in most, nothing is changed.
///
/// # Source
/// Smyth, Statistical Applications in Genetics and Molecular Biology 3 (2004), article 3, section 6.2; zeros
/// are raised to 1e-5 of the median and the degrees of freedom capped by their sum, as limma does.
pub(super) fn moderate(estimates: &mut [Result<Estimate, String>], min_cases: usize) {
    for unit in [Unit::Replica, Unit::Sample] {
        let alike = estimates.iter_mut().flatten();
        moderate_alike(
            alike.filter(|estimate| estimate.unit == unit).collect(),
            min_cases,
        );
    }
}

fn moderate_alike(estimates: Vec<&mut Estimate>, min_cases: usize) {
    let own: Vec<Part> = estimates.iter().map(|estimate| estimate.of_a_unit()).collect();
    if own.len() < min_cases.max(2) {
        return;
    }
    let mut variances: Vec<f64> = own.iter().map(|part| part.variance).collect();
    variances.sort_by(f64::total_cmp);
    let middle = variances[variances.len() / 2];
    if middle <= 0.0 {
        return;
    }
    let n = own.len() as f64;
    let logs: Vec<f64> = own
        .iter()
        .map(|part| {
            let half = part.degrees / 2.0;
            part.variance.max(1e-5 * middle).ln() - digamma(half) + half.ln()
        })
        .collect();
    let mean = logs.iter().sum::<f64>() / n;
    let spread = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let by_chance = own.iter().map(|part| trigamma(part.degrees / 2.0)).sum::<f64>() / n;
    let all_degrees: f64 = own.iter().map(|part| part.degrees).sum();
    // Spread no wider than chance: one variance for all.
    let (degrees, usual) = if spread > by_chance {
        let half = inverse_trigamma(spread - by_chance);
        (2.0 * half, (mean + digamma(half) - half.ln()).exp())
    } else {
        (f64::INFINITY, mean.exp())
    };
    for estimate in estimates {
        let Part { variance, degrees: d } = estimate.of_a_unit();
        let variance = if degrees.is_finite() {
            (degrees * usual + d * variance) / (degrees + d)
        } else {
            usual
        };
        estimate.error = Part {
            variance: variance / estimate.units,
            degrees: (degrees + d).min(all_degrees),
        };
    }
}

impl Estimate {
    /// The variance of one unit: that of the estimate grows with fewer of them, and would not compare.
    fn of_a_unit(&self) -> Part {
        Part {
            variance: self.error.variance * self.units,
            degrees: self.error.degrees,
        }
    }
}
