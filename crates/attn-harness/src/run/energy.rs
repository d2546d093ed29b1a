//! The energy of a case, counted while it runs alone.
//!
//! The cases of a group take turns while their times are sampled, so that the energy of that window is of all of them.
//! Afterwards each runs by itself, sample after sample, for as long as the counter of a GPU takes to say something.

use super::gpu::{reason, undisturbed};
use super::report;
use crate::nvml::{Counter, ENERGY_WINDOW_S, GpuConditions, Reason};
use crate::plan::Case;
use crate::row::Row;

/// Why there is none where nobody asked.
pub(super) const SWITCHED_OFF: &str = "not measured: measure.energy_s is 0";

/// The columns that need a window of their own.
pub(super) const COLUMNS: [&str; 4] = [
    "energy_j",
    "energy_per_token_j",
    "energy_window_s",
    "energy_power_w",
];

/// What a case needed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Energy {
    /// Joules of one unit of the row's time.
    unit_j: f64,
    window_s: f64,
    power_w: f64,
    /// What lowered the GPU's clocks meanwhile.
    throttle: Vec<String>,
}

/// Energy and idle power of a case, or why they are not known.
#[derive(Debug, Clone)]
pub(super) struct Bill {
    pub(super) energy: Counter<Energy>,
    pub(super) idle_power_w: Counter<f64>,
}

impl Default for Bill {
    fn default() -> Self {
        Self {
            energy: Err(SWITCHED_OFF.to_string()),
            idle_power_w: Err(SWITCHED_OFF.to_string()),
        }
    }
}

impl Energy {
    /// That of a case whose worker did `samples` of `steps` units each in `spent_s` seconds, while the GPU did `found`.
    pub(super) fn of(samples: u64, steps: usize, spent_s: f64, found: &GpuConditions) -> Counter<Self> {
        undisturbed(found)?;
        let energy_j = found.energy_j.ok_or_else(|| reason(found, "energy_j"))?;
        if samples == 0 || spent_s < ENERGY_WINDOW_S {
            return Err(format!(
                "not measured: the case ran for {spent_s:.1} s, it takes {ENERGY_WINDOW_S} s at least"
            ));
        }
        let throttle = found.throttle.iter().flatten();
        Ok(Self {
            unit_j: energy_j / (samples as f64 * steps as f64),
            window_s: found.window_s,
            power_w: energy_j / found.window_s,
            throttle: throttle
                .filter(|(name, _)| Reason::weakens(name))
                .map(|(name, _)| name.clone())
                .collect(),
        })
    }
}

impl Bill {
    /// Fills the columns of a case that was measured on a GPU.
    pub(super) fn describe(&self, row: &mut Row, case: &Case) {
        match &self.energy {
            Ok(energy) => {
                row.energy_j = Some(energy.unit_j);
                row.energy_per_token_j = Some(energy.unit_j / case.workload.processed_tokens() as f64);
                row.energy_window_s = Some(energy.window_s);
                row.energy_power_w = Some(energy.power_w);
                if !energy.throttle.is_empty() {
                    let text = format!(
                        "the GPU lowered its clocks while its energy was counted: {}",
                        energy.throttle.join(", ")
                    );
                    report::note(row, &text);
                }
            }
            Err(reason) => {
                let nulls: Vec<(&'static str, &str)> =
                    COLUMNS.iter().map(|column| (*column, reason.as_str())).collect();
                row.explain_nulls(&nulls);
            }
        }
        match &self.idle_power_w {
            Ok(idle_power_w) => row.idle_power_w = Some(*idle_power_w),
            Err(reason) => row.explain_nulls(&[("idle_power_w", reason)]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nvml::Process;

    fn found() -> GpuConditions {
        GpuConditions {
            window_s: 4.0,
            energy_j: Some(1200.0),
            foreign: Some(Vec::new()),
            throttle: Some([("application_clocks".to_string(), 1.0)].into()),
            ..GpuConditions::default()
        }
    }

    #[test]
    fn joules_are_of_one_step() {
        let energy = Energy::of(100, 6, 3.9, &found()).unwrap();
        assert_eq!((energy.unit_j, energy.power_w), (2.0, 300.0));
        assert!(energy.throttle.is_empty());
    }

    #[test]
    fn what_was_disturbed_too_short_or_not_counted_says_so() {
        let why =
            |samples, spent_s, found: &GpuConditions| Energy::of(samples, 1, spent_s, found).unwrap_err();
        assert!(why(5, 1.9, &found()).contains("ran for 1.9 s"));
        assert!(why(0, 3.0, &found()).contains("at least"));
        let process = Process {
            pid: 7,
            used_bytes: None,
        };
        let shared = GpuConditions {
            foreign: Some(vec![process]),
            ..found()
        };
        assert!(why(5, 3.0, &shared).contains("process 7"));
        let uncounted = GpuConditions {
            energy_j: None,
            null_reasons: [("energy_j".to_string(), "not measured: no counter".to_string())].into(),
            ..found()
        };
        assert_eq!(why(5, 3.0, &uncounted), "not measured: no counter");
    }
}
