//! What this build can compute on here, what is missing, and how to mend it.

use serde::Serialize;

use crate::device::{self, Cuda, DeviceError, LIBRARIES, Resolved};
use crate::environment::{Environment, Level};
use crate::sweep::DeviceRequest;
use crate::units::format_bytes;

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As it should be.
    Ok,
    /// Works, and measures less than it could, or something else.
    Off,
    /// Not there. It matters to those alone who want what needs it.
    Missing,
}

impl State {
    /// The word in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Off => "off",
            Self::Missing => "missing",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub what: String,
    /// How it is.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What to do, where something is to be done.
    pub remedy: Option<String>,
}

impl Finding {
    fn ok(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            state: State::Ok,
            found: found.into(),
            remedy: None,
        }
    }

    fn not(
        state: State,
        what: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            state,
            remedy: Some(remedy.into()),
            ..Self::ok(what, found)
        }
    }
}

/// Everything that was found, and whether the device can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What was looked at, the machine first.
    pub findings: Vec<Finding>,
    /// The device that the request means here.
    pub device: Result<Resolved, DeviceError>,
}

/// Looks at the machine, at the build and for CUDA.
pub fn examine(request: DeviceRequest) -> Report {
    let environment = Environment::probe();
    let mut findings = vec![processor(&environment)];
    findings.extend(environment.cpu.level.as_ref().map(kernels));
    findings.push(memory(&environment));
    findings.push(build(&environment));
    findings.push(feature());
    findings.push(toolkit(device::toolkit()));
    let cuda = device::cuda();
    findings.extend(LIBRARIES.iter().map(|library| {
        let found = device::find(library.name).map(|path| path.display().to_string());
        shared_library(library, found, *cuda == Err(DeviceError::NoDriver))
    }));
    findings.extend(gpus(cuda));
    findings.extend(counters(cuda));
    Report {
        findings,
        device: device::resolve(request),
    }
}

fn processor(environment: &Environment) -> Finding {
    let cpu = &environment.cpu;
    let cores = cpu.cores.map_or(String::new(), |n| format!("{n} cores, "));
    let mut found = format!("{}, {cores}{} threads to use", cpu.model, cpu.hardware_threads);
    if cpu.virtualised == Some(true) {
        found += ", virtual machine";
    }
    Finding::ok("processor", found)
}

fn kernels(level: &Level) -> Finding {
    match attn_core::ops::level() {
        Err(error) => Finding::not(
            State::Off,
            "instructions",
            error.to_string(),
            "unset ATTN_CPU_LEVEL",
        ),
        Ok(_) if std::env::var_os("ATTN_CPU_LEVEL").is_some() => Finding::not(
            State::Off,
            "instructions",
            format!("{level}, lowered by ATTN_CPU_LEVEL"),
            "unset ATTN_CPU_LEVEL",
        ),
        Ok(_) => Finding::ok("instructions", level.to_string()),
    }
}

fn memory(environment: &Environment) -> Finding {
    let bytes = |bytes: Option<u64>| bytes.map(|bytes| format_bytes(bytes as f64));
    let (total, free) = (
        bytes(environment.memory_total_bytes),
        bytes(environment.memory_available_bytes),
    );
    match (total, free) {
        (Some(total), Some(free)) => Finding::ok("memory", format!("{total}, {free} of it available")),
        (Some(total), None) => Finding::ok("memory", total),
        (None, _) => Finding::not(
            State::Missing,
            "memory",
            "the system does not say how much there is",
            "set measure.memory_limit, so that what does not fit is known before it runs",
        ),
    }
}

fn build(environment: &Environment) -> Finding {
    let build = &environment.build;
    let found = format!(
        "attn-bench {}, {}, {}, {}",
        build.version, build.profile, build.target, build.toolchain
    );
    if build.profile == "release" {
        Finding::ok("build", found)
    } else {
        Finding::not(
            State::Off,
            "build",
            found,
            "measure with a release build: cargo build --release",
        )
    }
}

fn feature() -> Finding {
    match device::built_for() {
        Some((cuda, Some(capability))) => Finding::ok(
            "cuda",
            format!("compiled in, CUDA {cuda}, compute capability {capability} and newer"),
        ),
        Some((cuda, None)) => Finding::ok("cuda", format!("compiled in, CUDA {cuda}")),
        None => Finding::not(
            State::Off,
            "cuda",
            DeviceError::NotCompiledIn.to_string(),
            "cargo build --release --features cuda",
        ),
    }
}

