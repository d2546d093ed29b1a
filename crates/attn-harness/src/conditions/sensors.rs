//! Temperature and throttling of the processor, where /sys tells.

use std::fs;
use std::path::{Path, PathBuf};

/// Drivers whose sensors are the processor's. Others are those of disks, radios and power supplies.
const DRIVERS: [&str; 8] = [
    "coretemp",
    "k10temp",
    "zenpower",
    "cpu_thermal",
    "cpu-thermal",
    "x86_pkg_temp",
    "soc_thermal",
    "acpitz",
];

/// Temperature of the processor's hottest sensor, in degrees Celsius; `None` where there is none.
pub(super) fn temperature_c() -> Option<f64> {
    hottest_c(Path::new("/sys/class"))
}

/// Times that the cores and packages throttled themselves since the system began; `None` where they do not
/// count. Threads of a core and cores of a package count the same events once each: only a difference of zero
/// has a meaning of its own.
pub(super) fn throttle_events() -> Option<u64> {
    throttle_counts(Path::new("/sys/devices/system/cpu"))
}

fn hottest_c(class: &Path) -> Option<f64> {
    let zones = entries(&class.join("thermal"))
        .filter(|zone| is_processor(&zone.join("type")))
        .map(|zone| zone.join("temp"));
    let chips = entries(&class.join("hwmon"))
        .filter(|chip| is_processor(&chip.join("name")))
        .flat_map(|chip| entries(&chip))
        .filter(|file| name(file).starts_with("temp") && name(file).ends_with("_input"));
    // In thousandths of a degree.
    zones
        .chain(chips)
        .filter_map(|file| Some(fs::read_to_string(file).ok()?.trim().parse::<f64>().ok()? / 1e3))
        .reduce(f64::max)
}

fn throttle_counts(cpus: &Path) -> Option<u64> {
    entries(cpus)
        .flat_map(|cpu| entries(&cpu.join("thermal_throttle")))
        .filter(|file| name(file).ends_with("_throttle_count"))
        .filter_map(|file| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok())
        .reduce(|sum, count| sum + count)
}

fn is_processor(file: &Path) -> bool {
    fs::read_to_string(file).is_ok_and(|driver| DRIVERS.contains(&driver.trim()))
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
}

fn name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn the_hottest_sensor_of_the_processor_counts_and_no_other() {
        let class = tempfile::tempdir().unwrap();
        assert_eq!(hottest_c(class.path()), None);
        write(class.path(), "hwmon/hwmon0/name", "nvme\n");
        write(class.path(), "hwmon/hwmon0/temp1_input", "91850\n");
        assert_eq!(hottest_c(class.path()), None, "a disk");
        write(class.path(), "hwmon/hwmon1/name", "coretemp\n");
        write(class.path(), "hwmon/hwmon1/temp1_input", "54000\n");
        write(class.path(), "hwmon/hwmon1/temp2_input", "61500\n");
        write(class.path(), "hwmon/hwmon1/temp2_crit", "100000\n");
        assert_eq!(hottest_c(class.path()), Some(61.5));
        write(class.path(), "thermal/thermal_zone0/type", "x86_pkg_temp\n");
        write(class.path(), "thermal/thermal_zone0/temp", "70000\n");
        assert_eq!(hottest_c(class.path()), Some(70.0));
    }

    #[test]
    fn throttling_is_the_sum_of_the_counters() {
        let cpus = tempfile::tempdir().unwrap();
        assert_eq!(throttle_counts(cpus.path()), None);
        for (cpu, core, package) in [("cpu0", "3", "5"), ("cpu1", "0", "5")] {
            write(
                cpus.path(),
                &format!("{cpu}/thermal_throttle/core_throttle_count"),
                core,
            );
            write(
                cpus.path(),
                &format!("{cpu}/thermal_throttle/package_throttle_count"),
                package,
            );
            write(
                cpus.path(),
                &format!("{cpu}/thermal_throttle/core_throttle_total_time_ms"),
                "900",
            );
        }
        assert_eq!(throttle_counts(cpus.path()), Some(13));
    }
}
