//! The processor: model, instruction sets, caches, clock.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sysinfo::System;

use super::level::Level;

/// Instruction sets that attention kernels make use of, as Linux names them.
const FEATURES: &str = "sse4_2 avx f16c fma avx2 avx_vnni avx512f avx512bw avx512dq avx512vl avx512_vnni \
                        avx512_bf16 avx512_fp16 amx_tile amx_int8 amx_bf16 amx_fp16 asimd asimdhp asimddp fphp \
                        bf16 i8mm sve sve2 svebf16 sme";

/// A processor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    /// Model.
    pub model: String,
    /// Physical cores.
    pub cores: Option<usize>,
    /// Hardware threads this process may use.
    pub hardware_threads: usize,
    /// Instruction sets, of those that matter here.
    pub features: Vec<String>,
    /// How far its instruction sets go, and how far ours use them; `None` on other processors than x86-64, and
    /// in runs of older versions.
    #[serde(default)]
    pub level: Option<Level>,
    /// Caches as the first core sees them.
    pub caches: Vec<Cache>,
    /// Clock of the fastest core, in MHz. Virtual machines often report a constant.
    pub mhz: Option<f64>,
    /// Whether it is a virtual machine's.
    pub virtualised: Option<bool>,
}

/// A cache of a processor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cache {
    /// Level, from 1.
    pub level: u32,
    /// `data`, `instruction` or `unified`.
    pub kind: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Hardware threads that share it, as a list of ranges.
    pub shared_by: String,
}

impl Cpu {
    pub(super) fn probe(system: Option<&System>, null_reasons: &mut BTreeMap<String, String>) -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let brand = || system?.cpus().first().map(|cpu| cpu.brand().trim().to_string());
        let model = cpuinfo(&info, "model name")
            .next()
            .map(str::to_string)
            .or_else(brand);
        let mut because = |entry: &str, reason: &str| {
            null_reasons.insert(format!("cpu.{entry}"), reason.to_string());
        };
        let mhz = cpu_mhz().map_err(|reason| because("mhz", reason)).ok();
        // Only x86 tells its guests.
        let is_x86 = cfg!(any(target_arch = "x86", target_arch = "x86_64")) && !info.is_empty();
        let virtualised = is_x86.then(|| flags(&info).any(|flag| flag == "hypervisor"));
        if virtualised.is_none() {
            because("virtualised", "not known: the processor does not say");
        }
        let features = features(&info);
        let level = Level::probe(&features, &flags(&info).collect::<Vec<_>>());
        if level.is_none() {
            because("level", "not known: only x86-64 processors have levels");
        }
        let cores = System::physical_core_count().ok();
        if cores.is_none() {
            because("cores", "not known: the system does not say");
        }
        Self {
            model: model
                .filter(|model| !model.is_empty())
                .unwrap_or_else(|| std::env::consts::ARCH.to_string()),
            cores,
            hardware_threads: std::thread::available_parallelism().map_or(1, usize::from),
            features,
            level,
            caches: caches_here(),
            mhz,
            virtualised,
        }
    }
}

/// Caches of this machine's first core.
pub(super) fn caches_here() -> Vec<Cache> {
    caches(Path::new("/sys/devices/system/cpu/cpu0/cache"))
}

/// Clock of the fastest core now, in MHz, or why it is not known. The fastest, because idle cores are slow.
///
/// # Errors
/// The reason, for the row.
pub fn cpu_mhz() -> Result<f64, &'static str> {
    let cpufreq = |entry: fs::DirEntry| {
        let khz = fs::read_to_string(entry.path().join("cpufreq/scaling_cur_freq")).ok()?;
        Some(khz.trim().parse::<f64>().ok()? / 1e3)
    };
    let mut from_sys = fs::read_dir("/sys/devices/system/cpu")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(cpufreq);
    let fastest = |clocks: &mut dyn Iterator<Item = f64>| clocks.reduce(f64::max).filter(|mhz| *mhz > 0.0);
    if let Some(mhz) = fastest(&mut from_sys) {
        return Ok(mhz);
    }
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    fastest(&mut cpuinfo(&info, "cpu MHz").filter_map(|mhz| mhz.parse().ok()))
        .ok_or("not measured: the system does not tell the processor's clock")
}

/// Values of a key of /proc/cpuinfo, one a hardware thread.
fn cpuinfo<'a>(info: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    let pairs = info.lines().filter_map(|line| line.split_once(':'));
    pairs
        .filter(move |(name, _)| name.trim() == key)
        .map(|(_, value)| value.trim())
}

fn flags(info: &str) -> impl Iterator<Item = &str> {
    let lists = cpuinfo(info, "flags")
        .next()
        .into_iter()
        .chain(cpuinfo(info, "Features").next());
    lists.flat_map(str::split_whitespace)
}

fn features(info: &str) -> Vec<String> {
    let known: Vec<&str> = flags(info).collect();
    FEATURES
        .split_whitespace()
        .filter(|feature| known.contains(feature))
        .map(str::to_string)
        .collect()
}

fn caches(folder: &Path) -> Vec<Cache> {
    let read = |index: &Path, name| {
        fs::read_to_string(index.join(name))
            .ok()
            .map(|text| text.trim().to_string())
    };
    let mut caches: Vec<Cache> = (0..8)
        .map(|index| folder.join(format!("index{index}")))
        .filter_map(|index| {
            Some(Cache {
                level: read(&index, "level")?.parse().ok()?,
                kind: read(&index, "type")?.to_lowercase(),
                bytes: size(&read(&index, "size")?)?,
                shared_by: read(&index, "shared_cpu_list").unwrap_or_default(),
            })
        })
        .collect();
    caches.sort_by_key(|cache| cache.level);
    caches
}

/// `32768K` in bytes.
fn size(text: &str) -> Option<u64> {
    let number = text.trim_end_matches(['K', 'M', 'G']);
    let shift = match &text[number.len()..] {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return None,
    };
    Some(number.parse::<u64>().ok()? << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "model name\t: Some CPU @ 2 GHz\ncpu MHz\t\t: 1800.5\nflags\t\t: fpu avx2 hypervisor avx512f\n\
                        model name\t: Some CPU @ 2 GHz\ncpu MHz\t\t: 2600.25\n";

    #[test]
    fn the_processor_is_read_from_linux() {
        assert_eq!(cpuinfo(INFO, "model name").next(), Some("Some CPU @ 2 GHz"));
        assert_eq!(
            cpuinfo(INFO, "cpu MHz").collect::<Vec<_>>(),
            ["1800.5", "2600.25"]
        );
        assert_eq!(features(INFO), ["avx2", "avx512f"]);
        assert_eq!(
            (size("32768K"), size("4M"), size("12"), size("x")),
            (Some(32 << 20), Some(4 << 20), Some(12), None)
        );
    }
}
