//! The worker's side of `quality`: the trainings of a case one after the other, kept so that they can go on.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use attn_core::ops::{self, Fallback};
use attn_core::{Build, Variant};
use attn_quality::{Agreement, End, Score, TaskModelConfig, Trainer, check, score};
use attn_tasks::Part;
use attn_testkit::tolerance;
use serde::{Deserialize, Serialize};

use super::job::{Job, JobSpec};
use super::protocol::Verdict;
use crate::memory;
use crate::plan;
use crate::row::{CurvePoint, Probe, Training};
use crate::run::Failure;
use crate::run::subject::Place;
use crate::stats::median;
use crate::sweep::OpenTask;

/// How often a training is kept, at least.
const KEEP_EVERY: Duration = Duration::from_secs(20);
/// Differences add up over layers, and gradients are sums over all tokens.
const LOGITS_FACTOR: f64 = 4.0;
const GRADIENTS_FACTOR: f64 = 32.0;
/// Steps of which times are kept for their median.
const TIMED_STEPS: usize = 10_000;

/// A case to train.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainingJob {
    /// The case.
    pub case: JobSpec,
    /// What is trained, and how.
    pub training: plan::Training,
    /// Where relative paths of data begin.
    pub base: PathBuf,
    /// Where trainings are kept.
    pub folder: PathBuf,
}

/// How far a case is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Number of the training, from 1.
    pub number: usize,
    /// Trainings.
    pub of: usize,
    /// Updates done.
    pub step: u64,
    /// Updates.
    pub steps: u64,
    /// Loss on the validation part, in nats an answer; none before the first evaluation.
    pub valid_nats: Option<f64>,
}

/// What became of a case's trainings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Trained {
    /// Where it ran: device, element type, path.
    pub resolved: Option<[String; 3]>,
    /// What became of the examples of its files.
    pub report: Option<String>,
    /// What the gate found.
    pub verdict: Option<Verdict>,
    /// Why the case cannot run here.
    pub unsupported: Option<String>,
    /// What went wrong.
    pub failed: Option<String>,
    /// One a seed.
    pub trainings: Vec<Training>,
    /// Their curves.
    pub curves: Vec<CurvePoint>,
    /// Their tests' answers by place.
    pub probes: Vec<Probe>,
    /// What was composed in place of a kernel, and why.
    pub composed: Vec<String>,
    /// Most bytes of the worker resident.
    pub rss_peak_bytes: Option<u64>,
}

/// One training that has ended.
#[derive(Serialize, Deserialize)]
struct Finished {
    training: Training,
    curve: Vec<CurvePoint>,
    probes: Vec<Probe>,
}

/// What a worker needs to train.
pub(super) struct School<'a> {
    pub(super) variants: &'a [&'static Variant],
    pub(super) place: Place,
    /// Called before each step.
    pub(super) note: &'a dyn Fn(),
    /// Told how far it is.
    pub(super) say: &'a mut dyn FnMut(Progress),
}

