//! Whole decoders: their sizes, and the ways in which one case of them may run.
//!
//! A workload is multiplied by the scopes it has, path `seedlike` by sets of habits, path `fused` of a beam search by
//! places of the prefix. What of a sweep would silently do nothing is bad input.

use attn_core::{DecoderKind, Habit, Habits, ModelShape, Path, Prefix, Scope, Workload};

use super::axes;
use super::quality;
use super::spec::spec;
use super::variants::MAX_SIZE;
use super::workloads::WorkloadPoint;
use crate::error::Problem;
use crate::locate::KeyPath;
use crate::sweep::{Dtype, Sweep, SweepFile};

/// Layers and tokens of the paper's speech translation.
pub(super) const LAYERS: u64 = 9;
const VOCAB: u64 = 8000;
/// More layers than any decoder has.
const MAX_LAYERS: u64 = 1024;
/// More tokens than any vocabulary has.
const MAX_VOCAB: u64 = 1 << 21;
/// Sizes of whole decoders, which no layer has.
const KEYS: [&str; 4] = ["n_layers", "d_ff", "vocab", "decoder"];

/// How one case is computed, beside its variant and workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) path: Path,
    pub(super) dtype: Dtype,
    /// What of the seed's habits it has; `None` on path fused.
    pub(super) habits: Option<Habits>,
    /// Where a beam search keeps the prefix.
    pub(super) prefix: Option<Prefix>,
}

/// The ways of a point in a scope, those together that differ in habits or prefix alone.
pub(super) fn ways(file: &SweepFile, dtypes: &[Dtype], workload: &Workload) -> Vec<Vec<Way>> {
    let is_beam = matches!(workload, Workload::Beam { .. });
    let mut families = Vec::new();
    for &path in &file.paths.values {
        let seed = |habits, dtype| Way {
            path,
            dtype,
            habits: Some(habits),
            prefix: is_beam.then_some(Prefix::Replicated),
        };
        match (path, &file.habits) {
            (Path::Seedlike, Some(axis)) => {
                let sets = axis.values.iter().flat_map(|choice| choice.sets());
                families.push(sets.map(|set| seed(set, dtype_of(set))).collect());
            }
            (Path::Seedlike, None) => {
                families.extend(dtypes.iter().map(|&dtype| vec![seed(Habits::ALL, dtype)]));
            }
            (Path::Fused, _) => families.extend(dtypes.iter().map(|&dtype| {
                let way = |prefix| Way {
                    path,
                    dtype,
                    habits: None,
                    prefix,
                };
                match (is_beam, &file.prefixes) {
                    (false, _) => vec![way(None)],
                    (true, None) => vec![way(Some(Prefix::Copied))],
                    (true, Some(axis)) => axis.values.iter().map(|&prefix| way(Some(prefix))).collect(),
                }
            })),
        }
    }
    families
}

/// What a set of habits runs in.
fn dtype_of(habits: Habits) -> Dtype {
    if habits.contains(Habit::F32) {
        Dtype::F32
    } else {
        Dtype::BF16
    }
}

/// Sizes of the decoder, defaults filled in; `None` where the sweep has none or they are wrong.
pub(super) fn shape(sweep: &Sweep, found: &mut Vec<Problem>) -> Option<ModelShape> {
    let (model, source) = (&sweep.file.model, &sweep.source);
    let at = KeyPath::of("model");
    if !sweep.file.scopes.values.contains(&Scope::Model) && !quality::is_asked(sweep) {
        let given = [
            model.n_layers.is_some(),
            model.d_ff.is_some(),
            model.vocab.is_some(),
            model.decoder.is_some(),
        ];
        for (key, _) in KEYS.iter().zip(given).filter(|(_, given)| *given) {
            let problem = Problem::new(format!(
                "`model.{key}` is given, but no case of this sweep is a whole decoder: `scopes` has no model, `workloads` no quality"
            ))
            .with_help("remove it, or add scopes: [model] for workloads beam and generate");
            let problem = source.point(problem, &at.key(key), key);
            found.push(source.point(problem, &KeyPath::of("scopes"), "scopes"));
        }
        return None;
    }
    let sizes = [
        ("n_layers", model.n_layers.unwrap_or(LAYERS), 1, MAX_LAYERS),
        (
            "d_ff",
            model.d_ff.unwrap_or(model.d_model.saturating_mul(4)),
            1,
            4 * MAX_SIZE,
        ),
        ("vocab", model.vocab.unwrap_or(VOCAB), 2, MAX_VOCAB),
    ];
    let mut sound = true;
    for (key, value, min, max) in sizes {
        if !(min..=max).contains(&value) {
            let message = format!("`model.{key}` is {value}, expected an integer from {min} to {max}");
            found.push(source.point(Problem::new(message), &at.key(key), ""));
            sound = false;
        }
    }
    let [n_layers, d_ff, vocab] = sizes.map(|(_, value, ..)| value as usize);
    sound.then_some(ModelShape {
        n_layers,
        d_ff,
        vocab,
        decoder: model.decoder.unwrap_or(DecoderKind::Prefix),
    })
}

