//! `merge`: the shards of a sweep as one run.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use attn_harness::digest::Digest;
use attn_harness::plan::Shard;
use attn_harness::store::{Merge, Planned, Submission, runs_in};
use attn_harness::table::TableFormat;
use attn_harness::{Case, Plan, Sweep};

use super::plot;
use super::run::{FIGURES_UP_TO, store_failure};
use crate::cli::MergeArgs;
use crate::failure::{Exit, Failure};
use crate::output::print;
use crate::shell::command_line;

/// Cases, shards and folders that are named; of more only the number is told.
const NAMED: usize = 10;

/// Merges the runs and says what is missing and what was there twice.
pub fn execute(args: &MergeArgs) -> Result<Exit, Failure> {
    let (mut runs, mut named) = (Vec::new(), HashSet::new());
    let mut submissions = Vec::new();
    for dir in &args.runs {
        submissions.extend(Submission::read(dir).map_err(store_failure)?);
        for run in runs_in(dir).map_err(store_failure)? {
            // The same folder twice is no duplicate of its cases.
            if named.insert(std::fs::canonicalize(&run).unwrap_or_else(|_| run.clone())) {
                runs.push(run);
            }
        }
    }
    if runs.is_empty() {
        return Err(Failure::input(
            "no shard has begun yet, there is nothing to merge: `attn-bench status` says how far they are",
        ));
    }
    let mut merge = Merge::read(&runs, &args.out).map_err(store_failure)?;
    for warning in &merge.warnings {
        eprintln!("warning: {warning}");
    }
    let digest = merge.build_tables().map_err(store_failure)?;
    let expected = Expected::of(&merge, &submissions);
    let report = report(&merge, &expected, &digest);
    let summary = format!(
        "{}\n{report}\n{}",
        digest.table(TableFormat::Markdown),
        digest.lookback()
    );
    let planned = Planned {
        cases: merge.cases() + expected.missing,
        predicted_time_s: expected.predicted_time_s,
        shard: None,
        shard_by: None,
        filter: expected.filter.clone(),
    };
    let (duplicates, is_whole) = (merge.n_duplicates, expected.is_whole());
    merge
        .finish(&command_line(), &summary, expected.is_known.then_some(&planned))
        .map_err(store_failure)?;
    let figures = match digest.ok() {
        0 => String::new(),
        1..=FIGURES_UP_TO => plot::draw(std::slice::from_ref(&args.out), &args.out.join("plots"))?,
        n => format!(
            "no figures of {n} cases: attn-bench plot {}\n",
            args.out.display()
        ),
    };
    print(&format!(
        "{}\n{report}rows: {}\n{figures}",
        digest.table(TableFormat::Table),
        args.out.join("rows.parquet").display()
    ))?;
    if duplicates > 0 {
        eprintln!("{duplicates} cases were there more than once, each is kept once");
    }
    if !is_whole {
        eprintln!("cases are missing: {}", expected.in_short());
        return Ok(Exit::CasesFailed);
    }
    Ok(Exit::Done)
}

/// What should be there, and is not.
struct Expected {
    /// Whether it is known what should be there.
    is_known: bool,
    /// Cases without a row.
    missing: usize,
    /// Some of them by name.
    names: Vec<String>,
    /// Shards of which there is no run, `3/8`.
    absent: Vec<String>,
    /// Estimated time of all cases, in seconds.
    predicted_time_s: f64,
    /// What was kept of the sweep, where that is the same for all runs.
    filter: Option<String>,
    /// Why the missing cases have no names.
    unnamed: Option<String>,
}

impl Expected {
    /// The runs themselves say what they were to do. Only where something is missing, or one does not say, is the sweep
    /// planned again.
    fn of(merge: &Merge, submissions: &[Submission]) -> Self {
        let planned: Vec<Option<&Planned>> = merge
            .sources
            .iter()
            .map(|source| source.planned.as_ref())
            .collect();
        let mut filters: BTreeSet<Option<String>> = planned
            .iter()
            .map(|it| it.and_then(|it| it.filter.clone()))
            .collect();
        filters.extend(submissions.iter().map(|submission| submission.filter.clone()));
        let absent = absent(&planned, submissions);
        let incomplete = merge.sources.iter().any(|source| match &source.planned {
            Some(planned) => source.cases < planned.cases,
            None => true,
        });
        let mut expected = Self {
            is_known: true,
            missing: 0,
            names: Vec::new(),
            absent: absent.iter().map(Shard::to_string).collect(),
            predicted_time_s: planned.iter().flatten().map(|it| it.predicted_time_s).sum(),
            filter: (filters.len() == 1)
                .then(|| filters.first().cloned().flatten())
                .flatten(),
            unnamed: None,
        };
        if !incomplete && absent.is_empty() {
            return expected;
        }
        // Too long ago to know what was kept of the sweep: it counts as all of it.
        match plans(merge.sweep_yaml(), &filters) {
            Ok(plans) => expected.look_up(merge, &plans, absent.first().map(|shard| shard.count())),
            Err(reason) => {
                let short = merge.sources.iter().map(|source| match &source.planned {
                    Some(planned) => planned.cases.saturating_sub(source.cases),
                    None => 0,
                });
                expected.missing = short.sum();
                expected.is_known = false;
                expected.unnamed = Some(reason);
            }
        }
        expected
    }

