//! The driver's counters, played by a library that the tests compile: no GPU and no driver is needed.
#![cfg(all(feature = "cuda", target_os = "linux"))]
#![allow(clippy::unwrap_used, reason = "helpers of tests, outside of a test function")]

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use attn_harness::nvml::{Counters, GpuConditions, Nvml, NvmlError, Process, Tally, Watch};
use tempfile::TempDir;

const NOT_SUPPORTED: &str = "3";
const NO_PERMISSION: &str = "4";
const DRIVER_NOT_LOADED: &str = "9";

/// A library that plays what `settings` say; see fixtures/nvml.c.
struct StandIn {
    _folder: TempDir,
    library: PathBuf,
}

impl StandIn {
    fn new(settings: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().unwrap();
        let library = folder.path().join("libnvidia-ml.so.1");
        let output = Command::new("cc")
            .args(["-shared", "-fPIC", "-Wall", "-Werror", "-o"])
            .arg(&library)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/nvml.c"))
            .args(settings.iter().map(|(name, value)| format!("-D{name}={value}")))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Self {
            _folder: folder,
            library,
        }
    }

    fn open(&self) -> Result<Nvml, NvmlError> {
        Nvml::open_at(&self.library)
    }

    fn counters(&self) -> Arc<dyn Counters> {
        Arc::new(self.open().unwrap())
    }

    /// The conditions over readings at these seconds.
    fn over(&self, at_s: &[f64]) -> GpuConditions {
        let nvml = self.open().unwrap();
        let mut tally = Tally::new(&[]);
        for &at_s in at_s {
            tally.add(at_s, nvml.read("GPU-0").unwrap());
        }
        tally.conditions()
    }
}

fn reason<'a>(conditions: &'a GpuConditions, entry: &str) -> &'a str {
    conditions.null_reasons.get(entry).map_or("", String::as_str)
}

#[test]
fn counters_are_summed_up_in_their_units() {
    let stand_in = StandIn::new(&[
        ("USED", "5000,9000,7000"),
        ("POWER", "100000,400000,250000"),
        ("ENERGY", "1000000,1400000,2000000"),
        ("SM", "1980,1755,1980"),
        ("MEMORY", "3201,2619"),
        ("TEMPERATURE", "31,64,58"),
        // Idle first; then the power cap, then heat as well.
        ("THROTTLE", "1,4,0x24"),
    ]);
    assert_eq!(stand_in.open().unwrap().driver().as_deref(), Some("580.65.06"));
    let found = stand_in.over(&[10.0, 11.0, 14.0]);
    let expected = GpuConditions {
        window_s: 4.0,
        readings: 3,
        used_bytes_start: Some(5000),
        used_bytes_max: Some(9000),
        ours_bytes_max: None,
        power_w_mean: Some(250.0),
        power_w_max: Some(400.0),
        energy_j: Some(1000.0),
        sm_mhz_min: Some(1755),
        sm_mhz_median: Some(1980.0),
        sm_mhz_max: Some(1980),
        memory_mhz_min: Some(2619),
        memory_mhz_median: Some(2619.0),
        memory_mhz_max: Some(3201),
        temperature_c_max: Some(64),
        throttle: Some(
            [
                ("power_cap".to_string(), 2.0 / 3.0),
                ("thermal".to_string(), 1.0 / 3.0),
            ]
            .into(),
        ),
        foreign: Some(Vec::new()),
        null_reasons: found.null_reasons.clone(),
    };
    assert_eq!(found, expected);
    assert!(found.null_reasons.len() == 1 && reason(&found, "ours_bytes_max").contains("our own worker"));
    let json = serde_json::to_string(&found).unwrap();
    assert_eq!(serde_json::from_str::<GpuConditions>(&json).unwrap(), found);
}