/// Checks the axes of whole decoders, and that nothing given would do nothing.
pub(super) fn check(sweep: &Sweep, found: &mut Vec<Problem>) {
    let (file, source) = (&sweep.file, &sweep.source);
    let has_path = |path: Path| file.paths.values.contains(&path);
    if let Some(axis) = &file.habits {
        let at = KeyPath::of("habits");
        axes::check(source, &at, axis, ToString::to_string, found);
        let sets: Vec<Habits> = axis.values.iter().flat_map(|choice| choice.sets()).collect();
        let listed = axis.values.len();
        if sets.len() > listed && listed > 1 {
            let problem =
                Problem::new("`habits` lists combinations, which are all sets, and others beside it")
                    .with_help("the same case would be measured twice: remove one of them");
            found.push(source.point(problem, &at, ""));
        }
        if !has_path(Path::Seedlike) {
            let problem = Problem::new(
                "`habits` is given, but `paths` has no seedlike: habits are switches of that path alone",
            )
            .with_help("remove it, or add paths: [seedlike, fused]");
            let problem = source.point(problem, &at, "habits");
            found.push(source.point(problem, &KeyPath::of("paths"), "paths"));
        }
    }
    if let Some(axis) = &file.prefixes {
        let at = KeyPath::of("prefixes");
        axes::check(source, &at, axis, |prefix| prefix.name().to_string(), found);
        let names = file.workloads.iter().map(|entry| entry.name.as_str());
        if !has_path(Path::Fused) {
            let problem = Problem::new(
                "`prefixes` is given, but `paths` has no fused: on path seedlike every hypothesis computes and stores \
                 the prefix, as in the seed",
            )
            .with_help("remove it, or add fused to paths");
            let problem = source.point(problem, &at, "prefixes");
            found.push(source.point(problem, &KeyPath::of("paths"), "paths"));
        } else if names.clone().all(|name| name != "beam" && spec(name).is_some()) && !has_beam_scenario(file)
        {
            let problem = Problem::new(
                "`prefixes` is given, but `workloads` has no beam: only the hypotheses of a beam have a prefix in common",
            )
            .with_help("remove it, or add a workload as in beam: {tokens: 145, new_tokens: 27, beam: 50, batch: 2}");
            let problem = source.point(problem, &at, "prefixes");
            found.push(source.point(problem, &KeyPath::of("workloads"), "workloads"));
        }
    }
}

fn has_beam_scenario(file: &SweepFile) -> bool {
    use attn_core::ParamValue::Text;
    let named = file
        .scenarios
        .iter()
        .filter_map(|scenario| scenario.0.get("workload"));
    named
        .into_iter()
        .any(|name| matches!(&name.0, Text(name) if name == "beam"))
}

/// Checks that every workload has one of the scopes, that every scope has a workload, and that a vocabulary is large
/// enough for the beams over it.
pub(super) fn check_scopes(
    sweep: &Sweep,
    points: &[WorkloadPoint],
    shape: Option<&ModelShape>,
    found: &mut Vec<Problem>,
) {
    let (source, scopes) = (&sweep.source, &sweep.file.scopes);
    let scopes_at = KeyPath::of("scopes");
    let names = |scopes: &[Scope]| {
        scopes
            .iter()
            .map(|scope| scope.name())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let mut refused: Vec<&KeyPath> = Vec::new();
    for point in points {
        let has = point.workload.scopes();
        if has.iter().any(|scope| scopes.values.contains(scope)) || refused.contains(&&point.at) {
            continue;
        }
        refused.push(&point.at);
        let name = point.workload.name();
        let problem = Problem::new(format!(
            "`{}` has no scope to run in: {name} exists in scope {}, and `scopes` has {}",
            point.at,
            names(has),
            names(&scopes.values)
        ))
        .with_help(format!(
            "add one, for example scopes: [{}], or remove {name}",
            has[0].name()
        ));
        let problem = source.point(problem, &point.at, name);
        found.push(source.point(problem, &scopes_at, "scopes"));
    }
    // A workload that is wrong in another way gave no points, and may have been meant for it.
    let is_sound = found.is_empty();
    for (i, scope) in scopes.values.iter().enumerate().filter(|_| is_sound) {
        if points.iter().any(|point| point.workload.scopes().contains(scope)) {
            continue;
        }
        let at = if scopes.is_list {
            scopes_at.index(i)
        } else {
            scopes_at.clone()
        };
        let problem = Problem::new(format!(
            "`{at}` is {}, and no workload of this sweep exists in that scope",
            scope.name()
        ))
        .with_help("remove it, or add a workload: `attn-bench list workloads` names the scopes of each");
        found.push(source.point(problem, &at, ""));
    }
    let Some(shape) = shape else { return };
    let too_wide = points
        .iter()
        .find(|point| 2 * point.workload.beam() > shape.vocab && point.workload.beam() > 1);
    if let Some(point) = too_wide {
        let (beam, vocab) = (point.workload.beam(), shape.vocab);
        let problem = Problem::new(format!(
            "`{}` searches with beam {beam} over a `model.vocab` of {vocab}, expected at least {}: every step takes the \
             best 2 x beam candidates, the first one from one hypothesis",
            point.at,
            2 * beam
        ))
        .with_help("give a larger vocab, or a smaller beam");
        let problem = source.point(problem, &point.at.key("beam"), "beam");
        found.push(source.point(problem, &KeyPath::of("model").key("vocab"), "vocab"));
    }
}
