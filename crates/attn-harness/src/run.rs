//! The runner: a plan's groups one after the other, each verified, warmed, interleaved, measured and stored.

mod check;
mod measure;
mod report;
mod subject;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::environment::{Environment, cpu_mhz, load_average};
use crate::memory;
use crate::plan::{Case, Plan};
use crate::progress::Observer;
use crate::row::{Row, Sample};
use crate::status::Status;
use crate::store::{RunDir, StoreError};
use crate::table::workload_title;
pub use measure::{Clock, Measured, Task, WallClock, measure};
use subject::Subject;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Cases that have a row.
    pub cases: usize,
    /// Cases whose row is not `ok`.
    pub failed: usize,
    /// Whether it was interrupted before the last case.
    pub interrupted: bool,
}

/// Runs every case of `plan` and writes its row to `dir` as soon as its group is measured.
///
/// Whatever happens to a case becomes its row: one that fails, panics or gives a wrong result ends neither its group
/// nor the run. `interrupted` is looked at between samples.
///
/// # Errors
/// [`StoreError`] where a row cannot be written.
pub fn run(
    plan: &Plan,
    dir: &mut RunDir,
    environment: &Environment,
    observer: &mut dyn Observer,
    interrupted: &AtomicBool,
) -> Result<(Outcome, Vec<Row>), StoreError> {
    let clock = WallClock::default();
    let began = Instant::now();
    observer.run_started(&plan.name, plan.cases.len());
    let mut rows: Vec<Row> = Vec::with_capacity(plan.cases.len());
    for group in plan.groups() {
        if interrupted.load(Ordering::Relaxed) {
            break;
        }
        let results = run_group(plan, group, environment, observer, &clock, interrupted);
        for (row, samples) in results {
            dir.append(&row, &samples)?;
            observer.case_finished(&row);
            rows.push(row);
        }
    }
    observer.run_finished(began.elapsed().as_secs_f64());
    let failed = rows.iter().filter(|row| row.status != Status::Ok).count();
    let outcome = Outcome {
        cases: rows.len(),
        failed,
        interrupted: rows.len() < plan.cases.len(),
    };
    Ok((outcome, rows))
}

/// One case on its way from plan to row.
struct Running<'a> {
    case: &'a Case,
    row: Row,
    subject: Option<Subject>,
}

/// Verifies, warms and measures the cases of a group; an interrupted group leaves no rows.
fn run_group(
    plan: &Plan,
    group: &[Case],
    environment: &Environment,
    observer: &mut dyn Observer,
    clock: &WallClock,
    interrupted: &AtomicBool,
) -> Vec<(Row, Vec<Sample>)> {
    let mut running: Vec<Running> = group
        .iter()
        .map(|case| Running {
            case,
            row: report::describe(plan, case, environment),
            subject: None,
        })
        .collect();
    if let Some(first) = running.first() {
        observer.group_started(&workload_title(&first.row), group.len());
    }
    // The peak then is that of this group: its variants share the process.
    let rss_is_ours = memory::reset_peak_rss().is_some();
    observer.phase("verifying");
    for item in &mut running {
        if interrupted.load(Ordering::Relaxed) {
            return Vec::new();
        }
        item.row.started_at = Some(report::now());
        item.row.load_1m_start = load_average().map(|load| load[0]);
        item.row.cpu_mhz_start = cpu_mhz().ok();
        item.subject = prepare(item.case, &mut item.row);
    }

    let mut places = Vec::new();
    let mut subjects = Vec::new();
    for (place, item) in running.iter_mut().enumerate() {
        if let Some(subject) = item.subject.take() {
            places.push(place);
            subjects.push(subject);
        }
    }
    let mut tasks: Vec<&mut dyn Task> = subjects
        .iter_mut()
        .map(|subject| subject as &mut dyn Task)
        .collect();
    let seed = plan.measure.seed.unwrap_or(plan.seed) ^ group.first().map_or(0, |case| case.group as u64);
    let measured = measure(
        &mut tasks,
        &plan.measure,
        seed,
        clock,
        interrupted,
        &mut |words| observer.phase(words),
    );
    if interrupted.load(Ordering::Relaxed) {
        return Vec::new();
    }
    let mut samples = vec![Vec::new(); running.len()];
    for ((place, measured), subject) in places.into_iter().zip(measured).zip(&subjects) {
        let Running { case, row, .. } = &mut running[place];
        row.peak_bytes = memory::CountingAllocator::is_installed().then_some(subject.peak_bytes());
        row.cpu_mhz_end = cpu_mhz().ok();
        samples[place] = report::conclude(row, case, &measured, plan);
    }
    let rss = memory::peak_rss_bytes();
    for item in &mut running {
        match (rss, rss_is_ours) {
            (Some(bytes), true) => item.row.rss_peak_bytes = Some(bytes),
            _ => item.row.explain_null(
                "rss_peak_bytes",
                "not measured: the system does not reset the peak",
            ),
        }
        report::explain_nulls(&mut item.row);
    }
    running.into_iter().map(|item| item.row).zip(samples).collect()
}

/// Builds and verifies a case; `None` where the row already says why it will not be timed.
fn prepare(case: &Case, row: &mut Row) -> Option<Subject> {
    if let Some(reason) = &case.unsupported {
        (row.status, row.reason) = (Status::Unsupported, Some(reason.clone()));
        return None;
    }
    if case.predicted_oom {
        (row.status, row.reason) = (
            Status::Oom,
            Some("not run: its predicted peak is more than the machine has".to_string()),
        );
        return None;
    }
    let built = caught(|| {
        let mut subject = Subject::new(case)?;
        let verdict = check::verify(case, &mut subject)?;
        Ok((subject, verdict))
    });
    match built {
        Ok((subject, verdict)) => {
            report::verified(row, case, &verdict);
            match verdict.failure {
                None => Some(subject),
                Some(reason) => {
                    (row.status, row.reason) = (Status::Wrong, Some(reason));
                    None
                }
            }
        }
        Err(Failure::Unsupported(reason)) => {
            (row.status, row.reason) = (Status::Unsupported, Some(reason));
            None
        }
        Err(Failure::Failed(reason)) => {
            (row.status, row.reason) = (Status::Crash, Some(reason));
            None
        }
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

/// Runs `work`; a panic is a failure like any other.
fn caught<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Err(Failure::Failed(format!("panicked: {text}")))
    })
}
