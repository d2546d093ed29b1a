//! The GPU that cases run on, as the counters of its driver tell of it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde_json::json;

use super::pause;
use crate::nvml::{Counter, Counters, ENERGY_WINDOW_S, GpuConditions, Gpus, Watch};
use crate::row::Row;
use crate::sweep::DeviceRequest;

/// How often the counters are read: the driver renews most of them about as often.
const INTERVAL: Duration = Duration::from_millis(100);
/// How long a GPU comes to rest before its idle power is read: the driver averages power over a second.
const REST: Duration = Duration::from_secs(1);
/// What the wait for the energy of an idle GPU is longer than the window, so that the readings are as far apart.
const MARGIN_S: f64 = 0.02;

/// A GPU that can be watched.
pub(super) struct Probe {
    uuid: String,
    counters: Arc<dyn Counters>,
}

/// What a GPU did while a burst was measured.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    /// Memory in use before the worker began.
    pub(super) before_bytes: Counter<u64>,
    pub(super) conditions: GpuConditions,
}

impl Probe {
    /// The GPU that `device` means, or why nothing can be known of it; none where it is the processor.
    pub(super) fn of(gpus: &Gpus, device: DeviceRequest) -> Option<Counter<Self>> {
        let gpu = gpus.of(device)?;
        let counters = gpus.counters.as_ref();
        let probe = counters.map(|counters| Self {
            uuid: gpu.uuid.clone(),
            counters: counters.clone(),
        });
        Some(probe.map_err(|error| format!("not measured: {error}")))
    }

    /// Memory in use, by anyone.
    pub(super) fn used_bytes(&self) -> Counter<u64> {
        let reading = self.counters.read(&self.uuid);
        reading
            .map_err(|error| format!("not measured: {error}"))?
            .used_bytes
    }

    /// Starts watching; the processes of `ours` are not foreign.
    pub(super) fn watch(&self, ours: &[u32]) -> Counter<Watch> {
        let watch = Watch::start(&self.counters, &self.uuid, ours, INTERVAL);
        watch.map_err(|error| format!("not measured: {error}"))
    }

    /// The power of the GPU while nothing of ours runs there. By its counter of energy, as the power of a case; where
    /// there is none, by the mean of its power.
    pub(super) fn idle_power_w(&self, interrupted: &AtomicBool) -> Counter<f64> {
        pause(REST, interrupted);
        let watch = self.watch(&[])?;
        pause(Duration::from_secs_f64(ENERGY_WINDOW_S + MARGIN_S), interrupted);
        let found = watch.finish();
        undisturbed(&found)?;
        let by_energy = found.energy_j.map(|energy_j| energy_j / found.window_s);
        by_energy
            .or(found.power_w_mean)
            .ok_or_else(|| reason(&found, "power_w_mean"))
    }
}

/// Says who else was there, whose energy would count as the case's.
pub(super) fn undisturbed(found: &GpuConditions) -> Result<(), String> {
    match found.foreign.as_deref() {
        None | Some([]) => Ok(()),
        Some([first, ..]) => Err(format!(
            "not measured: process {} had work on the GPU too",
            first.pid
        )),
    }
}

/// Why an entry is null.
pub(super) fn reason(found: &GpuConditions, entry: &str) -> String {
    let told = found.null_reasons.get(entry).cloned();
    told.unwrap_or_else(|| "not measured: no reading".to_string())
}

