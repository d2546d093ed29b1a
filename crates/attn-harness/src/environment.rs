//! Where a run ran and what ran it: the machine, the system, the build.
//!
//! Linux tells most of it in text files. What another system does not tell is null, with the reason beside it.

mod cpu;
mod level;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use sysinfo::System;

use crate::row::Row;

pub use self::cpu::{Cache, Cpu, cpu_mhz};
pub use self::level::Level;

/// The machine, the system and the build, as `environment.json` holds them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// The processor.
    pub cpu: Cpu,
    /// Memory of the machine, in bytes.
    pub memory_total_bytes: Option<u64>,
    /// Memory that was free or could be freed, in bytes.
    pub memory_available_bytes: Option<u64>,
    /// Operating system.
    pub os: String,
    /// Version of its kernel.
    pub kernel: String,
    /// Threads used for computing.
    pub threads: usize,
    /// Load averages of the last 1, 5 and 15 minutes.
    pub load: Option<[f64; 3]>,
    /// The binary.
    pub build: Build,
    /// Hash of the hardware and system: times of different fingerprints are not comparable.
    pub fingerprint: String,
    /// Why entries are null.
    pub null_reasons: BTreeMap<String, String>,
}

/// A binary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// Version of attn-bench.
    pub version: String,
    /// Commit, `unknown` outside git.
    pub commit: String,
    /// Whether sources differ from the commit, now or when it was built.
    pub dirty: Option<bool>,
    /// Compiler.
    pub toolchain: String,
    /// `release` or `debug`.
    pub profile: String,
    /// Target triple.
    pub target: String,
    /// Hash of the executable that runs; `None` where it cannot be read, and in runs of older versions.
    #[serde(default)]
    pub binary: Option<String>,
}

impl Environment {
    /// Looks at the machine, the system and the build. Takes a few milliseconds, and the first time as long as
    /// hashing the executable: less than a tenth of a second for a release build.
    pub fn probe() -> Self {
        let mut system = System::new().ok();
        if let Some(system) = &mut system {
            system.refresh_memory();
            system.refresh_cpu_all();
        }
        let mut null_reasons = BTreeMap::new();
        let cpu = Cpu::probe(system.as_ref(), &mut null_reasons);
        let build = Build::probe();
        if build.dirty.is_none() {
            null_reasons.insert(
                "build.dirty".to_string(),
                "not known: built outside git".to_string(),
            );
        }
        if build.binary.is_none() {
            null_reasons.insert(
                "build.binary".to_string(),
                "not known: the executable cannot be read".to_string(),
            );
        }
        let load = load_average();
        if load.is_none() {
            null_reasons.insert(
                "load".to_string(),
                "not measured: the system keeps no load average".to_string(),
            );
        }
        let os = System::long_os_version().unwrap_or_else(|_| std::env::consts::OS.to_string());
        let memory_total_bytes = system
            .as_ref()
            .map(System::total_memory)
            .filter(|bytes| *bytes > 0);
        if memory_total_bytes.is_none() {
            null_reasons.insert(
                "memory_total_bytes".to_string(),
                "not known: the system does not say".to_string(),
            );
        }
        Self {
            fingerprint: fingerprint(&cpu.model, cpu.cores, memory_total_bytes, &os),
            cpu,
            memory_total_bytes,
            memory_available_bytes: memory_total_bytes.and(system.as_ref().map(System::available_memory)),
            os,
            kernel: System::kernel_version().unwrap_or_else(|_| "unknown".to_string()),
            threads: rayon::current_num_threads(),
            load,
            build,
            null_reasons,
        }
    }

    /// The same machine with another binary.
    #[must_use]
    pub fn with_build(mut self, build: Build) -> Self {
        self.null_reasons.remove("build.dirty");
        if build.dirty.is_none() {
            self.null_reasons.insert(
                "build.dirty".to_string(),
                "not known: built outside git".to_string(),
            );
        }
        self.build = build;
        self
    }

    /// Fills the columns of a row that tell where it comes from, and says why some are null.
    pub fn describe(&self, row: &mut Row) {
        row.threads = Some(self.threads as u64);
        row.commit = Some(self.build.commit.clone());
        row.dirty = self.build.dirty;
        row.toolchain = Some(self.build.toolchain.clone());
        row.build_profile = Some(self.build.profile.clone());
        row.binary = self.build.binary.clone();
        row.cpu_level = self.cpu.level.as_ref().map(Level::to_string);
        row.machine = Some(self.cpu.model.clone());
        row.fingerprint = Some(self.fingerprint.clone());
        row.os = Some(format!("{}, kernel {}", self.os, self.kernel));
        row.memory_total_bytes = self.memory_total_bytes;
        for (entry, column) in [
            ("build.dirty", "dirty"),
            ("build.binary", "binary"),
            ("cpu.level", "cpu_level"),
            ("memory_total_bytes", "memory_total_bytes"),
        ] {
            if let Some(reason) = self.null_reasons.get(entry) {
                row.explain_null(column, reason);
            }
        }
    }
}

