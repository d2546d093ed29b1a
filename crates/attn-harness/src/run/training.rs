//! A case of `quality`: trained by a worker once for each seed, and made a row.

use std::time::Instant;

use super::group::{Done, GroupEnd};
use super::lanes::{Hall, Lane};
use super::report;
use super::session::{Session, Stop};
use super::{RunError, State};
use crate::plan::{Case, Quality};
use crate::progress::Observer;
use crate::row::{Details, Row, valid_nats};
use crate::stats::{Interval, mean_interval, median};
use crate::status::{Status, Trust};
use crate::store::RunDir;
use crate::table::workload_title;
use crate::worker::{JobSpec, Progress, Reply, Request, Trained, TrainingJob, thread_count};

/// Seeds below which an interval says little.
const SEEDS_MIN: usize = 3;

/// Trains the cases of a group on every side, one after the other.
pub(super) fn train_group(
    hall: &Hall<'_>,
    lane: &Lane,
    todo: &[Vec<&Case>],
    observer: &mut dyn Observer,
    state: &mut State,
) -> Result<GroupEnd, RunError> {
    let mut done = Vec::new();
    for (side, cases) in todo.iter().enumerate() {
        for case in cases {
            let Some(quality) = &case.quality else { continue };
            let build = &hall.builds[side];
            let mut row = report::describe(hall.plan, case, build.environment);
            describe(&mut row, case, quality);
            row.pair = hall.pair.clone();
            row.memory_limit_bytes = state.memory_bytes;
            if !report::is_on_gpu(&row) {
                let processors = build.environment.cpu.hardware_threads;
                row.threads = Some(thread_count(lane.share.part(processors).len()) as u64);
            }
            observer.group_started(&title(&row), 1);
            let mut details = Details::default();
            if !report::decide_unrun(&mut row, case, || None) {
                let pupil = Pupil {
                    hall,
                    lane,
                    side,
                    case,
                    quality,
                };
                match pupil.train(observer, state)? {
                    Outcome::Interrupted => return Ok(GroupEnd::Interrupted),
                    Outcome::Incident(status, reason) => {
                        (row.status, row.reason) = (status, Some(reason));
                    }
                    Outcome::Trained(trained) => details = conclude(&mut row, quality, *trained),
                }
            }
            if report::is_on_gpu(&row) {
                report::describe_gpu(&mut row, hall.gpus);
            }
            explain_nulls(&mut row);
            report::explain_nulls(&mut row);
            done.push(Done { side, row, details });
        }
    }
    Ok(GroupEnd::Measured(done))
}

/// `quality B=16 T=120 recall, MTLA s=2`.
fn title(row: &Row) -> String {
    let task = row.task.as_deref().unwrap_or_default();
    format!("{} {task}, {}", workload_title(row), row.label)
}

/// How a case ended.
enum Outcome {
    Interrupted,
    Incident(Status, String),
    Trained(Box<Trained>),
}

/// A case and where it is trained.
struct Pupil<'a, 'h> {
    hall: &'a Hall<'h>,
    lane: &'a Lane,
    side: usize,
    case: &'a Case,
    quality: &'a Quality,
}

impl Pupil<'_, '_> {
    fn train(&self, observer: &mut dyn Observer, state: &mut State) -> Result<Outcome, RunError> {
        let build = &self.hall.builds[self.side];
        let folder = RunDir::make_checkpoint(&build.folder, &self.case.id)?;
        // Workers may be in another folder.
        let absolute =
            |path: &std::path::Path| std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        let mut case = JobSpec::new(self.case, true, build.plants.of(self.case));
        if let Some(device) = self.lane.device {
            case.device = device;
        }
        let job = TrainingJob {
            case,
            training: self.quality.training.clone(),
            base: absolute(&self.hall.plan.base),
            folder: absolute(&folder),
        };
        let began = Instant::now();
        let worker = build.hire(self.lane.share).map_err(RunError::Worker)?;
        state.ledger.starting_s += began.elapsed().as_secs_f64();
        let mut session = Session::new(worker, self.hall.plan.measure.timeout_s, self.hall.interrupted)
            .with_limit(state.memory_bytes)
            .within(&self.hall.crowd);
        let began = Instant::now();
        session.send(&Request::Train(Box::new(job)));
        let outcome = loop {
            match session.reply() {
                Ok(Reply::Progress(progress)) => observer.phase(&words(&progress)),
                Ok(Reply::Trained(trained)) => break Outcome::Trained(trained),
                Ok(other) => {
                    let reason = format!("the worker answered something else: {other:?}");
                    break Outcome::Incident(Status::Crash, reason);
                }
                Err(Stop::Interrupted) => break Outcome::Interrupted,
                Err(Stop::Incident(incident)) => break Outcome::Incident(incident.status, incident.reason),
            }
        };
        state.ledger.training_s += began.elapsed().as_secs_f64();
        Ok(outcome)
    }
}

