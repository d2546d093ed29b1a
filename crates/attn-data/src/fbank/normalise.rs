//! Mean 0 and variance 1 for each mel filter.

/// The least variance that is divided by, fairseq's.
const LEAST_VARIANCE: f64 = 1e-10;

/// Sums over frames, for mean and variance of each element.
pub(crate) struct Moments {
    count: u64,
    sums: Vec<f64>,
    squares: Vec<f64>,
}

/// What is taken off each element, and what it is multiplied by then.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Statistics {
    mean: Vec<f32>,
    scale: Vec<f32>,
}

impl Moments {
    pub fn new(dim: usize) -> Self {
        Self {
            count: 0,
            sums: vec![0.0; dim],
            squares: vec![0.0; dim],
        }
    }

    /// Takes frames `[n, F]` in.
    pub fn add(&mut self, features: &[f32]) {
        for frame in features.chunks_exact(self.sums.len()) {
            self.count += 1;
            for (i, x) in frame.iter().map(|x| f64::from(*x)).enumerate() {
                self.sums[i] += x;
                self.squares[i] += x * x;
            }
        }
    }

    pub fn statistics(&self) -> Statistics {
        let n = self.count.max(1) as f64;
        let mean: Vec<f64> = self.sums.iter().map(|sum| sum / n).collect();
        let scale = self.squares.iter().zip(&mean).map(|(square, mean)| {
            let variance = square / n - mean * mean;
            (1.0 / variance.max(LEAST_VARIANCE).sqrt()) as f32
        });
        Statistics {
            scale: scale.collect(),
            mean: mean.iter().map(|mean| *mean as f32).collect(),
        }
    }
}

impl Statistics {
    /// Those of frames `[n, F]` themselves.
    pub fn of(features: &[f32], dim: usize) -> Self {
        let mut moments = Moments::new(dim);
        moments.add(features);
        moments.statistics()
    }

    /// Normalises frames `[n, F]`.
    pub fn apply(&self, features: &mut [f32]) {
        for frame in features.chunks_exact_mut(self.mean.len()) {
            for ((x, mean), scale) in frame.iter_mut().zip(&self.mean).zip(&self.scale) {
                *x = (*x - mean) * scale;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_element_gets_mean_zero_and_variance_one() {
        let mut features = vec![1.0, 10.0, 2.0, 10.0, 3.0, 10.0];
        Statistics::of(&features, 2).apply(&mut features);
        let edge = 1.5f32.sqrt();
        for (x, expected) in features.iter().zip([-edge, 0.0, 0.0, 0.0, edge, 0.0]) {
            assert!((x - expected).abs() < 1e-5, "{features:?}");
        }
    }
}
