//! Workloads of a sweep to points: which sizes each has, and every combination of them.

use std::collections::HashMap;

use attn_core::{ParamValue, Workload};

use super::axes::{self, Repeats};
use super::quality::QUALITY;
use super::spec::{SizeSpec, WORKLOADS, WorkloadSpec, describe, spec};
use super::variants::VariantPoint;
use crate::error::Problem;
use crate::locate::KeyPath;
use crate::sweep::{Axis, Grid, Scalar, Source, Sweep, unknown};

/// Longer samples would measure the stop rule: no sensible set of strides comes near.
const MAX_STEPS_PER_SAMPLE: usize = 65_536;

/// Sizes that `grid` can give.
pub(super) const GRID_SIZES: [&str; 5] = ["batch", "context", "tokens", "new_tokens", "beam"];

pub(super) fn grid_axis<'a>(grid: &'a Grid, name: &str) -> Option<&'a Axis<Scalar>> {
    match name {
        "batch" => grid.batch.as_ref(),
        "context" => grid.context.as_ref(),
        "tokens" => grid.tokens.as_ref(),
        "new_tokens" => grid.new_tokens.as_ref(),
        "beam" => grid.beam.as_ref(),
        _ => None,
    }
}

/// A workload at one point, with the place that gave it.
pub(super) struct WorkloadPoint {
    pub(super) workload: Workload,
    pub(super) at: KeyPath,
}

/// Every point of `workloads` times `grid`, then the scenarios that are not among them, and how many are.
pub(super) fn expand(sweep: &Sweep, found: &mut Vec<Problem>) -> (Vec<WorkloadPoint>, usize) {
    let (file, source) = (&sweep.file, &sweep.source);
    if file.workloads.is_empty() && file.scenarios.is_empty() {
        let problem = Problem::new("there is nothing to run: `workloads` and `scenarios` are both empty")
            .with_help("add one, for example workloads: [decode: {context: [512, 2048]}]");
        found.push(source.point(problem, &KeyPath::of("workloads"), ""));
    }
    let mut points = Vec::new();
    let timed = file.workloads.iter().enumerate();
    for (i, entry) in timed.filter(|(_, entry)| entry.name != QUALITY) {
        let at = KeyPath::of("workloads").index(i).key(&entry.name);
        let Some(spec) = known(source, &entry.name, &at, found) else {
            continue;
        };
        unknown_sizes(source, spec, entry.settings.keys(), &at, found);
        let axes: Vec<_> = spec
            .sizes
            .iter()
            .map(|size| axis(sweep, size, i, &at, found))
            .collect();
        push(&axes, spec, &at, &mut points);
    }
    check_grid(sweep, found);
    for (i, scenario) in file.scenarios.iter().enumerate() {
        let at = KeyPath::of("scenarios").index(i);
        let Some(Scalar(ParamValue::Text(name))) = scenario.0.get("workload") else {
            let problem = Problem::new(format!(
                "`{at}.workload` is missing or no name, expected a workload"
            ))
            .with_help("for example - {workload: decode, context: 8192, batch: 16}");
            found.push(source.point(problem, &at.key("workload"), ""));
            continue;
        };
        let Some(spec) = known(source, name, &at.key("workload"), found) else {
            continue;
        };
        unknown_sizes(
            source,
            spec,
            scenario.0.keys().filter(|key| *key != "workload"),
            &at,
            found,
        );
        let axes: Vec<_> = (spec.sizes.iter())
            .map(|size| match scenario.0.get(size.name) {
                Some(value) => size_of(source, size, value, &at.key(size.name), found)
                    .into_iter()
                    .collect(),
                None => default(source, size, &at, found).into_iter().collect(),
            })
            .collect();
        push(&axes, spec, &at, &mut points);
    }
    let removed = remove_repeats(source, &mut points, found);
    (points, removed)
}

fn known(
    source: &Source,
    name: &str,
    at: &KeyPath,
    found: &mut Vec<Problem>,
) -> Option<&'static WorkloadSpec> {
    let spec = spec(name);
    if spec.is_none() {
        let mut names = WORKLOADS.map(|spec| spec.name).to_vec();
        // A scenario has sizes alone.
        if !at.starts_with(&KeyPath::of("scenarios")) {
            names.push(QUALITY);
        }
        found.push(source.point(unknown("workload", name, &names), at, ""));
    }
    spec
}

fn unknown_sizes<'a>(
    source: &Source,
    spec: &WorkloadSpec,
    given: impl Iterator<Item = &'a String>,
    at: &KeyPath,
    found: &mut Vec<Problem>,
) {
    for name in given.filter(|name| spec.size(name).is_none()) {
        let problem = unknown(&format!("size of {}:", spec.name), name, &spec.names());
        found.push(source.point(problem, &at.key(name), ""));
    }
}