/// `training 2 of 3, step 300 of 1000, 1.234 nats`.
fn words(progress: &Progress) -> String {
    let Progress {
        number,
        of,
        step,
        steps,
        valid_nats,
    } = progress;
    let nats = valid_nats.map_or(String::new(), |nats| format!(", {nats:.3} nats"));
    format!("training {number} of {of}, step {step} of {steps}{nats}")
}

/// What is known of a case before it is trained.
fn describe(row: &mut Row, case: &Case, quality: &Quality) {
    let Quality {
        training,
        spec,
        parameters,
        ..
    } = quality;
    let sizes = &training.sizes;
    let has_encoder = spec.max_source > 0;
    let of_encoder = |n: usize| has_encoder.then_some(n as u64);
    row.task = Some(training.task_name.clone());
    row.train_steps = Some(training.options.steps);
    row.encoder_layers = of_encoder(sizes.encoder_layers);
    row.encoder_kernel = of_encoder(sizes.encoder_kernel);
    row.downsample = of_encoder(sizes.downsample);
    row.lr = Some(training.options.lr);
    row.training = serde_json::to_string(training).ok();
    row.parameters = Some(*parameters);
    row.quality_measure = Some(name(&spec.measure));
    row.quality_higher_is_better = Some(spec.measure.higher_is_better());
    row.quality_best = Some(spec.best);
    row.n_seeds = Some(training.seeds.len() as u64);
    row.test_examples = Some(training.test_examples);
    row.kv_bytes = Some(case.kv_bytes);
    // Of a source and a text that were both read, however few states were kept of them.
    let tokens = spec.max_source + spec.max_text.saturating_sub(1).max(1);
    row.kv_bytes_per_token = Some(case.kv_bytes as f64 / tokens as f64);
    row.bytes_moved = None;
    row.cache_regime = None;
    row.steps_per_sample = None;
}

/// The word for a measure, as everywhere in files.
fn name<T: serde::Serialize>(word: &T) -> String {
    let value = serde_json::to_value(word).unwrap_or_default();
    value.as_str().unwrap_or_default().to_string()
}