impl School<'_> {
    /// Trains a case once for each seed, from where it was left.
    pub(super) fn train(&mut self, job: &TrainingJob, trained: &mut Trained) -> Result<(), Failure> {
        (self.note)();
        let before = ops::fallbacks();
        let opened = job.training.task.open(&job.base).map_err(Failure::Failed)?;
        trained.report = opened.report();
        let case = Job::new(job.case.clone(), self.variants)?;
        let attention = case.variant.configure(&case.dims, &case.params)?;
        let spec = opened.task().spec();
        let config = job.training.model(&spec, attention.into());
        let build = Build::new(case.path, case.dtype.into(), self.place.device.clone());
        trained.resolved = Some([
            self.place.resolved.to_string(),
            case.dtype.to_string(),
            case.path.to_string(),
        ]);
        let case_id = file_name(&job.folder);
        if let Some(seed) = job.training.seeds.first() {
            (self.note)();
            let verdict = verify(&opened, &config, *seed, &build)?;
            let is_wrong = verdict.failure.is_some();
            trained.verdict = Some(verdict);
            if is_wrong {
                return Ok(());
            }
        }
        memory::reset_peak_rss();
        for (i, seed) in job.training.seeds.iter().enumerate() {
            let ended = self.seed(job, i, *seed, &opened, &config, &build, &case_id)?;
            trained.trainings.push(ended.training);
            trained.curves.extend(ended.curve);
            trained.probes.extend(ended.probes);
        }
        let composed = ops::fallbacks_since(&before);
        let words = |fallback: &Fallback| format!("{} is composed: {}", fallback.op, fallback.reason);
        trained.composed = composed.iter().map(words).collect();
        trained.rss_peak_bytes = memory::peak_rss_bytes();
        Ok(())
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "one call, of what its caller has at hand"
    )]
    fn seed(
        &mut self,
        job: &TrainingJob,
        i: usize,
        seed: u64,
        opened: &OpenTask,
        config: &TaskModelConfig,
        build: &Build,
        case_id: &str,
    ) -> Result<Finished, Failure> {
        let (task, training) = (opened.task(), &job.training);
        let done = job.folder.join(format!("seed-{seed}.json"));
        if let Some(ended) = read(&done)? {
            return Ok(ended);
        }
        let kept = job.folder.join(format!("seed-{seed}"));
        let device = &self.place.device;
        let live = memory::live_bytes(device);
        let mut trainer =
            Trainer::resume(&kept, task, config.clone(), training.options, seed, build).map_err(failed)?;
        let progress = |trainer: &Trainer<'_>| Progress {
            number: i + 1,
            of: training.seeds.len(),
            step: trainer.step(),
            steps: training.options.steps,
            valid_nats: trainer.curve().last().map(|point| point.valid_nats),
        };
        (self.say)(progress(&trainer));
        let (mut last_kept, mut steps_s) = (Instant::now(), Vec::new());
        let mut peak_bytes: Option<u64> = None;
        // One that was left during its test has no update to do.
        while trainer.end().is_none() {
            (self.note)();
            let evaluates = trainer.evaluates_next();
            memory::reset_peak(device);
            let began = Instant::now();
            let step = trainer.step() + 1;
            trainer.train_to(step).map_err(failed)?;
            let spent_s = began.elapsed().as_secs_f64();
            trainer.spend(spent_s);
            if evaluates {
                (self.say)(progress(&trainer));
            } else {
                let peak = memory::peak_bytes(device).map(|peak| peak.saturating_sub(live));
                peak_bytes = peak_bytes.max(peak);
                if steps_s.len() < TIMED_STEPS {
                    steps_s.push(spent_s);
                }
            }
            if last_kept.elapsed() >= KEEP_EVERY {
                trainer.save(&kept).map_err(failed)?;
                last_kept = Instant::now();
            }
        }
        // A test that is interrupted costs no training.
        trainer.save(&kept).map_err(failed)?;
        let diverged_at = match trainer.end() {
            Some(End::Diverged(step)) => Some(step),
            _ => None,
        };
        let tested = match diverged_at {
            Some(_) => None,
            None => {
                (self.note)();
                let model = trainer.model().map_err(failed)?;
                let batch = training.options.batch.max(32);
                match score(&model, task, Part::Test, training.test_examples, batch) {
                    // A test that is not finite ends a training as a loss does.
                    Err(attn_quality::Error::Model(attn_model::Error::NonFinite { .. })) => None,
                    tested => Some(tested.map_err(failed)?).filter(|score| score.value.is_finite()),
                }
            }
        };
        // Nothing is believed, or kept as ended, that was made of examples that could not be read.
        if let Some(fault) = opened.fault() {
            return Err(Failure::Failed(fault));
        }
        let ended = Finished {
            training: Training {
                case_id: case_id.to_string(),
                seed,
                steps: trainer.step(),
                diverged_at: diverged_at.or(tested.is_none().then(|| trainer.step())),
                quality: tested.as_ref().map(|score| score.value),
                test_nats: tested.as_ref().map(|score| score.given.nats),
                test_accuracy: tested.as_ref().map(|score| score.given.accuracy),
                cache_agreement: tested.as_ref().and_then(|score| score.given.agreement),
                train_time_s: trainer.spent_s(),
                train_step_s: (!steps_s.is_empty()).then(|| median(&steps_s)),
                peak_bytes,
            },
            curve: curve(&trainer, case_id, seed),
            probes: tested
                .as_ref()
                .map_or(Vec::new(), |score| probes(score, case_id, seed)),
        };
        write(&done, &ended)?;
        // What it was left from is of no more use, and no harm.
        let _ = fs::remove_dir_all(&kept);
        Ok(ended)
    }
}

