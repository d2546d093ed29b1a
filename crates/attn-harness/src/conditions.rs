//! What the machine did during a measurement: who else computed, and whether the clock held.
//!
//! Linux tells most of it in text files. What it does not tell is `None`, with the reason beside it. A virtual
//! machine often reports a constant clock and no temperature, so that the speed of a fixed chain of operations
//! is timed as well: it falls with the clock, whoever lowers it.

mod clock;
mod cpu_time;
mod limits;
mod sensors;

use std::collections::BTreeMap;
use std::time::Instant;

use serde::{Deserialize, Serialize};

pub use self::clock::ClockLooks;
use self::cpu_time::{CpuTimes, own_s};
pub use self::limits::{memory_budget_bytes, oom_kills};
use self::sensors::{temperature_c, throttle_events};
use crate::environment::cpu_mhz;
use crate::row::Row;

/// Below this window no fraction of the processors' time is told: Linux counts in ticks of 10 ms.
pub const SHORTEST_WINDOW_S: f64 = 0.1;

/// What the machine did from the start of a [`Watch`] to its end.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Conditions {
    /// Length of the measurement, in seconds.
    pub window_s: f64,
    /// Part of the processors' time that other processes took.
    pub other_cpu_fraction: Option<f64>,
    /// Part of the processors' time that the hypervisor gave to other machines.
    pub stolen_cpu_fraction: Option<f64>,
    /// How exact these parts are: a tick of every processor may have begun before the window.
    pub cpu_resolution: f64,
    /// Clock of the fastest core at the start, in MHz.
    pub mhz_start: Option<f64>,
    /// Clock of the fastest core at the end, in MHz.
    pub mhz_end: Option<f64>,
    /// Temperature of the processor, in degrees Celsius: the hotter of start and end.
    pub temperature_c: Option<f64>,
    /// Times the cores and packages throttled themselves, by their own counters.
    pub throttle_events: Option<u64>,
    /// Operations per second of a fixed chain, usually; none where nobody looked.
    pub clock_rate: Option<f64>,
    /// That of the slower half of the measurement over that of the faster; none with fewer than two looks.
    pub clock_steadiness: Option<f64>,
    /// Why entries are null.
    pub null_reasons: BTreeMap<String, String>,
}

/// Watches the machine while something is measured.
#[derive(Debug)]
pub struct Watch {
    mhz: Option<f64>,
    temperature_c: Option<f64>,
    throttle_events: Option<u64>,
    cpu: Option<CpuTimes>,
    own_s: f64,
    began: Instant,
}

impl Watch {
    /// Starts watching. This process counts as ours with the children it has outlived, and so do those of `ours`.
    pub fn start(ours: &[u32]) -> Self {
        Self {
            mhz: cpu_mhz().ok(),
            temperature_c: temperature_c(),
            throttle_events: throttle_events(),
            cpu: CpuTimes::read(),
            own_s: own_s(ours),
            began: Instant::now(),
        }
    }

    /// Ends the window and tells what happened in it, with the looks at the clock that were taken meanwhile. `ours` are
    /// those there now: processes may have come, and gone where this one waited for their end.
    pub fn finish(self, ours: &[u32], looks: &ClockLooks) -> Conditions {
        let window_s = self.began.elapsed().as_secs_f64();
        let own_s = own_s(ours) - self.own_s;
        let cpu = CpuTimes::read();
        let mut null_reasons = BTreeMap::new();
        let mut because = |entries: &[&str], reason: &str| {
            for entry in entries {
                null_reasons.insert((*entry).to_string(), reason.to_string());
            }
        };
        let fractions = match (self.cpu, cpu) {
            _ if window_s < SHORTEST_WINDOW_S => Err("not measured: shorter than ten ticks of the system"),
            (Some(before), Some(after)) => Ok(after.since(&before, own_s)),
            _ => Err("not measured: the system does not tell processor times"),
        };
        if let Err(reason) = fractions {
            because(&["other_cpu_fraction", "stolen_cpu_fraction"], reason);
        }
        let (mhz_start, mhz_end) = (self.mhz, cpu_mhz().ok());
        for (mhz, entry) in [(mhz_start, "mhz_start"), (mhz_end, "mhz_end")] {
            if mhz.is_none() {
                because(
                    &[entry],
                    "not measured: the system does not tell the processor's clock",
                );
            }
        }
        let temperature_c = self
            .temperature_c
            .into_iter()
            .chain(temperature_c())
            .reduce(f64::max);
        if temperature_c.is_none() {
            because(
                &["temperature_c"],
                "not measured: the system has no sensor of the processor",
            );
        }
        let throttle_events = self.throttle_events.zip(throttle_events());
        if throttle_events.is_none() {
            because(
                &["throttle_events"],
                "not measured: the processor does not count them here",
            );
        }
        Conditions {
            window_s,
            other_cpu_fraction: fractions.ok().map(|(other, _)| other),
            stolen_cpu_fraction: fractions.ok().map(|(_, stolen)| stolen),
            cpu_resolution: cpu_time::TICK_S / window_s.max(cpu_time::TICK_S),
            mhz_start,
            mhz_end,
            temperature_c,
            throttle_events: throttle_events.map(|(before, after)| after.saturating_sub(before)),
            clock_rate: looks.typical(),
            clock_steadiness: looks.steadiness(),
            null_reasons,
        }
    }
}

