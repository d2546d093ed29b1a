//! `status`: how far runs and their shards are.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use attn_harness::plan::Shard;
use attn_harness::store::{Standing, State, Submission, is_run, runs_in};
use serde::Serialize;

use super::plan::{counted, duration};
use super::run::store_failure;
use crate::cli::{Format, StatusArgs};
use crate::failure::{Exit, Failure};
use crate::output::{print, print_json, table};

/// More shards than these are shown without those that are done or have not begun.
const MAX_LINES: usize = 50;

/// Prints how far every shard is.
pub fn execute(args: &StatusArgs) -> Result<Exit, Failure> {
    let mut overviews = Vec::new();
    for dir in &args.runs {
        overviews.push(Overview::of(dir)?);
    }
    match args.format.format {
        Format::Json => print_json(&overviews)?,
        Format::Table => {
            let texts: Vec<String> = overviews.iter().map(Overview::text).collect();
            print(&texts.join("\n"))?;
        }
    }
    let shards = overviews.iter().flat_map(|overview| &overview.shards);
    let damages: Vec<&str> = shards.filter_map(|standing| standing.damage.as_deref()).collect();
    match damages.as_slice() {
        [] => Ok(Exit::Done),
        damages => Err(Failure::input(damages.join("\n"))),
    }
}

/// A folder that was asked about.
#[derive(Serialize)]
struct Overview {
    run: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    submission: Option<Submission>,
    merged: Option<String>,
    totals: Totals,
    shards: Vec<Standing>,
}

/// Sums over shards.
#[derive(Default, Serialize)]
struct Totals {
    shards: usize,
    done: usize,
    running: usize,
    stopped: usize,
    waiting: usize,
    damaged: usize,
    /// Cases that are known; those of older runs are those that are stored.
    cases: usize,
    ok: usize,
    failed: usize,
    left: usize,
    predicted_time_left_s: f64,
    /// The longest of the shards: what is left where all run at once.
    longest_time_left_s: f64,
}

impl Overview {
    fn of(dir: &Path) -> Result<Self, Failure> {
        let submission = Submission::read(dir).map_err(store_failure)?;
        let runs = runs_in(dir).map_err(store_failure)?;
        let mut shards = Standing::of_all(&runs).map_err(store_failure)?;
        if let Some(submission) = &submission {
            let count = submission.shards.len();
            let begun: HashSet<PathBuf> = runs.into_iter().collect();
            for (part, index) in submission.shards.iter().zip(1..) {
                let folder = Submission::shard_dir(dir, index);
                if !begun.contains(&folder) {
                    let name = Shard::new(index, count).map_or(String::new(), |shard| shard.to_string());
                    shards.push(Standing::waiting(folder, name, part.cases, part.predicted_time_s));
                }
            }
            shards.sort_by_key(|standing| {
                let shard: Option<Shard> = standing.shard.as_deref().and_then(|shard| shard.parse().ok());
                shard.map_or(usize::MAX, Shard::index)
            });
        }
        let merged = dir.join("merged");
        let is_merged = submission.is_some() && is_run(&merged);
        Ok(Self {
            run: dir.display().to_string(),
            totals: Totals::of(&shards),
            merged: is_merged.then(|| merged.display().to_string()),
            submission,
            shards,
        })
    }

    fn text(&self) -> String {
        let mut text = self.run.clone();
        if let Some(submission) = &self.submission {
            let job = submission.job.as_deref().unwrap_or("not taken yet");
            text += &format!(": {}, {} job {job}", submission.name, submission.scheduler);
        }
        text += "\n";
        let is_short = self.shards.len() <= MAX_LINES;
        let told = |standing: &&Standing| {
            is_short || matches!(standing.state, State::Running | State::Stopped | State::Damaged)
        };
        let lines: Vec<Vec<String>> = self
            .shards
            .iter()
            .filter(told)
            .take(MAX_LINES)
            .map(line)
            .collect();
        let untold = self.shards.len() - lines.len();
        if !lines.is_empty() {
            let header = [
                "shard",
                "state",
                ">ok",
                ">failed",
                ">left",
                ">of",
                "last case",
                ">ago",
                ">predicted left",
            ];
            text += &format!("\n{}", table(&header, lines));
        }
        if untold > 0 {
            text += &format!("{} not shown: --format json has all\n", counted(untold, "shard"));
        }
        text += &self.totals.text();
        if self.shards.iter().any(|standing| !standing.knows_runner) {
            text +=
                "this file system does not tell whether a runner is at work: stopped shards may be running\n";
        }
        if let Some(merged) = &self.merged {
            text += &format!("merged: {merged}\n");
        }
        text
    }
}

fn line(standing: &Standing) -> Vec<String> {
    let number = |n: Option<usize>| n.map_or("?".to_string(), |n| n.to_string());
    let time = |time_s: Option<f64>| time_s.map_or(String::new(), duration);
    vec![
        standing.shard.clone().unwrap_or_else(|| "all".to_string()),
        standing.state.name().to_string(),
        standing.ok.to_string(),
        standing.failed.to_string(),
        number(standing.left),
        number(standing.cases),
        standing.last_case.clone().unwrap_or_default(),
        time(standing.last_row_age_s),
        time(standing.predicted_time_left_s),
    ]
}

impl Totals {
    fn of(shards: &[Standing]) -> Self {
        let mut totals = Self::default();
        for standing in shards {
            let state = match standing.state {
                State::Done => &mut totals.done,
                State::Running => &mut totals.running,
                State::Stopped => &mut totals.stopped,
                State::Waiting => &mut totals.waiting,
                State::Damaged => &mut totals.damaged,
            };
            *state += 1;
            totals.shards += 1;
            totals.cases += standing.cases.unwrap_or(standing.ok + standing.failed);
            totals.ok += standing.ok;
            totals.failed += standing.failed;
            totals.left += standing.left.unwrap_or(0);
            let left_s = standing.predicted_time_left_s.unwrap_or(0.0);
            totals.predicted_time_left_s += left_s;
            totals.longest_time_left_s = totals.longest_time_left_s.max(left_s);
        }
        totals
    }

    fn text(&self) -> String {
        let mut text = format!(
            "\n{} of {} stored, {} failed",
            self.ok + self.failed,
            counted(self.cases, "case"),
            self.failed
        );
        if self.left > 0 {
            text += &format!(", about {} of work left", duration(self.predicted_time_left_s));
        }
        let states = [
            (self.done, "done"),
            (self.running, "running"),
            (self.stopped, "stopped"),
            (self.waiting, "waiting"),
            (self.damaged, "damaged"),
        ];
        let states = states.iter().filter(|(n, _)| *n > 0);
        let states: Vec<String> = states.map(|(n, word)| format!("{n} {word}")).collect();
        text += &format!("; {}: {}\n", counted(self.shards, "shard"), states.join(", "));
        text
    }
}
