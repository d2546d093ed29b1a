//! Compiles every CUDA kernel for a grid of geometries with the `nvcc` on the PATH, and prints registers, spills and
//! shared memory. No GPU and no driver are needed. Exits 1 where a kernel does not compile, or a hot one spills.
//!
//! `cargo run -p attn-kernels --example kernel_grid -- [--small] [--jobs N] [NAME]`: a NAME takes kernels whose line of
//! constants holds it.

use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use attn_kernels::cuda::{Planned, grid};

type Failure = Box<dyn std::error::Error>;

/// What the compiler says of a kernel.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Resources {
    registers: usize,
    spill_bytes: usize,
    stack_bytes: usize,
    static_shared_bytes: usize,
}

fn main() -> Result<ExitCode, Failure> {
    let mut words = std::env::args().skip(1);
    let (mut small, mut jobs, mut name) = (false, 2, String::new());
    while let Some(word) = words.next() {
        match word.as_str() {
            "--small" => small = true,
            "--jobs" => jobs = words.next().ok_or("--jobs needs a number")?.parse()?,
            _ => name = word,
        }
    }
    let mut all = grid(small);
    all.retain(|one| one.specialisation.describe().contains(&name));
    let folder = std::env::temp_dir().join(format!("kernel-grid-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let next = AtomicUsize::new(0);
    let results = Mutex::new(vec![None; all.len()]);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(one) = all.get(at) else { return };
                    let result =
                        compile(one, &folder.join(format!("{at}.cu"))).map_err(|error| error.to_string());
                    if let Ok(mut results) = results.lock() {
                        results[at] = Some(result);
                    }
                }
            });
        }
    });
    std::fs::remove_dir_all(&folder)?;
    let results = results.into_inner()?;
    println!("| kernel | registers | threads | spill bytes | stack bytes | shared bytes | of a block's |");
    println!("|---|---|---|---|---|---|---|");
    let mut is_good = true;
    for (one, result) in all.iter().zip(&results) {
        let Planned {
            specialisation,
            launch,
        } = one;
        let described = specialisation.describe();
        let limit = specialisation.arch.shared_bytes();
        match result {
            Some(Ok(it)) => {
                let shared = it.static_shared_bytes + launch.shared_bytes;
                let spills = specialisation.kernel.is_hot && it.spill_bytes > 0;
                is_good &= !spills && shared <= limit;
                let mark = if spills { " (a fault)" } else { "" };
                println!(
                    "| {described} | {} | {} | {}{mark} | {} | {shared} | {:.0} % |",
                    it.registers,
                    launch.threads,
                    it.spill_bytes,
                    it.stack_bytes,
                    100.0 * shared as f64 / limit as f64
                );
            }
            failed => {
                is_good = false;
                println!("| {described} | failed | | | | | |");
                if let Some(Err(error)) = failed {
                    eprintln!("{described}\n{error}");
                }
            }
        }
    }
    println!("\n{} kernels", all.len());
    Ok(if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Compiles to a cubin, which is thrown away.
fn compile(one: &Planned, to: &std::path::Path) -> Result<Resources, Failure> {
    std::fs::write(to, one.specialisation.source())?;
    let output = Command::new("nvcc")
        .args(["-cubin", "-Xptxas", "-v", "-o"])
        .arg(to.with_extension("cubin"))
        .args(one.specialisation.options())
        .arg(to)
        .output()
        .map_err(|error| {
            format!("nvcc cannot be started ({error}), put a CUDA toolkit's `bin` on the PATH")
        })?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(said.into());
    }
    parse(&said).ok_or_else(|| format!("the compiler says nothing of registers:\n{said}").into())
}

/// Reads lines such as `Used 40 registers, used 1 barriers, 16 bytes smem` and `0 bytes stack frame, 8 bytes spill
/// stores, 8 bytes spill loads`.
fn parse(said: &str) -> Option<Resources> {
    let before = |unit: &str| {
        let lines = said
            .lines()
            .filter_map(|line| line.split(unit).next().filter(|rest| rest.len() < line.len()));
        let words = lines.filter_map(|rest| rest.split_whitespace().next_back()?.parse::<usize>().ok());
        words.max()
    };
    Some(Resources {
        registers: before(" registers")?,
        spill_bytes: before(" bytes spill stores").unwrap_or(0) + before(" bytes spill loads").unwrap_or(0),
        stack_bytes: before(" bytes stack frame").unwrap_or(0),
        static_shared_bytes: before(" bytes smem").unwrap_or(0),
    })
}
