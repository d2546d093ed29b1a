//! What NVIDIA's driver counts while a GPU computes: memory, power, energy, clocks, temperature, throttling, and who
//! else computes there.
//!
//! Hardly any machine tells all of it: counters are missing from some GPUs, and forbidden to users and containers.
//! What is not told is `None`, with the reason beside it. Readings come through the trait [`Counters`], so that the
//! runner's tests play them; only `Nvml`, the driver's library, needs the feature `cuda`.

mod conditions;
#[cfg(feature = "cuda")]
mod library;
mod reading;
mod watch;

use std::sync::Arc;

pub use self::conditions::{ENERGY_WINDOW_S, GpuConditions, Process, Tally};
#[cfg(feature = "cuda")]
pub use self::library::Nvml;
pub use self::reading::{Counter, Reading, Reason};
pub use self::watch::Watch;
use crate::device::{self, Cuda, DeviceError, Gpu, Resolved};
use crate::sweep::DeviceRequest;

/// Why no GPU can be watched at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NvmlError {
    /// Built without the feature `cuda`.
    #[error("the driver's counters are not compiled into this build")]
    NotCompiledIn,
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

/// Where readings come from.
pub trait Counters: std::fmt::Debug + Send + Sync {
    /// Version of the driver, `None` where it does not say.
    fn driver(&self) -> Option<String>;

    /// Reads every counter of a GPU once. GPUs go by their UUID: CUDA numbers them in an order of its own.
    ///
    /// # Errors
    /// [`NvmlError::NoGpu`]; a counter that cannot be read says so in its place.
    fn read(&self, uuid: &str) -> Result<Reading, NvmlError>;
}

/// The GPUs of this machine, and the counters of their driver.
#[derive(Debug, Clone)]
pub struct Gpus {
    /// The GPUs.
    pub cuda: Result<Cuda, DeviceError>,
    /// Their counters.
    pub counters: Result<Arc<dyn Counters>, NvmlError>,
}

impl Gpus {
    /// Those of this machine for a run on `device`: nothing is opened for one on the processor.
    pub fn for_device(device: DeviceRequest) -> Self {
        if device == DeviceRequest::Cpu {
            return Self {
                cuda: Err(DeviceError::NoGpu),
                counters: Err(NvmlError::NoDriver),
            };
        }
        let cuda = device::cuda().clone();
        let counters = match &cuda {
            Ok(_) => open(),
            Err(_) => Err(NvmlError::NoDriver),
        };
        Self { cuda, counters }
    }

    /// The GPU that a request means, if it is one.
    pub fn of(&self, request: DeviceRequest) -> Option<&Gpu> {
        match (device::resolve_with(request, &self.cuda), &self.cuda) {
            (Ok(Resolved::Cuda(ordinal)), Ok(cuda)) => cuda.gpus.get(ordinal),
            _ => None,
        }
    }

    /// Version of their driver.
    pub fn driver(&self) -> Counter<String> {
        let counters = self
            .counters
            .as_ref()
            .map_err(|error| format!("not known: {error}"))?;
        counters
            .driver()
            .ok_or_else(|| "not known: the driver does not say".to_string())
    }
}

#[cfg(feature = "cuda")]
fn open() -> Result<Arc<dyn Counters>, NvmlError> {
    Ok(Arc::new(Nvml::open()?))
}

#[cfg(not(feature = "cuda"))]
fn open() -> Result<Arc<dyn Counters>, NvmlError> {
    Err(NvmlError::NotCompiledIn)
}
