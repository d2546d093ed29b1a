//! The devices that this build can compute on, here and now, and what is missing where it cannot.
//!
//! CUDA is touched only where somebody asks for it or leaves the choice: a sweep on the CPU needs no driver.

#[cfg(feature = "cuda")]
mod cuda;
mod libraries;
mod list;

use std::fmt;
use std::sync::OnceLock;

use candle_core::Device;
use serde::Serialize;

pub use self::libraries::{LIBRARIES, Library, find, toolkit};
pub use self::list::DeviceList;
use crate::error::Error;
use crate::sweep::DeviceRequest;

/// Why a device cannot be used here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// Built without the feature `cuda`.
    #[error("CUDA is not compiled into this build")]
    NotCompiledIn,
    /// The library of the driver is one to link against.
    #[error("there is no NVIDIA driver, a stub of its library stands in for it")]
    NoDriver,
    /// The driver works, and there is nothing for it to drive.
    #[error("the NVIDIA driver finds no GPU")]
    NoGpu,
    /// The driver is there and answers with an error.
    #[error("the NVIDIA driver does not start: {reason}")]
    Refused {
        /// What it says.
        reason: String,
    },
    /// Kernels of a newer CUDA than the driver knows cannot be loaded.
    #[error("the NVIDIA driver knows CUDA up to {driver}, this build is for CUDA {built_for}")]
    DriverTooOld {
        /// That of the driver.
        driver: Version,
        /// That of the toolkit it was built with.
        built_for: Version,
    },
    /// Fewer GPUs than asked for.
    #[error("there is no GPU {ordinal}, the driver finds {count}")]
    NoSuchGpu {
        /// The number asked for, from 0.
        ordinal: usize,
        /// How many there are.
        count: usize,
    },
    /// Kernels run on the GPUs they were compiled for and on newer ones.
    #[error("GPU {ordinal} has compute capability {has}, this build is for {built_for} and newer")]
    GpuTooOld {
        /// Its number.
        ordinal: usize,
        /// What it has.
        has: Version,
        /// What the kernels were compiled for.
        built_for: Version,
    },
    /// The GPU is there and cannot be opened.
    #[error("GPU {ordinal} cannot be opened: {reason}")]
    Open {
        /// Its number.
        ordinal: usize,
        /// What CUDA says.
        reason: String,
    },
}

impl DeviceError {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        let remedy = match self {
            Self::NotCompiledIn => {
                "build with `cargo build --release --features cuda` (README, CUDA), or use device cpu"
            }
            Self::NoDriver => {
                "install NVIDIA's driver, or start the container with its host's GPUs, and take the stub off \
                 LD_LIBRARY_PATH; or use device cpu"
            }
            Self::NoGpu => {
                "see what nvidia-smi says and whether CUDA_VISIBLE_DEVICES hides it, or use device cpu"
            }
            Self::Refused { .. } | Self::Open { .. } => "see what nvidia-smi says, or use device cpu",
            Self::DriverTooOld { driver, .. } => {
                return format!("update the driver, or build with the toolkit of CUDA {driver}");
            }
            Self::NoSuchGpu { .. } => "GPUs count from 0, `attn-bench doctor` lists them",
            Self::GpuTooOld { has, .. } => {
                return format!(
                    "build for it, with CUDA_COMPUTE_CAP={}{}, or use device cpu",
                    has.major, has.minor
                );
            }
        };
        remedy.to_string()
    }

    /// Text and remedy in one line, for a row.
    pub fn reason(&self) -> String {
        format!("{self}: {}", self.remedy())
    }
}

/// A version of two numbers: of CUDA, or a GPU's compute capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second.
    pub minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A GPU as its driver describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gpu {
    /// Its model.
    pub name: String,
    /// Its own name among all GPUs, by which the driver's counters know it.
    pub uuid: String,
    /// Its compute capability.
    pub capability: Version,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Its last-level cache, L2, in bytes; 0 where the driver does not tell.
    pub l2_bytes: u64,
}

/// CUDA where it can be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cuda {
    /// The newest CUDA the driver knows.
    pub driver: Version,
    /// The GPUs in the driver's order.
    pub gpus: Vec<Gpu>,
}

/// A device that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolved {
    /// The processor.
    Cpu,
    /// A GPU, by its number.
    Cuda(usize),
}

impl fmt::Display for Resolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

impl Resolved {
    /// The device for tensors. On a GPU this makes a context: a worker does it, the runner never.
    ///
    /// With a stream of its own: the default one is another for every thread, and a layer computes on those of
    /// [`attn_core::in_pool`].
    ///
    /// # Errors
    /// [`DeviceError::Open`] where CUDA refuses.
    pub fn open(self) -> Result<Device, DeviceError> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(ordinal) => {
                let refused = |reason: String| DeviceError::Open {
                    ordinal,
                    reason: reason.lines().next().unwrap_or_default().to_string(),
                };
                let device =
                    Device::new_cuda_with_stream(ordinal).map_err(|error| refused(error.to_string()))?;
                #[cfg(feature = "cuda")]
                cuda::prepare(&device).map_err(refused)?;
                Ok(device)
            }
        }
    }

    /// The GPU, where it is one.
    pub fn gpu(self) -> Option<&'static Gpu> {
        match (self, cuda()) {
            (Self::Cuda(ordinal), Ok(cuda)) => cuda.gpus.get(ordinal),
            _ => None,
        }
    }

    /// Its memory, where it is not the processor's.
    pub fn memory_bytes(self) -> Option<u64> {
        self.gpu().map(|gpu| gpu.memory_bytes)
    }
}

