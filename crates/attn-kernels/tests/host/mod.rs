//! CUDA sources as they are, compiled for the host with `cuda.hpp` and `ptx.hpp` in place of the language.

use std::ffi::{CString, c_int, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use attn_kernels::cuda::Planned;

/// `launch` of a compiled source: parameters, grid, threads, bytes of shared memory, and a seed of the order.
type Launch = unsafe extern "C" fn(*const c_void, *const c_int, c_int, c_int, u64);

/// A kernel that runs here.
pub struct Kernel {
    launch: Launch,
    /// Unloading is not worth its risks in a test; the file goes.
    file: PathBuf,
}

impl Drop for Kernel {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

/// Whether there is a compiler for C++; these tests check nothing without one.
pub fn is_possible() -> bool {
    let is_there = Command::new("c++").arg("--version").output().is_ok();
    if !is_there {
        eprintln!("no `c++` here: CUDA sources were not run on the host");
    }
    is_there
}

impl Kernel {
    /// Compiles a plan's source with its constants; `params` is the kernel's parameter in it.
    pub fn new(planned: &Planned, params: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let stem = std::env::temp_dir().join(format!("cuda-host-{}-{count}", std::process::id()));
        let (source, file) = (stem.with_extension("cpp"), stem.with_extension("so"));
        let specialisation = &planned.specialisation;
        let entry = format!(
            "extern \"C\" void launch(const void *params, const int *grid, int threads, int shared, uint64_t seed) {{\n\
             const int sizes[3] = {{grid[0], grid[1], grid[2]}};\n\
             host::run(sizes, threads, shared, seed, [&] {{ {}(*static_cast<const {params} *>(params)); }});\n}}\n",
            specialisation.kernel.name
        );
        std::fs::write(&source, specialisation.source() + &entry).unwrap();
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/host");
        let options = specialisation.options();
        let output = Command::new("c++")
            // Warnings are nvcc's to give; a unique symbol would join the globals of two kernels.
            .args([
                "-w",
                "-O1",
                "-shared",
                "-fPIC",
                "-fno-gnu-unique",
                "-Wl,-Bsymbolic",
                "-include",
            ])
            .arg(here.join("cuda.hpp"))
            .arg(format!("-DPTX_STAND_IN=\"{}\"", here.join("ptx.hpp").display()))
            .args(options.iter().filter(|option| !option.starts_with("-arch")))
            .arg("-o")
            .args([&file, &source])
            .output()
            .unwrap();
        std::fs::remove_file(&source).unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}\n{said}", specialisation.describe());
        let path = CString::new(file.to_str().unwrap()).unwrap();
        // SAFETY: the file was made above, and has no initialisers but those of its globals.
        let launch = unsafe {
            let library = libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
            assert!(!library.is_null(), "{}", file.display());
            libc::dlsym(library, c"launch".as_ptr())
        };
        assert!(!launch.is_null());
        Self {
            // SAFETY: the entry above has this type.
            launch: unsafe { std::mem::transmute::<*mut c_void, Launch>(launch) },
            file,
        }
    }

    /// Runs the plan's grid, in an order of threads and blocks that the seed decides.
    ///
    /// # Safety
    /// 1. `params` is the kernel's parameter, and its addresses are valid for what the plan says.
    pub unsafe fn run<P>(&mut self, planned: &Planned, params: &P, seed: u64) {
        let grid = planned.launch.grid.map(|n| n as c_int);
        let (threads, shared) = (
            planned.launch.threads as c_int,
            planned.launch.shared_bytes as c_int,
        );
        // SAFETY: the caller's.
        unsafe {
            (self.launch)(
                std::ptr::from_ref(params).cast(),
                grid.as_ptr(),
                threads,
                shared,
                seed,
            )
        };
    }
}
