//! The driver's own library, and its values turned into readings.

use std::path::Path;
use std::sync::Arc;

use nvml_wrapper::Device;
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError as Raw;

use super::reading::{Counter, Reading, Reason};
use super::{Counters, NvmlError};

/// The driver's word for each reason. Idleness lowers clocks too, and is no fault.
const THROTTLE_REASONS: [(ThrottleReasons, Reason); 8] = [
    (
        ThrottleReasons::APPLICATIONS_CLOCKS_SETTING,
        Reason::ApplicationClocks,
    ),
    (ThrottleReasons::SW_POWER_CAP, Reason::PowerCap),
    (ThrottleReasons::HW_SLOWDOWN, Reason::HardwareSlowdown),
    (ThrottleReasons::SYNC_BOOST, Reason::SyncBoost),
    (ThrottleReasons::SW_THERMAL_SLOWDOWN, Reason::Thermal),
    (ThrottleReasons::HW_THERMAL_SLOWDOWN, Reason::HardwareThermal),
    (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, Reason::PowerBrake),
    (ThrottleReasons::DISPLAY_CLOCK_SETTING, Reason::DisplayClocks),
];

impl From<Raw> for NvmlError {
    fn from(error: Raw) -> Self {
        match error {
            Raw::LibloadingError(error) => Self::NoLibrary {
                reason: error.to_string(),
            },
            Raw::DriverNotLoaded => Self::NoDriver,
            other => Self::Refused {
                reason: other.to_string(),
            },
        }
    }
}

/// The driver's counters, from its library.
#[derive(Debug, Clone)]
pub struct Nvml(Arc<nvml_wrapper::Nvml>);

impl Nvml {
    /// Opens the library that the driver installed.
    ///
    /// # Errors
    /// There is none, or no driver behind it.
    pub fn open() -> Result<Self, NvmlError> {
        Ok(Self(Arc::new(nvml_wrapper::Nvml::init()?)))
    }

    /// Opens a library at a place of its own.
    ///
    /// # Errors
    /// As [`Nvml::open`].
    pub fn open_at(library: &Path) -> Result<Self, NvmlError> {
        let nvml = nvml_wrapper::Nvml::builder()
            .lib_path(library.as_os_str())
            .init()?;
        Ok(Self(Arc::new(nvml)))
    }

    fn gpu(&self, uuid: &str) -> Result<Device<'_>, NvmlError> {
        self.0.device_by_uuid(uuid).map_err(|error| match error {
            Raw::NotFound | Raw::InvalidArg => NvmlError::NoGpu {
                uuid: uuid.to_string(),
            },
            other => other.into(),
        })
    }
}

impl Counters for Nvml {
    fn driver(&self) -> Option<String> {
        self.0.sys_driver_version().ok()
    }

    fn read(&self, uuid: &str) -> Result<Reading, NvmlError> {
        let gpu = self.gpu(uuid)?;
        Ok(Reading {
            used_bytes: counter(gpu.memory_info()).map(|memory| memory.used),
            power_w: counter(gpu.power_usage()).map(|milliwatts| f64::from(milliwatts) * 1e-3),
            energy_j: counter(gpu.total_energy_consumption()).map(|millijoules| millijoules as f64 * 1e-3),
            sm_mhz: counter(gpu.clock_info(Clock::SM)),
            memory_mhz: counter(gpu.clock_info(Clock::Memory)),
            temperature_c: counter(gpu.temperature(TemperatureSensor::Gpu)),
            throttle: counter(gpu.current_throttle_reasons()).map(throttle_reasons),
            processes: processes(&gpu),
        })
    }
}

fn throttle_reasons(active: ThrottleReasons) -> Vec<Reason> {
    let active = THROTTLE_REASONS.iter().filter(|(bit, _)| active.contains(*bit));
    active.map(|(_, reason)| *reason).collect()
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
