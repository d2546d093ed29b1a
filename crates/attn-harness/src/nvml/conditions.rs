//! Readings summed up: what a GPU did during a measurement.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::reading::{Counter, Reading};

/// Below this window no energy is told: the counter moves every tenth of a second or so.
pub const ENERGY_WINDOW_S: f64 = 2.0;

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
    /// Power on average over the readings, in watts.
    pub power_w_mean: Option<f64>,
    /// The most power, in watts.
    pub power_w_max: Option<f64>,
    /// Energy by the GPU's own counter, in joules.
    pub energy_j: Option<f64>,
    /// The lowest clock of the multiprocessors, in MHz.
    pub sm_mhz_min: Option<u32>,
    /// The highest clock of the multiprocessors, in MHz.
    pub sm_mhz_max: Option<u32>,
    /// The lowest clock of the memory, in MHz.
    pub memory_mhz_min: Option<u32>,
    /// The highest temperature, in degrees Celsius.
    pub temperature_c_max: Option<u32>,
    /// What lowered the clocks, at any time.
    pub throttle: Option<Vec<String>>,
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
    throttle: Series<Vec<&'static str>>,
    foreign: Series<Vec<Process>>,
}

impl Tally {
    /// Over readings of a GPU where the processes of `ours` are not foreign; this one never is.
    pub fn new(ours: &[u32]) -> Self {
        let mut ours: BTreeSet<u32> = ours.iter().copied().collect();
        ours.insert(std::process::id());
        Self {
            ours,
            ..Self::default()
        }
    }

    /// Adds a reading taken at `at_s` seconds of any clock that goes steadily.
    pub fn add(&mut self, at_s: f64, reading: Reading) {
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
            power_w_mean: mean(&self.power_w.values),
            power_w_max: self.power_w.values.iter().copied().reduce(f64::max),
            energy_j: None,
            sm_mhz_min: self.sm_mhz.values.iter().copied().min(),
            sm_mhz_max: self.sm_mhz.values.iter().copied().max(),
            memory_mhz_min: self.memory_mhz.values.iter().copied().min(),
            temperature_c_max: self.temperature_c.values.iter().copied().max(),
            throttle: self.throttled(),
            foreign: self.others(),
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
        if self.power_w.values.is_empty() {
            because(&["power_w_mean", "power_w_max"], &self.power_w.reason);
        }
        if self.sm_mhz.values.is_empty() {
            because(&["sm_mhz_min", "sm_mhz_max"], &self.sm_mhz.reason);
        }
        if self.memory_mhz.values.is_empty() {
            because(&["memory_mhz_min"], &self.memory_mhz.reason);
        }
        if self.temperature_c.values.is_empty() {
            because(&["temperature_c_max"], &self.temperature_c.reason);
        }
        if self.throttle.values.is_empty() {
            because(&["throttle"], &self.throttle.reason);
        }
        if found.foreign.is_none() {
            because(&["foreign"], &self.foreign.reason);
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

    fn throttled(&self) -> Option<Vec<String>> {
        let all: BTreeSet<&str> = self.throttle.values.iter().flatten().copied().collect();
        let names = all.into_iter().map(str::to_string).collect();
        (!self.throttle.values.is_empty()).then_some(names)
    }

    /// None where even one reading could not tell: who was there then is not known.
    fn others(&self) -> Option<Vec<Process>> {
        if self.foreign.reason.is_some() || self.foreign.values.is_empty() {
            return None;
        }
        let mut most: BTreeMap<u32, Option<u64>> = BTreeMap::new();
        for process in self.foreign.values.iter().flatten() {
            let used_bytes = most.entry(process.pid).or_default();
            *used_bytes = (*used_bytes).max(process.used_bytes);
        }
        let processes = most.into_iter();
        Some(
            processes
                .map(|(pid, used_bytes)| Process { pid, used_bytes })
                .collect(),
        )
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}
