//! CUDA sources as they are, compiled for the host with `cuda.hpp` and `ptx.hpp` in place of the language.

mod operand;

use std::collections::HashMap;
use std::ffi::{CString, c_int, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use attn_kernels::cuda::{Planned, Specialisation};

pub use operand::Operand;

/// `launch` of a compiled source: parameters, grid, threads, bytes of shared memory, and a seed of the order.
type Launch = unsafe extern "C" fn(*const c_void, *const c_int, c_int, c_int, u64);

/// Kernels that run here and take the same parameter, each compiled when it is first run.
pub struct Kernels {
    /// Its type in the sources.
    params: &'static str,
    compiled: HashMap<Specialisation, Kernel>,
}

struct Kernel {
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

/// Of everything. Warnings are nvcc's to give; a unique symbol would join the globals of two kernels; threads are left by
/// jumps that a fortified library takes for errors. Vectors at addresses that a GPU refuses, and elements beyond an array
/// of registers, end the process by an illegal instruction.
const OPTIONS: [&str; 8] = [
    "-w",
    "-O1",
    "-std=c++17",
    "-fPIC",
    "-fno-gnu-unique",
    "-U_FORTIFY_SOURCE",
    "-fsanitize=alignment,bounds",
    "-fsanitize-undefined-trap-on-error",
];

/// What is the same for all kernels and compiled once: without it most of a kernel's time would go there.
struct Prepared {
    /// A copy of `cuda.hpp`, beside what the compiler makes of it.
    header: PathBuf,
    /// `cuda.cpp`.
    object: PathBuf,
}

fn prepared() -> &'static Prepared {
    static PREPARED: OnceLock<Prepared> = OnceLock::new();
    PREPARED.get_or_init(|| {
        // One folder for all processes, since it is large; each makes everything anew.
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cuda-host");
        std::fs::create_dir_all(&folder).unwrap();
        let header = folder.join("cuda.hpp");
        std::fs::write(&header, include_str!("cuda.hpp")).unwrap();
        let make = |kind: &[&str], from: &Path, to: &str| {
            // Others see it whole or not at all.
            let (own, to) = (
                folder.join(format!("{}-{to}", std::process::id())),
                folder.join(to),
            );
            compile(
                Command::new("c++").args(OPTIONS).args(kind).arg(from),
                &own,
                to.to_str().unwrap(),
            );
            std::fs::rename(&own, &to).unwrap();
            to
        };
        make(&["-x", "c++-header"], &header, "cuda.hpp.gch");
        let object = make(&["-c"], &here().join("cuda.cpp"), "cuda.o");
        Prepared { header, object }
    })
}

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/host")
}

fn compile(command: &mut Command, to: &Path, what: &str) {
    let output = command.arg("-o").arg(to).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}\n{said}");
}

impl Kernels {
    /// Kernels whose parameter has this type in their sources.
    pub fn new(params: &'static str) -> Self {
        Self {
            params,
            compiled: HashMap::new(),
        }
    }

    /// Runs the plan's grid, in an order of threads and blocks that the seed decides.
    ///
    /// # Safety
    /// 1. `params` is the kernel's parameter, and its addresses are valid for what the plan says.
    pub unsafe fn run<P>(&mut self, planned: &Planned, params: &P, seed: u64) {
        let specialisation = &planned.specialisation;
        if !self.compiled.contains_key(specialisation) {
            let kernel = Kernel::new(specialisation, self.params);
            self.compiled.insert(specialisation.clone(), kernel);
        }
        let grid = planned.launch.grid.map(|n| n as c_int);
        let (threads, shared) = (
            planned.launch.threads as c_int,
            planned.launch.shared_bytes as c_int,
        );
        // SAFETY: the caller's; `&mut` keeps others from the source's globals.
        unsafe {
            (self.compiled[specialisation].launch)(
                std::ptr::from_ref(params).cast(),
                grid.as_ptr(),
                threads,
                shared,
                seed,
            )
        };
    }
}

impl Kernel {
    /// Compiles a source with its constants; `params` is the kernel's parameter in it.
    fn new(specialisation: &Specialisation, params: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let stem = std::env::temp_dir().join(format!("cuda-host-{}-{count}", std::process::id()));
        let (source, file) = (stem.with_extension("cpp"), stem.with_extension("so"));
        let entry = format!(
            "extern \"C\" void launch(const void *params, const int *grid, int threads, int shared, uint64_t seed) {{\n\
             const int sizes[3] = {{grid[0], grid[1], grid[2]}};\n\
             host::run(sizes, threads, shared, seed, [&] {{ {}(*static_cast<const {params} *>(params)); }});\n}}\n",
            specialisation.kernel.name
        );
        std::fs::write(&source, specialisation.source() + &entry).unwrap();
        let macros = specialisation
            .options()
            .into_iter()
            .filter(|option| option.starts_with("-D"));
        let Prepared { header, object } = prepared();
        let mut command = Command::new("c++");
        command
            .args(OPTIONS)
            .args(["-shared", "-Wl,-Bsymbolic", "-include"])
            .arg(header)
            .arg(format!("-DPTX_STAND_IN=\"{}\"", here().join("ptx.hpp").display()))
            .args(macros)
            .args([&source, object]);
        compile(&mut command, &file, &specialisation.describe());
        std::fs::remove_file(&source).unwrap();
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
}
