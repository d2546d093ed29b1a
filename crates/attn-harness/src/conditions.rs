//! What the machine did during a measurement: who else computed, and whether the clock held.
//!
//! Linux tells most of it in text files. What it does not tell is `None`, with the reason beside it. A virtual
//! machine often reports a constant clock and no temperature, so that the speed of a fixed chain of operations
//! is timed as well: it falls with the clock, whoever lowers it.

mod cpu_time;
mod limits;
mod sensors;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

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
    /// Operations per second of a fixed chain at the start.
    pub clock_rate_start: f64,
    /// Operations per second of a fixed chain at the end.
    pub clock_rate_end: f64,
    /// Why entries are null.
    pub null_reasons: BTreeMap<String, String>,
}

/// Watches the machine while something is measured.
#[derive(Debug)]
pub struct Watch {
    ours: Vec<u32>,
    clock_rate: f64,
    mhz: Option<f64>,
    temperature_c: Option<f64>,
    throttle_events: Option<u64>,
    cpu: Option<CpuTimes>,
    own_s: f64,
    began: Instant,
}

impl Watch {
    /// Starts watching. This process counts as ours, and so do those of `ours`: a worker passes its runner's id.
    /// Takes about 6 ms.
    pub fn start(ours: &[u32]) -> Self {
        let mut ours: Vec<u32> = ours.to_vec();
        ours.push(std::process::id());
        ours.sort_unstable();
        ours.dedup();
        Self {
            clock_rate: clock_rate(),
            mhz: cpu_mhz().ok(),
            temperature_c: temperature_c(),
            throttle_events: throttle_events(),
            cpu: CpuTimes::read(),
            own_s: own_s(&ours),
            ours,
            began: Instant::now(),
        }
    }

    /// Ends the window and tells what happened in it. Takes as long as starting.
    pub fn finish(self) -> Conditions {
        let window_s = self.began.elapsed().as_secs_f64();
        let own_s = own_s(&self.ours) - self.own_s;
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
            clock_rate_start: self.clock_rate,
            clock_rate_end: clock_rate(),
            null_reasons,
        }
    }
}

impl Conditions {
    /// The lower of the two clock rates over the best one of the run; 1 where that is not known.
    pub fn clock_ratio(&self, best_clock_rate: f64) -> f64 {
        let lower = self.clock_rate_start.min(self.clock_rate_end);
        if best_clock_rate > 0.0 {
            lower / best_clock_rate
        } else {
            1.0
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
        for (entry, column) in [
            ("other_cpu_fraction", "other_cpu_fraction"),
            ("stolen_cpu_fraction", "stolen_cpu_fraction"),
            ("mhz_start", "cpu_mhz_start"),
            ("mhz_end", "cpu_mhz_end"),
            ("temperature_c", "cpu_temperature_c"),
            ("throttle_events", "throttle_events"),
        ] {
            if let Some(reason) = self.null_reasons.get(entry) {
                row.explain_null(column, reason);
            }
        }
    }
}

/// Links of the chain that are timed at once, about a tenth of a millisecond: shorter than a turn of the
/// scheduler, so that other processes cannot make the clock look slow.
const LINKS: u32 = 50_000;

/// Time for which the chain is repeated.
const CHAIN_TIME: Duration = Duration::from_millis(6);

/// Links per second of a chain in which every operation waits for the one before, at its best in 6 ms. It lives
/// in registers: memory, caches and the other threads of a core hardly matter, the clock does.
pub fn clock_rate() -> f64 {
    let began = Instant::now();
    let mut best = 0f64;
    while best == 0.0 || began.elapsed() < CHAIN_TIME {
        let pass = Instant::now();
        black_box(chain(black_box(0x9e37_79b9_7f4a_7c15), black_box(LINKS)));
        best = best.max(f64::from(LINKS) / pass.elapsed().as_secs_f64());
    }
    best
}

/// A shift between the products keeps a compiler from multiplying their factors beforehand.
#[inline(never)]
fn chain(mut state: u64, links: u32) -> u64 {
    for _ in 0..links {
        state = (state ^ (state >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_tells_every_entry_or_why_not() {
        let watch = Watch::start(&[]);
        let begun = Instant::now();
        while begun.elapsed().as_secs_f64() < 1.2 * SHORTEST_WINDOW_S {
            black_box(chain(1, LINKS));
        }
        let conditions = watch.finish();
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
        .finish();
        assert_eq!(
            (conditions.other_cpu_fraction, conditions.stolen_cpu_fraction),
            (None, None)
        );
        assert!(conditions.null_reasons["other_cpu_fraction"].contains("ticks"));
        let mut row = Row::default();
        conditions.describe(&mut row, conditions.clock_rate_start);
        assert!(row.null_reasons()["stolen_cpu_fraction"].contains("ticks"));
    }

    #[test]
    fn the_chain_takes_time_in_proportion_to_its_links() {
        // 20 GHz, a link a cycle: no processor is there, a chain that was optimised away would be.
        let rate = clock_rate();
        assert!(rate > 1e6 && rate < 20e9, "{rate}");
        assert_ne!(chain(1, 1), chain(1, 2));
    }

    #[test]
    fn the_clock_ratio_is_that_of_the_slower_end() {
        let conditions = Conditions {
            clock_rate_start: 9.0,
            clock_rate_end: 8.0,
            ..Conditions::default()
        };
        assert_eq!(conditions.clock_ratio(10.0), 0.8);
        assert_eq!(conditions.clock_ratio(0.0), 1.0);
    }
}