/// The values of one size of workload `i`: its own, the grid's, or the default.
fn axis(sweep: &Sweep, size: &SizeSpec, i: usize, at: &KeyPath, found: &mut Vec<Problem>) -> Vec<usize> {
    let source = &sweep.source;
    let (own_at, grid_at) = (at.key(size.name), KeyPath::of("grid").key(size.name));
    let own = sweep.file.workloads[i].settings.get(size.name);
    let (axis, at) = match (own, grid_axis(&sweep.file.grid, size.name)) {
        (Some(_), Some(_)) => {
            let message = format!("`{own_at}` and `{grid_at}` are both given, expected one of them");
            let help = format!("the grid multiplies every workload with a size `{}`", size.name);
            let problem = source.point(Problem::new(message).with_help(help), &own_at, "");
            found.push(source.point(problem, &grid_at, ""));
            return Vec::new();
        }
        (Some(axis), None) => (axis, own_at),
        (None, Some(axis)) => (axis, grid_at),
        (None, None) => return default(source, size, at, found).into_iter().collect(),
    };
    let before = found.len();
    let values = values(source, size, axis, &at, found);
    // The grid's axes are read once for each workload: what is wrong with them is said once.
    let news = found.split_off(before);
    for problem in news {
        if !found.contains(&problem) {
            found.push(problem);
        }
    }
    values
}

/// The values of an axis of a size, those that are in its range.
pub(super) fn values(
    source: &Source,
    size: &SizeSpec,
    axis: &Axis<Scalar>,
    at: &KeyPath,
    found: &mut Vec<Problem>,
) -> Vec<usize> {
    axes::check(source, at, axis, |Scalar(value)| value.to_string(), found);
    let values = axis.values.iter().enumerate().filter_map(|(n, value)| {
        let place = if axis.is_list { at.index(n) } else { at.clone() };
        size_of(source, size, value, &place, found)
    });
    values.collect()
}

fn default(source: &Source, size: &SizeSpec, at: &KeyPath, found: &mut Vec<Problem>) -> Option<usize> {
    if size.default.is_none() {
        let message = format!("`{at}.{}` is missing: {}", size.name, size.help);
        let problem = Problem::new(message).with_help(format!("add it, for example {}: 512", size.name));
        found.push(source.point(problem, at, "here"));
    }
    size.default.map(|value| value as usize)
}

fn size_of(
    source: &Source,
    size: &SizeSpec,
    Scalar(value): &Scalar,
    at: &KeyPath,
    found: &mut Vec<Problem>,
) -> Option<usize> {
    match value {
        ParamValue::Int(value) if (1..=size.max).contains(value) => Some(*value as usize),
        other => {
            let message = format!("`{at}` is {other}, expected an integer from 1 to {}", size.max);
            found.push(source.point(Problem::new(message), at, ""));
            None
        }
    }
}

fn push(axes: &[Vec<usize>], spec: &WorkloadSpec, at: &KeyPath, points: &mut Vec<WorkloadPoint>) {
    let sizes = axes::product(axes);
    let workloads = sizes.iter().filter_map(|sizes| spec.build(sizes));
    points.extend(workloads.map(|workload| WorkloadPoint {
        workload,
        at: at.clone(),
    }));
}

/// An axis of the grid that no workload has would silently do nothing.
fn check_grid(sweep: &Sweep, found: &mut Vec<Problem>) {
    for name in GRID_SIZES {
        let used = |workload: &str| spec(workload).is_none_or(|spec| spec.size(name).is_some());
        if grid_axis(&sweep.file.grid, name).is_some()
            && !sweep
                .file
                .workloads
                .iter()
                .any(|entry| entry.name != QUALITY && used(&entry.name))
        {
            let at = KeyPath::of("grid").key(name);
            let problem = Problem::new(format!("no workload of this sweep has the size `{at}`"))
                .with_help("the grid multiplies `workloads`; scenarios give their own sizes");
            found.push(sweep.source.point(problem, &at, ""));
        }
    }
}

/// Removes scenarios that are points of the grid too, and counts them. Whatever else gives a point twice is a slip.
fn remove_repeats(source: &Source, points: &mut Vec<WorkloadPoint>, found: &mut Vec<Problem>) -> usize {
    let mut first: HashMap<Workload, KeyPath> = HashMap::new();
    let mut repeats = Repeats::new();
    let is_scenario = |at: &KeyPath| at.starts_with(&KeyPath::of("scenarios"));
    let before = points.len();
    points.retain(|point| match first.get(&point.workload) {
        // A value listed twice in one axis has been reported with its two places.
        Some(earlier) if *earlier == point.at => true,
        Some(earlier) if is_scenario(&point.at) && !is_scenario(earlier) => false,
        Some(earlier) => {
            repeats.note(earlier, &point.at, &describe(&point.workload));
            true
        }
        None => {
            first.insert(point.workload, point.at.clone());
            true
        }
    });
    repeats.report(source, found);
    before - points.len()
}

/// Steps of a decode sample: the least common multiple of all strides.
pub(super) fn steps_per_sample(
    source: &Source,
    workloads: &[WorkloadPoint],
    variants: &[VariantPoint],
    found: &mut Vec<Problem>,
) -> usize {
    let mut steps = 1_usize;
    for point in variants {
        let stride = point.geometry.stride.max(1);
        let multiple = (steps / gcd(steps, stride)).saturating_mul(stride);
        let decodes = workloads
            .iter()
            .any(|point| matches!(point.workload, Workload::Decode { .. }));
        if multiple > MAX_STEPS_PER_SAMPLE && decodes {
            let message = format!(
                "the strides have the least common multiple {multiple}, expected at most \
                 {MAX_STEPS_PER_SAMPLE}: a decode sample is that many steps"
            );
            let help = "split the strides over several sweeps";
            let at = point.at.key("stride");
            found.push(source.point(Problem::new(message).with_help(help), &at, ""));
            return 1;
        }
        steps = multiple;
    }
    steps
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
