//! Checks of single keys: name, measure, figures, dtypes.

use super::{Setup, axes};
use crate::error::Problem;
use crate::locate::KeyPath;
use crate::sweep::{Axis, ByteCount, Dtype, Sweep, unknown};

/// Each is a process of its own: more would measure starting them.
const MAX_REPLICAS: usize = 1000;
/// Less is a unit forgotten: no layer fits, and no last-level cache is smaller.
const MIN_BYTES: ByteCount = ByteCount(1 << 20);

/// The name becomes part of a folder's.
pub(super) fn check_name(sweep: &Sweep, found: &mut Vec<Problem>) {
    let name = &sweep.file.name;
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.chars().all(allowed) {
        let message = format!(
            "`name` is {name:?}, expected 1 to 64 lower-case letters, digits, `-`, `_` or `.`, no `.` first"
        );
        let problem = Problem::new(message).with_help("the result folder is named after it");
        found.push(sweep.source.point(problem, &KeyPath::of("name"), ""));
    }
}

pub(super) fn check_measure(sweep: &Sweep, found: &mut Vec<Problem>) {
    let measure = &sweep.file.measure;
    let at = KeyPath::of("measure");
    let mut require = |ok: bool, key: &str, got: String, expected: &str| {
        if !ok {
            let problem = Problem::new(format!("`measure.{key}` is {got}, expected {expected}"));
            found.push(sweep.source.point(problem, &at.key(key), ""));
        }
    };
    let positive = |value: f64| value.is_finite() && value > 0.0;
    let (ci, max_s) = (measure.target_ci, measure.max_s);
    require(
        positive(ci) && ci < 1.0,
        "target_ci",
        ci.to_string(),
        "a number between 0 and 1",
    );
    require(
        positive(max_s) && max_s <= 86_400.0,
        "max_s",
        max_s.to_string(),
        "seconds, up to a day",
    );
    require(
        measure.warmup_ms <= 600_000,
        "warmup_ms",
        measure.warmup_ms.to_string(),
        "at most 600000",
    );
    require(
        measure.min_samples >= 1,
        "min_samples",
        "0".to_string(),
        "an integer of at least 1",
    );
    let limit = "an integer from 1 to 1000000";
    let max_samples = measure.max_samples;
    require(
        (1..=1_000_000).contains(&max_samples),
        "max_samples",
        max_samples.to_string(),
        limit,
    );
    let (replicas, cooldown_ms, timeout_s) = (
        measure.replicas.unwrap_or(1),
        measure.cooldown_ms,
        measure.timeout_s,
    );
    require(
        (1..=MAX_REPLICAS).contains(&replicas),
        "replicas",
        replicas.to_string(),
        &format!("an integer from 1 to {MAX_REPLICAS}"),
    );
    require(
        cooldown_ms <= 600_000,
        "cooldown_ms",
        cooldown_ms.to_string(),
        "at most 600000",
    );
    require(
        positive(timeout_s) && timeout_s <= 86_400.0,
        "timeout_s",
        timeout_s.to_string(),
        "seconds, up to a day",
    );
    let energy_s = measure.energy_s;
    require(
        (0.0..=3600.0).contains(&energy_s),
        "energy_s",
        energy_s.to_string(),
        "seconds, up to an hour",
    );
    for (key, bytes) in [
        ("memory_limit", measure.memory_limit),
        ("llc_bytes", measure.llc_bytes),
    ] {
        if let Some(bytes) = bytes {
            let expected = format!("at least {MIN_BYTES}, as bytes or with a unit: 8 GiB");
            require(bytes >= MIN_BYTES, key, bytes.to_string(), &expected);
        }
    }
    if measure.min_samples > max_samples && max_samples > 0 {
        let message = format!(
            "`measure.min_samples` is {} and `measure.max_samples` {max_samples}, expected no more than that",
            measure.min_samples
        );
        let problem = sweep
            .source
            .point(Problem::new(message), &at.key("min_samples"), "");
        found.push(sweep.source.point(problem, &at.key("max_samples"), ""));
    }
}

pub(super) fn check_figures(sweep: &Sweep, setup: &Setup<'_>, found: &mut Vec<Problem>) -> Vec<String> {
    let Some(names) = &sweep.file.figures else {
        return setup.figures.iter().map(ToString::to_string).collect();
    };
    let at = KeyPath::of("figures");
    axes::check_distinct(&sweep.source, &at, names, String::clone, found);
    for (i, name) in names.iter().enumerate() {
        if !setup.figures.contains(&name.as_str()) {
            let problem = unknown("figure", name, setup.figures);
            found.push(sweep.source.point(problem, &at.index(i), ""));
        }
    }
    names.clone()
}

/// The dtypes of the sweep: `dtype` or `grid.dtype`, f32 without both.
pub(super) fn dtypes(sweep: &Sweep, found: &mut Vec<Problem>) -> Axis<Dtype> {
    let (own, grid) = (KeyPath::of("dtype"), KeyPath::of("grid").key("dtype"));
    let (dtypes, at) = match (&sweep.file.dtype, &sweep.file.grid.dtype) {
        (Some(_), Some(_)) => {
            let problem = Problem::new("`dtype` and `grid.dtype` are both given, expected one of them");
            let problem = sweep.source.point(problem, &own, "");
            found.push(sweep.source.point(problem, &grid, ""));
            return Axis::one(Dtype::F32);
        }
        (Some(dtypes), None) => (dtypes.clone(), own),
        (None, Some(dtypes)) => (dtypes.clone(), grid),
        (None, None) => (Axis::one(Dtype::F32), own),
    };
    axes::check(
        &sweep.source,
        &at,
        &dtypes,
        |dtype| dtype.name().to_string(),
        found,
    );
    dtypes
}
