//! Triangles over the bins of a power spectrum, equally wide in mel.

/// The lowest frequency that a filter sees, in Hz.
const LOW_HZ: f64 = 20.0;

/// A triangle: weights of neighbouring bins.
pub(super) struct Filter {
    first: usize,
    weights: Vec<f32>,
}

impl Filter {
    /// `ln` of the weighted sum of powers, which is taken to be no less than the machine epsilon of f32.
    pub fn log_energy(&self, power: &[f32]) -> f32 {
        let sum: f32 = self
            .weights
            .iter()
            .zip(&power[self.first..])
            .map(|(w, p)| w * p)
            .sum();
        sum.max(f32::EPSILON).ln()
    }
}

/// Frequency in mel.
fn mel(hz: f64) -> f64 {
    1127.0 * (hz / 700.0).ln_1p()
}

/// So many filters between 20 Hz and half the rate, over the bins below half the rate of a transform of `padded` samples.
pub(super) fn filters(count: usize, padded: usize, rate: f64) -> Vec<Filter> {
    let low = mel(LOW_HZ);
    let width = (mel(rate / 2.0) - low) / (count + 1) as f64;
    let bins: Vec<f64> = (0..padded / 2)
        .map(|bin| mel(bin as f64 * rate / padded as f64))
        .collect();
    (0..count)
        .map(|b| {
            let left = low + b as f64 * width;
            let weight = |at: &f64| ((at - left) / width).min((left + 2.0 * width - at) / width);
            let first = bins.partition_point(|at| *at <= left);
            let weights = bins[first..].iter().map(weight).take_while(|w| *w > 0.0);
            Filter {
                first,
                weights: weights.map(|w| w as f32).collect(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_triangles_add_up_to_one() {
        let filters = filters(23, 512, 16_000.0);
        let mut sums = vec![0.0; 256];
        for filter in &filters {
            for (i, w) in filter.weights.iter().enumerate() {
                sums[filter.first + i] += w;
            }
        }
        // Between the peaks of the first filter, 112 Hz, and of the last, 7195 Hz.
        for (bin, sum) in sums.iter().enumerate().take(229).skip(5) {
            assert!((sum - 1.0).abs() < 1e-5, "bin {bin}: {sum}");
        }
    }

    #[test]
    fn silence_is_not_minus_infinity() {
        let filter = Filter {
            first: 1,
            weights: vec![0.5, 0.5],
        };
        assert_eq!(filter.log_energy(&[0.0; 4]), f32::EPSILON.ln());
    }
}
