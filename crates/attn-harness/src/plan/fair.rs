//! Fairness modes: the free value of every variant, solved so that a quantity equals the reference's.
//!
//! What is free is the variant's to say ([`attn_core::Free`]); what a sweep gives is never changed. The quantity does
//! not fall as the free value grows, so the two values around the target are found by halving, and the nearer is
//! taken: values are integers, and what is left is the case's mismatch. Variants are solved for each workload anew,
//! since cache and operations depend on it.

mod value;

use std::collections::HashMap;
use std::rc::Rc;

use attn_core::{Geometry, Scope, Variant, Workload};
use serde::Serialize;

use super::predict::countable;
use super::variants::VariantPoint;
use super::workloads::WorkloadPoint;
use crate::error::Problem;
use crate::locate::KeyPath;
use crate::sweep::{Entry, Hold, Source, Sweep, unknown};
use crate::units::format_count;
use value::{geometry_with, nearest_value, range, with_value};

/// A mismatch beyond this is no match: no value of what is free comes near.
const MAX_MISMATCH: f64 = 0.5;

/// What a case has in common with the other variants of its sweep.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fair {
    /// The quantity held equal.
    pub hold: Hold,
    /// Label of the variant that was matched.
    pub reference: String,
    /// How much more the case has of it than the reference, as a fraction: 0.01 is 1 % more.
    pub mismatch: f64,
}

/// Name of the setting or size that `hold` solves for; `None` where nothing is solved.
fn free_name(variant: &Variant, hold: Hold) -> Option<&'static str> {
    match hold {
        Hold::Width => None,
        Hold::Params => Some(variant.free.params),
        Hold::KvBytes => Some(variant.free.kv_bytes),
        Hold::Flops => Some(variant.free.flops),
    }
}

/// The setting of entry `i` that is solved for, if it is a setting and the entry is not the reference's.
pub(super) fn free_setting(sweep: &Sweep, i: usize, variant: &Variant) -> Option<&'static str> {
    let rule = sweep.file.fair.as_ref()?;
    let name = free_name(variant, rule.hold)?;
    (variant.param(name).is_ok() && reference_entry(sweep) != Some(i)).then_some(name)
}

/// Where the reference is among the variants of the sweep.
fn reference_entry(sweep: &Sweep) -> Option<usize> {
    let entries = &sweep.file.variants;
    match &sweep.file.fair.as_ref()?.reference {
        Some(key) => entries.iter().position(|entry| entry.name == *key),
        None => (!entries.is_empty()).then_some(0),
    }
}

/// Checks that the reference is there, and that nothing that is to be solved for is given.
pub(super) fn check(sweep: &Sweep, known: &[&'static Variant], found: &mut Vec<Problem>) {
    let Some(rule) = &sweep.file.fair else { return };
    let at = KeyPath::of("fair");
    if let (Some(key), None) = (&rule.reference, reference_entry(sweep)) {
        let names: Vec<&str> = sweep.file.variants.iter().map(|e| e.name.as_str()).collect();
        let problem = unknown("reference:", key, &names);
        found.push(sweep.source.point(problem, &at.key("reference"), ""));
    }
    for (i, entry) in sweep.file.variants.iter().enumerate() {
        let variant = known.iter().find(|variant| variant.key == entry.name);
        if let Some(name) = variant.and_then(|variant| free_name(variant, rule.hold)) {
            let is_reference = reference_entry(sweep) == Some(i);
            check_not_given(sweep, i, entry, name, is_reference, found);
        }
    }
}

fn check_not_given(
    sweep: &Sweep,
    i: usize,
    entry: &Entry,
    name: &str,
    is_reference: bool,
    found: &mut Vec<Problem>,
) {
    let Some(axis) = entry.settings.get(name) else {
        return;
    };
    // The reference is what it is; of several values only one could be.
    if is_reference && axis.values.len() < 2 {
        return;
    }
    let at = KeyPath::of("variants").index(i).key(&entry.name).key(name);
    let hold = sweep.file.fair.as_ref().map_or(Hold::Width, |rule| rule.hold);
    let message = format!("`{at}` is given, and `fair: {hold}` solves for it");
    let help = "remove it, or hold something else equal; `attn-bench list variants` says what is solved for";
    let problem = sweep
        .source
        .point(Problem::new(message).with_help(help), &at, name);
    found.push(sweep.source.point(problem, &KeyPath::of("fair"), "fair"));
}

/// The variants of a sweep, each matched to the reference at a workload.
pub(super) struct Matched<'a> {
    source: &'a Source,
    points: &'a [VariantPoint],
    /// What to hold, and which point is the reference.
    rule: Option<(Hold, usize)>,
    /// What each point may be, by its free value.
    tried: Vec<HashMap<u64, Option<Geometry>>>,
    /// What was solved before, by all that it depends on.
    solved: HashMap<Option<Workload>, Rc<[VariantPoint]>>,
    /// Points that were left out because another one had become the same.
    pub(super) n_equal: usize,
}