#[test]
fn counters_that_are_missing_or_forbidden_are_null_with_their_reason() {
    let found = StandIn::new(&[
        ("NO_ENERGY", "1"),
        ("POWER_ERROR", NOT_SUPPORTED),
        ("CLOCK_ERROR", NO_PERMISSION),
        ("THROTTLE_ERROR", "999"),
        ("PROCESSES_ERROR", NO_PERMISSION),
    ])
    .over(&[0.0, 3.0]);
    let nulls = [
        (found.energy_j.is_none(), "energy_j", "too old"),
        (
            found.power_w_mean.is_none(),
            "power_w_mean",
            "does not have this counter",
        ),
        (
            found.power_w_max.is_none(),
            "power_w_max",
            "does not have this counter",
        ),
        (
            found.sm_mhz_min.is_none(),
            "sm_mhz_min",
            "does not tell this user",
        ),
        (
            found.sm_mhz_median.is_none(),
            "sm_mhz_median",
            "does not tell this user",
        ),
        (
            found.sm_mhz_max.is_none(),
            "sm_mhz_max",
            "does not tell this user",
        ),
        (
            found.memory_mhz_min.is_none(),
            "memory_mhz_min",
            "does not tell this user",
        ),
        (
            found.memory_mhz_median.is_none(),
            "memory_mhz_median",
            "does not tell this user",
        ),
        (
            found.memory_mhz_max.is_none(),
            "memory_mhz_max",
            "does not tell this user",
        ),
        (
            found.ours_bytes_max.is_none(),
            "ours_bytes_max",
            "does not tell this user",
        ),
        (found.throttle.is_none(), "throttle", "internal driver error"),
        (found.foreign.is_none(), "foreign", "does not tell this user"),
    ];
    for (is_null, entry, words) in nulls {
        assert!(
            is_null && reason(&found, entry).contains(words),
            "{entry}: {found:?}"
        );
    }
    assert_eq!(found.null_reasons.len(), nulls.len());
    // The others are told all the same.
    assert_eq!(
        (found.used_bytes_max, found.temperature_c_max),
        (Some(1000), Some(30))
    );
}

#[test]
fn everything_forbidden_leaves_a_reason_for_every_entry() {
    let found = StandIn::new(&[
        ("USED_ERROR", NO_PERMISSION),
        ("POWER_ERROR", NO_PERMISSION),
        ("ENERGY_ERROR", NO_PERMISSION),
        ("CLOCK_ERROR", NO_PERMISSION),
        ("TEMPERATURE_ERROR", NO_PERMISSION),
        ("THROTTLE_ERROR", NO_PERMISSION),
        ("PROCESSES_ERROR", NO_PERMISSION),
    ])
    .over(&[0.0, 3.0]);
    let json = serde_json::to_value(&found).unwrap();
    for (entry, value) in json.as_object().unwrap() {
        if !["window_s", "readings", "null_reasons"].contains(&entry.as_str()) {
            assert!(value.is_null(), "{entry}");
            assert_eq!(
                reason(&found, entry),
                "not measured: the driver does not tell this user"
            );
        }
    }
}

#[test]
fn energy_needs_a_window_and_a_counter_that_grows() {
    let energy = |values, at_s: &[f64]| {
        let found = StandIn::new(&[("ENERGY", values)]).over(at_s);
        (found.energy_j, reason(&found, "energy_j").to_string())
    };
    assert_eq!(energy("5000,8000", &[0.0, 2.0]), (Some(3.0), String::new()));
    assert_eq!(
        energy("5000,8000", &[0.0, 1.9]),
        (None, "not measured: it takes 2 s at least".to_string())
    );
    assert_eq!(
        energy("5000,100", &[0.0, 3.0]),
        (None, "not measured: the counter began anew".to_string())
    );
}

#[test]
fn processes_of_others_are_told_from_ours() {
    let ours = std::process::id();
    // Process 1 draws and computes; what it holds is the most of both.
    let compute = format!("{{{ours},4096}},{{1,100}}");
    let found = StandIn::new(&[("COMPUTE", &compute), ("GRAPHICS", "{1,300}")]).over(&[0.0, 1.0]);
    let one = Process {
        pid: 1,
        used_bytes: Some(300),
    };
    assert_eq!(found.foreign, Some(vec![one]));
    // Not available, by NVML's own number for it.
    let found = StandIn::new(&[("COMPUTE", "{1,~0ull}")]).over(&[0.0]);
    let one = Process {
        pid: 1,
        used_bytes: None,
    };
    assert_eq!(found.foreign, Some(vec![one]));
}