fn toolkit(nvcc: Option<String>) -> Finding {
    match nvcc {
        Some(release) => Finding::ok("nvcc", release),
        None => Finding::not(
            State::Missing,
            "nvcc",
            "not on the PATH, so that CUDA cannot be compiled in here",
            "install NVIDIA's toolkit, or run scripts/cuda-toolkit.sh",
        ),
    }
}

/// With a stub for a driver its library is there, and is of no use.
fn shared_library(library: &device::Library, found: Option<String>, is_stub: bool) -> Finding {
    let name = format!("lib{}", library.name);
    match found {
        Some(path) if is_stub && library.name == "cuda" => Finding::not(
            State::Missing,
            name,
            format!("a stub: {path}"),
            "install NVIDIA's driver",
        ),
        Some(path) => Finding::ok(name, path),
        None => Finding::not(
            State::Missing,
            name,
            format!("not found, part of the {}", library.part_of),
            match library.part_of {
                "driver" => "install NVIDIA's driver",
                _ => "install NVIDIA's toolkit or run scripts/cuda-toolkit.sh, and put it on LD_LIBRARY_PATH",
            },
        ),
    }
}

fn gpus(cuda: &Result<Cuda, DeviceError>) -> Vec<Finding> {
    match cuda {
        // Said already, as what the build lacks.
        Err(DeviceError::NotCompiledIn) => Vec::new(),
        Err(error) => vec![Finding::not(
            State::Missing,
            "driver",
            error.to_string(),
            error.remedy(),
        )],
        Ok(cuda) => {
            let driver = Finding::ok("driver", format!("knows CUDA up to {}", cuda.driver));
            let gpus = cuda.gpus.iter().enumerate().map(|(ordinal, gpu)| {
                let found = format!(
                    "{}, compute capability {}, {}, L2 cache of {}",
                    gpu.name,
                    gpu.capability,
                    format_bytes(gpu.memory_bytes as f64),
                    format_bytes(gpu.l2_bytes as f64)
                );
                Finding::ok(Resolved::Cuda(ordinal).to_string(), found)
            });
            std::iter::once(driver).chain(gpus).collect()
        }
    }
}

/// What the driver counts of each GPU now: who else computes there, and what lowers its clocks.
#[cfg(feature = "cuda")]
fn counters(cuda: &Result<Cuda, DeviceError>) -> Vec<Finding> {
    use crate::nvml::{Counters, Nvml, Tally};

    let Ok(cuda) = cuda else { return Vec::new() };
    let nvml = match Nvml::open() {
        Ok(nvml) => nvml,
        Err(error) => {
            let remedy =
                "install the whole driver; without it memory, power and clocks of GPUs are not recorded";
            return vec![Finding::not(State::Missing, "nvml", error.to_string(), remedy)];
        }
    };
    let of_gpu = |(ordinal, gpu): (usize, &device::Gpu)| {
        let what = format!("{} now", Resolved::Cuda(ordinal));
        match nvml.read(&gpu.uuid) {
            Err(error) => Finding::not(
                State::Missing,
                what,
                error.to_string(),
                "its memory, power and clocks are not recorded",
            ),
            Ok(reading) => {
                let mut tally = Tally::new(&[]);
                tally.add(0.0, reading);
                now(what, &tally.conditions())
            }
        }
    };
    let version = nvml.driver().unwrap_or_else(|| "unknown".to_string());
    let driver = Finding::ok("nvml", format!("driver {version}"));
    std::iter::once(driver)
        .chain(cuda.gpus.iter().enumerate().map(of_gpu))
        .collect()
}

#[cfg(not(feature = "cuda"))]
fn counters(_: &Result<Cuda, DeviceError>) -> Vec<Finding> {
    Vec::new()
}

