//! What rows are told apart by, and how a value of it is named.

use crate::frame::{Frame, Row};
use crate::habits::Habits;
use crate::tasks::Task;

/// A dimension along which rows are never mixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dimension {
    Run,
    /// The sizes of a whole decoder around the attention; empty for a layer or an operation.
    Model,
    /// The sizes of a workload that is compared at one point.
    Sizes,
    Sweep,
    /// The model, and which one of that model where there are several.
    Machine,
    /// Empty where a case did not run on one.
    Gpu,
    Threads,
    Device,
    Dtype,
    Path,
    /// What a seed-like case does in the seed's way.
    SeedHabits,
    Scope,
    /// Where the hypotheses of a beam keep what they have in common.
    Prefix,
    /// What the caches held: hot where a row does not say, as all were before there was a choice.
    Regime,
    /// How a step got to a GPU; empty where that is no question.
    Launch,
    /// What the sweep holds equal between variants: their width where a row does not say.
    Fair,
    /// The sizes of a trained model, less what follows from its task.
    Body,
    /// Tasks become panels, and another figure where there are too many of them.
    Tasks,
    /// The task, where a figure is of one alone.
    Task,
    /// Updates of a training.
    Updates,
}

use Dimension::{
    Body, Device, Dtype, Fair, Gpu, Launch, Machine, Model, Path, Prefix, Regime, Run, Scope, SeedHabits,
    Sizes, Sweep, Tasks, Threads, Updates,
};

/// What a measured time depends on.
pub(crate) const TIMED: &[Dimension] = &[
    Run, Model, Sweep, Machine, Gpu, Threads, Device, Dtype, Path, SeedHabits, Scope, Prefix, Regime, Launch,
    Fair,
];
/// What a size in closed form depends on.
pub(crate) const SIZED: &[Dimension] = &[Model, Sweep, Dtype, Prefix, Fair];
/// What whole decoders have in common where their ways of computing are compared: path, dtype, habits and prefix
/// are for the figure to tell apart.
pub(crate) const WAYS: &[Dimension] = &[
    Run, Model, Sizes, Sweep, Machine, Gpu, Threads, Device, Scope, Regime, Fair,
];

/// What the quality of a trained model depends on, beside its task and seeds; the machine is not part of it.
pub(crate) const TRAINED: &[Dimension] = &[Body, Sweep, Dtype, Path, Tasks, Fair];
/// The same for a figure of one task.
pub(crate) const TRAINED_ON_ONE: &[Dimension] = &[Model, Sweep, Dtype, Path, Dimension::Task, Updates, Fair];

/// All that a measured time depends on, beside variant and place.
pub(crate) fn setting(frame: &Frame, row: &Row) -> Vec<String> {
    TIMED
        .iter()
        .map(|dimension| dimension.value(frame, row))
        .collect()
}

/// The same for a caption.
pub(crate) fn setting_in_words(frame: &Frame, row: &Row) -> Vec<String> {
    let known = |dimension: &&Dimension| !dimension.value(frame, row).is_empty() && **dimension != Fair;
    let shown = TIMED.iter().filter(known);
    shown
        .map(|dimension| dimension.caption(&dimension.value(frame, row)))
        .collect()
}

impl Dimension {
    /// The row's value, as resolved, else as requested; empty where it is not known.
    pub(super) fn value(self, frame: &Frame, row: &Row) -> String {
        let either = |a: &Option<String>, b: &Option<String>| a.clone().or_else(|| b.clone());
        let value = match self {
            Run => row.run.clone(),
            Model => model(row),
            Sizes => Some(sizes(row)),
            Sweep => row.sweep_name.clone(),
            Machine => frame.machine(row),
            Gpu => row.gpu.clone(),
            Threads => row
                .threads
                .map(|n| format!("{n} {}", if n == 1 { "thread" } else { "threads" })),
            Device => either(&row.device_resolved, &row.device_requested),
            SeedHabits => seed_habits(row),
            Prefix => row.prefix.as_ref().map(|prefix| format!("{prefix} prefix")),
            Dtype => either(&row.dtype_resolved, &row.dtype_requested),
            Path => either(&row.path_resolved, &row.path_requested),
            Scope => row.scope.clone(),
            Regime => row.cache_regime.clone().or_else(|| Some("hot".to_owned())),
            Launch => either(&row.launch_resolved, &row.launch_requested),
            Fair => Some(fair_mode(row).to_owned()),
            Body => Some(body(row)),
            // They share a page and no axis.
            Tasks => None,
            Dimension::Task => Some(Task::name_of(row)),
            Updates => row.train_steps.map(|n| format!("{n} updates")),
        };
        value.unwrap_or_default()
    }