    fn look_up(&mut self, merge: &Merge, plans: &[Plan], shards: Option<usize>) {
        let mut seen = HashSet::new();
        self.predicted_time_s = 0.0;
        for plan in plans {
            let of_case: HashMap<&str, usize> = match shards {
                Some(count) if plans.len() == 1 => plan.shard_of_cases(count).into_iter().flatten().collect(),
                _ => HashMap::new(),
            };
            for case in plan.cases.iter().filter(|case| seen.insert(case.id.clone())) {
                self.predicted_time_s += if case.runs_here() {
                    case.predicted_time_s
                } else {
                    0.0
                };
                if merge.holds(&case.id) {
                    continue;
                }
                self.missing += 1;
                if self.names.len() < NAMED {
                    let shard = of_case
                        .get(case.id.as_str())
                        .map(|shard| format!(", shard {shard}"));
                    self.names
                        .push(format!("{}{}", name(case), shard.unwrap_or_default()));
                }
            }
        }
    }

    fn is_whole(&self) -> bool {
        self.missing == 0 && self.unnamed.is_none()
    }

    fn in_short(&self) -> String {
        let mut text = format!("{} without a row", self.missing);
        if !self.absent.is_empty() {
            text += &format!(", {} shards have no run", self.absent.len());
        }
        if let Some(reason) = &self.unnamed {
            text += &format!("; which they are cannot be said: {reason}");
        }
        text
    }
}

/// Shards that no run is of.
fn absent(planned: &[Option<&Planned>], submissions: &[Submission]) -> Vec<Shard> {
    let mut parts: BTreeMap<(Option<&str>, usize), BTreeSet<usize>> = BTreeMap::new();
    for planned in planned.iter().flatten() {
        if let Some(shard) = planned.shard() {
            let part = parts
                .entry((planned.filter.as_deref(), shard.count()))
                .or_default();
            part.insert(shard.index());
        }
    }
    for submission in submissions {
        parts
            .entry((submission.filter.as_deref(), submission.shards.len()))
            .or_default();
    }
    // A run of all cases has those of every shard.
    let is_whole = |filter: Option<&str>| {
        let mut of_filter = planned
            .iter()
            .flatten()
            .filter(|planned| planned.filter.as_deref() == filter);
        of_filter.any(|planned| planned.shard.is_none())
    };
    let mut absent = Vec::new();
    for ((filter, count), known) in parts {
        if !is_whole(filter) {
            let missing = (1..=count).filter(|index| !known.contains(index));
            absent.extend(missing.filter_map(|index| Shard::new(index, count)));
        }
    }
    absent
}

/// The sweep's plan for each filter.
fn plans(sweep_yaml: &str, filters: &BTreeSet<Option<String>>) -> Result<Vec<Plan>, String> {
    let sweep = Sweep::parse(Path::new("sweep.yaml"), sweep_yaml.to_string(), &[]);
    let sweep = sweep.map_err(|error| error.to_string())?;
    let plan = |filter: &Option<String>| super::plan::of_sweep(&sweep, filter.as_deref());
    filters
        .iter()
        .map(plan)
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())
}

fn name(case: &Case) -> String {
    let size = |name: &str| case.cell(name).map(|value| format!(" {name}={value}"));
    let sizes: String = ["context", "tokens", "new_tokens", "batch", "beam"]
        .into_iter()
        .filter_map(size)
        .collect();
    format!(
        "{} {}{sizes} {} {} {} ({})",
        case.label,
        case.workload_name(),
        case.scope.name(),
        case.path,
        case.dtype,
        case.id
    )
}

/// What was merged, in sentences.
fn report(merge: &Merge, expected: &Expected, digest: &Digest) -> String {
    let mut text = format!(
        "merged {} runs of {} machines and builds: {} cases, {} measured, {} failed\n",
        merge.sources.len(),
        merge.machines(),
        merge.cases(),
        digest.ok(),
        digest.rows() - digest.ok()
    );
    let not_done = merge.sources.iter().filter_map(|source| {
        let planned = source.planned.as_ref()?;
        (source.cases < planned.cases).then(|| {
            let state = if source.is_live == Some(true) {
                "still running"
            } else {
                "stopped"
            };
            let shard = planned.shard.as_ref().map(|shard| format!(" (shard {shard})"));
            format!(
                "{}{}: {state}, {} of {} cases",
                source.dir.display(),
                shard.unwrap_or_default(),
                source.cases,
                planned.cases
            )
        })
    });
    if !merge.has_log() {
        text += "no log.jsonl, which would be gigabytes: the runs keep theirs; rows stand run by run\n";
    }
    list(&mut text, "not done", not_done.collect());
    list(&mut text, "no run of shard", expected.absent.clone());
    if expected.missing > 0 {
        text += &format!("missing: {} cases without a row\n", expected.missing);
        expected
            .names
            .iter()
            .for_each(|name| text += &format!("  {name}\n"));
        if expected.missing > expected.names.len() && !expected.names.is_empty() {
            text += &format!("  and {} more\n", expected.missing - expected.names.len());
        }
    }
    let source = |at: usize| {
        merge
            .sources
            .get(at)
            .map_or(String::new(), |source| source.dir.display().to_string())
    };
    let twice = merge.duplicates.iter().map(|duplicate| {
        format!(
            "{}: kept that of {}, not that of {}",
            duplicate.case_id,
            source(duplicate.kept),
            source(duplicate.left_out)
        )
    });
    let twice: Vec<String> = twice.collect();
    if !twice.is_empty() {
        text += "a case of several runs is kept once: a row that is ok goes before one that is not, else the run named first\n";
    }
    let more = merge.n_duplicates - twice.len();
    list_with(&mut text, "there more than once", twice, more);
    text
}

fn list(text: &mut String, what: &str, items: Vec<String>) {
    list_with(text, what, items, 0);
}

/// Some lines, and how many more there are.
fn list_with(text: &mut String, what: &str, items: Vec<String>, more: usize) {
    for item in items.iter().take(NAMED) {
        *text += &format!("{what}: {item}\n");
    }
    let more = more + items.len().saturating_sub(NAMED);
    if more > 0 {
        *text += &format!("{what}: and {more} more\n");
    }
}
