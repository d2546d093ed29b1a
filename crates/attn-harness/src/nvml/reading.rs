//! One look at all counters of a GPU.

use nvml_wrapper::Device;
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError as Raw;

/// A counter's value, or why there is none.
pub type Counter<T> = Result<T, String>;

/// What lowers the clocks of a GPU, by the names rows have for it. Idleness does too, and is no fault.
const THROTTLE_REASONS: [(ThrottleReasons, &str); 8] = [
    (ThrottleReasons::APPLICATIONS_CLOCKS_SETTING, "application_clocks"),
    (ThrottleReasons::SW_POWER_CAP, "power_cap"),
    (ThrottleReasons::HW_SLOWDOWN, "hardware_slowdown"),
    (ThrottleReasons::SYNC_BOOST, "sync_boost"),
    (ThrottleReasons::SW_THERMAL_SLOWDOWN, "thermal"),
    (ThrottleReasons::HW_THERMAL_SLOWDOWN, "hardware_thermal"),
    (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, "power_brake"),
    (ThrottleReasons::DISPLAY_CLOCK_SETTING, "display_clocks"),
];

/// All counters of a GPU at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Memory in use, by anyone, in bytes.
    pub used_bytes: Counter<u64>,
    /// Power drawn, in watts.
    pub power_w: Counter<f64>,
    /// Energy since the driver was loaded, in joules.
    pub energy_j: Counter<f64>,
    /// Clock of the multiprocessors, in MHz.
    pub sm_mhz: Counter<u32>,
    /// Clock of the memory, in MHz.
    pub memory_mhz: Counter<u32>,
    /// Temperature of the GPU, in degrees Celsius.
    pub temperature_c: Counter<u32>,
    /// What lowers the clocks.
    pub throttle: Counter<Vec<&'static str>>,
    /// Processes with work on the GPU and the bytes they hold, where the driver says.
    pub processes: Counter<Vec<(u32, Option<u64>)>>,
}

impl Reading {
    pub(super) fn of(gpu: &Device<'_>) -> Self {
        Self {
            used_bytes: counter(gpu.memory_info()).map(|memory| memory.used),
            power_w: counter(gpu.power_usage()).map(|milliwatts| f64::from(milliwatts) * 1e-3),
            energy_j: counter(gpu.total_energy_consumption()).map(|millijoules| millijoules as f64 * 1e-3),
            sm_mhz: counter(gpu.clock_info(Clock::SM)),
            memory_mhz: counter(gpu.clock_info(Clock::Memory)),
            temperature_c: counter(gpu.temperature(TemperatureSensor::Gpu)),
            throttle: counter(gpu.current_throttle_reasons()).map(throttle_names),
            processes: processes(gpu),
        }
    }
}

fn throttle_names(reasons: ThrottleReasons) -> Vec<&'static str> {
    let active = THROTTLE_REASONS.iter().filter(|(bit, _)| reasons.contains(*bit));
    active.map(|(_, name)| *name).collect()
}

/// Those that compute and those that draw: a desktop takes time and memory too.
fn processes(gpu: &Device<'_>) -> Counter<Vec<(u32, Option<u64>)>> {
    let mut found = counter(gpu.running_compute_processes())?;
    found.extend(counter(gpu.running_graphics_processes())?);
    Ok(found
        .into_iter()
        .map(|process| {
            let bytes = match process.used_gpu_memory {
                UsedGpuMemory::Used(bytes) => Some(bytes),
                UsedGpuMemory::Unavailable => None,
            };
            (process.pid, bytes)
        })
        .collect())
}

fn counter<T>(value: Result<T, Raw>) -> Counter<T> {
    value.map_err(|error| match error {
        Raw::NotSupported => "not measured: the GPU does not have this counter".to_string(),
        Raw::NoPermission => "not measured: the driver does not tell this user".to_string(),
        Raw::FailedToLoadSymbol(_) | Raw::FunctionNotFound => {
            "not measured: the driver is too old to have this counter".to_string()
        }
        other => format!("not measured: {other}"),
    })
}