fn curve(trainer: &Trainer<'_>, case_id: &str, seed: u64) -> Vec<CurvePoint> {
    let point = |point: &attn_quality::CurvePoint| CurvePoint {
        case_id: case_id.to_string(),
        seed,
        step: point.step,
        train_loss: point.train_loss,
        valid_nats: point.valid_nats,
        valid_accuracy: point.valid_accuracy,
        grad_norm: point.grad_norm,
    };
    let finite = trainer
        .curve()
        .iter()
        .filter(|point| point.valid_nats.is_finite());
    finite.map(point).collect()
}

fn probes(score: &Score, case_id: &str, seed: u64) -> Vec<Probe> {
    let cell = |cell: &attn_quality::ProbeCell| Probe {
        case_id: case_id.to_string(),
        seed,
        distance: cell.probe.distance as u64,
        load: cell.probe.load as u64,
        accuracy: cell.accuracy,
        answers: cell.answers as u64,
    };
    score.given.probes.iter().map(cell).collect()
}

/// Compares logits and gradients with a plain formulation before hours are spent on them.
fn verify(opened: &OpenTask, config: &TaskModelConfig, seed: u64, build: &Build) -> Result<Verdict, Failure> {
    let Agreement {
        logits,
        gradients,
        rows,
    } = check(opened.task(), config, seed, build).map_err(failed)?;
    let against = "seedlike in f64, logits and gradients".to_string();
    let tolerance = tolerance(build.dtype);
    let limits = [
        ("logits", logits, LOGITS_FACTOR),
        ("gradients", gradients, GRADIENTS_FACTOR),
    ];
    let wrong = limits
        .into_iter()
        .find(|(_, error, factor)| error.is_nan() || *error > factor * tolerance);
    let failure = wrong.map(|(what, error, factor)| {
        let limit = factor * tolerance;
        format!("{what} differ by {error:.1e} of their scale from {against}, {limit:.1e} allowed")
    });
    Ok(Verdict {
        against,
        rows,
        error_max: Some(logits),
        failure,
        ..Verdict::default()
    })
}

fn file_name(folder: &Path) -> String {
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_default()
}

fn failed(error: attn_quality::Error) -> Failure {
    match error {
        attn_quality::Error::Model(attn_model::Error::Layer(layer)) => layer.into(),
        other => Failure::Failed(other.to_string()),
    }
}

/// A training that has ended; none where it has not.
fn read(path: &Path) -> Result<Option<Finished>, Failure> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(Failure::Failed(format!(
                "cannot read {}: {error}",
                path.display()
            )));
        }
    };
    // Half a file is none: the training is kept beside it until it is whole.
    Ok(serde_json::from_str(&text).ok())
}

fn write(path: &Path, ended: &Finished) -> Result<(), Failure> {
    let text = serde_json::to_string(ended).map_err(|error| Failure::Failed(error.to_string()))?;
    fs::write(path, text)
        .map_err(|error| Failure::Failed(format!("cannot write {}: {error}", path.display())))
}
