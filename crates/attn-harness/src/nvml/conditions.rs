//! Readings summed up: what a GPU did during a measurement.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::reading::{Counter, Reading, Reason};
use crate::stats::median;

/// Below this window no energy is told: the counter moves every tenth of a second or so.
pub const ENERGY_WINDOW_S: f64 = 2.0;

/// Why nothing is known of processes, in most containers.
const NOT_LISTED: &str = "not measured: the driver does not list our own worker";

/// A process with work on the GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number in the system.
    pub pid: u32,
    /// The most memory it was seen to hold there, in bytes; `None` where the driver does not say.
    pub used_bytes: Option<u64>,
}

/// What a GPU did from the first reading to the last.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GpuConditions {
    /// Time between them, in seconds.
    pub window_s: f64,
    /// How many there were.
    pub readings: usize,
    /// Memory in use at the first, by anyone, in bytes.
    pub used_bytes_start: Option<u64>,
    /// The most memory in use, by anyone, in bytes.
    pub used_bytes_max: Option<u64>,
    /// The most memory our processes were seen to hold, in bytes.
    pub ours_bytes_max: Option<u64>,
    /// Power on average over the readings, in watts.
    pub power_w_mean: Option<f64>,
    /// The most power, in watts.
    pub power_w_max: Option<f64>,
    /// Energy by the GPU's own counter, in joules.
    pub energy_j: Option<f64>,
    /// The lowest clock of the multiprocessors, in MHz.
    pub sm_mhz_min: Option<u32>,
    /// Their usual clock, in MHz.
    pub sm_mhz_median: Option<f64>,
    /// The highest clock of the multiprocessors, in MHz.
    pub sm_mhz_max: Option<u32>,
    /// The lowest clock of the memory, in MHz.
    pub memory_mhz_min: Option<u32>,
    /// Its usual clock, in MHz.
    pub memory_mhz_median: Option<f64>,
    /// The highest clock of the memory, in MHz.
    pub memory_mhz_max: Option<u32>,
    /// The highest temperature, in degrees Celsius.
    pub temperature_c_max: Option<u32>,
    /// What lowered the clocks, and in which part of the readings.
    pub throttle: Option<BTreeMap<String, f64>>,
    /// Processes other than ours, at any time.
    pub foreign: Option<Vec<Process>>,
    /// Why entries are null.
    pub null_reasons: BTreeMap<String, String>,
}

/// Values of one counter over the readings, and the last reason why there was none.
#[derive(Debug, Clone)]
struct Series<T> {
    values: Vec<T>,
    reason: Option<String>,
}

// Derived, it would ask for `T: Default`.
impl<T> Default for Series<T> {
    fn default() -> Self {
        Self {
            values: Vec::new(),
            reason: None,
        }
    }
}

impl<T> Series<T> {
    fn add(&mut self, counter: Counter<T>) {
        match counter {
            Ok(value) => self.values.push(value),
            Err(reason) => self.reason = Some(reason),
        }
    }
}

/// Adds readings up.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    ours: BTreeSet<u32>,
    at_s: Vec<f64>,
    used_bytes: Series<u64>,
    power_w: Series<f64>,
    energy_j: Series<(f64, f64)>,
    sm_mhz: Series<u32>,
    memory_mhz: Series<u32>,
    temperature_c: Series<u32>,
    throttle: Series<Vec<Reason>>,
    foreign: Series<Vec<Process>>,
    ours_bytes: Series<u64>,
    /// Whether some of ours must have work there.
    expects_ours: bool,
    /// Whether one was listed.
    saw_ours: bool,
}

impl Tally {
    /// Over readings of a GPU where the processes of `ours` are not foreign; this one never is. Where some are given,
    /// they have work there: a driver that lists none of them does not list those of others either.
    pub fn new(ours: &[u32]) -> Self {
        let expects_ours = !ours.is_empty();
        let mut ours: BTreeSet<u32> = ours.iter().copied().collect();
        ours.insert(std::process::id());
        Self {
            ours,
            expects_ours,
            ..Self::default()
        }
    }

    /// Adds a reading taken at `at_s` seconds of any clock that goes steadily.
    pub fn add(&mut self, at_s: f64, reading: Reading) {
        let ours_bytes = match &reading.processes {
            Ok(all) => self.bytes_of_ours(all),
            Err(reason) => Err(reason.clone()),
        };
        self.ours_bytes.add(ours_bytes);
        let foreign = reading.processes.and_then(|all| self.foreign_of(all));
        self.at_s.push(at_s);
        self.used_bytes.add(reading.used_bytes);
        self.power_w.add(reading.power_w);
        self.energy_j
            .add(reading.energy_j.map(|energy_j| (at_s, energy_j)));
        self.sm_mhz.add(reading.sm_mhz);
        self.memory_mhz.add(reading.memory_mhz);
        self.temperature_c.add(reading.temperature_c);
        self.throttle.add(reading.throttle);
        self.foreign.add(foreign);
    }

