//! Where the time of a run went.

use serde::{Deserialize, Serialize};

/// Seconds of a run by what they were spent on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    /// Warm-up of cases.
    pub warmup_s: f64,
    /// Samples.
    pub sampling_s: f64,
    /// Measuring what the machine can do.
    pub ceilings_s: f64,
    /// Building layers, inputs and caches, cache filling included.
    pub building_s: f64,
    /// Comparing with the reference.
    pub verifying_s: f64,
    /// Rewinding and flushing between samples.
    pub resetting_s: f64,
    /// Pauses between replicas.
    pub cooldown_s: f64,
    /// Cases running alone for their energy, and idle GPUs.
    #[serde(default)]
    pub energy_s: f64,
    /// Training models and testing them.
    #[serde(default)]
    pub training_s: f64,
    /// Looking at clocks and at the load of other processes.
    pub watching_s: f64,
    /// Deciding whether to go on, and the statistics of rows.
    pub statistics_s: f64,
    /// Starting workers.
    pub starting_s: f64,
    /// Writing rows to the disk.
    pub storing_s: f64,
    /// The whole run.
    pub total_s: f64,
    /// The time of all its devices together: the parts are of this where several shared the run.
    #[serde(default)]
    pub worked_s: f64,
}

impl Ledger {
    /// Adds what another device spent.
    pub fn add(&mut self, other: &Self) {
        self.warmup_s += other.warmup_s;
        self.sampling_s += other.sampling_s;
        self.ceilings_s += other.ceilings_s;
        self.building_s += other.building_s;
        self.verifying_s += other.verifying_s;
        self.resetting_s += other.resetting_s;
        self.cooldown_s += other.cooldown_s;
        self.energy_s += other.energy_s;
        self.training_s += other.training_s;
        self.watching_s += other.watching_s;
        self.statistics_s += other.statistics_s;
        self.starting_s += other.starting_s;
        self.storing_s += other.storing_s;
        self.total_s += other.total_s;
        self.worked_s += other.worked_s;
    }

    /// What the parts are parts of.
    fn whole_s(&self) -> f64 {
        self.total_s.max(self.worked_s)
    }

    /// Warm-up, samples and trainings: what the run is for.
    pub fn measuring_s(&self) -> f64 {
        self.warmup_s + self.sampling_s + self.training_s
    }

    /// What makes measuring honest: ceilings, building and filling, verification, flushes, pauses, clocks.
    pub fn care_s(&self) -> f64 {
        self.ceilings_s
            + self.building_s
            + self.verifying_s
            + self.resetting_s
            + self.cooldown_s
            + self.energy_s
            + self.watching_s
    }

    /// Scheduling, messages, statistics, starting workers and storing: all the rest.
    pub fn overhead_s(&self) -> f64 {
        (self.whole_s() - self.measuring_s() - self.care_s()).max(0.0)
    }

    /// In a line: `38.0 s: 61 % warm-up and samples, 35 % verification ..., 4 % scheduling ...`.
    pub fn line(&self) -> String {
        if self.measuring_s() == 0.0 {
            return format!("time: {:.1} s, nothing was measured", self.total_s);
        }
        let what = match (self.warmup_s + self.sampling_s > 0.0, self.training_s > 0.0) {
            (true, true) => "warm-up, samples and trainings",
            (false, true) => "trainings",
            _ => "warm-up and samples",
        };
        let percent = |part: f64| 100.0 * part / self.whole_s().max(f64::MIN_POSITIVE);
        let mut care = vec![
            ("verification", self.verifying_s),
            ("building and filling", self.building_s),
            ("ceilings", self.ceilings_s),
            ("rewinding and flushing", self.resetting_s),
            ("cool-down", self.cooldown_s),
            ("energy", self.energy_s),
            ("clocks and load", self.watching_s),
        ];
        care.retain(|(_, spent_s)| percent(*spent_s) >= 0.05);
        let care: Vec<String> = care
            .into_iter()
            .map(|(what, spent_s)| format!("{what} {:.1} %", percent(spent_s)))
            .collect();
        format!(
            "time: {:.1} s, of which {what} {:.1} %, {}; scheduling, messages, statistics and storing {:.1} %, which is \
             {:.1} % of {what}",
            self.total_s,
            percent(self.measuring_s()),
            if care.is_empty() {
                "nothing else".to_string()
            } else {
                care.join(", ")
            },
            percent(self.overhead_s()),
            100.0 * self.overhead_s() / self.measuring_s(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_is_measuring_care_or_overhead() {
        let ledger = Ledger {
            warmup_s: 2.0,
            sampling_s: 4.0,
            verifying_s: 3.0,
            storing_s: 0.25,
            total_s: 10.0,
            ..Ledger::default()
        };
        assert_eq!(
            (ledger.measuring_s(), ledger.care_s(), ledger.overhead_s()),
            (6.0, 3.0, 1.0)
        );
        assert_eq!(
            ledger.line(),
            "time: 10.0 s, of which warm-up and samples 60.0 %, verification 30.0 %; scheduling, messages, statistics and \
             storing 10.0 %, which is 16.7 % of warm-up and samples"
        );
        let shared = Ledger {
            worked_s: 20.0,
            ..ledger
        };
        assert_eq!((shared.measuring_s(), shared.overhead_s()), (6.0, 11.0));
        assert!(
            shared
                .line()
                .starts_with("time: 10.0 s, of which warm-up and samples 30.0 %")
        );
        let idle = Ledger {
            total_s: 2.0,
            ..Ledger::default()
        };
        assert_eq!(idle.line(), "time: 2.0 s, nothing was measured");
    }
}
