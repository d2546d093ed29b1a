//! What tells the points of the variants apart: nothing twice, and a label for each.

use std::collections::{BTreeSet, HashMap};

use attn_core::Params;

use super::axes::Repeats;
use super::variants::VariantPoint;
use crate::error::Problem;
use crate::locate::KeyPath;
use crate::sweep::Source;

pub(super) fn check_repeats(source: &Source, points: &[VariantPoint], found: &mut Vec<Problem>) {
    let mut first: HashMap<String, &KeyPath> = HashMap::new();
    let mut repeats = Repeats::new();
    for point in points {
        let shown = describe(point.variant.key, &point.given);
        // Equal is what is equal once defaults are filled in.
        match first.get(&describe(point.variant.key, &point.params)) {
            // A value listed twice in one axis has been reported with its two places.
            Some(earlier) if **earlier == point.at => {}
            Some(earlier) => repeats.note(earlier, &point.at, &shown),
            None => {
                first.insert(describe(point.variant.key, &point.params), &point.at);
            }
        }
    }
    repeats.report(source, found);
}

fn describe(variant: &str, params: &Params) -> String {
    let settings: Vec<String> = params
        .0
        .iter()
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    if settings.is_empty() {
        variant.to_string()
    } else {
        format!("{variant} with {}", settings.join(", "))
    }
}

/// A label shows what tells a point from the other points of its variant.
pub(super) fn set_labels(points: &mut [VariantPoint]) {
    let mut shown_of: HashMap<&str, Vec<&'static str>> = HashMap::new();
    for point in points.iter() {
        let key = point.variant.key;
        if !shown_of.contains_key(key) {
            let names: Vec<&'static str> = point.variant.params.iter().map(|spec| spec.name).collect();
            let siblings = points
                .iter()
                .filter(|other| other.variant.key == key)
                .map(|other| &other.given);
            shown_of.insert(key, varying(siblings, &names));
        }
    }
    for point in points {
        let shown = shown_of.get(point.variant.key).map_or(&[][..], Vec::as_slice);
        point.label = point.variant.label(&point.params, shown);
    }
}

/// Settings that take more than one value among the points of one variant: labels must show them.
fn varying<'a>(
    points: impl Iterator<Item = &'a Params> + Clone,
    names: &[&'static str],
) -> Vec<&'static str> {
    let differs = |name: &&'static str| {
        let values = points
            .clone()
            .map(|params| params.0.get(*name).map(ToString::to_string));
        values.collect::<BTreeSet<_>>().len() > 1
    };
    names.iter().copied().filter(differs).collect()
}