/// What the trainings say; returns what is stored beside the row.
fn conclude(row: &mut Row, quality: &Quality, trained: Trained) -> Details {
    if let Some([device, dtype, path]) = trained.resolved {
        (row.device_resolved, row.dtype_resolved, row.path_resolved) =
            (Some(device), Some(dtype), Some(path));
    }
    if let Some(examples) = &trained.report {
        report::note(row, examples);
    }
    row.rss_peak_bytes = trained.rss_peak_bytes;
    if let Some(verdict) = &trained.verdict {
        row.verified_against = Some(verdict.against.clone());
        row.verified_rows = Some(verdict.rows as u64);
        row.error_max = verdict.error_max;
    }
    let failure = trained.verdict.and_then(|verdict| verdict.failure);
    let runs = &trained.trainings;
    let mean = |of: &dyn Fn(&crate::row::Training) -> Option<f64>| -> Option<f64> {
        let values: Option<Vec<f64>> = runs.iter().map(of).collect();
        let values = values.filter(|values| !values.is_empty())?;
        Some(values.iter().sum::<f64>() / values.len() as f64)
    };
    row.train_time_s = mean(&|run| Some(run.train_time_s));
    let steps: Vec<f64> = runs.iter().filter_map(|run| run.train_step_s).collect();
    row.train_step_s = (!steps.is_empty()).then(|| median(&steps));
    row.peak_bytes = runs.iter().filter_map(|run| run.peak_bytes).max();
    row.valid_nats = valid_nats(&trained.curves);
    row.test_nats = mean(&|run| run.test_nats);
    row.test_accuracy = mean(&|run| run.test_accuracy);
    row.cache_agreement = mean(&|run| run.cache_agreement);
    let diverged: Vec<String> = runs
        .iter()
        .filter_map(|run| Some(format!("seed {} at update {}", run.seed, run.diverged_at?)))
        .collect();
    row.n_diverged = Some(diverged.len() as u64).filter(|_| !runs.is_empty());
    (row.status, row.reason) = if let Some(reason) = trained.unsupported {
        (Status::Unsupported, Some(reason))
    } else if let Some(reason) = trained.failed {
        (Status::Crash, Some(reason))
    } else if let Some(reason) = failure {
        (Status::Wrong, Some(reason))
    } else if !diverged.is_empty() {
        let n = runs.len();
        let reason = format!(
            "a loss was not finite in {} of {n} trainings: {}",
            diverged.len(),
            diverged.join(", ")
        );
        (Status::Diverged, Some(reason))
    } else {
        (Status::Ok, None)
    };
    if row.status == Status::Ok {
        let values: Vec<f64> = runs.iter().filter_map(|run| run.quality).collect();
        row.quality = mean(&|run| run.quality);
        if let Some((sd, Interval { low, high })) = mean_interval(&values) {
            (row.quality_sd, row.quality_ci_low, row.quality_ci_high) = (Some(sd), Some(low), Some(high));
        }
        let n = quality.training.seeds.len();
        let (trust, reason) = if !trained.composed.is_empty() {
            (Trust::Fallback, Some(trained.composed.join("; ")))
        } else if n < SEEDS_MIN {
            (
                Trust::Unconverged,
                Some(format!("{n} of at least {SEEDS_MIN} seeds")),
            )
        } else {
            (Trust::Clean, None)
        };
        (row.trust, row.trust_reason) = (Some(trust), reason);
    }
    Details {
        trainings: trained.trainings,
        curves: trained.curves,
        probes: trained.probes,
        ..Details::default()
    }
}

/// Says why columns of a training are empty.
fn explain_nulls(row: &mut Row) {
    let mut reasons = vec![
        ("bytes_moved", "not modelled: an update of a whole model"),
        (
            "kv_allocated_bytes",
            "not measured: the cache is audited where it is timed",
        ),
        (
            "kv_state_bytes",
            "not measured: the cache is audited where it is timed",
        ),
        ("cache_regime", "not applicable: nothing is sampled"),
        ("flush_bytes", "not applicable: nothing is sampled"),
        ("steps_per_sample", "not applicable: nothing is sampled"),
    ];
    let timed = "not measured: other trainings may run beside it, see train_step_s";
    if row.is_ok() {
        let columns = [
            "time_median_s",
            "tokens_per_s",
            "achieved_bytes_per_s",
            "achieved_flops_per_s",
            "bandwidth_fraction",
            "flops_fraction",
            "time_over_floor",
            "stop_rule",
        ];
        reasons.extend(columns.map(|column| (column, timed)));
        if row.n_seeds == Some(1) {
            let columns = ["quality_sd", "quality_ci_low", "quality_ci_high"];
            reasons.extend(columns.map(|column| (column, "not applicable: one seed has no spread")));
        }
    } else {
        reasons.push(("quality", "not measured: see status and reason"));
    }
    if row.downsample.is_none() {
        let columns = ["downsample", "encoder_layers", "encoder_kernel"];
        reasons.extend(columns.map(|column| (column, "not applicable: the task has no source")));
    }
    row.explain_nulls(&reasons);
}