    /// What ours hold. A process that draws and computes is listed twice, with the same memory.
    fn bytes_of_ours(&mut self, all: &[(u32, Option<u64>)]) -> Counter<u64> {
        let mut held: BTreeMap<u32, Option<u64>> = BTreeMap::new();
        for (pid, used_bytes) in all.iter().filter(|(pid, _)| self.ours.contains(pid)) {
            let bytes = held.entry(*pid).or_default();
            *bytes = (*bytes).max(*used_bytes);
        }
        self.saw_ours |= !held.is_empty();
        if held.is_empty() {
            return Err(NOT_LISTED.to_string());
        }
        let sum: Option<u64> = held.values().copied().sum();
        sum.ok_or_else(|| "not measured: the driver does not tell the memory of a process".to_string())
    }

    /// Those that are not ours. In a container the driver goes on counting processes as its host does, so that a number
    /// without a process says that none can be told from ours.
    fn foreign_of(&self, all: Vec<(u32, Option<u64>)>) -> Counter<Vec<Process>> {
        let others = all.into_iter().filter(|(pid, _)| !self.ours.contains(pid));
        others
            .map(|(pid, used_bytes)| {
                if cfg!(target_os = "linux") && !Path::new(&format!("/proc/{pid}")).exists() {
                    return Err(
                        "not measured: the driver numbers processes as another system does".to_string(),
                    );
                }
                Ok(Process { pid, used_bytes })
            })
            .collect()
    }

    /// What happened from the first reading to the last.
    pub fn conditions(&self) -> GpuConditions {
        let window_s = match (self.at_s.first(), self.at_s.last()) {
            (Some(first), Some(last)) => last - first,
            _ => 0.0,
        };
        let mut found = GpuConditions {
            window_s,
            readings: self.at_s.len(),
            used_bytes_start: self.used_bytes.values.first().copied(),
            used_bytes_max: self.used_bytes.values.iter().copied().max(),
            ours_bytes_max: self.ours_bytes.values.iter().copied().max(),
            power_w_mean: mean(&self.power_w.values),
            power_w_max: self.power_w.values.iter().copied().reduce(f64::max),
            energy_j: None,
            sm_mhz_min: self.sm_mhz.values.iter().copied().min(),
            sm_mhz_median: usual(&self.sm_mhz.values),
            sm_mhz_max: self.sm_mhz.values.iter().copied().max(),
            memory_mhz_min: self.memory_mhz.values.iter().copied().min(),
            memory_mhz_median: usual(&self.memory_mhz.values),
            memory_mhz_max: self.memory_mhz.values.iter().copied().max(),
            temperature_c_max: self.temperature_c.values.iter().copied().max(),
            throttle: self.throttled(),
            foreign: self.others().ok(),
            null_reasons: BTreeMap::new(),
        };
        let mut because = |entries: &[&str], reason: &Option<String>| {
            for entry in entries {
                let reason = reason
                    .clone()
                    .unwrap_or_else(|| "not measured: no reading".to_string());
                found.null_reasons.insert((*entry).to_string(), reason);
            }
        };
        if self.used_bytes.values.is_empty() {
            because(&["used_bytes_start", "used_bytes_max"], &self.used_bytes.reason);
        }
        if self.ours_bytes.values.is_empty() {
            because(&["ours_bytes_max"], &self.ours_bytes.reason);
        }
        if self.power_w.values.is_empty() {
            because(&["power_w_mean", "power_w_max"], &self.power_w.reason);
        }
        if self.sm_mhz.values.is_empty() {
            let entries = ["sm_mhz_min", "sm_mhz_median", "sm_mhz_max"];
            because(&entries, &self.sm_mhz.reason);
        }
        if self.memory_mhz.values.is_empty() {
            let entries = ["memory_mhz_min", "memory_mhz_median", "memory_mhz_max"];
            because(&entries, &self.memory_mhz.reason);
        }
        if self.temperature_c.values.is_empty() {
            because(&["temperature_c_max"], &self.temperature_c.reason);
        }
        if self.throttle.values.is_empty() {
            because(&["throttle"], &self.throttle.reason);
        }
        if let Err(reason) = self.others() {
            because(&["foreign"], &reason);
        }
        match self.energy() {
            Ok(energy_j) => found.energy_j = Some(energy_j),
            Err(reason) => because(&["energy_j"], &Some(reason)),
        }
        found
    }

