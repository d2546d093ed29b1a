//! Kernels on a device: compiled by NVRTC to machine code, kept on disk, launched.
//!
//! A folder keeps what was compiled, by a key of all that it depends on, so that only the first process that meets a
//! geometry compiles it (about a second). Two processes may compile the same at once: each writes a file of its own and
//! renames it. A folder that cannot be written is no error, nor is a file that is not what it should be: the kernel is
//! compiled then.
//!
//! Not yet run on a GPU.

use std::collections::HashMap;
use std::ffi::{CString, c_char};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use attn_kernels::Mismatch;
use attn_kernels::cuda::{Arch, Machine, Planned, Specialisation, Unsupported};
use cudarc::driver::result::DriverError;
use cudarc::driver::sys::{
    CUdevice_attribute_enum as DeviceAttribute, CUfunction_attribute_enum as Attribute,
};
use cudarc::driver::{CudaContext, CudaFunction, CudaStream, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::result::{self as nvrtc, NvrtcError};
use cudarc::nvrtc::{Ptx, sys};

use crate::params::{Argument, Params};

/// The environment variable that names the folder of compiled kernels; empty, nothing is kept.
pub const CACHE_VARIABLE: &str = "ATTN_KERNEL_CACHE";

/// Bytes of dynamic shared memory that a block may have without being asked for them.
const SHARED_BYTES_UNASKED: usize = 48 * 1024;

/// What goes wrong on the way to a launch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// There is no kernel.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// Operands do not fit the plan.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// NVRTC refused a source, which is a fault of ours, or its installation is broken.
    #[error("{kernel} does not compile: {source}\n{log}")]
    Compile {
        /// The kernel with its constants.
        kernel: String,
        /// What NVRTC returned.
        source: NvrtcError,
        /// What it said.
        log: String,
    },
    /// The driver refused a call.
    #[error("{what}: {source}")]
    Driver {
        /// What was being done.
        what: String,
        /// What the driver returned.
        source: DriverError,
    },
    /// Parameters of one kernel were given to another.
    #[error("{kernel} was given the parameters of another kernel")]
    WrongParams {
        /// The kernel that was to be launched.
        kernel: &'static str,
    },
}

/// The kernels of one device.
#[derive(Debug)]
pub struct Kernels {
    context: Arc<CudaContext>,
    machine: Machine,
    /// NVRTC's version.
    compiler: String,
    folder: Option<PathBuf>,
    loaded: Mutex<HashMap<Specialisation, CudaFunction>>,
}

/// A kernel that can be launched.
#[derive(Debug, Clone)]
pub struct Loaded {
    name: &'static str,
    function: CudaFunction,
    config: LaunchConfig,
}

/// Names what was being done in the driver's errors.
pub(crate) fn driver<T>(what: &str, result: Result<T, DriverError>) -> Result<T, CudaError> {
    result.map_err(|source| CudaError::Driver {
        what: what.to_string(),
        source,
    })
}

