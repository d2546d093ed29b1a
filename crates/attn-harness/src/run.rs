//! The runner: a plan's groups one after the other on each device, every one built, verified, warmed, interleaved and measured by a worker
//! process, and stored.
//!
//! The runner itself touches no device and makes no tensor. Whatever happens to a case becomes its row.

mod ceilings;
pub(crate) mod check;
mod check_model;
mod energy;
mod gpu;
mod group;
mod lanes;
mod ledger;
pub(crate) mod measure;
pub(crate) mod model;
mod report;
mod rotation;
mod saboteur;
mod session;
mod stopwatch;
pub(crate) mod subject;
mod training;
mod work;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::ceilings::Ceilings;
use crate::environment::Environment;
use crate::nvml::Gpus;
use crate::plan::{Case, Plan};
use crate::progress::Observer;
use crate::status::Status;
use crate::store::{RunDir, StoreError, StoredCase};
use crate::sweep::DeviceRequest;
use crate::worker::{Plants, Workshop};
use lanes::{Build, Desk, Hall, Lane};
use session::Crowd;

pub use ledger::Ledger;
pub use measure::{Clock, Measured, Taken, Task, WallClock, measure, warm};
pub use model::Phases;

/// Where the cases of a build go: its workers, its folder, and what that folder holds already.
pub struct Side<'a> {
    /// Workers of the build.
    pub workshop: &'a mut dyn Workshop,
    /// The run's folder.
    pub dir: &'a mut RunDir,
    /// The machine and the build.
    pub environment: Environment,
    /// Cases of an earlier session of the same run.
    pub stored: Vec<StoredCase>,
    /// Faults that a test planted in this build's workers.
    pub plants: Plants,
}

/// What a run needs beside its plan and its sides.
pub struct Run<'a> {
    /// The plan; every case of it that has no row yet is run.
    pub plan: &'a Plan,
    /// Told what happens.
    pub observer: &'a mut dyn Observer,
    /// Looked at several times a second.
    pub interrupted: &'a AtomicBool,
    /// What two sides that are measured together write into their rows.
    pub pair: Option<String>,
    /// What a worker may allocate, as its settings say.
    pub memory_bytes: Option<u64>,
    /// Devices that share the groups, in place of the plan's own; none for that one.
    pub devices: Vec<DeviceRequest>,
    /// The GPUs that there are, and their counters.
    pub gpus: Gpus,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// How many cases were run in this session, for each side.
    pub cases: Vec<usize>,
    /// Whether it was interrupted before the last case.
    pub interrupted: bool,
    /// Where the time went.
    pub ledger: Ledger,
    /// What the devices it ran on can do, by their names.
    pub ceilings: BTreeMap<String, Ceilings>,
}

/// Why a run had to end; what it measured by then is stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A row cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No worker can be started, or workers die before they touch a case.
    #[error("cannot run a worker process: {0}")]
    Worker(#[source] io::Error),
}

/// What a run keeps in mind from group to group.
struct State {
    began: Instant,
    ledger: Ledger,
    ceilings: ceilings::Known,
    /// The fastest clock seen, 0 before the first look.
    best_clock_rate: f64,
    /// What a worker may allocate.
    memory_bytes: Option<u64>,
}

impl State {
    /// The state of one of several devices, whose time begins now.
    fn for_lane(&self) -> Self {
        Self {
            ledger: Ledger::default(),
            ceilings: self.ceilings.clone(),
            ..*self
        }
    }
}

