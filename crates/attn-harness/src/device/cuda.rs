//! What the driver says of itself and its GPUs. No context is made: asking leaves nothing on a GPU.

use candle_core::Device;
use cudarc::driver::sys::CUdevice_attribute::{
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
    CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE,
};
use cudarc::driver::{DriverError, result, sys};

use super::{Cuda, DeviceError, Gpu, Version};

/// `CUDA_ERROR_STUB_LIBRARY`, by its number: not every version of the bindings has the name.
const STUB_LIBRARY: u32 = 34;
/// `CUDA_ERROR_NO_DEVICE`.
const NO_DEVICE: u32 = 100;

/// The CUDA of the toolkit that this was built with.
pub(super) fn built_for() -> Version {
    version(sys::CUDA_VERSION)
}

/// The compute capability that kernels were compiled for, where it was given: `90`, `90a` or `9.0`.
pub(super) fn built_for_capability() -> Option<Version> {
    capability(option_env!("CUDA_COMPUTE_CAP")?)
}

fn capability(text: &str) -> Option<Version> {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let number: u32 = digits.parse().ok()?;
    Some(Version {
        major: number / 10,
        minor: number % 10,
    })
}

/// CUDA writes 13.0 as 13000.
fn version(number: u32) -> Version {
    Version {
        major: number / 1000,
        minor: number % 1000 / 10,
    }
}

/// Asks the driver for its version and its GPUs.
pub(super) fn probe() -> Result<Cuda, DeviceError> {
    let refused = |error: DriverError| refusal(error.0 as u32, &error);
    result::init().map_err(refused)?;
    let driver = driver_version().map_err(refused)?;
    if driver < built_for() {
        return Err(DeviceError::DriverTooOld {
            driver,
            built_for: built_for(),
        });
    }
    let count = result::device::get_count().map_err(refused)?;
    if count == 0 {
        return Err(DeviceError::NoGpu);
    }
    let gpus = (0..count).map(gpu).collect::<Result<_, _>>().map_err(refused)?;
    Ok(Cuda { driver, gpus })
}

fn driver_version() -> Result<Version, DriverError> {
    let mut number = 0;
    // SAFETY: it writes one integer to the address it is given, which is that of a local one.
    unsafe { sys::cuDriverGetVersion(&mut number) }.result()?;
    Ok(version(number.unsigned_abs()))
}

fn gpu(ordinal: i32) -> Result<Gpu, DriverError> {
    let device = result::device::get(ordinal)?;
    // SAFETY: the driver gave out `device` just now, and there is no way to give it back.
    let (major, minor, l2_bytes, memory_bytes) = unsafe {
        (
            result::device::get_attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            result::device::get_attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            result::device::get_attribute(device, CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?,
            result::device::total_mem(device)?,
        )
    };
    Ok(Gpu {
        name: result::device::get_name(device)?,
        uuid: uuid(&result::device::get_uuid(device)?.bytes.map(|byte| byte as u8)),
        capability: Version {
            major: major.unsigned_abs(),
            minor: minor.unsigned_abs(),
        },
        memory_bytes: memory_bytes as u64,
        l2_bytes: u64::from(l2_bytes.unsigned_abs()),
    })
}

/// Makes a device that was just opened fit to be measured.
///
/// # Errors
/// What the driver says.
pub(super) fn prepare(device: &Device) -> Result<(), String> {
    let Device::Cuda(device) = device else {
        return Ok(());
    };
    let stream = device.cuda_stream();
    let context = stream.context();
    // SAFETY: all work on this device goes through its one stream, which keeps it in order. Two events for every
    // allocation would keep the host busy, and a graph cannot wait for one from before it.
    unsafe { context.disable_event_tracking() };
    let refused = |error: DriverError| described(&error, error.0 as u32);
    let mut most = u64::MAX;
    // SAFETY: the context's device has a pool for as long as the process lives, and this attribute of it is 64 bits that
    // are read.
    unsafe {
        let pool = result::device::get_default_mem_pool(context.cu_device()).map_err(refused)?;
        // What is freed stays the pool's: given back, every synchronisation would pay for getting it again.
        result::mem_pool::set_attribute(
            pool,
            sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD,
            (&raw mut most).cast(),
        )
        .map_err(refused)
    }
}

/// As nvidia-smi and NVML write it.
fn uuid(bytes: &[u8; 16]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "GPU-{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

/// What an error of the driver means to whoever wanted a GPU.
fn refusal(code: u32, error: &DriverError) -> DeviceError {
    match code {
        STUB_LIBRARY => DeviceError::NoDriver,
        NO_DEVICE => DeviceError::NoGpu,
        _ => DeviceError::Refused {
            reason: described(error, code),
        },
    }
}

fn described(error: &DriverError, code: u32) -> String {
    match error.error_string() {
        Ok(text) => format!("{} (error {code})", text.to_string_lossy()),
        Err(_) => format!("error {code}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_cuda_and_compilers_write_them() {
        assert_eq!(version(13000).to_string(), "13.0");
        assert_eq!(version(12080).to_string(), "12.8");
        for (text, expected) in [("90", "9.0"), ("90a", "9.0"), ("8.6", "8.6"), ("100", "10.0")] {
            assert_eq!(capability(text).unwrap().to_string(), expected);
        }
        assert_eq!(capability("native"), None);
    }

    #[test]
    fn uuids_are_written_as_nvml_writes_them() {
        let bytes = std::array::from_fn(|i| i as u8 * 0x11);
        assert_eq!(uuid(&bytes), "GPU-00112233-4455-6677-8899-aabbccddeeff");
    }

    #[test]
    fn errors_of_the_driver_are_told_apart() {
        let stub = DriverError(sys::CUresult::CUDA_ERROR_STUB_LIBRARY);
        assert_eq!(refusal(stub.0 as u32, &stub), DeviceError::NoDriver);
        let none = DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE);
        assert_eq!(refusal(none.0 as u32, &none), DeviceError::NoGpu);
        let other = DriverError(sys::CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH);
        let text = refusal(other.0 as u32, &other).to_string();
        assert!(
            text.starts_with("the NVIDIA driver does not start") && text.contains("803"),
            "{text}"
        );
    }

    #[test]
    fn a_probe_finds_gpus_or_says_what_is_missing() {
        match probe() {
            Ok(cuda) => assert!(cuda.driver >= built_for() && !cuda.gpus.is_empty()),
            Err(error) => assert!(!error.remedy().is_empty() && error != DeviceError::NotCompiledIn),
        }
    }
}