impl Conditions {
    /// Several stretches as one: fractions are of all the time, and of everything else the worst counts.
    pub fn over(stretches: &[Self]) -> Self {
        let merge = |a: Self, b: Self| {
            let fell_most = if a.mhz_fell() < b.mhz_fell() { &b } else { &a };
            let (mhz_start, mhz_end) = (fell_most.mhz_start, fell_most.mhz_end);
            Self {
                window_s: a.window_s + b.window_s,
                other_cpu_fraction: part_of_both(&a, &b, |stretch| stretch.other_cpu_fraction),
                stolen_cpu_fraction: part_of_both(&a, &b, |stretch| stretch.stolen_cpu_fraction),
                cpu_resolution: part_of_both(&a, &b, |stretch| Some(stretch.cpu_resolution)).unwrap_or(0.0),
                mhz_start,
                mhz_end,
                temperature_c: a
                    .temperature_c
                    .into_iter()
                    .chain(b.temperature_c)
                    .reduce(f64::max),
                throttle_events: a
                    .throttle_events
                    .into_iter()
                    .chain(b.throttle_events)
                    .reduce(|a, b| a + b),
                clock_rate: lower(a.clock_rate, b.clock_rate),
                clock_steadiness: lower(a.clock_steadiness, b.clock_steadiness),
                null_reasons: a.null_reasons.into_iter().chain(b.null_reasons).collect(),
            }
        };
        stretches.iter().cloned().reduce(merge).unwrap_or_default()
    }

    /// Part of the clock that was lost from start to end.
    fn mhz_fell(&self) -> f64 {
        match (self.mhz_start, self.mhz_end) {
            (Some(start), Some(end)) => 1.0 - end / start,
            _ => 0.0,
        }
    }

    /// The clock rate over the best one of the run; 1 where either is not known.
    pub fn clock_ratio(&self, best_clock_rate: f64) -> f64 {
        match self.clock_rate {
            Some(rate) if best_clock_rate > 0.0 => rate / best_clock_rate,
            _ => 1.0,
        }
    }

    /// Fills the columns of the conditions, and says why some are null.
    pub fn describe(&self, row: &mut Row, best_clock_rate: f64) {
        row.other_cpu_fraction = self.other_cpu_fraction;
        row.stolen_cpu_fraction = self.stolen_cpu_fraction;
        row.cpu_mhz_start = self.mhz_start;
        row.cpu_mhz_end = self.mhz_end;
        row.cpu_temperature_c = self.temperature_c;
        row.throttle_events = self.throttle_events;
        row.clock_ratio = Some(self.clock_ratio(best_clock_rate));
        let told = |entry: &str| self.null_reasons.get(entry).map(String::as_str);
        let nulls: Vec<(&'static str, &str)> = [
            (
                self.other_cpu_fraction.is_none(),
                "other_cpu_fraction",
                "other_cpu_fraction",
            ),
            (
                self.stolen_cpu_fraction.is_none(),
                "stolen_cpu_fraction",
                "stolen_cpu_fraction",
            ),
            (self.mhz_start.is_none(), "mhz_start", "cpu_mhz_start"),
            (self.mhz_end.is_none(), "mhz_end", "cpu_mhz_end"),
            (self.temperature_c.is_none(), "temperature_c", "cpu_temperature_c"),
            (
                self.throttle_events.is_none(),
                "throttle_events",
                "throttle_events",
            ),
        ]
        .into_iter()
        .filter(|(is_null, ..)| *is_null)
        .filter_map(|(_, entry, column)| Some((column, told(entry)?)))
        .collect();
        row.explain_nulls(&nulls);
    }
}