impl<'a> Matched<'a> {
    pub(super) fn new(sweep: &'a Sweep, points: &'a [VariantPoint]) -> Self {
        let reference = reference_entry(sweep).and_then(|i| {
            let at = KeyPath::of("variants").index(i);
            points.iter().position(|point| point.at.starts_with(&at))
        });
        Self {
            source: &sweep.source,
            points,
            rule: sweep.file.fair.as_ref().map(|rule| rule.hold).zip(reference),
            tried: points.iter().map(|_| HashMap::new()).collect(),
            solved: HashMap::new(),
            n_equal: 0,
        }
    }

    /// The variants at `workload`, as its group has them.
    pub(super) fn at(&mut self, workload: &WorkloadPoint, found: &mut Vec<Problem>) -> Rc<[VariantPoint]> {
        let key = self
            .rule
            .and_then(|(hold, _)| depends_on(hold, workload.workload));
        if let Some(points) = self.solved.get(&key) {
            return points.clone();
        }
        let points: Rc<[VariantPoint]> = match self.rule {
            None => self.points.to_vec().into(),
            Some((hold, reference)) => self.solve(hold, reference, &workload.workload, found).into(),
        };
        self.solved.insert(key, points.clone());
        points
    }

    fn solve(
        &mut self,
        hold: Hold,
        reference: usize,
        workload: &Workload,
        found: &mut Vec<Problem>,
    ) -> Vec<VariantPoint> {
        let target = quantity(&self.points[reference].geometry, hold, workload);
        let label = self.points[reference].label.clone();
        let mut solved: Vec<VariantPoint> = Vec::with_capacity(self.points.len());
        for i in 0..self.points.len() {
            let free = free_name(self.points[i].variant, hold).filter(|_| i != reference);
            let mut point = match free {
                None => self.points[i].clone(),
                Some(name) => match self.nearest(i, name, hold, workload, target) {
                    Ok(point) => point,
                    Err(words) => {
                        let at = &self.points[i].at;
                        let problem = Problem::new(format!("`{at}` cannot be matched: {words}")).with_help(
                            "hold something else equal, take another reference, or leave the variant out",
                        );
                        let problem = self.source.point(problem, at, "");
                        let problem = self.source.point(problem, &KeyPath::of("fair"), "fair");
                        // Said once, not at every workload.
                        if found.iter().all(|known| known.labels != problem.labels) {
                            found.push(problem);
                        }
                        continue;
                    }
                },
            };
            let mismatch = match hold {
                Hold::Width => 0.0,
                _ => quantity(&point.geometry, hold, workload) / target - 1.0,
            };
            point.fair = Some(Fair {
                hold,
                reference: label.clone(),
                mismatch,
            });
            let same = |other: &VariantPoint| {
                (other.variant.key, &other.dims, &other.params)
                    == (point.variant.key, &point.dims, &point.params)
            };
            if solved.iter().any(same) {
                self.n_equal += 1;
            } else {
                solved.push(point);
            }
        }
        solved
    }

    /// Point `i` with the free value `name` that brings it nearest to `target`.
    fn nearest(
        &mut self,
        i: usize,
        name: &'static str,
        hold: Hold,
        workload: &Workload,
        target: f64,
    ) -> Result<VariantPoint, String> {
        let (first, last) = range(&self.points[i], name);
        let mut amount = |value: u64| -> Option<f64> {
            let geometry = self.tried[i]
                .entry(value)
                .or_insert_with(|| geometry_with(&self.points[i], name, value));
            geometry
                .as_ref()
                .map(|geometry| quantity(geometry, hold, workload))
        };
        let value = nearest_value(first, last, target, &mut amount);
        let amount = value.and_then(amount);
        let (Some(value), Some(amount)) = (value, amount) else {
            return Err(format!("no `{name}` from {first} to {last} makes a layer"));
        };
        if (amount / target - 1.0).abs() > MAX_MISMATCH {
            return Err(format!(
                "the reference has {} {}, the nearest `{name}` is {value} with {}",
                format_count(target),
                unit(hold),
                format_count(amount)
            ));
        }
        Ok(with_value(&self.points[i], name, value))
    }
}

/// All of a workload that the solution depends on.
fn depends_on(hold: Hold, workload: Workload) -> Option<Workload> {
    match hold {
        Hold::Width | Hold::Params => None,
        Hold::KvBytes => Some(Workload::Prefill {
            batch: 1,
            tokens: length(&workload),
        }),
        Hold::Flops => Some(workload),
    }
}

/// Tokens of a sequence at the end of a workload, whether it caches them or not.
fn length(workload: &Workload) -> usize {
    match *workload {
        Workload::TrainStep { tokens, .. } => tokens,
        other => other.cached_tokens(),
    }
}

/// How much a layer has of what is held equal.
fn quantity(geometry: &Geometry, hold: Hold, workload: &Workload) -> f64 {
    match hold {
        Hold::Width => geometry.d_model as f64,
        Hold::Params => geometry.parameters as f64,
        Hold::KvBytes => {
            let tokens = length(workload);
            geometry.kv_bytes(1, tokens, 1) as f64 / tokens as f64
        }
        Hold::Flops if countable(geometry, workload) => geometry.cost(workload, Scope::Layer, 1).flops as f64,
        Hold::Flops => f64::INFINITY,
    }
}

fn unit(hold: Hold) -> &'static str {
    match hold {
        Hold::Width => "columns",
        Hold::Params => "parameters",
        Hold::KvBytes => "cache elements per token",
        Hold::Flops => "operations",
    }
}
