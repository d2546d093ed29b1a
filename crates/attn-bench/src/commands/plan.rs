//! `plan`: the cases of a sweep with what they will need. Nothing runs.

mod table;

use std::collections::HashSet;
use std::path::Path;

use attn_harness::device::{DeviceList, Resolved};
use attn_harness::environment::Environment;
use attn_harness::plan::{NOTABLE_MISMATCH, Rates, Setup, Totals, Which};
use attn_harness::units::{format_bytes, format_count, format_time};
use attn_harness::{Case, DeviceRequest, Override, Plan, Sweep};
use attn_harness::{device, store};
use serde_json::{Value, json};

use crate::cli::{Format, PlanArgs, SweepArgs};
use crate::failure::{Exit, Failure};
use crate::output::{print, print_json};
use crate::registry::{VARIANTS, figure_names};

/// More cases than these are summed up, one line a workload and variant.
const MAX_LINES: usize = 100;

/// Prints the plan.
pub fn execute(args: &PlanArgs) -> Result<Exit, Failure> {
    let plan = load(&args.sweep)?;
    let stored = match &args.out {
        Some(out) => stored(out)?,
        None => HashSet::new(),
    };
    let totals = plan.totals(&stored);
    say_which(&args.sweep)?;
    match args.format.format {
        Format::Table => print(&text(&plan, &totals, args.out.as_deref()))?,
        Format::Json => print_json(&json!({
            "name": plan.name,
            "question": plan.question,
            "device": plan.device,
            "measure": plan.measure,
            "rates": plan.rates,
            "figures": plan.figures,
            "cases": plan.cases.iter().map(case_value).collect::<Result<Vec<_>, _>>()?,
            "totals": totals,
        }))?,
    }
    Ok(Exit::Done)
}

/// Ids of the cases that a run has stored already.
fn stored(out: &Path) -> Result<HashSet<String>, Failure> {
    let stored = store::stored(out).map_err(Failure::input)?;
    for warning in &stored.warnings {
        eprintln!("warning: {}: {warning}", out.display());
    }
    Ok(stored.cases.into_iter().map(|case| case.case_id).collect())
}

/// The plan of a sweep file with the changes of the command line.
pub fn load(args: &SweepArgs) -> Result<Plan, Failure> {
    load_for(args, None)
}

/// [`load`] where several GPUs may share the sweep. Its cases are then those of `cuda`, whichever GPU takes them: a run
/// may go on with others.
pub fn load_for(args: &SweepArgs, devices: Option<&DeviceList>) -> Result<Plan, Failure> {
    let found = devices.map(DeviceList::require).transpose()?;
    let mut overrides = args
        .set
        .iter()
        .map(|set| Override::parse(set))
        .collect::<Result<Vec<_>, _>>()?;
    if let Some(device) = args.device {
        overrides.push(Override::of_option("--device", "device", &device.to_string()));
    }
    if devices.is_some() {
        overrides.push(Override::of_option("--devices", "device", "cuda"));
    }
    let sweep = Sweep::load(&args.file, &overrides)?;
    let memory_bytes = match &found {
        // What fits each of them.
        Some(gpus) => gpus.iter().filter_map(|gpu| gpu.memory_bytes()).min(),
        None => memory_bytes(sweep.file.device),
    };
    let figures = figure_names();
    let setup = Setup {
        variants: VARIANTS,
        figures: &figures,
        memory_bytes,
        rates: Rates::default(),
        device: match &found {
            // They have been found, and any of them stands for `cuda`.
            Some(_) => |_| Ok(Resolved::Cuda(0)),
            None => device::resolve,
        },
    };
    let mut plan = Plan::build(&sweep, &setup)?;
    if let Some(expression) = &args.filter {
        plan = plan.filter(expression, VARIANTS)?;
    }
    if let Some(which) = which(args)? {
        plan = plan.shard(which.shard)?;
    }
    Ok(plan)
}

/// Says which part a scheduler's environment asked for, and by which variables.
pub fn say_which(args: &SweepArgs) -> Result<(), Failure> {
    if let Some(which) = which(args)?.filter(|which| !which.by.is_empty()) {
        eprintln!("shard {} ({})", which.shard, which.by);
    }
    Ok(())
}

/// The part of the sweep that is asked for.
pub fn which(args: &SweepArgs) -> Result<Option<Which>, Failure> {
    let request = args
        .shard
        .map(|shard| shard.resolve(&|name| std::env::var(name).ok()));
    Ok(request.transpose()?)
}