/// Runs every case of a plan on each side and writes its row as soon as its group is measured.
///
/// Two sides are measured together, case by case and sample by sample in turns, so that what the machine does falls on
/// both alike. Several devices measure a group each at the same time.
///
/// # Errors
/// [`RunError`]; a case that fails is no error but a row.
pub fn run(run: Run<'_>, sides: &mut [Side<'_>]) -> Result<Outcome, RunError> {
    let Run { plan, observer, .. } = run;
    let mut state = State {
        began: Instant::now(),
        ledger: Ledger::default(),
        ceilings: ceilings::Known::default(),
        best_clock_rate: 0.0,
        memory_bytes: run.memory_bytes,
    };
    let mut out_of_memory: Vec<Vec<&Case>> = Vec::new();
    let (mut builds, mut dirs) = (Vec::new(), Vec::new());
    for side in sides {
        let oom = side.stored.iter().filter(|case| case.status == Status::Oom);
        let oom: HashSet<&str> = oom.map(|case| case.case_id.as_str()).collect();
        let known = plan.cases.iter().filter(|case| oom.contains(case.id.as_str()));
        out_of_memory.push(known.collect());
        builds.push(Build {
            stored: side.stored.iter().map(|case| case.case_id.clone()).collect(),
            workshop: Mutex::new(&mut *side.workshop),
            environment: &side.environment,
            plants: &side.plants,
            folder: side.dir.path().to_path_buf(),
        });
        dirs.push(&mut *side.dir);
    }
    let hall = Hall {
        plan,
        pair: run.pair,
        builds,
        gpus: &run.gpus,
        interrupted: run.interrupted,
        crowd: Crowd::default(),
    };
    let is_open = |case: &Case| (0..hall.builds.len()).any(|build| hall.is_open(build, case));
    let mut groups: Vec<&[Case]> = plan.groups().collect();
    // Drift of the machine then does not fall on the ends of the sweep's axes.
    groups.shuffle(&mut ChaCha8Rng::seed_from_u64(
        plan.measure.seed.unwrap_or(plan.seed),
    ));
    groups.retain(|group| group.iter().any(is_open));
    let (trainings, timed): (Vec<&[Case]>, Vec<&[Case]>) = groups.into_iter().partition(is_training);
    let open = |build: usize| plan.cases.iter().filter(|case| hall.is_open(build, case)).count();
    let left: usize = (0..hall.builds.len()).map(open).sum();
    observer.run_started(&plan.name, left);

    let mut finished = true;
    let is_left = |case: &&Case| case.quality.is_none() && case.runs_here() && is_open(case);
    if plan.measure.ceilings && plan.cases.iter().any(|case| is_left(&case)) {
        observer.phase("measuring what the machine can do");
        let left = plan.cases.iter().filter(is_left);
        finished = ceilings::measure(&hall, left, &run.devices, &mut state)?;
    }
    let lanes = Lane::all(&run.devices, plan, &run.gpus);
    let desk = Mutex::new(Desk {
        observer,
        cases: vec![0; dirs.len()],
        dirs,
        groups: timed.into(),
        out_of_memory,
        given_up: Vec::new(),
        interrupted: !finished,
        error: None,
        lost: None,
    });
    state.ledger.worked_s = state.began.elapsed().as_secs_f64();
    let worked = lanes::work(&hall, &lanes, &desk, &state);
    state.ledger.add(&worked);
    // Trainings come last: nothing is timed beside them.
    let lanes = Lane::beside_each_other(&run.devices, plan, &run.gpus, &trainings);
    if lanes::at(&desk).goes_on_with(trainings) {
        let worked = lanes::work(&hall, &lanes, &desk, &state);
        state.ledger.add(&worked);
    }
    let desk = desk.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = desk.error {
        return Err(error);
    }
    if let (Some(error), false, false) = (desk.lost, desk.groups.is_empty(), desk.interrupted) {
        return Err(RunError::Worker(error));
    }
    state.ledger.total_s = state.began.elapsed().as_secs_f64();
    desk.observer.run_finished(state.ledger.total_s);
    Ok(Outcome {
        cases: desk.cases,
        interrupted: desk.interrupted,
        ledger: state.ledger,
        ceilings: state.ceilings.into_measured(),
    })
}

fn is_training(group: &&[Case]) -> bool {
    group.iter().any(|case| case.quality.is_some())
}

/// Waits, unless interrupted.
fn pause(duration: Duration, interrupted: &AtomicBool) {
    let until = Instant::now() + duration;
    while !interrupted.load(Ordering::Relaxed) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
}

/// Why a case could not be built, verified or run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Possible in principle, but not here.
    Unsupported(String),
    /// An error or a panic.
    Failed(String),
}

impl From<attn_core::Error> for Failure {
    fn from(error: attn_core::Error) -> Self {
        match error {
            attn_core::Error::Unsupported { .. } => Self::Unsupported(error.to_string()),
            other => Self::Failed(other.to_string()),
        }
    }
}

impl From<candle_core::Error> for Failure {
    fn from(error: candle_core::Error) -> Self {
        attn_core::Error::from(error).into()
    }
}

impl Failure {
    /// Why, whatever kind it is.
    pub(crate) fn into_reason(self) -> String {
        match self {
            Self::Unsupported(reason) | Self::Failed(reason) => reason,
        }
    }
}

/// Runs `work`; a panic is a failure like any other.
pub(crate) fn caught<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Err(Failure::Failed(format!("panicked: {text}")))
    })
}
