//! `list`: what there is to choose from.

use attn_core::{DecoderKind, Prefix, Scope, Variant, Workload};
use attn_figures::figures;
use attn_harness::Dtype;
use attn_harness::plan::{QUALITY, QUALITY_SETTINGS, QUALITY_SUMMARY, SizeSpec, WORKLOADS, WorkloadSpec};
use attn_harness::row::Row;
use attn_harness::sweep::{HabitsChoice, Hold, Launch, Regime};
use serde_json::{Value, json};

use crate::cli::{Format, ListArgs, Topic};
use crate::failure::{Exit, Failure};
use crate::output::{print, print_json, table};
use crate::registry::VARIANTS;

const TOPICS: [(Topic, &str); 5] = [
    (Topic::Variants, "variants"),
    (Topic::Workloads, "workloads"),
    (Topic::Axes, "axes"),
    (Topic::Figures, "figures"),
    (Topic::Metrics, "metrics"),
];

/// Prints one topic, or all.
pub fn execute(args: &ListArgs) -> Result<Exit, Failure> {
    let chosen = TOPICS
        .iter()
        .filter(|(topic, _)| args.topic.is_none_or(|wanted| wanted == *topic));
    match (args.format.format, args.topic) {
        (Format::Table, _) => {
            let texts: Vec<String> = chosen.map(|(topic, _)| text(*topic)).collect();
            print(&texts.join("\n"))?;
        }
        (Format::Json, Some(topic)) => print_json(&value(topic))?,
        (Format::Json, None) => {
            let all: serde_json::Map<String, Value> = chosen
                .map(|(topic, name)| (name.to_string(), value(*topic)))
                .collect();
            print_json(&all)?;
        }
    }
    Ok(Exit::Done)
}

fn text(topic: Topic) -> String {
    match topic {
        Topic::Variants => {
            let lines = VARIANTS
                .iter()
                .map(|v| [v.key, v.cache_formula, v.paper, v.summary]);
            let overview = table(
                &["variant", "cache elements", "arXiv", "what it is"],
                owned(lines),
            );
            let settings = VARIANTS.iter().flat_map(|variant| settings(variant));
            let settings = table(
                &["variant", "setting", "is", "default", "meaning"],
                settings.collect(),
            );
            let free = VARIANTS
                .iter()
                .map(|v| [v.key, v.free.params, v.free.kv_bytes, v.free.flops]);
            let free = table(
                &[
                    "variant",
                    "solved for fair: params",
                    "fair: kv_bytes",
                    "fair: flops",
                ],
                owned(free),
            );
            [overview, settings, free].join("\n")
        }
        Topic::Workloads => {
            let lines = WORKLOADS.iter().zip(Workload::ALL);
            let lines = lines.map(|(spec, (name, help))| {
                vec![name.to_string(), scopes(spec).join(", "), help.to_string()]
            });
            let quality = [QUALITY, Scope::Model.name(), QUALITY_SUMMARY]
                .map(str::to_string)
                .to_vec();
            let overview = table(
                &["workload", "scopes", "what it is"],
                lines.chain([quality]).collect(),
            );
            let of_workloads = WORKLOADS.iter().map(|spec| (spec.name, spec.sizes));
            let all = of_workloads.chain([(QUALITY, &QUALITY_SETTINGS[..])]);
            let sizes = all.flat_map(|(name, sizes)| sizes.iter().map(move |size| size_row(name, size)));
            let sizes = table(&["workload", "size", "default", "meaning"], sizes.collect());
            let tasks = attn_tasks::names().iter().map(|(name, help)| [*name, *help]);
            let tasks = table(&["task of quality", "what it asks for"], owned(tasks));
            [overview, sizes, tasks].join("\n")
        }
        Topic::Axes => table(&["key", "value", "meaning"], owned(axes().into_iter())),
        Topic::Figures => table(
            &["figure", "what it shows"],
            owned(figures().iter().map(|f| [f.name, f.summary])),
        ),
        Topic::Metrics => {
            let columns = Row::columns().iter();
            table(
                &["column", "holds", "what it is"],
                owned(columns.map(|c| [c.name, c.kind.name(), c.doc.trim()])),
            )
        }
    }
}

/// Names of the scopes that a workload has.
fn scopes(spec: &WorkloadSpec) -> Vec<&'static str> {
    spec.scopes().iter().map(|scope| scope.name()).collect()
}