/// The plan of a sweep that is at hand, on this machine.
pub fn of_sweep(sweep: &Sweep, filter: Option<&str>) -> Result<Plan, attn_harness::Error> {
    let figures = figure_names();
    let setup = Setup {
        variants: VARIANTS,
        figures: &figures,
        memory_bytes: memory_bytes(sweep.file.device),
        rates: Rates::default(),
        device: device::resolve,
    };
    let plan = Plan::build(sweep, &setup)?;
    match filter {
        Some(expression) => plan.filter(expression, VARIANTS),
        None => Ok(plan),
    }
}

/// Memory of the device, or of the machine where that is the device or there is no other.
fn memory_bytes(request: DeviceRequest) -> Option<u64> {
    let of_gpu = device::resolve(request).ok().and_then(Resolved::memory_bytes);
    of_gpu.or_else(|| Environment::probe().memory_total_bytes)
}

/// A case under the names that rows have: the workload is a word, its sizes stand beside it.
fn case_value(case: &Case) -> Result<Value, Failure> {
    let mut value = serde_json::to_value(case).map_err(Failure::machine)?;
    if let Some(cells) = value.as_object_mut() {
        cells.insert("workload".to_string(), json!(case.workload_name()));
        for size in ["batch", "context", "tokens", "new_tokens", "beam"] {
            let number = case.cell(size).and_then(|text| text.parse::<u64>().ok());
            cells.insert(size.to_string(), json!(number));
        }
    }
    Ok(value)
}

fn text(plan: &Plan, totals: &Totals, out: Option<&Path>) -> String {
    let mut text = plan.name.clone();
    if !plan.question.is_empty() {
        text += &format!(": {}", plan.question);
    }
    text += &format!("\n{}, seed {}\n\n", plan.device, plan.seed);
    text += &if plan.cases.len() <= MAX_LINES {
        table::every_case(plan)
    } else {
        table::summary(plan)
    };
    let numbers = [
        counted(totals.cases, "case"),
        counted(totals.groups, "group"),
        counted(totals.points, "point"),
        duration(totals.predicted_time_s),
    ];
    let [cases, groups, points, time] = numbers;
    text += &format!("\n{cases} in {groups} at {points}, about {time}\n");
    if totals.duplicates_removed > 0 {
        text += &format!("{} removed\n", counted(totals.duplicates_removed, "duplicate"));
    }
    let (kv, weights) = (totals.max_kv_bytes as f64, totals.max_weights_bytes as f64);
    text += &format!(
        "at most: KV cache {}, weights {}, peak {}\n",
        format_bytes(kv),
        format_bytes(weights),
        format_bytes(totals.max_predicted_peak_bytes as f64)
    );
    text += &format!(
        "one run of each: {}FLOPs, no less than {} at {}B/s and {}FLOP/s\n",
        spaced(totals.flops),
        format_time(totals.predicted_floor_s),
        spaced(plan.rates.bytes_per_s),
        spaced(plan.rates.flops_per_s)
    );
    text += &fairness(plan);
    if let Some(out) = out {
        let (stored, left) = (totals.stored, duration(totals.time_left_s));
        text += &format!(
            "{stored} of {cases} stored in {}, about {left} left\n",
            out.display()
        );
    }
    if totals.oom > 0 {
        let beyond = match totals.dominated {
            0 => String::new(),
            n => format!(", {n} of them beyond a smaller one"),
        };
        text += &format!(
            "{} predicted not to fit in memory{beyond}: skipped, with a row each\n",
            counted(totals.oom, "case"),
        );
    }
    for (reason, n) in reasons(plan) {
        text += &format!("{} unsupported: {reason}\n", counted(n, "case"));
    }
    text += "peak, floor and time are estimates\n";
    text
}

/// What is held equal, and how well.
fn fairness(plan: &Plan) -> String {
    let Some((fair, worst)) = plan.worst_match() else {
        return String::new();
    };
    let mut text = format!("held equal: {} of {}", fair.hold, fair.reference);
    let off = plan.cases.iter().filter(|case| case.is_off()).count();
    if off > 0 {
        text += &format!(
            "; {} off by more than {:.0} %, the most {} at {} by {}",
            counted(off, "case"),
            100.0 * NOTABLE_MISMATCH,
            worst.label,
            table::point(plan, worst),
            table::percent(fair.mismatch)
        );
    }
    text + "\n"
}

/// A count before its unit: `50.0 G`, and a space where it has no prefix.
fn spaced(count: f64) -> String {
    let text = format_count(count);
    if text.ends_with(char::is_alphabetic) {
        text
    } else {
        text + " "
    }
}

pub fn counted(n: usize, word: &str) -> String {
    format!("{n} {word}{}", if n == 1 { "" } else { "s" })
}

/// Seconds below two minutes, then minutes, then hours: an estimate has no more digits.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
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
