//! Learning rates.

use serde::{Deserialize, Serialize};

/// How the learning rate falls after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// It does not.
    Constant,
    /// To zero along half a cosine.
    #[default]
    Cosine,
    /// With the root of the step, as the paper's trainings do: `lr sqrt(warmup / step)`.
    InverseSqrt,
}

/// Learning rate as a function of the step: linear from zero to `lr` in `warmup` steps, then falling.
///
/// ```
/// use attn_model::train::{Decay, Schedule};
///
/// let schedule = Schedule { lr: 0.1, warmup: 10, steps: 110, decay: Decay::Cosine };
/// assert_eq!(schedule.at(0), 0.01); // the first step is not wasted
/// assert_eq!(schedule.at(9), 0.1);
/// assert!((schedule.at(59) - 0.05).abs() < 2e-3);
/// assert!(schedule.at(109) < 1e-4);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// The highest rate.
    pub lr: f64,
    /// Steps of the warm-up.
    pub warmup: u64,
    /// Steps of the whole training.
    pub steps: u64,
    /// What follows the warm-up.
    pub decay: Decay,
}

impl Schedule {
    /// The rate of step `step`, the first being 0.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.lr * (step + 1) as f64 / self.warmup as f64;
        }
        match self.decay {
            Decay::Constant => self.lr,
            Decay::Cosine => {
                let left = self.steps.saturating_sub(self.warmup).max(1) as f64;
                let done = ((step - self.warmup) as f64 / left).min(1.0);
                0.5 * self.lr * (1.0 + (std::f64::consts::PI * done).cos())
            }
            Decay::InverseSqrt => self.lr * (self.warmup.max(1) as f64 / (step + 1) as f64).sqrt(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_begins_where_the_warm_up_ends() {
        let schedule = Schedule {
            lr: 2e-3,
            warmup: 100,
            steps: 1000,
            decay: Decay::InverseSqrt,
        };
        assert_eq!(schedule.at(99), 2e-3);
        assert!(schedule.at(100) < 2e-3);
        assert!((schedule.at(399) - 1e-3).abs() < 1e-12);
        let constant = Schedule {
            decay: Decay::Constant,
            warmup: 0,
            ..schedule
        };
        assert_eq!((constant.at(0), constant.at(5000)), (2e-3, 2e-3));
    }
}