#[cfg(feature = "cuda")]
fn now(what: String, gpu: &crate::nvml::GpuConditions) -> Finding {
    let shown = |value: Option<String>| value.unwrap_or_else(|| "?".to_string());
    let found = format!(
        "{} in use, {} W, {} MHz, {} °C",
        shown(gpu.used_bytes_max.map(|bytes| format_bytes(bytes as f64))),
        shown(gpu.power_w_max.map(|watts| format!("{watts:.0}"))),
        shown(gpu.sm_mhz_max.map(|mhz| mhz.to_string())),
        shown(gpu.temperature_c_max.map(|celsius| celsius.to_string()))
    );
    let foreign = gpu.foreign.as_ref().map_or(0, Vec::len);
    let throttle = gpu.throttle.clone().unwrap_or_default();
    let throttle = throttle.into_keys().collect::<Vec<_>>().join(", ");
    match (foreign, throttle.as_str()) {
        (0, "") => Finding::ok(what, found),
        (0, _) => Finding::not(
            State::Off,
            what,
            format!("{found}, clocks lowered: {throttle}"),
            "measure once the clocks are free",
        ),
        (n, _) => Finding::not(
            State::Off,
            what,
            format!("{found}, {n} other processes"),
            "measure while nobody else computes there",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Gpu, Version};

    #[test]
    fn whatever_is_not_ok_has_a_remedy() {
        let report = examine(DeviceRequest::Cpu);
        assert_eq!(report.device, Ok(Resolved::Cpu));
        for finding in &report.findings {
            assert_eq!(
                finding.state == State::Ok,
                finding.remedy.is_none(),
                "{finding:?}"
            );
            assert!(!finding.found.is_empty(), "{finding:?}");
        }
        let names: Vec<&str> = report
            .findings
            .iter()
            .map(|finding| finding.what.as_str())
            .collect();
        for name in ["processor", "memory", "build", "cuda", "nvcc", "libcublas"] {
            assert!(names.contains(&name), "{name} in {names:?}");
        }
    }

    #[test]
    fn gpus_are_listed_under_the_names_that_sweeps_ask_for() {
        let cuda = Ok(Cuda {
            driver: Version { major: 13, minor: 1 },
            gpus: vec![Gpu {
                name: "NVIDIA X".to_string(),
                uuid: "GPU-0".to_string(),
                capability: Version { major: 9, minor: 0 },
                memory_bytes: 80 << 30,
                l2_bytes: 50 << 20,
            }],
        });
        let found: Vec<String> = gpus(&cuda)
            .iter()
            .map(|finding| format!("{}: {}", finding.what, finding.found))
            .collect();
        assert_eq!(
            found,
            [
                "driver: knows CUDA up to 13.1",
                "cuda:0: NVIDIA X, compute capability 9.0, 80.0 GiB, L2 cache of 50.0 MiB"
            ]
        );
        let missing = gpus(&Err(DeviceError::NoDriver));
        assert_eq!((missing.len(), missing[0].state), (1, State::Missing));
        assert!(gpus(&Err(DeviceError::NotCompiledIn)).is_empty());
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn a_gpu_that_is_shared_or_slowed_down_is_off() {
        use crate::nvml::{GpuConditions, Process};

        let idle = GpuConditions {
            used_bytes_max: Some(1 << 30),
            power_w_max: Some(70.4),
            foreign: Some(Vec::new()),
            throttle: Some(Default::default()),
            ..GpuConditions::default()
        };
        let finding = now("cuda:0 now".to_string(), &idle);
        assert_eq!(
            (finding.state, finding.found.as_str()),
            (State::Ok, "1.00 GiB in use, 70 W, ? MHz, ? °C")
        );
        let slow = GpuConditions {
            throttle: Some([("power_cap".to_string(), 1.0)].into()),
            ..idle.clone()
        };
        assert!(now(String::new(), &slow).found.contains("lowered: power_cap"));
        let process = Process {
            pid: 7,
            used_bytes: None,
        };
        let shared = GpuConditions {
            foreign: Some(vec![process]),
            ..idle
        };
        let finding = now(String::new(), &shared);
        assert!(finding.state == State::Off && finding.found.ends_with("1 other processes"));
    }

    #[test]
    fn a_missing_library_names_what_it_is_part_of() {
        let [driver, .., toolkit] = LIBRARIES;
        assert!(
            shared_library(&driver, None, false)
                .remedy
                .unwrap()
                .contains("driver")
        );
        assert!(
            shared_library(&toolkit, None, true)
                .remedy
                .unwrap()
                .contains("cuda-toolkit.sh")
        );
        let stub = shared_library(&driver, Some("/opt/stub/libcuda.so.1".to_string()), true);
        assert_eq!(
            (stub.state, stub.found.as_str()),
            (State::Missing, "a stub: /opt/stub/libcuda.so.1")
        );
        let found = shared_library(&toolkit, Some("/opt/libnvrtc.so.13".to_string()), true);
        assert_eq!(
            (found.state, found.found.as_str()),
            (State::Ok, "/opt/libnvrtc.so.13")
        );
    }
}
