//! What NVIDIA's driver counts while a GPU computes: memory, power, energy, clocks, temperature, throttling, and who
//! else computes there.
//!
//! Hardly any machine tells all of it: counters are missing from some GPUs, and forbidden to users and containers.
//! What is not told is `None`, with the reason beside it.

mod conditions;
mod reading;
mod watch;

use std::path::Path;
use std::sync::Arc;

use nvml_wrapper::Device;
use nvml_wrapper::error::NvmlError as Raw;

pub use self::conditions::{ENERGY_WINDOW_S, GpuConditions, Process, Tally};
pub use self::reading::{Counter, Reading};
pub use self::watch::Watch;

/// Why no GPU can be watched at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NvmlError {
    /// The library of the driver cannot be loaded.
    #[error("there is no libnvidia-ml.so.1, which comes with NVIDIA's driver ({reason})")]
    NoLibrary {
        /// What the loader says.
        reason: String,
    },
    /// The library is here, the driver in the kernel is not.
    #[error("NVIDIA's driver is installed and not loaded")]
    NoDriver,
    /// No GPU of this name.
    #[error("the driver does not know a GPU {uuid}, or hides it")]
    NoGpu {
        /// The GPU that was looked for.
        uuid: String,
    },
    /// Anything else.
    #[error("NVML does not start: {reason}")]
    Refused {
        /// What it says.
        reason: String,
    },
}

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

/// The driver's counters.
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

    /// Version of the driver, `None` where it does not say.
    pub fn driver(&self) -> Option<String> {
        self.0.sys_driver_version().ok()
    }

    /// Reads every counter of a GPU once. GPUs go by their UUID: CUDA numbers them in an order of its own.
    ///
    /// # Errors
    /// [`NvmlError::NoGpu`]; a counter that cannot be read says so in its place.
    pub fn read(&self, uuid: &str) -> Result<Reading, NvmlError> {
        Ok(Reading::of(&self.gpu(uuid)?))
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