/// What multiplies every workload: key, value, meaning.
fn axes() -> Vec<[&'static str; 3]> {
    let mut axes = vec![
        ["paths", "fused", "the compact formulation"],
        [
            "paths",
            "seedlike",
            "operation by operation as the seed's PyTorch does",
        ],
        [
            "scopes",
            "layer",
            "projections, cache update, attention and output projection",
        ],
        ["scopes", "op", "attention alone"],
        [
            "scopes",
            "model",
            "a whole decoder, for workloads beam and generate",
        ],
    ];
    axes.extend(HabitsChoice::WORDS.map(|(word, help)| ["habits", word, help]));
    axes.extend(HabitsChoice::HABITS.map(|(habit, help)| ["habits", habit.name(), help]));
    axes.extend(Prefix::ALL.map(|(prefix, help)| ["prefixes", prefix.name(), help]));
    axes.extend(DecoderKind::ALL.map(|(decoder, help)| ["model.decoder", decoder.name(), help]));
    axes.extend(Launch::ALL.map(|(launch, help)| ["launches", launch.name(), help]));
    axes.extend(Regime::ALL.map(|(regime, help)| ["regimes", regime.name(), help]));
    axes.extend(Hold::ALL.map(|(hold, help)| ["fair", hold.name(), help]));
    axes.extend(Dtype::ALL.map(|dtype| {
        [
            "dtype",
            dtype.name(),
            "element type of weights, activations and cache",
        ]
    }));
    axes
}

fn owned<const N: usize>(lines: impl Iterator<Item = [&'static str; N]>) -> Vec<Vec<String>> {
    lines
        .map(|line| line.iter().map(ToString::to_string).collect())
        .collect()
}

fn settings(variant: &Variant) -> impl Iterator<Item = Vec<String>> {
    variant.params.iter().map(|spec| {
        let words = [
            variant.key,
            spec.name,
            &spec.kind.to_string(),
            spec.default,
            spec.help,
        ];
        words.iter().map(ToString::to_string).collect()
    })
}

fn value(topic: Topic) -> Value {
    match topic {
        Topic::Variants => VARIANTS.iter().map(|variant| variant_value(variant)).collect(),
        Topic::Workloads => (WORKLOADS.iter().zip(Workload::ALL))
            .map(|(spec, (name, help))| {
                json!({"name": name, "summary": help, "scopes": scopes(spec), "sizes": size_values(spec.sizes)})
            })
            .chain([quality_value()])
            .collect(),
        Topic::Axes => axes()
            .iter()
            .map(|[axis, value, help]| json!({"key": axis, "value": value, "help": help}))
            .collect(),
        Topic::Figures => figures()
            .iter()
            .map(|f| json!({"name": f.name, "summary": f.summary}))
            .collect(),
        Topic::Metrics => Row::columns()
            .iter()
            .map(|c| json!({"name": c.name, "kind": c.kind, "nullable": c.nullable, "doc": c.doc.trim()}))
            .collect(),
    }
}

fn size_row(workload: &str, size: &SizeSpec) -> Vec<String> {
    let default = size
        .default
        .map_or("required".to_string(), |value| value.to_string());
    [workload, size.name, &default, size.help]
        .map(str::to_string)
        .to_vec()
}

fn size_values(sizes: &[SizeSpec]) -> Value {
    let value = |s: &SizeSpec| json!({"name": s.name, "default": s.default, "max": s.max, "help": s.help});
    sizes.iter().map(value).collect()
}

fn quality_value() -> Value {
    let tasks = attn_tasks::names().iter();
    let tasks: Value = tasks
        .map(|(name, help)| json!({"name": name, "summary": help}))
        .collect();
    json!({
        "name": QUALITY,
        "summary": QUALITY_SUMMARY,
        "scopes": [Scope::Model.name()],
        "sizes": size_values(&QUALITY_SETTINGS),
        "tasks": tasks,
    })
}

fn variant_value(variant: &Variant) -> Value {
    let params = variant.params.iter();
    let settings: Value = params
        .map(|p| json!({"name": p.name, "is": p.kind.to_string(), "default": p.default, "help": p.help}))
        .collect();
    json!({
        "name": variant.key,
        "title": variant.title,
        "summary": variant.summary,
        "paper": variant.paper,
        "cache_formula": variant.cache_formula,
        "settings": settings,
        "free": {
            "params": variant.free.params,
            "kv_bytes": variant.free.kv_bytes,
            "flops": variant.free.flops,
        },
    })
}