/// The lower of what is known.
fn lower(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    a.into_iter().chain(b).reduce(f64::min)
}

/// A fraction of the time of both; where one does not tell, that of the other.
fn part_of_both(a: &Conditions, b: &Conditions, of: impl Fn(&Conditions) -> Option<f64>) -> Option<f64> {
    match (of(a), of(b)) {
        (Some(x), Some(y)) => {
            let whole = a.window_s + b.window_s;
            Some((x * a.window_s + y * b.window_s) / whole.max(f64::MIN_POSITIVE))
        }
        (x, y) => x.or(y),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_tells_every_entry_or_why_not() {
        let watch = Watch::start(&[]);
        let begun = Instant::now();
        while begun.elapsed().as_secs_f64() < 1.2 * SHORTEST_WINDOW_S {
            std::hint::spin_loop();
        }
        let conditions = watch.finish(&[], &ClockLooks::default());
        assert!(conditions.window_s >= SHORTEST_WINDOW_S);
        let entries = [
            ("other_cpu_fraction", conditions.other_cpu_fraction),
            ("stolen_cpu_fraction", conditions.stolen_cpu_fraction),
            ("mhz_start", conditions.mhz_start),
            ("mhz_end", conditions.mhz_end),
            ("temperature_c", conditions.temperature_c),
            (
                "throttle_events",
                conditions.throttle_events.map(|events| events as f64),
            ),
        ];
        for (entry, value) in entries {
            assert_ne!(
                value.is_some(),
                conditions.null_reasons.contains_key(entry),
                "{entry}"
            );
        }
        for fraction in [conditions.other_cpu_fraction, conditions.stolen_cpu_fraction] {
            assert!(
                fraction.is_none_or(|part| (0.0..=1.0).contains(&part)),
                "{conditions:?}"
            );
        }
        let json = serde_json::to_string(&conditions).unwrap();
        assert_eq!(serde_json::from_str::<Conditions>(&json).unwrap(), conditions);
    }

    #[test]
    fn a_window_of_less_than_ten_ticks_tells_no_fractions() {
        let conditions = Watch {
            began: Instant::now(),
            ..Watch::start(&[])
        }
        .finish(&[], &ClockLooks::default());
        assert_eq!(
            (conditions.other_cpu_fraction, conditions.stolen_cpu_fraction),
            (None, None)
        );
        assert!(conditions.null_reasons["other_cpu_fraction"].contains("ticks"));
        let mut row = Row::default();
        conditions.describe(&mut row, 0.0);
        assert!(row.null_reasons()["stolen_cpu_fraction"].contains("ticks"));
    }

    #[test]
    fn the_clock_ratio_is_to_the_best_of_the_run() {
        let conditions = Conditions {
            clock_rate: Some(8.0),
            ..Conditions::default()
        };
        assert_eq!(conditions.clock_ratio(10.0), 0.8);
        assert_eq!(conditions.clock_ratio(0.0), 1.0);
        assert_eq!(Conditions::default().clock_ratio(10.0), 1.0);
    }

    #[test]
    fn stretches_add_up_by_their_time_and_the_worst_clock_counts() {
        let calm = Conditions {
            window_s: 1.0,
            other_cpu_fraction: Some(0.0),
            mhz_start: Some(3000.0),
            mhz_end: Some(3000.0),
            clock_rate: Some(9.0),
            clock_steadiness: Some(1.0),
            throttle_events: Some(1),
            ..Conditions::default()
        };
        let busy = Conditions {
            window_s: 3.0,
            other_cpu_fraction: Some(0.4),
            stolen_cpu_fraction: Some(0.1),
            mhz_start: Some(2900.0),
            mhz_end: Some(2500.0),
            clock_rate: Some(8.0),
            clock_steadiness: Some(0.9),
            throttle_events: Some(2),
            ..Conditions::default()
        };
        let both = Conditions::over(&[calm, busy]);
        assert_eq!(both.window_s, 4.0);
        assert!((both.other_cpu_fraction.unwrap() - 0.3).abs() < 1e-12);
        assert_eq!(both.stolen_cpu_fraction, Some(0.1));
        assert_eq!((both.mhz_start, both.mhz_end), (Some(2900.0), Some(2500.0)));
        assert_eq!((both.clock_rate, both.clock_steadiness), (Some(8.0), Some(0.9)));
        assert_eq!(both.throttle_events, Some(3));
        assert_eq!(Conditions::over(&[]), Conditions::default());
    }
}
