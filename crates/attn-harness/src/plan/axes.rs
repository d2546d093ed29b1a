//! Lists of values: not empty, nothing twice, and not too many once they are multiplied.

use std::collections::HashMap;

use super::MAX_CASES;
use crate::error::Problem;
use crate::locate::KeyPath;
use crate::sweep::{Axis, Entry, Source, Sweep};

/// Checks that an axis has values, each once.
pub(super) fn check<T>(
    source: &Source,
    at: &KeyPath,
    axis: &Axis<T>,
    show: impl Fn(&T) -> String,
    found: &mut Vec<Problem>,
) {
    if axis.values.is_empty() {
        let problem = Problem::new(format!("`{at}` is an empty list, expected at least one value"))
            .with_help("a list multiplies the cases by its length: give it a value or remove it");
        found.push(source.point(problem, at, ""));
    }
    check_distinct(source, at, &axis.values, show, found);
}

/// Checks that nothing is listed twice.
pub(super) fn check_distinct<T>(
    source: &Source,
    at: &KeyPath,
    values: &[T],
    show: impl Fn(&T) -> String,
    found: &mut Vec<Problem>,
) {
    let mut first = HashMap::new();
    for (i, value) in values.iter().enumerate() {
        let shown = show(value);
        if let Some(&earlier) = first.get(&shown) {
            let problem = Problem::new(format!("`{at}` lists {shown} twice"))
                .with_help("the same case would be measured twice: remove one of them");
            let problem = source.point(problem, &at.index(earlier), "first here");
            found.push(source.point(problem, &at.index(i), "and again here"));
        } else {
            first.insert(shown, i);
        }
    }
}

/// Refuses a sweep of more than [`MAX_CASES`] cases before anything is expanded.
pub(super) fn check_count(sweep: &Sweep, n_dtypes: usize, found: &mut Vec<Problem>) {
    let file = &sweep.file;
    let product = |entry: &Entry, shared: &dyn Fn(&str) -> usize| {
        let own = entry.settings.values().map(|axis| axis.values.len().max(1));
        let grid = super::workloads::GRID_SIZES.iter();
        let grid = grid
            .filter(|name| !entry.settings.contains_key(**name))
            .map(|name| shared(name));
        own.chain(grid)
            .fold(1_u128, |count, n| count.saturating_mul(n as u128))
    };
    let variants: u128 = file
        .variants
        .iter()
        .map(|entry| product(entry, &|_| 1))
        .fold(0, u128::saturating_add);
    let in_grid = |workload: &str, name: &str| {
        let takes = super::spec::spec(workload).is_some_and(|spec| spec.size(name).is_some());
        let axis = super::workloads::grid_axis(&file.grid, name).filter(|_| takes);
        axis.map_or(1, |axis| axis.values.len().max(1))
    };
    let rates = |entry: &Entry| {
        if entry.name == super::quality::QUALITY {
            file.training.lr.values.len().max(1) as u128
        } else {
            1
        }
    };
    let workloads = file
        .workloads
        .iter()
        .map(|entry| product(entry, &|name| in_grid(&entry.name, name)).saturating_mul(rates(entry)));
    let workloads = workloads.fold(file.scenarios.len() as u128, u128::saturating_add);
    // Sets of habits multiply path seedlike alone, and prefixes path fused: more than both is none of them.
    let sets = file.habits.iter().flat_map(|axis| &axis.values);
    let sets: usize = sets.map(|choice| choice.sets().len()).sum();
    let prefixes = file.prefixes.as_ref().map_or(1, |axis| axis.values.len());
    let rest = file.paths.values.len().max(1)
        * file.scopes.values.len().max(1)
        * n_dtypes.max(1)
        * file.regimes.values.len().max(1)
        * file.launches.values.len().max(1)
        * sets.max(prefixes).max(1);
    let cases = variants
        .max(1)
        .saturating_mul(workloads.max(1))
        .saturating_mul(rest as u128);
    if cases > MAX_CASES {
        let problem = Problem::new(format!(
            "this sweep has {cases} cases ({variants} variants, {workloads} workload points, {rest} \
             combinations of scope, path, dtype, regime, launch, habits and prefix), expected at most {MAX_CASES}"
        ))
        .with_help("lists multiply: shorten some, or choose points with `scenarios`");
        let problem = sweep.source.point(problem, &KeyPath::of("variants"), "");
        found.push(sweep.source.point(problem, &KeyPath::of("workloads"), ""));
    }
}

/// Every combination of the axes, the first one outermost.
pub(super) fn product<T: Clone>(axes: &[Vec<T>]) -> Vec<Vec<T>> {
    axes.iter().fold(vec![Vec::new()], |points, axis| {
        let extend = |point: &Vec<T>| {
            let point = point.clone();
            axis.iter()
                .map(move |value| point.iter().chain([value]).cloned().collect::<Vec<T>>())
        };
        points.iter().flat_map(extend).collect()
    })
}

/// Points that two places give, with both places and how many.
pub(super) struct Repeats {
    places: Vec<(KeyPath, KeyPath, String, usize)>,
}

impl Repeats {
    pub(super) fn new() -> Self {
        Self { places: Vec::new() }
    }

    /// Notes that `second` gives the point that `first` gave.
    pub(super) fn note(&mut self, first: &KeyPath, second: &KeyPath, point: &str) {
        // Points come in order of their places: the pair is the last one noted, if it was.
        match self
            .places
            .iter_mut()
            .rev()
            .take(16)
            .find(|(a, b, ..)| a == first && b == second)
        {
            Some((_, _, _, n)) => *n += 1,
            None => self
                .places
                .push((first.clone(), second.clone(), point.to_string(), 1)),
        }
    }

    pub(super) fn report(self, source: &Source, found: &mut Vec<Problem>) {
        for (first, second, point, n) in self.places {
            let more = if n > 1 {
                format!(" and {} more points", n - 1)
            } else {
                String::new()
            };
            let problem = Problem::new(format!("`{first}` and `{second}` both give {point}{more}"))
                .with_help("the same case would be measured twice: remove it from one of them");
            let problem = source.point(problem, &first, "first here");
            found.push(source.point(problem, &second, "and again here"));
        }
    }
}