    fn energy(&self) -> Counter<f64> {
        let values = &self.energy_j.values;
        let (Some((began_s, before)), Some((ended_s, after))) = (values.first(), values.last()) else {
            let reason = self.energy_j.reason.clone();
            return Err(reason.unwrap_or_else(|| "not measured: no reading".to_string()));
        };
        if ended_s - began_s < ENERGY_WINDOW_S {
            return Err(format!("not measured: it takes {ENERGY_WINDOW_S} s at least"));
        }
        if after < before {
            return Err("not measured: the counter began anew".to_string());
        }
        Ok(after - before)
    }

    fn throttled(&self) -> Option<BTreeMap<String, f64>> {
        let all = &self.throttle.values;
        let mut parts: BTreeMap<String, f64> = BTreeMap::new();
        for reason in all.iter().flatten() {
            *parts.entry(reason.name().to_string()).or_default() += 1.0 / all.len() as f64;
        }
        (!all.is_empty()).then_some(parts)
    }

    /// Those of others, or why they are not known: where even one reading could not tell, or our own are not there.
    fn others(&self) -> Result<Vec<Process>, Option<String>> {
        if self.foreign.reason.is_some() || self.foreign.values.is_empty() {
            return Err(self.foreign.reason.clone());
        }
        if self.expects_ours && !self.saw_ours {
            return Err(Some(format!("{NOT_LISTED}, and so maybe no others")));
        }
        Ok(most_of_each(self.foreign.values.iter().flatten()))
    }
}

impl GpuConditions {
    /// Several stretches as one: means are of all the time, and of everything else the worst counts. There is no
    /// energy of them: nobody counted between them.
    pub fn over(stretches: &[Self]) -> Option<Self> {
        stretches.iter().cloned().reduce(|a, b| {
            let n = (a.readings as f64, b.readings as f64);
            let of_both = |x: f64, y: f64| (x * n.0 + y * n.1) / (n.0 + n.1).max(1.0);
            let foreign = a.foreign.as_ref().zip(b.foreign.as_ref());
            let foreign = foreign.map(|(a, b)| most_of_each(a.iter().chain(b)));
            let throttle = a.throttle.as_ref().zip(b.throttle.as_ref()).map(|(a, b)| {
                let part = |of: &BTreeMap<String, f64>, name: &str| of.get(name).copied().unwrap_or(0.0);
                let names = a.keys().chain(b.keys());
                names
                    .map(|name| (name.clone(), of_both(part(a, name), part(b, name))))
                    .collect()
            });
            let mut null_reasons = a.null_reasons;
            null_reasons.extend(b.null_reasons);
            null_reasons.insert(
                "energy_j".to_string(),
                "not measured: several stretches".to_string(),
            );
            Self {
                window_s: a.window_s + b.window_s,
                readings: a.readings + b.readings,
                used_bytes_start: least(a.used_bytes_start, b.used_bytes_start),
                used_bytes_max: a.used_bytes_max.max(b.used_bytes_max),
                ours_bytes_max: a.ours_bytes_max.max(b.ours_bytes_max),
                power_w_mean: match (a.power_w_mean, b.power_w_mean) {
                    (Some(a), Some(b)) => Some(of_both(a, b)),
                    (a, b) => a.or(b),
                },
                power_w_max: a.power_w_max.into_iter().chain(b.power_w_max).reduce(f64::max),
                energy_j: None,
                sm_mhz_min: least(a.sm_mhz_min, b.sm_mhz_min),
                sm_mhz_median: slower(a.sm_mhz_median, b.sm_mhz_median),
                sm_mhz_max: a.sm_mhz_max.max(b.sm_mhz_max),
                memory_mhz_min: least(a.memory_mhz_min, b.memory_mhz_min),
                memory_mhz_median: slower(a.memory_mhz_median, b.memory_mhz_median),
                memory_mhz_max: a.memory_mhz_max.max(b.memory_mhz_max),
                temperature_c_max: a.temperature_c_max.max(b.temperature_c_max),
                throttle,
                foreign,
                null_reasons,
            }
        })
    }
}

/// Each process once, with the most it was seen to hold.
fn most_of_each<'a>(seen: impl Iterator<Item = &'a Process>) -> Vec<Process> {
    let mut most: BTreeMap<u32, Option<u64>> = BTreeMap::new();
    for process in seen {
        let used_bytes = most.entry(process.pid).or_default();
        *used_bytes = (*used_bytes).max(process.used_bytes);
    }
    let processes = most.into_iter();
    processes
        .map(|(pid, used_bytes)| Process { pid, used_bytes })
        .collect()
}

fn usual(values: &[u32]) -> Option<f64> {
    let values: Vec<f64> = values.iter().map(|value| f64::from(*value)).collect();
    (!values.is_empty()).then(|| median(&values))
}

fn least<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    a.into_iter().chain(b).min()
}

fn slower(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    a.into_iter().chain(b).reduce(f64::min)
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}
