//! `plan`: the cases of a sweep with what they will need. Nothing runs.

use attn_core::Workload;
use attn_harness::plan::{Rates, Setup};
use attn_harness::units::{format_bytes, format_count, format_time};
use attn_harness::{Case, Override, Plan, Sweep};
use serde_json::{Value, json};

use crate::cli::{Format, PlanArgs, SweepArgs};
use crate::failure::{Exit, Failure};
use crate::output::{print, print_json, table};
use crate::registry::{VARIANTS, cuda, figure_names};

/// More cases than these are summed up, one line a workload and variant.
const MAX_LINES: usize = 100;

/// Prints the plan.
pub fn execute(args: &PlanArgs) -> Result<Exit, Failure> {
    let plan = load(&args.sweep)?;
    match args.format.format {
        Format::Table => print(&text(&plan))?,
        Format::Json => print_json(&json!({
            "name": plan.name,
            "question": plan.question,
            "device": plan.device,
            "measure": plan.measure,
            "figures": plan.figures,
            "cases": plan.cases.iter().map(case_value).collect::<Result<Vec<_>, _>>()?,
            "totals": {
                "cases": plan.cases.len(),
                "groups": plan.groups().count(),
                "oom": count(&plan, |case| case.predicted_oom),
                "unsupported": count(&plan, |case| case.unsupported.is_some()),
                "predicted_time_s": plan.predicted_time_s(),
            },
        }))?,
    }
    Ok(Exit::Done)
}

/// The plan of a sweep file with the changes of the command line; `run` begins with it too.
pub fn load(args: &SweepArgs) -> Result<Plan, Failure> {
    let mut overrides = args
        .set
        .iter()
        .map(|set| Override::parse(set))
        .collect::<Result<Vec<_>, _>>()?;
    if let Some(device) = args.device {
        overrides.push(Override::of_option("--device", "device", &device.to_string()));
    }
    let sweep = Sweep::load(&args.file, &overrides)?;
    let figures = figure_names();
    let memory = attn_harness::environment::Environment::probe().memory_total_bytes;
    let setup = Setup {
        variants: VARIANTS,
        figures: &figures,
        memory_bytes: memory,
        rates: Rates::default(),
        cuda: cuda(),
    };
    let mut plan = Plan::build(&sweep, &setup)?;
    if let Some(expression) = &args.filter {
        plan = plan.filter(expression, VARIANTS)?;
    }
    if let Some(shard) = args.shard {
        plan = plan.shard(shard)?;
    }
    Ok(plan)
}

fn count(plan: &Plan, which: impl Fn(&Case) -> bool) -> usize {
    plan.cases.iter().filter(|case| which(case)).count()
}

/// A case under the names that rows have: the workload is a word, its sizes stand beside it.
fn case_value(case: &Case) -> Result<Value, Failure> {
    let mut value = serde_json::to_value(case).map_err(Failure::machine)?;
    if let Some(cells) = value.as_object_mut() {
        cells.insert("workload".to_string(), json!(case.workload.name()));
        for size in ["batch", "context", "tokens", "new_tokens"] {
            let number = case.cell(size).and_then(|text| text.parse::<u64>().ok());
            cells.insert(size.to_string(), json!(number));
        }
    }
    Ok(value)
}

fn text(plan: &Plan) -> String {
    let n_groups = plan.groups().count();
    let mut text = plan.name.clone();
    if !plan.question.is_empty() {
        text += &format!(": {}", plan.question);
    }
    text += &format!("\n{}, seed {}\n\n", plan.device, plan.seed);
    text += &if plan.cases.len() <= MAX_LINES {
        every_case(plan)
    } else {
        summary(plan)
    };
    let time = duration(plan.predicted_time_s());
    text += &format!(
        "\n{} in {}, about {time}\n",
        counted(plan.cases.len(), "case"),
        counted(n_groups, "group")
    );
    let oom = count(plan, |case| case.predicted_oom);
    if oom > 0 {
        text += &format!(
            "{} predicted not to fit in memory: skipped, with a row each\n",
            counted(oom, "case")
        );
    }
    for (reason, n) in reasons(plan) {
        text += &format!("{} unsupported: {reason}\n", counted(n, "case"));
    }
    text += "peak and time are estimates\n";
    text
}

fn counted(n: usize, word: &str) -> String {
    format!("{n} {word}{}", if n == 1 { "" } else { "s" })
}

/// Seconds below two minutes, then minutes, then hours: an estimate has no more digits.
fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

fn every_case(plan: &Plan) -> String {
    let header = [
        "workload",
        "variant",
        ">KV cache",
        ">weights",
        ">peak",
        ">FLOPs",
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
            format_time(case.predicted_time_s),
            note(case).to_string(),
        ]
    });
    table(&header, lines.collect())
}

fn note(case: &Case) -> &'static str {
    match (&case.unsupported, case.predicted_oom) {
        (Some(_), _) => "unsupported",
        (None, true) => "oom",
        (None, false) => "",
    }
}

/// The point of a case, with what varies beside the workload.
fn point(plan: &Plan, case: &Case) -> String {
    let mut text = match case.workload {
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
    };
    let first = &plan.cases[0];
    let varies = |differs: fn(&Case, &Case) -> bool| plan.cases.iter().any(|other| differs(first, other));
    if varies(|a, b| a.scope != b.scope) {
        text += &format!(" {}", case.scope.name());
    }
    if varies(|a, b| a.path != b.path) {
        text += &format!(" {}", case.path);
    }
    if varies(|a, b| a.dtype != b.dtype) {
        text += &format!(" {}", case.dtype);
    }
    text
}

/// One line a workload and variant, in the order of the plan.
fn summary(plan: &Plan) -> String {
    let mut lines: Vec<(&'static str, &str, Vec<&Case>)> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for case in &plan.cases {
        let key = (case.workload.name(), case.label.as_str());
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
        let oom = cases.iter().filter(|case| note(case) == "oom").count();
        let unsupported = cases.iter().filter(|case| case.unsupported.is_some()).count();
        let notes = [(oom, "oom"), (unsupported, "unsupported")];
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

fn reasons(plan: &Plan) -> Vec<(String, usize)> {
    let mut reasons: Vec<(String, usize)> = Vec::new();
    for reason in plan.cases.iter().filter_map(|case| case.unsupported.as_ref()) {
        match reasons.iter_mut().find(|(known, _)| known == reason) {
            Some((_, n)) => *n += 1,
            None => reasons.push((reason.clone(), 1)),
        }
    }
    reasons
}
