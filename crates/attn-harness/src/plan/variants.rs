//! Variants of a sweep to points: settings checked, geometry computed once for all cases of a point.

use attn_core::{
    Error as CoreError, Geometry, LayerConfig, ModelDims, ParamKind, ParamValue, Params, Variant,
};

use super::axes;
use super::fair::{self, Fair};
use super::labels::{check_repeats, set_labels};
use crate::error::Problem;
use crate::locate::KeyPath;
use crate::sweep::{Entry, Scalar, Source, Sweep, unknown};

/// No layer is larger; beyond it products of sizes leave 64 bits.
pub(super) const MAX_SIZE: u64 = 1 << 20;
pub(super) const MAX_HEADS: u64 = 1 << 14;

/// No smallest value of a setting that is solved for is larger.
const MAX_SMALLEST: u64 = 64;

/// A variant with one value for each setting, and the place that gave it.
#[derive(Clone)]
pub(super) struct VariantPoint {
    pub(super) variant: &'static Variant,
    /// Every setting, defaults included.
    pub(super) params: Params,
    /// Those that the sweep gives.
    pub(super) given: Params,
    pub(super) dims: ModelDims,
    pub(super) geometry: Geometry,
    pub(super) label: String,
    /// What it was matched to, where the sweep says.
    pub(super) fair: Option<Fair>,
    /// `variants[i].name`.
    pub(super) at: KeyPath,
}

/// A setting's value, with the place of the value where it stands in a list.
type Setting<'a> = (&'a str, &'a ParamValue, KeyPath);

/// Every point of `variants`.
pub(super) fn expand(
    sweep: &Sweep,
    known: &[&'static Variant],
    found: &mut Vec<Problem>,
) -> Vec<VariantPoint> {
    let source = &sweep.source;
    if sweep.file.variants.is_empty() {
        let problem = Problem::new("`variants` is empty, expected at least one variant");
        found.push(source.point(problem, &KeyPath::of("variants"), ""));
    }
    fair::check(sweep, known, found);
    let dims = dims(sweep, found);
    let mut points = Vec::new();
    for (i, entry) in sweep.file.variants.iter().enumerate() {
        let at = KeyPath::of("variants").index(i).key(&entry.name);
        let Some(variant) = known.iter().find(|variant| variant.key == entry.name) else {
            let names: Vec<&str> = known.iter().map(|variant| variant.key).collect();
            found.push(source.point(unknown("variant", &entry.name, &names), &at, ""));
            continue;
        };
        let free = fair::free_setting(sweep, i, variant);
        let sound = check_settings(source, variant, entry, &at, free, found);
        if let (true, Some(dims)) = (sound, dims) {
            points.extend(expand_entry(source, variant, entry, &at, &dims, free, found));
        }
    }
    check_repeats(source, &points, found);
    set_labels(&mut points);
    points
}

/// The model's sizes, head_dim filled in.
fn dims(sweep: &Sweep, found: &mut Vec<Problem>) -> Option<ModelDims> {
    let (model, source) = (&sweep.file.model, &sweep.source);
    let at = KeyPath::of("model");
    let before = found.len();
    let sizes = [
        ("d_model", Some(model.d_model), MAX_SIZE),
        ("n_heads", Some(model.n_heads), MAX_HEADS),
        ("head_dim", model.head_dim, MAX_HEADS),
    ];
    for (key, value, max) in sizes {
        if let Some(value) = value.filter(|value| !(1..=max).contains(value)) {
            let message = format!("`model.{key}` is {value}, expected an integer from 1 to {max}");
            found.push(source.point(Problem::new(message), &at.key(key), ""));
        }
    }
    if found.len() > before {
        return None;
    }
    let (d_model, n_heads) = (model.d_model, model.n_heads);
    if model.head_dim.is_none() && d_model % n_heads != 0 {
        let problem = Problem::new(format!(
            "impossible geometry: `model.d_model` {d_model} is not divisible by `model.n_heads` {n_heads}, so \
             that `model.head_dim` has no default"
        ))
        .with_help("choose n_heads so that it divides d_model, or give head_dim");
        let problem = source.point(problem, &at.key("d_model"), "d_model");
        found.push(source.point(problem, &at.key("n_heads"), "n_heads"));
        return None;
    }
    let head_dim = model.head_dim.unwrap_or(d_model / n_heads) as usize;
    Some(ModelDims {
        d_model: d_model as usize,
        n_heads: n_heads as usize,
        head_dim,
    })
}

/// Names, types and ranges, each value of each axis by itself.
fn check_settings(
    source: &Source,
    variant: &Variant,
    entry: &Entry,
    at: &KeyPath,
    free: Option<&str>,
    found: &mut Vec<Problem>,
) -> bool {
    let before = found.len();
    for (name, axis) in &entry.settings {
        let setting_at = at.key(name);
        let Ok(spec) = variant.param(name) else {
            let names: Vec<&str> = variant.params.iter().map(|spec| spec.name).collect();
            let problem = unknown(&format!("setting of {}:", variant.key), name, &names);
            found.push(source.point(problem, &setting_at, ""));
            continue;
        };
        axes::check(
            source,
            &setting_at,
            axis,
            |Scalar(value)| value.to_string(),
            found,
        );
        for (i, Scalar(value)) in axis.values.iter().enumerate() {
            let too_large =
                matches!((spec.kind, value), (ParamKind::Int { .. }, ParamValue::Int(n)) if *n > MAX_SIZE);
            if spec.check(variant.key, value).is_err() || too_large {
                let place = if axis.is_list {
                    setting_at.index(i)
                } else {
                    setting_at.clone()
                };
                let limit = if too_large {
                    format!(" and at most {MAX_SIZE}")
                } else {
                    String::new()
                };
                let message = format!("`{place}` is {value}, expected {}{limit}", spec.kind);
                found.push(source.point(Problem::new(message).with_help(spec.help), &place, ""));
            }
        }
    }
    for spec in variant.params.iter().filter(|spec| spec.is_required()) {
        if !entry.settings.contains_key(spec.name) && free != Some(spec.name) {
            let message = format!(
                "`{at}.{}` is missing, expected {}: {}",
                spec.name, spec.kind, spec.help
            );
            found.push(source.point(Problem::new(message), at, "here"));
        }
    }
    found.len() == before
}

#[allow(
    clippy::too_many_arguments,
    reason = "one call, of what its caller has at hand"
)]
fn expand_entry(
    source: &Source,
    variant: &'static Variant,
    entry: &Entry,
    at: &KeyPath,
    dims: &ModelDims,
    free: Option<&str>,
    found: &mut Vec<Problem>,
) -> Vec<VariantPoint> {
    let axes: Vec<Vec<Setting<'_>>> = (entry.settings.iter())
        .map(|(name, axis)| {
            let place = |i| {
                if axis.is_list {
                    at.key(name).index(i)
                } else {
                    at.key(name)
                }
            };
            let values = axis.values.iter().enumerate();
            values
                .map(|(i, Scalar(value))| (name.as_str(), value, place(i)))
                .collect()
        })
        .collect();
    let mut points = Vec::new();
    for settings in axes::product(&axes) {
        let given = settings
            .iter()
            .map(|(name, value, _)| (name.to_string(), (*value).clone()));
        let params = Params(given.collect());
        match configure(variant, dims, params, free) {
            Ok((config, params)) => points.push(VariantPoint {
                variant,
                params: variant.complete(dims, &params),
                given: params,
                dims: *dims,
                geometry: config.geometry(),
                label: String::new(),
                fair: None,
                at: at.clone(),
            }),
            Err(error) => {
                let problem = impossible(source, error, &settings, at);
                // The same sizes clash at every value of an axis that has no part in it.
                if !found.contains(&problem) {
                    found.push(problem);
                }
            }
        }
    }
    points
}