/// Fills the columns of what a GPU did during the bursts of a case, and says why some are null.
pub(super) fn describe(row: &mut Row, bursts: &[Counter<Watched>]) -> Option<GpuConditions> {
    let watched: Vec<&Watched> = bursts.iter().flatten().collect();
    let conditions: Vec<GpuConditions> = watched.iter().map(|burst| burst.conditions.clone()).collect();
    let Some(found) = GpuConditions::over(&conditions) else {
        let unwatched = bursts.iter().find_map(|burst| burst.as_ref().err());
        let unwatched = unwatched.map_or("not measured: nobody watched the GPU", String::as_str);
        let nulls: Vec<(&'static str, &str)> = COLUMNS.iter().map(|column| (*column, unwatched)).collect();
        row.explain_nulls(&nulls);
        return None;
    };
    let beyond = watched.iter().map(|burst| {
        let before = burst.before_bytes.clone()?;
        let most = burst.conditions.used_bytes_max;
        most.map(|most| most.saturating_sub(before))
            .ok_or_else(|| reason(&burst.conditions, "used_bytes_max"))
    });
    let beyond: Result<Vec<u64>, String> = beyond.collect();
    row.nvml_used_bytes = beyond.as_ref().ok().and_then(|all| all.iter().copied().max());
    row.nvml_process_bytes = found.ours_bytes_max;
    row.gpu_sm_mhz_median = found.sm_mhz_median;
    row.gpu_sm_mhz_min = found.sm_mhz_min.map(f64::from);
    row.gpu_memory_mhz_median = found.memory_mhz_median;
    row.gpu_memory_mhz_min = found.memory_mhz_min.map(f64::from);
    row.gpu_power_w_mean = found.power_w_mean;
    row.gpu_power_w_max = found.power_w_max;
    row.gpu_temperature_c = found.temperature_c_max.map(f64::from);
    row.gpu_throttle = found.throttle.as_ref().map(|parts| json!(parts).to_string());
    row.gpu_foreign_processes = found.foreign.as_ref().map(|processes| processes.len() as u64);
    if found.sm_mhz_min.is_some() || found.memory_mhz_min.is_some() {
        let clocks = json!({
            "sm_mhz_min": found.sm_mhz_min,
            "sm_mhz_median": found.sm_mhz_median,
            "sm_mhz_max": found.sm_mhz_max,
            "memory_mhz_min": found.memory_mhz_min,
            "memory_mhz_median": found.memory_mhz_median,
            "memory_mhz_max": found.memory_mhz_max,
        });
        row.clocks = Some(clocks.to_string());
    }
    let used = beyond.err().unwrap_or_default();
    let entries = [
        (
            row.nvml_process_bytes.is_none(),
            "nvml_process_bytes",
            "ours_bytes_max",
        ),
        (row.clocks.is_none(), "clocks", "sm_mhz_min"),
        (
            row.gpu_sm_mhz_median.is_none(),
            "gpu_sm_mhz_median",
            "sm_mhz_median",
        ),
        (row.gpu_sm_mhz_min.is_none(), "gpu_sm_mhz_min", "sm_mhz_min"),
        (
            row.gpu_memory_mhz_median.is_none(),
            "gpu_memory_mhz_median",
            "memory_mhz_median",
        ),
        (
            row.gpu_memory_mhz_min.is_none(),
            "gpu_memory_mhz_min",
            "memory_mhz_min",
        ),
        (row.gpu_power_w_mean.is_none(), "gpu_power_w_mean", "power_w_mean"),
        (row.gpu_power_w_max.is_none(), "gpu_power_w_max", "power_w_max"),
        (
            row.gpu_temperature_c.is_none(),
            "gpu_temperature_c",
            "temperature_c_max",
        ),
        (row.gpu_throttle.is_none(), "gpu_throttle", "throttle"),
        (
            row.gpu_foreign_processes.is_none(),
            "gpu_foreign_processes",
            "foreign",
        ),
    ];
    for (is_null, column, entry) in entries {
        if is_null {
            row.explain_null(column, reason(&found, entry));
        }
    }
    if row.nvml_used_bytes.is_none() {
        row.explain_null("nvml_used_bytes", used);
    }
    Some(found)
}

/// The columns of what a GPU does while it is watched.
pub(super) const COLUMNS: [&str; 12] = [
    "nvml_used_bytes",
    "nvml_process_bytes",
    "clocks",
    "gpu_sm_mhz_median",
    "gpu_sm_mhz_min",
    "gpu_memory_mhz_median",
    "gpu_memory_mhz_min",
    "gpu_power_w_mean",
    "gpu_power_w_max",
    "gpu_temperature_c",
    "gpu_throttle",
    "gpu_foreign_processes",
];