    /// Whether the row ran as something else than was asked for.
    pub(super) fn differs(self, row: &Row) -> bool {
        let (asked, got) = match self {
            Device => (&row.device_requested, &row.device_resolved),
            Dtype => (&row.dtype_requested, &row.dtype_resolved),
            Path => (&row.path_requested, &row.path_resolved),
            Launch => (&row.launch_requested, &row.launch_resolved),
            _ => return false,
        };
        matches!((asked, got), (Some(asked), Some(got)) if asked != "auto" && asked != got)
    }

    /// How a value is named in a caption.
    pub(super) fn caption(self, value: &str) -> String {
        match self {
            Path => format!("{value} path"),
            Scope => format!("{value} scope"),
            Run => format!("run {value}"),
            Regime => format!("{value} caches"),
            Launch if value == "graph" => "CUDA graphs".to_owned(),
            Launch => format!("{value} launches"),
            _ => value.to_owned(),
        }
    }
}

/// `all habits`, `habits cat+f32`; nothing where it is no question. A seed-like layer has all of them unless it says
/// otherwise, as all had before there was a choice.
fn seed_habits(row: &Row) -> Option<String> {
    let name = match Habits::parse(row.habits.as_deref()?) {
        Some(Habits::ALL) if !row.is_model() => return None,
        Some(set) => set.name(),
        None => format!("habits {}", row.habits.as_deref()?),
    };
    Some(name)
}

/// `4 layers of width 256, 4 heads, feed-forward 1024`: what models trained on different tasks have in common.
fn body(row: &Row) -> String {
    let parts = [layers(row), heads(row), known("feed-forward", row.d_ff)];
    parts.into_iter().flatten().collect::<Vec<String>>().join(", ")
}

fn known(name: &str, count: Option<u64>) -> Option<String> {
    count.map(|count| format!("{name} {count}"))
}

fn heads(row: &Row) -> Option<String> {
    row.n_heads.map(|n| format!("{n} heads"))
}

fn layers(row: &Row) -> Option<String> {
    row.n_layers.map(|n| match row.d_model {
        Some(width) => format!("{n} layers of width {width}"),
        None => format!("{n} layers"),
    })
}

/// `9 layers of width 512, feed-forward 2048, vocabulary 8000, prefix decoder`; nothing for what is no model.
fn model(row: &Row) -> Option<String> {
    let decoder = row.decoder.as_ref().map(|decoder| format!("{decoder} decoder"));
    let parts = [
        layers(row),
        heads(row),
        known("feed-forward", row.d_ff),
        known("vocabulary", row.vocab),
        decoder,
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    let sizes = if parts.is_empty() {
        "a model of unknown sizes".to_owned()
    } else {
        parts.join(", ")
    };
    row.is_model().then_some(sizes)
}

/// `beam of 50, batch 8, 300 tokens + 40 new`.
pub(crate) fn sizes(row: &Row) -> String {
    let batch = row.batch.unwrap_or(1);
    let before = row.tokens.or(row.context);
    let tokens = before.map(|n| format!("{n} tokens"));
    let new = row.new_tokens.map(|n| format!("{n} new"));
    let lengths: Vec<String> = [tokens, new].into_iter().flatten().collect();
    let name = match row.beam {
        Some(beam) => format!("{} of {beam}", row.workload),
        None => row.workload.replace('_', " "),
    };
    let parts = [name, format!("batch {batch}"), lengths.join(" + ")];
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join(", ")
}

/// What the row's sweep holds equal. Before there was a choice it was the width.
pub(super) fn fair_mode(row: &Row) -> &str {
    row.fair
        .as_deref()
        .filter(|mode| !mode.is_empty() && *mode != "none")
        .unwrap_or("width")
}