/// The layer of some settings, with the smallest value that makes one for a setting that is solved for later.
fn configure(
    variant: &Variant,
    dims: &ModelDims,
    given: Params,
    free: Option<&str>,
) -> Result<(Box<dyn LayerConfig>, Params), CoreError> {
    let Some(name) = free else {
        return Ok((variant.configure(dims, &given)?, given));
    };
    let mut outcome = None;
    for value in 1..=MAX_SMALLEST {
        let params = given.clone().with(name, ParamValue::Int(value));
        match variant.configure(dims, &params) {
            Ok(config) => return Ok((config, params)),
            Err(error) => outcome = Some(error),
        }
    }
    // What is wrong at every value is wrong with something else.
    Err(outcome.unwrap_or_else(|| CoreError::geometry(&[], "it has no smallest layer")))
}

/// Points at every key that has a part in what does not fit.
fn impossible(source: &Source, error: CoreError, settings: &[Setting<'_>], at: &KeyPath) -> Problem {
    let (keys, message): (Vec<String>, String) = match error {
        CoreError::Geometry { keys, message } => (keys.iter().map(ToString::to_string).collect(), message),
        CoreError::ParamValue {
            name, expected, got, ..
        } => {
            let message = format!("{name} is {got}, expected {expected}");
            (vec![name], message)
        }
        other => (Vec::new(), other.to_string()),
    };
    let place = |key: &str| match key {
        "d_model" | "n_heads" | "head_dim" => KeyPath::of("model").key(key),
        _ => {
            let given = settings.iter().find(|(name, ..)| *name == key);
            given.map_or_else(|| at.key(key), |(.., place)| place.clone())
        }
    };
    let places: Vec<KeyPath> = keys.iter().map(|key| place(key)).collect();
    let names: Vec<String> = places.iter().map(|place| format!("`{place}`")).collect();
    let of = if names.is_empty() {
        format!("`{at}`")
    } else {
        names.join(", ")
    };
    let problem = Problem::new(format!("impossible geometry: {message} ({of})"));
    let problem = if places.is_empty() {
        source.point(problem, at, "")
    } else {
        problem
    };
    (places.iter().zip(&keys)).fold(problem, |problem, (place, key)| {
        let missing = source.stands_above(place);
        let label = if missing {
            format!("{key} is left at its default here")
        } else {
            key.clone()
        };
        source.point(problem, place, &label)
    })
}