/// CUDA here: the driver is asked once.
pub fn cuda() -> &'static Result<Cuda, DeviceError> {
    static CUDA: OnceLock<Result<Cuda, DeviceError>> = OnceLock::new();
    #[cfg(feature = "cuda")]
    let probe = cuda::probe;
    #[cfg(not(feature = "cuda"))]
    let probe = || Err(DeviceError::NotCompiledIn);
    CUDA.get_or_init(probe)
}

/// The CUDA and the compute capability that this build is for; `None` without the feature `cuda`, and a capability
/// only where the one who built it gave it.
pub fn built_for() -> Option<(Version, Option<Version>)> {
    #[cfg(feature = "cuda")]
    return Some((cuda::built_for(), cuda::built_for_capability()));
    #[cfg(not(feature = "cuda"))]
    return None;
}

/// The device that a request means here.
///
/// # Errors
/// What is missing; never for `cpu` and `auto`.
pub fn resolve(request: DeviceRequest) -> Result<Resolved, DeviceError> {
    match request {
        DeviceRequest::Cpu => Ok(Resolved::Cpu),
        _ => resolve_with(request, cuda()),
    }
}

/// [`resolve`] for a command that cannot go on without the device.
///
/// # Errors
/// [`Error::Device`] with what is missing.
pub fn require(request: DeviceRequest) -> Result<Resolved, Error> {
    resolve(request).map_err(|error| Error::Device {
        device: request,
        error,
    })
}

/// [`resolve`] where CUDA is as given.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_with(
    request: DeviceRequest,
    cuda: &Result<Cuda, DeviceError>,
) -> Result<Resolved, DeviceError> {
    let gpu = |ordinal| {
        let cuda = cuda.as_ref().map_err(Clone::clone)?;
        usable(cuda, ordinal, built_for().and_then(|(_, capability)| capability))?;
        Ok(Resolved::Cuda(ordinal))
    };
    match request {
        DeviceRequest::Cpu => Ok(Resolved::Cpu),
        DeviceRequest::Auto => Ok(gpu(0).unwrap_or(Resolved::Cpu)),
        DeviceRequest::Cuda(ordinal) => gpu(ordinal.unwrap_or(0)),
    }
}

fn usable(cuda: &Cuda, ordinal: usize, built_for: Option<Version>) -> Result<(), DeviceError> {
    let gpu = cuda.gpus.get(ordinal).ok_or(DeviceError::NoSuchGpu {
        ordinal,
        count: cuda.gpus.len(),
    })?;
    match built_for {
        Some(built_for) if gpu.capability < built_for => Err(DeviceError::GpuTooOld {
            ordinal,
            has: gpu.capability,
            built_for,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_gpus() -> Result<Cuda, DeviceError> {
        let gpu = |major, minor| Gpu {
            name: "GPU".to_string(),
            uuid: "GPU-0".to_string(),
            capability: Version { major, minor },
            memory_bytes: 80 << 30,
            l2_bytes: 50 << 20,
        };
        Ok(Cuda {
            driver: Version { major: 13, minor: 0 },
            gpus: vec![gpu(90, 0), gpu(91, 0)],
        })
    }

    #[test]
    fn requests_mean_the_gpu_that_is_there() {
        let resolved = |request| resolve_with(request, &two_gpus()).map(|device| device.to_string());
        assert_eq!(resolved(DeviceRequest::Cpu).unwrap(), "cpu");
        assert_eq!(resolved(DeviceRequest::Auto).unwrap(), "cuda:0");
        assert_eq!(resolved(DeviceRequest::Cuda(None)).unwrap(), "cuda:0");
        assert_eq!(resolved(DeviceRequest::Cuda(Some(1))).unwrap(), "cuda:1");
        let error = resolved(DeviceRequest::Cuda(Some(2))).unwrap_err();
        assert_eq!(error.to_string(), "there is no GPU 2, the driver finds 2");
        assert!(error.remedy().contains("doctor"));
    }

    #[test]
    fn without_cuda_auto_is_the_processor_and_cuda_an_error() {
        for missing in [
            DeviceError::NotCompiledIn,
            DeviceError::NoDriver,
            DeviceError::NoGpu,
        ] {
            let cuda = Err(missing.clone());
            assert_eq!(resolve_with(DeviceRequest::Cpu, &cuda), Ok(Resolved::Cpu));
            assert_eq!(resolve_with(DeviceRequest::Auto, &cuda), Ok(Resolved::Cpu));
            assert_eq!(
                resolve_with(DeviceRequest::Cuda(None), &cuda),
                Err(missing.clone())
            );
            assert!(
                missing.reason().contains("device cpu"),
                "a remedy for everyone: {missing}"
            );
        }
    }

    #[test]
    fn a_gpu_older_than_the_kernels_is_refused() {
        let cuda = two_gpus().unwrap();
        let built_for = Version { major: 91, minor: 0 };
        let refused = usable(&cuda, 0, Some(built_for)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "GPU 0 has compute capability 90.0, this build is for 91.0 and newer"
        );
        assert!(refused.remedy().contains("CUDA_COMPUTE_CAP=900"));
        assert_eq!(usable(&cuda, 1, Some(built_for)), Ok(()));
        assert_eq!(usable(&cuda, 0, None), Ok(()));
    }

    #[test]
    fn the_processor_opens_everywhere() {
        assert!(Resolved::Cpu.open().unwrap().is_cpu());
        assert_eq!(Resolved::Cpu.memory_bytes(), None);
        assert_eq!(built_for().is_some(), cfg!(feature = "cuda"));
    }
}