impl Kernels {
    /// The kernels of a context's device, kept in the folder that [`CACHE_VARIABLE`] names, otherwise in the user's
    /// folder for caches.
    ///
    /// # Errors
    /// [`CudaError::Unsupported`] for a device that has no kernels, [`CudaError::Driver`] where it does not answer.
    pub fn new(context: &Arc<CudaContext>) -> Result<Self, CudaError> {
        let attribute = |which| {
            let value = driver("reading a device's attribute", context.attribute(which))?;
            Ok::<usize, CudaError>(usize::try_from(value).unwrap_or(0))
        };
        let (major, minor) = (
            attribute(DeviceAttribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(DeviceAttribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        let machine = Machine {
            arch: Arch::of(major, minor)?,
            multiprocessors: attribute(DeviceAttribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            shared_bytes: attribute(DeviceAttribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        };
        Ok(Self {
            context: context.clone(),
            machine,
            compiler: compiler(),
            folder: folder(),
            loaded: Mutex::default(),
        })
    }

    /// The device, which plans are made for.
    pub fn machine(&self) -> Machine {
        self.machine
    }

    /// The kernel of a plan, compiled where nobody has done that yet. Not to be called while a graph is captured.
    ///
    /// # Errors
    /// [`CudaError::Compile`] and [`CudaError::Driver`].
    pub fn load(&self, planned: &Planned) -> Result<Loaded, CudaError> {
        let Planned {
            specialisation,
            launch,
        } = planned;
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let function = match loaded.get(specialisation) {
            Some(function) => function.clone(),
            None => {
                let function = self.find_or_compile(specialisation)?;
                if launch.shared_bytes > SHARED_BYTES_UNASKED {
                    let what = format!("{}: asking for shared memory", specialisation.describe());
                    let most = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
                    driver(&what, function.set_attribute(most, launch.shared_bytes as i32))?;
                    // All of it, in per cent: plans count on as many blocks as fit.
                    let share = Attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT;
                    driver(&what, function.set_attribute(share, 100))?;
                }
                loaded.insert(specialisation.clone(), function.clone());
                function
            }
        };
        let [x, y, z] = launch.grid.map(|n| n as u32);
        Ok(Loaded {
            name: specialisation.kernel.name,
            function,
            config: LaunchConfig {
                grid_dim: (x, y, z),
                block_dim: (launch.threads as u32, 1, 1),
                shared_mem_bytes: launch.shared_bytes as u32,
            },
        })
    }

    fn find_or_compile(&self, specialisation: &Specialisation) -> Result<CudaFunction, CudaError> {
        let file = format!("{}.cubin", specialisation.key(&self.compiler));
        let path = self.folder.as_ref().map(|folder| folder.join(file));
        if let Some(code) = path.as_ref().and_then(|path| kept(path))
            && let Ok(function) = self.function(specialisation, code)
        {
            return Ok(function);
        }
        let code = compile(specialisation)?;
        if let Some(path) = &path {
            keep(path, &code);
        }
        self.function(specialisation, code)
    }

    fn function(&self, specialisation: &Specialisation, code: Vec<u8>) -> Result<CudaFunction, CudaError> {
        let what = format!("{}: loading", specialisation.describe());
        let module = driver(&what, self.context.load_module(Ptx::from_binary(code)))?;
        driver(&what, module.load_function(specialisation.kernel.name))
    }
}

impl Loaded {
    /// Registers of a thread, and bytes of spilled ones, for reports.
    ///
    /// # Errors
    /// [`CudaError::Driver`].
    pub fn resources(&self) -> Result<[usize; 2], CudaError> {
        let read = |result| driver(self.name, result).map(|n: i32| usize::try_from(n).unwrap_or(0));
        Ok([
            read(self.function.num_regs())?,
            read(self.function.local_size_bytes())?,
        ])
    }

    /// Puts the kernel on a stream. Nothing is waited for, and the device's memory is not looked at, so that a graph
    /// can be captured.
    ///
    /// # Errors
    /// [`CudaError::WrongParams`] for another kernel's, [`CudaError::Driver`].
    ///
    /// # Safety
    /// 1. The parameters are of the plan that this kernel was loaded for.
    /// 2. Every address in them is of the stream's device, and valid for the operand until the kernel has ended.
    /// 3. Nobody else writes operands, or reads or writes outputs and workspace, until then; tickets are zero.
    pub unsafe fn launch<P: Params>(&self, stream: &CudaStream, params: &P) -> Result<(), CudaError> {
        if !P::KERNELS.contains(&self.name) {
            return Err(CudaError::WrongParams { kernel: self.name });
        }
        let mut launch = stream.launch_builder(&self.function);
        let argument = Argument(*params);
        launch.arg(&argument);
        // SAFETY: the kernel takes one struct of this layout; the rest is the caller's.
        driver(self.name, unsafe { launch.launch(self.config) }).map(|_| ())
    }
}

/// NVRTC's version, part of the key of what it makes.
fn compiler() -> String {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both can be written. Where it fails they stay zeros, and compiling will say why.
    let _ = unsafe { sys::nvrtcVersion(&mut major, &mut minor) };
    format!("nvrtc {major}.{minor}")
}

/// Where compiled kernels are kept.
fn folder() -> Option<PathBuf> {
    let of = |variable| std::env::var_os(variable).map(PathBuf::from);
    match of(CACHE_VARIABLE) {
        Some(folder) => Some(folder).filter(|folder| !folder.as_os_str().is_empty()),
        None => {
            let caches = of("XDG_CACHE_HOME").or_else(|| of("HOME").map(|home| home.join(".cache")))?;
            Some(caches.join("attn-bench").join("kernels"))
        }
    }
}

/// Reads what [`keep`] wrote: the code, and the hash of it, since the driver is not told where code ends.
fn kept(path: &Path) -> Option<Vec<u8>> {
    let mut code = std::fs::read(path).ok()?;
    let hash = code.split_off(code.len().checked_sub(blake3::OUT_LEN)?);
    (blake3::hash(&code).as_bytes()[..] == hash).then_some(code)
}

/// Writes a file that others see whole or not at all. That it cannot be written costs the next process a second.
fn keep(path: &Path, code: &[u8]) {
    let own = path.with_extension(std::process::id().to_string());
    let folder = path.parent().unwrap_or(Path::new("."));
    let written = std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&own, [code, blake3::hash(code).as_bytes()].concat()))
        .and_then(|()| std::fs::rename(&own, path));
    if written.is_err() {
        // What is left of it is of no use to anybody.
        let _ = std::fs::remove_file(&own);
    }
}

/// Machine code of a kernel.
fn compile(specialisation: &Specialisation) -> Result<Vec<u8>, CudaError> {
    let failed = |source, log| CudaError::Compile {
        kernel: specialisation.describe(),
        source,
        log,
    };
    // A source without zero bytes is ours to keep; `new` cuts none.
    let source = CString::new(specialisation.source()).unwrap_or_default();
    let program = nvrtc::create_program(&source, None).map_err(|source| failed(source, String::new()))?;
    let options = specialisation.options();
    // SAFETY: the program was created above, and is destroyed below and nowhere else.
    let result = unsafe { nvrtc::compile_program(program, &options) };
    let result = match result {
        // SAFETY: the same; it has been compiled.
        Ok(()) => unsafe { code_of(program) }.map_err(|source| failed(source, String::new())),
        // SAFETY: the same.
        Err(source) => Err(failed(source, unsafe { log_of(program) })),
    };
    // SAFETY: the same. What it returns says nothing about the code.
    let _ = unsafe { nvrtc::destroy_program(program) };
    result
}

/// What NVRTC made.
///
/// # Safety
/// The program exists and was compiled for an architecture by its real name.
unsafe fn code_of(program: sys::nvrtcProgram) -> Result<Vec<u8>, NvrtcError> {
    let mut size = 0;
    // SAFETY: the caller's; `size` can be written, and then as many bytes.
    unsafe {
        sys::nvrtcGetCUBINSize(program, &mut size).result()?;
        let mut code = vec![0_u8; size];
        sys::nvrtcGetCUBIN(program, code.as_mut_ptr().cast::<c_char>()).result()?;
        Ok(code)
    }
}

/// What NVRTC said.
///
/// # Safety
/// The program exists.
unsafe fn log_of(program: sys::nvrtcProgram) -> String {
    // SAFETY: the caller's.
    let log = unsafe { nvrtc::get_program_log(program) }.unwrap_or_default();
    let bytes: Vec<u8> = log.iter().map(|c| *c as u8).filter(|c| *c != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use attn_kernels::cuda::grid;

    use super::*;

    /// Needs NVRTC, and neither a driver nor a device.
    #[test]
    fn nvrtc_makes_machine_code_of_every_kernel() {
        let mut seen = Vec::new();
        for planned in grid(true) {
            let specialisation = &planned.specialisation;
            let kind = (
                specialisation.kernel.name,
                specialisation.dtype,
                specialisation.arch,
            );
            if seen.contains(&kind) {
                continue;
            }
            let code = compile(specialisation).unwrap();
            assert!(code.starts_with(b"\x7fELF"), "{}", specialisation.describe());
            seen.push(kind);
        }
        for (name, ..) in &seen {
            let kinds = seen.iter().filter(|(other, ..)| other == name).count();
            // Every kernel for every dtype and architecture, but that which reads bytes.
            let expected = if *name == "read_all" { 2 } else { 6 };
            assert_eq!(kinds, expected, "{name}");
        }
        assert_eq!(seen.len() % 6, 2);
    }

    #[test]
    fn kept_code_is_read_again_and_spoilt_code_is_not() {
        let folder = std::env::temp_dir().join(format!("kernels-{}", std::process::id()));
        let path = folder.join("one.cubin");
        keep(&path, b"code");
        assert_eq!(kept(&path).as_deref(), Some(&b"code"[..]));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[1] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(kept(&path), None);
        std::fs::write(&path, b"short").unwrap();
        assert_eq!(kept(&path), None);
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(kept(&path), None);
    }
}
