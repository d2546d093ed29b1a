//! The cases of a plan as tables.

use attn_core::{Habits, Workload};
use attn_harness::units::{format_bytes, format_count, format_time};
use attn_harness::{Case, Plan};

use crate::output::table;

/// One line a case, in the order of the plan.
pub(super) fn every_case(plan: &Plan) -> String {
    let header = [
        "workload",
        "variant",
        ">KV cache",
        ">weights",
        ">peak",
        ">FLOPs",
        ">floor",
        ">time",
        "note",
    ];
    let lines = plan.cases.iter().map(|case| {
        vec![
            point(plan, case),
            case.label.clone(),
            format_bytes(case.kv_bytes as f64),
            format_bytes(case.weights_bytes as f64),
            format_bytes(case.predicted_peak_bytes as f64),
            format_count(case.cost.flops as f64),
            format_time(case.predicted_floor_s),
            format_time(case.predicted_time_s),
            note(case),
        ]
    });
    table(&header, lines.collect())
}

fn note(case: &Case) -> String {
    let mut words = match (&case.unsupported, case.predicted_oom) {
        (Some(_), _) => vec!["unsupported".to_string()],
        (None, true) => vec!["oom".to_string()],
        (None, false) => Vec::new(),
    };
    if let Some(fair) = case.fair.as_ref().filter(|_| case.is_off()) {
        words.push(percent(fair.mismatch));
    }
    words.join(", ")
}

/// A mismatch, with its sign.
pub(super) fn percent(mismatch: f64) -> String {
    format!("{:+.1} %", 100.0 * mismatch)
}

/// The point of a case, with what varies beside the workload.
pub(super) fn point(plan: &Plan, case: &Case) -> String {
    let mut text = match case.workload {
        _ if case.quality.is_some() => training(case),
        Workload::Decode { batch, context } => format!("decode L={context} B={batch}"),
        Workload::Prefill { batch, tokens } => format!("prefill T={tokens} B={batch}"),
        Workload::TrainStep { batch, tokens } => format!("train_step T={tokens} B={batch}"),
        Workload::Generate {
            batch,
            tokens,
            new_tokens,
        } => format!("generate T={tokens} N={new_tokens} B={batch}"),
        Workload::Trajectory {
            batch,
            tokens,
            new_tokens,
        } => format!("trajectory T={tokens} N={new_tokens} B={batch}"),
        Workload::Beam {
            batch,
            tokens,
            new_tokens,
            beam,
        } => format!("beam T={tokens} N={new_tokens} K={beam} B={batch}"),
    };
    let first = &plan.cases[0];
    let varies = |differs: fn(&Case, &Case) -> bool| plan.cases.iter().any(|other| differs(first, other));
    let lr = |case: &Case| case.quality.as_ref().map(|quality| quality.training.options.lr);
    let mut rates = plan.cases.iter().filter_map(lr);
    let first_rate = rates.next();
    if rates.any(|rate| Some(rate) != first_rate)
        && let Some(lr) = lr(case)
    {
        text += &format!(" lr={lr}");
    }
    if varies(|a, b| a.scope != b.scope) {
        text += &format!(" {}", case.scope.name());
    }
    if varies(|a, b| a.path != b.path) {
        text += &format!(" {}", case.path);
    }
    if varies(|a, b| a.dtype != b.dtype) {
        text += &format!(" {}", case.dtype);
    }
    if varies(|a, b| a.habits != b.habits)
        && let Some(habits) = case.habits
    {
        text += &format!(
            " {}",
            if habits == Habits::ALL {
                "all".to_string()
            } else {
                habits.to_string()
            }
        );
    }
    if varies(|a, b| a.prefix != b.prefix)
        && let Some(prefix) = case.prefix
    {
        text += &format!(" {}", prefix.name());
    }
    if varies(|a, b| a.launch != b.launch)
        && let Some(launch) = case.launch
    {
        text += &format!(" {launch}");
    }
    if varies(|a, b| a.regime != b.regime) {
        text += &format!(" {}", case.regime);
    }
    text
}

/// `quality recall, 1000 updates B=16`.
fn training(case: &Case) -> String {
    let Some(quality) = &case.quality else {
        return String::new();
    };
    let training = &quality.training;
    let (steps, batch) = (training.options.steps, training.options.batch);
    let mut text = format!("quality {}, {steps} updates B={batch}", training.task_name);
    if training.sizes.downsample > 1 {
        text += &format!(" downsample={}", training.sizes.downsample);
    }
    text
}

/// One line a workload and variant, in the order of the plan.
pub(super) fn summary(plan: &Plan) -> String {
    let mut lines: Vec<(&'static str, &str, Vec<&Case>)> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for case in &plan.cases {
        let key = (case.workload_name(), case.label.as_str());
        let place = *places.entry(key).or_insert_with(|| {
            lines.push((key.0, key.1, Vec::new()));
            lines.len() - 1
        });
        lines[place].2.push(case);
    }
    let header = [
        "workload",
        "variant",
        ">cases",
        ">KV cache",
        ">weights",
        ">peak, most",
        ">FLOPs, all",
        ">time",
        "note",
    ];
    let lines = lines.into_iter().map(|(workload, label, cases)| {
        let most = |of: fn(&Case) -> u64| cases.iter().map(|case| of(case)).max().unwrap_or(0) as f64;
        let least_kv = cases.iter().map(|case| case.kv_bytes).min().unwrap_or(0) as f64;
        let (low, high) = (format_bytes(least_kv), format_bytes(most(|case| case.kv_bytes)));
        let count = |which: fn(&Case) -> bool| cases.iter().filter(|case| which(case)).count();
        let notes = [
            (
                count(|case| case.unsupported.is_none() && case.predicted_oom),
                "oom",
            ),
            (count(|case| case.unsupported.is_some()), "unsupported"),
            (count(Case::is_off), "not matched"),
        ];
        let notes: Vec<String> = notes
            .iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, word)| format!("{n} {word}"))
            .collect();
        vec![
            workload.to_string(),
            label.to_string(),
            cases.len().to_string(),
            if low == high {
                low
            } else {
                format!("{low} to {high}")
            },
            format_bytes(most(|case| case.weights_bytes)),
            format_bytes(most(|case| case.predicted_peak_bytes)),
            format_count(cases.iter().map(|case| case.cost.flops as f64).sum()),
            format_time(
                cases
                    .iter()
                    .filter(|case| case.runs_here())
                    .map(|case| case.predicted_time_s)
                    .sum(),
            ),
            notes.join(", "),
        ]
    });
    table(&header, lines.collect())
}