#[test]
fn a_worker_that_was_named_is_not_foreign() {
    let nvml = StandIn::new(&[("COMPUTE", "{1,100}")]);
    let mut tally = Tally::new(&[1]);
    tally.add(0.0, nvml.open().unwrap().read("GPU-0").unwrap());
    let found = tally.conditions();
    assert_eq!(
        (found.foreign, found.ours_bytes_max),
        (Some(Vec::new()), Some(100))
    );
}

#[test]
fn a_driver_that_does_not_list_our_worker_does_not_tell_who_else_is_there() {
    let nvml = StandIn::new(&[("USED", "1000")]);
    let mut tally = Tally::new(&[1]);
    tally.add(0.0, nvml.open().unwrap().read("GPU-0").unwrap());
    let found = tally.conditions();
    assert_eq!((found.foreign.as_ref(), found.ours_bytes_max), (None, None));
    assert!(
        reason(&found, "foreign").contains("and so maybe no others"),
        "{found:?}"
    );
}

#[test]
fn numbers_of_another_systems_processes_tell_nothing() {
    // More than Linux ever gives out.
    let found = StandIn::new(&[("COMPUTE", "{1,100},{4194999,100}")]).over(&[0.0]);
    assert_eq!(found.foreign, None);
    assert!(reason(&found, "foreign").contains("another system"), "{found:?}");
}

#[test]
fn a_watch_reads_in_the_background_until_it_is_finished() {
    let stand_in = StandIn::new(&[("USED", "100,200,900,300"), ("TEMPERATURE", "40,50,60")]);
    let nvml = stand_in.counters();
    let watch = Watch::start(&nvml, "GPU-0", &[], Duration::from_millis(5)).unwrap();
    // Long enough for the script to have been played, on a busy machine too.
    std::thread::sleep(Duration::from_millis(500));
    let found = watch.finish();
    assert!(found.readings >= 4 && found.window_s >= 0.5, "{found:?}");
    assert_eq!(
        (found.used_bytes_start, found.used_bytes_max),
        (Some(100), Some(900))
    );
    assert_eq!(found.temperature_c_max, Some(60));
    // Half a second is too short for the counter of energy.
    assert!(reason(&found, "energy_j").contains("2 s"), "{found:?}");
}

#[test]
fn a_watch_that_is_finished_at_once_has_two_readings() {
    let stand_in = StandIn::new(&[("USED", "100,200")]);
    let nvml = stand_in.counters();
    let found = Watch::start(&nvml, "GPU-0", &[], Duration::from_secs(3600))
        .unwrap()
        .finish();
    assert_eq!((found.readings, found.used_bytes_max), (2, Some(200)));
}

#[test]
fn an_unknown_gpu_and_a_missing_driver_are_told_apart() {
    let nvml = StandIn::new(&[]);
    let open = nvml.counters();
    let unknown = Watch::start(&open, "GPU-7", &[], Duration::from_secs(1)).unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "the driver does not know a GPU GPU-7, or hides it"
    );
    let unloaded = StandIn::new(&[("INIT_ERROR", DRIVER_NOT_LOADED)])
        .open()
        .unwrap_err();
    assert_eq!(unloaded, NvmlError::NoDriver);
    let refused = StandIn::new(&[("INIT_ERROR", "18")]).open().unwrap_err();
    assert!(
        refused.to_string().contains("NVML does not start: RM detects"),
        "{refused}"
    );
    let absent = Nvml::open_at(&std::env::temp_dir().join("no-such-libnvidia-ml.so")).unwrap_err();
    assert!(matches!(absent, NvmlError::NoLibrary { .. }), "{absent:?}");
    assert!(
        absent.to_string().contains("comes with NVIDIA's driver"),
        "{absent}"
    );
}
