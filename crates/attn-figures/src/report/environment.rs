//! Where runs ran and what ran them, beside each other.

use crate::units::Unit;
use serde::Serialize;
use serde_json::Value;

use super::ReportRun;
use super::cells::{Cells, number};

/// One fact, of every run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Fact {
    pub(super) name: String,
    pub(super) values: Vec<String>,
    /// Whether the runs differ in it.
    pub(super) differs: bool,
}

/// Facts that change from run to run without anything having changed.
const INCIDENTAL: [&str; 4] = ["memory_available_bytes", "load", "commands", "sessions"];

/// The facts of all runs, in the order in which they first appear.
pub(super) fn of(runs: &[ReportRun], cells: &[Cells]) -> Vec<Fact> {
    let each: Vec<Vec<(String, String)>> = (runs.iter().zip(cells))
        .map(|(run, cells)| facts(&run.environment, cells))
        .collect();
    let mut names: Vec<&String> = Vec::new();
    for (name, _) in each.iter().flatten() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let fact = |name: &String| {
        let value = |facts: &Vec<(String, String)>| {
            let own = facts.iter().find(|(known, _)| known == name);
            own.map_or_else(|| "-".to_owned(), |(_, value)| value.clone())
        };
        let values: Vec<String> = each.iter().map(value).collect();
        Fact {
            differs: values.iter().any(|value| *value != values[0]),
            name: name.clone(),
            values,
        }
    };
    names.into_iter().map(fact).collect()
}

fn facts(environment: &Value, cells: &Cells) -> Vec<(String, String)> {
    let mut all = Vec::new();
    if let Some(entries) = environment.as_object() {
        for (key, value) in entries
            .iter()
            .filter(|(key, _)| !INCIDENTAL.contains(&key.as_str()))
        {
            flatten(key, value, &mut all);
        }
    }
    // What the last session measured of the machine.
    let session = environment
        .get("sessions")
        .and_then(Value::as_array)
        .and_then(|all| all.last());
    if let Some(ceilings) = session.and_then(|session| session.get("ceilings")) {
        flatten("ceilings", ceilings, &mut all);
    }
    for (column, name) in [
        ("cpu_mhz_start", "processor clock before cases (MHz)"),
        ("clock_ratio", "speed of a fixed chain over the fastest seen"),
        ("other_cpu_fraction", "part of the processors others took"),
        (
            "stolen_cpu_fraction",
            "part of the processors the hypervisor took",
        ),
        ("gpu_sm_mhz_median", "GPU clock (MHz)"),
        ("gpu_temperature_c", "GPU temperature (°C)"),
        ("cpu_temperature_c", "processor temperature (°C)"),
    ] {
        if let Some((low, high)) = cells.range(column) {
            let three = |value: f64| Unit::Score.format(value, 3, true);
            let text = if low == high {
                three(low)
            } else {
                format!("{} to {}", three(low), three(high))
            };
            all.push((format!("during the cases: {name}"), text));
        }
    }
    all
}

fn flatten(name: &str, value: &Value, all: &mut Vec<(String, String)>) {
    match value {
        Value::Null => {}
        Value::Object(entries) => {
            for (key, value) in entries {
                flatten(&format!("{name}.{key}"), value, all);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            let lines: Vec<String> = items.iter().map(in_a_line).collect();
            all.push((name.to_owned(), lines.join("; ")));
        }
        Value::Array(items) => {
            let words: Vec<String> = items.iter().map(|item| scalar(name, item)).collect();
            if !words.is_empty() {
                all.push((name.to_owned(), words.join(", ")));
            }
        }
        scalar_value => all.push((name.to_owned(), scalar(name, scalar_value))),
    }
}

/// `level 1, 48 KiB`: the entries of an object that is one of many.
fn in_a_line(item: &Value) -> String {
    let mut entries = Vec::new();
    flatten("", item, &mut entries);
    let told = entries.into_iter().map(|(key, value)| {
        let key = key.trim_start_matches('.');
        if key == "bytes" {
            value
        } else {
            format!("{} {value}", key.replace('_', " "))
        }
    });
    told.collect::<Vec<_>>().join(", ")
}

fn scalar(name: &str, value: &Value) -> String {
    let key = name.rsplit('.').next().unwrap_or(name);
    let key = if key == "bytes" { "cache_bytes" } else { key };
    // A rate by element type has its unit in the name above.
    let key = if name.contains("flops_per_s") {
        "flops_per_s"
    } else {
        key
    };
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(flag) => if *flag { "yes" } else { "no" }.to_owned(),
        Value::Number(n) => n
            .as_f64()
            .map_or_else(|| n.to_string(), |value| number(key, value)),
        other => other.to_string(),
    }
}

/// The commit a run was built from, and whether the sources differed from it.
pub(super) fn commit(environment: &Value) -> Option<(String, bool)> {
    let build = environment.get("build")?;
    let commit = build.get("commit")?.as_str()?.to_owned();
    let is_dirty = build.get("dirty").and_then(Value::as_bool).unwrap_or(false);
    Some((commit, is_dirty))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_flat_and_have_their_units() {
        let value = serde_json::json!({
            "cpu": {"model": "X", "caches": [{"level": 1, "bytes": 49152}], "features": ["a", "b"]},
            "ceilings": {"flops_per_s": {"f32": 5e10}}, "virtualised": true, "gone": null
        });
        let mut all = Vec::new();
        for (key, value) in value.as_object().unwrap() {
            flatten(key, value, &mut all);
        }
        let told: Vec<String> = all
            .iter()
            .map(|(k, v)| format!("{k}={}", v.replace('\u{a0}', " ")))
            .collect();
        assert_eq!(
            told,
            [
                "cpu.model=X",
                "cpu.caches=level 1, 48 KiB",
                "cpu.features=a, b",
                "ceilings.flops_per_s.f32=50 GFLOP/s",
                "virtualised=yes"
            ]
        );
    }
}