/// Bytes of the processor's largest cache; `None` where the system does not say.
pub fn last_level_cache_bytes() -> Option<u64> {
    cpu::caches_here().iter().map(|cache| cache.bytes).max()
}

impl Build {
    /// The running executable. Reads all of it.
    pub fn probe() -> Self {
        let (commit, built_dirty) = (env!("ATTN_BENCH_COMMIT"), env!("ATTN_BENCH_DIRTY").parse().ok());
        Self {
            version: env!("CARGO_PKG_VERSION").to_string(),
            commit: commit.to_string(),
            dirty: built_dirty.map(|dirty: bool| dirty || changed_since_build(commit)),
            toolchain: env!("ATTN_BENCH_TOOLCHAIN").to_string(),
            profile: env!("ATTN_BENCH_PROFILE").to_string(),
            target: env!("ATTN_BENCH_TARGET").to_string(),
            binary: binary_hash().map(str::to_string),
        }
    }
}

/// 64 hexadecimal digits over the executable of this process, read once and then remembered: two builds of one
/// commit, and of sources that were never committed, are told apart by it.
pub fn binary_hash() -> Option<&'static str> {
    static HASH: OnceLock<Option<String>> = OnceLock::new();
    HASH.get_or_init(|| hash_executable().ok()).as_deref()
}

/// Linux keeps the file of a running process at hand, even where a new build has taken its place.
fn hash_executable() -> io::Result<String> {
    let running = File::open("/proc/self/exe").or_else(|_| File::open(std::env::current_exe()?))?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(running)?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// Whether the sources the binary was built from, where they are still there, are no longer those of its
/// commit. Cargo does not look again at every edit, so the flag of the build alone could claim a clean commit.
fn changed_since_build(commit: &str) -> bool {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let git = |args: &[&str]| {
        let output = Command::new("git").arg("-C").arg(root).args(args).output().ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
    };
    if !Path::new(root).join(".git").exists() {
        return false;
    }
    let moved = git(&["rev-parse", "HEAD"]).is_some_and(|head| head != commit);
    moved
        || git(&[
            "status",
            "--porcelain",
            "--",
            "crates",
            "Cargo.toml",
            "Cargo.lock",
        ])
        .is_some_and(|it| !it.is_empty())
}

/// Load averages of the last 1, 5 and 15 minutes.
pub fn load_average() -> Option<[f64; 3]> {
    let load = System::load_average().ok()?;
    Some([load.one, load.five, load.fifteen])
}

/// 16 hexadecimal digits over what makes times comparable. Memory is rounded to GiB, because kernels keep
/// some of it to themselves.
fn fingerprint(model: &str, cores: Option<usize>, memory_bytes: Option<u64>, os: &str) -> String {
    let gib = (memory_bytes.unwrap_or(0) as f64 / (1u64 << 30) as f64).round();
    let text = format!("{model}\n{}\n{gib}\n{os}", cores.unwrap_or(0));
    blake3::hash(text.as_bytes()).to_hex()[..16].to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_ignores_reserved_memory_and_nothing_else() {
        let gib = 1u64 << 30;
        let print = fingerprint("a", Some(2), Some(8 * gib), "linux");
        assert_eq!(print.len(), 16);
        assert_eq!(print, fingerprint("a", Some(2), Some(8 * gib - gib / 4), "linux"));
        assert_ne!(print, fingerprint("a", Some(4), Some(8 * gib), "linux"));
        assert_ne!(print, fingerprint("a", Some(2), Some(16 * gib), "linux"));
    }

    #[test]
    fn a_probe_survives_json_and_fills_a_row() {
        let environment = Environment::probe();
        assert!(environment.memory_total_bytes.is_none_or(|bytes| bytes > 0) && environment.threads > 0);
        assert!(environment.build.toolchain.starts_with("rustc "));
        let json = serde_json::to_string(&environment).unwrap();
        assert_eq!(serde_json::from_str::<Environment>(&json).unwrap(), environment);
        assert!(
            !json.contains(env!("CARGO_MANIFEST_DIR")),
            "results must not name folders of the machine"
        );

        let mut row = Row::default();
        environment.describe(&mut row);
        assert_eq!(row.fingerprint.as_deref(), Some(environment.fingerprint.as_str()));
        assert_eq!(row.dirty.is_none(), row.null_reasons().contains_key("dirty"));
        assert_eq!(row.binary, environment.build.binary);
        let known = row.cpu_level.is_some();
        assert_ne!(known, row.null_reasons().contains_key("cpu_level"));
    }

    #[test]
    fn the_binary_is_the_file_that_runs() {
        let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(binary_hash(), Some(blake3::hash(&file).to_hex().as_str()));
    }

    #[test]
    fn an_environment_of_an_older_version_is_still_read() {
        let mut json = serde_json::to_value(Environment::probe()).unwrap();
        json["build"].as_object_mut().unwrap().remove("binary").unwrap();
        json["cpu"].as_object_mut().unwrap().remove("level");
        let old: Environment = serde_json::from_value(json).unwrap();
        assert_eq!((old.build.binary, old.cpu.level), (None, None));
    }
}
