//! The runner with workers that are played: every rule of who is measured, again, alone, or not at all.
#![allow(clippy::unwrap_used)] // in helpers too

mod fake;

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use attn_harness::Plan;
use attn_harness::conditions::ClockLooks;
use attn_harness::environment::Environment;
use attn_harness::nvml::Gpus;
use attn_harness::progress::Silent;
use attn_harness::row::Row;
use attn_harness::run::{self, Measured, Outcome, RunError, Side, Taken};
use attn_harness::stats::StopRule;
use attn_harness::status::{Status, Trust};
use attn_harness::store::{Run, RunDir, StoredCase};
use attn_harness::worker::{
    Built, CaseMeasured, Ended, Hired, JobSpec, Note, Phase, Plants, Received, Reply, Request, Share,
    Verdict, Worker, Workshop,
};
use serde_json::json;

/// What a played worker does wrong with a case.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Trouble {
    /// An allocation beyond the limit, in this phase, whoever else is there.
    Oom(Phase),
    /// The same, but only where other cases share the worker.
    OomBesideOthers,
    /// A signal in this phase.
    Signal(i32, Phase),
    /// It stands still in this phase.
    Hang(Phase),
    /// It fails without dying.
    Failure,
    /// Its output is wrong.
    Wrong,
    /// It cannot run here.
    Unsupported,
    /// It runs without the kernel that it was to run with.
    Composed,
}

/// What happened, in words.
type Log = Arc<Mutex<Vec<String>>>;

/// Which case has which trouble: part of its description and what happens to it.
type Troubles = Vec<(&'static str, Trouble)>;

struct Stage {
    name: &'static str,
    log: Log,
    troubles: Arc<Troubles>,
    hired: usize,
    dies_idle: bool,
    interrupt_at_measure: Option<Arc<AtomicBool>>,
}

struct Actor {
    name: String,
    log: Log,
    troubles: Arc<Troubles>,
    jobs: Vec<JobSpec>,
    replies: VecDeque<Received>,
    note: Note,
    dies_idle: bool,
    interrupt: Option<Arc<AtomicBool>>,
}

impl Workshop for Stage {
    fn hire(&mut self, _: Share) -> io::Result<Hired> {
        self.hired += 1;
        let name = format!("{}{}", self.name, self.hired);
        self.log.lock().unwrap().push(format!("{name} hired"));
        Ok(Box::new(Actor {
            name,
            log: self.log.clone(),
            troubles: self.troubles.clone(),
            jobs: Vec::new(),
            replies: VecDeque::new(),
            note: Note::default(),
            dies_idle: self.dies_idle,
            interrupt: self.interrupt_at_measure.clone(),
        }))
    }
}

/// `merged s=2 decode 1x16`: what troubles are matched with.
fn describe(job: &JobSpec) -> String {
    let stride = job
        .params
        .0
        .get("stride")
        .map_or(String::new(), |s| format!(" s={s}"));
    let w = job.workload;
    format!(
        "{}{stride} {} {}x{}",
        job.variant,
        w.name(),
        w.batch(),
        w.cached_tokens()
    )
}

impl Actor {
    fn say(&mut self, words: String) {
        self.log.lock().unwrap().push(format!("{} {words}", self.name));
    }

    /// The trouble of a case in a phase; the worker's note then says so and its end is set.
    fn trouble(&mut self, case: usize, phase: Phase) -> bool {
        let description = describe(&self.jobs[case]);
        let found = self.troubles.iter().find(|(what, _)| description.contains(what));
        let (refused_bytes, end) = match found.map(|(_, trouble)| *trouble) {
            Some(Trouble::Oom(at)) if at == phase => (Some(1 << 30), Received::Ended(aborted())),
            Some(Trouble::OomBesideOthers) if phase == Phase::Building && self.jobs.len() > 1 => {
                (Some(1 << 30), Received::Ended(aborted()))
            }
            Some(Trouble::Signal(signal, at)) if at == phase => {
                let signal = Some(signal);
                (
                    None,
                    Received::Ended(Ended {
                        signal,
                        ..Ended::default()
                    }),
                )
            }
            Some(Trouble::Hang(at)) if at == phase => (None, Received::Nothing),
            _ => return false,
        };
        self.note = Note {
            steps: self.note.steps + 1,
            case,
            phase,
            refused_bytes,
        };
        self.replies.push_back(end);
        true
    }

    fn composed(&self, case: usize) -> Vec<String> {
        let description = describe(&self.jobs[case]);
        let is_composed =
            |(what, trouble): &(&str, Trouble)| *trouble == Trouble::Composed && description.contains(what);
        let reason = "decode is composed: it does not compile".to_string();
        self.troubles
            .iter()
            .any(is_composed)
            .then_some(reason)
            .into_iter()
            .collect()
    }

    fn build(&mut self, case: usize) -> bool {
        let verify = self.jobs[case].verify;
        if self.trouble(case, Phase::Building) || (verify && self.trouble(case, Phase::Verifying)) {
            return false;
        }
        let description = describe(&self.jobs[case]);
        let found = self.troubles.iter().find(|(what, _)| description.contains(what));
        let found = found.map(|(_, trouble)| *trouble);
        let failure = (found == Some(Trouble::Wrong)).then(|| "differs".to_string());
        let mut built = Built {
            verdict: verify.then(|| Verdict {
                against: "the script".to_string(),
                rows: 8,
                failure,
                ..Verdict::default()
            }),
            ..Built::default()
        };
        if verify {
            self.say(format!("verifies {description}"));
        }
        match found {
            Some(Trouble::Failure) => built.failed = Some("panicked: on stage".to_string()),
            Some(Trouble::Unsupported) => built.unsupported = Some("not on this stage".to_string()),
            _ => {}
        }
        let built = Box::new(built);
        self.replies
            .push_back(Received::Reply(Box::new(Reply::Built { case, built })));
        true
    }
}

fn aborted() -> Ended {
    Ended {
        signal: Some(6),
        ..Ended::default()
    }
}

impl Worker for Actor {
    fn send(&mut self, request: &Request) {
        if self.dies_idle {
            self.replies.push_back(Received::Ended(aborted()));
            return;
        }
        let reply = match request {
            Request::Build { jobs } => {
                self.jobs.clone_from(jobs);
                let words: Vec<String> = jobs.iter().map(describe).collect();
                self.say(format!("builds {}", words.join(", ")));
                let _ = (0..jobs.len()).all(|case| self.build(case));
                return;
            }
            Request::Warm { cases, .. } => {
                if cases.iter().any(|case| self.trouble(*case, Phase::Warming)) {
                    return;
                }
                Reply::Warmed {
                    spent_s: vec![Ok(0.1); cases.len()],
                }
            }
            Request::Measure { cases, .. } => {
                if let Some(interrupt) = &self.interrupt {
                    interrupt.store(true, Ordering::Relaxed);
                    self.replies.push_back(Received::Nothing);
                    return;
                }
                if cases.iter().any(|case| self.trouble(*case, Phase::Sampling)) {
                    return;
                }
                self.say(format!("measures {}", cases.len()));
                let measured = CaseMeasured {
                    measured: Measured {
                        times_s: vec![0.5; 6],
                        walls_s: vec![0.6; 6],
                        started_at_s: vec![0.0; 6],
                        rounds: (0..6).collect(),
                        stop: Some(StopRule::TargetCi),
                        sampling_s: 3.0,
                        ..Measured::default()
                    },
                    clock: "event".to_string(),
                    ..CaseMeasured::default()
                };
                let of_case = |case: &usize| CaseMeasured {
                    composed: self.composed(*case),
                    ..measured.clone()
                };
                Reply::Measured {
                    cases: cases.iter().map(of_case).collect(),
                    rss_peak_bytes: None,
                    looks: ClockLooks::default(),
                }
            }
            Request::Sample { case, .. } => {
                if self.trouble(*case, Phase::Sampling) {
                    return;
                }
                let words = describe(&self.jobs[*case]);
                self.say(format!("samples {words}"));
                Reply::Sampled {
                    taken: Ok(Taken {
                        time_s: 0.5,
                        wall_s: 0.6,
                        around_s: 0.0,
                    }),
                }
            }
            Request::Conclude { cases } => Reply::Measured {
                cases: vec![CaseMeasured::default(); cases.len()],
                rss_peak_bytes: None,
                looks: ClockLooks::default(),
            },
            other => panic!("{other:?} is not in the script"),
        };
        self.replies.push_back(Received::Reply(Box::new(reply)));
    }

    fn receive(&mut self, _: Duration) -> Received {
        // A worker that stands still says nothing for ever.
        self.replies.pop_front().unwrap_or(Received::Nothing)
    }

    fn note(&self) -> Note {
        self.note
    }

    fn kill(&mut self) {
        self.say("is ended".to_string());
    }

    fn pid(&self) -> u32 {
        0
    }
}

const SWEEP: &str = "\
name: played
model: {d_model: 64, n_heads: 4}
variants:
  - full: {}
  - merged: {kv_rank: 32, stride: [2, 3]}
workloads:
  - decode: {context: [16, 64], batch: 1}
measure: {ceilings: false, timeout_s: 0.02, min_samples: 4, seed: 1}
";

/// How a play went: what was stored, what was said.
struct Play {
    outcome: Result<Outcome, RunError>,
    rows: Vec<Row>,
    log: Vec<String>,
}

impl Play {
    fn row(&self, variant: &str, context: u64, stride: Option<u64>) -> &Row {
        let of = |row: &&Row| row.variant == variant && row.context == Some(context) && row.stride == stride;
        self.rows.iter().find(of).unwrap()
    }

    fn count(&self, status: Status) -> usize {
        self.rows.iter().filter(|row| row.status == status).count()
    }

    fn hired(&self) -> usize {
        self.log.iter().filter(|words| words.ends_with("hired")).count()
    }
}

fn play_plan(plan: &Plan, troubles: Troubles, stored: Vec<StoredCase>, change: impl Fn(&mut Stage)) -> Play {
    let log = Log::default();
    let interrupted = Arc::new(AtomicBool::new(false));
    let mut stage = Stage {
        name: "a",
        log: log.clone(),
        troubles: Arc::new(troubles),
        hired: 0,
        dies_idle: false,
        interrupt_at_measure: None,
    };
    change(&mut stage);
    if stage.interrupt_at_measure.is_some() {
        stage.interrupt_at_measure = Some(interrupted.clone());
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r");
    let mut dir = RunDir::create(&path, &plan.sweep_yaml, &json!({}), "played").unwrap();
    let outcome = run::run(
        run::Run {
            plan,
            observer: &mut Silent,
            interrupted: &interrupted,
            pair: None,
            memory_bytes: Some(1 << 30),
            devices: Vec::new(),
            gpus: Gpus::for_device(plan.device),
        },
        &mut [Side {
            workshop: &mut stage,
            dir: &mut dir,
            environment: Environment::probe(),
            stored,
            plants: Plants::default(),
        }],
    );
    drop(dir);
    let rows = Run::open(&path).unwrap().rows;
    let log = log.lock().unwrap().clone();
    Play { outcome, rows, log }
}

fn play(troubles: Troubles) -> Play {
    play_plan(&fake::plan(SWEEP), troubles, Vec::new(), |_| {})
}

#[test]
fn a_group_is_built_warmed_and_measured_by_one_worker_of_its_own() {
    let play = play(Vec::new());
    let outcome = play.outcome.as_ref().unwrap();
    assert!(!outcome.interrupted && outcome.cases == [6]);
    assert_eq!((play.count(Status::Ok), play.hired()), (6, 2));
    assert_eq!(
        play.log
            .iter()
            .filter(|words| words.ends_with("measures 3"))
            .count(),
        2
    );
    let row = play.row("merged", 16, Some(2));
    assert_eq!(
        (row.time_median_s, row.n_samples, row.replicas),
        (Some(0.5), Some(6), Some(1))
    );
    // The clock of the times, and the host's beside it.
    assert_eq!(
        (row.time_clock.as_deref(), row.wall_median_s),
        (Some("event"), Some(0.6))
    );
    assert_eq!(row.verified_against.as_deref(), Some("the script"));
    assert!((outcome.ledger.warmup_s - 0.6).abs() < 1e-9 && (outcome.ledger.sampling_s - 18.0).abs() < 1e-9);
}

#[test]
fn whatever_ends_a_worker_is_the_row_of_its_case_and_the_others_get_a_fresh_one() {
    let ends = [
        (
            Trouble::Oom(Phase::Sampling),
            Status::Oom,
            "an allocation of 1.00 GiB went beyond",
        ),
        (Trouble::Oom(Phase::Building), Status::Oom, "while building"),
        (
            Trouble::Signal(11, Phase::Verifying),
            Status::Crash,
            "signal 11 (segmentation fault) while verifying",
        ),
        (
            Trouble::Signal(9, Phase::Warming),
            Status::Crash,
            "signal 9 (killed) while warming up",
        ),
        (
            Trouble::Hang(Phase::Sampling),
            Status::Timeout,
            "sampling took longer than measure.timeout_s, 0.02 s",
        ),
        (Trouble::Failure, Status::Crash, "panicked: on stage"),
        (Trouble::Wrong, Status::Wrong, "differs"),
        (Trouble::Unsupported, Status::Unsupported, "not on this stage"),
    ];
    for (trouble, status, reason) in ends {
        let play = play(vec![("merged s=2 decode 1x64", trouble)]);
        assert!(play.outcome.is_ok());
        let row = play.row("merged", 64, Some(2));
        let said = row.reason.clone().unwrap_or_default();
        assert!(
            row.status == status && said.contains(reason),
            "{trouble:?}: {} {said}",
            row.status
        );
        assert_eq!(
            (row.time_median_s, play.count(Status::Ok)),
            (None, 5),
            "{trouble:?}"
        );
        // What a worker survives needs no other one; an oom beside others is tried alone before it counts.
        let again = match status {
            Status::Wrong | Status::Unsupported => 0,
            Status::Oom => 2,
            _ => 1,
        };
        assert_eq!(play.hired(), 2 + again, "{trouble:?} {:?}", play.log);
    }
}

#[test]
fn what_was_composed_in_place_of_a_kernel_is_in_its_row_and_in_no_other() {
    let play = play(vec![("merged s=2 decode 1x64", Trouble::Composed)]);
    let row = play.row("merged", 64, Some(2));
    assert_eq!(row.path_resolved.as_deref(), Some("fused (composite)"));
    assert_eq!(row.trust, Some(Trust::Fallback));
    let reason = row.trust_reason.clone().unwrap_or_default();
    assert!(reason.contains("it does not compile"), "{reason}");
    assert_ne!(play.row("merged", 64, Some(3)).trust, Some(Trust::Fallback));
}

#[test]
fn a_case_that_fits_alone_is_measured_alone() {
    let play = play(vec![("full decode 1x64", Trouble::OomBesideOthers)]);
    assert_eq!(play.count(Status::Ok), 6);
    let row = play.row("full", 64, None);
    assert!(
        row.notes
            .as_deref()
            .is_some_and(|notes| notes.contains("measured apart from its group"))
    );
    assert!(
        play.log
            .iter()
            .any(|words| words.ends_with("builds full decode 1x64")),
        "{:?}",
        play.log
    );
}

#[test]
fn what_an_out_of_memory_case_dominates_is_not_tried() {
    let sweep = SWEEP.replace("batch: 1}", "batch: [1, 2]}");
    let plan = fake::plan(&sweep);
    let small = plan.cases.iter().find(|case| case.variant.key == "full").unwrap();
    // As an earlier session left it.
    let stored = StoredCase {
        case_id: small.id.clone(),
        status: Status::Oom,
    };
    let play = play_plan(&plan, Vec::new(), vec![stored], |_| {});
    assert_eq!((play.rows.len(), play.count(Status::SkippedOom)), (11, 3));
    for row in play.rows.iter().filter(|row| row.status == Status::SkippedOom) {
        assert_eq!(row.variant, "full");
        assert!(row.reason.as_deref().unwrap().contains(&small.id));
    }
    assert!(
        !play.log.iter().any(|words| words.contains("full")),
        "{:?}",
        play.log
    );
}

#[test]
fn replicas_are_pooled_from_workers_of_their_own_after_a_pause() {
    let sweep = SWEEP.replace("seed: 1", "seed: 1, replicas: 3, cooldown_ms: 5");
    let play = play_plan(&fake::plan(&sweep), Vec::new(), Vec::new(), |_| {});
    assert_eq!((play.count(Status::Ok), play.hired()), (6, 6));
    let row = play.row("full", 16, None);
    assert_eq!(
        (row.n_samples, row.replicas, row.replica_spread),
        (Some(18), Some(3), Some(0.0))
    );
    assert_eq!(row.cooldown_s, Some(0.005));
    // What one process of a build has shown holds for the next.
    let verified = play.log.iter().filter(|words| words.contains("verifies"));
    assert_eq!(verified.count(), play.rows.len());
    assert_eq!(row.verified_rows, Some(8));
    let ledger = play.outcome.unwrap().ledger;
    assert!((ledger.cooldown_s - 4.0 * 0.005).abs() < 1e-9);
}

#[test]
fn an_interrupted_group_leaves_no_rows() {
    let play = play_plan(&fake::plan(SWEEP), Vec::new(), Vec::new(), |stage| {
        stage.interrupt_at_measure = Some(Arc::new(AtomicBool::new(false)));
    });
    let outcome = play.outcome.unwrap();
    assert!(outcome.interrupted && play.rows.is_empty() && outcome.cases == [0]);
    assert!(play.log.last().is_some_and(|words| words.ends_with("is ended")));
}

#[test]
fn workers_that_die_before_they_touch_a_case_end_the_run() {
    let play = play_plan(&fake::plan(SWEEP), Vec::new(), Vec::new(), |stage| {
        stage.dies_idle = true
    });
    assert!(matches!(play.outcome, Err(RunError::Worker(_))));
    assert_eq!((play.hired(), play.rows.len()), (3, 0));
}

#[test]
fn the_seed_shuffles_groups_and_nothing_else_does() {
    let sweep = SWEEP.replace("[16, 64]", "[16, 17, 18, 19, 20, 21]");
    let order = |seed: &str| {
        let plan = fake::plan(&sweep.replace("seed: 1", &format!("seed: {seed}")));
        let play = play_plan(&plan, Vec::new(), Vec::new(), |_| {});
        play.log
            .into_iter()
            .filter(|words| words.contains("builds"))
            .collect::<Vec<_>>()
    };
    assert_eq!(order("1"), order("1"));
    assert_ne!(order("1"), order("2"));
}

#[test]
fn two_builds_sample_the_same_case_one_after_the_other() {
    let plan = fake::plan(SWEEP);
    let log = Log::default();
    let stage = |name| Stage {
        name,
        log: log.clone(),
        troubles: Arc::new(vec![]),
        hired: 0,
        dies_idle: false,
        interrupt_at_measure: None,
    };
    let (mut new, mut base) = (stage("new"), stage("base"));
    let folder = tempfile::tempdir().unwrap();
    let create = |name: &str| {
        RunDir::create(&folder.path().join(name), &plan.sweep_yaml, &json!({}), "played").unwrap()
    };
    let (mut new_dir, mut base_dir) = (create("new"), create("base"));
    let side = |workshop, dir| Side {
        workshop,
        dir,
        environment: Environment::probe(),
        stored: Vec::new(),
        plants: Plants::default(),
    };
    let outcome = run::run(
        run::Run {
            plan: &plan,
            observer: &mut Silent,
            interrupted: &AtomicBool::new(false),
            pair: Some("together".to_string()),
            memory_bytes: None,
            devices: Vec::new(),
            gpus: Gpus::for_device(plan.device),
        },
        &mut [side(&mut new, &mut new_dir), side(&mut base, &mut base_dir)],
    )
    .unwrap();
    assert_eq!(outcome.cases, [6, 6]);
    for name in ["new", "base"] {
        let rows = Run::open(&folder.path().join(name)).unwrap().rows;
        let is_paired = |row: &Row| row.is_ok() && row.pair.as_deref() == Some("together");
        assert!(rows.len() == 6 && rows.iter().all(is_paired));
    }
    let log = log.lock().unwrap();
    let samples: Vec<(&str, &str)> = log
        .iter()
        .filter_map(|words| words.split_once(" samples "))
        .collect();
    // Four samples are steady, so each of six cases is sampled four times on both sides.
    assert_eq!(samples.len(), 6 * 4 * 2);
    let mut new_first = 0;
    for turn in samples.chunks(2) {
        assert_eq!(turn[0].1, turn[1].1);
        assert_ne!(turn[0].0.starts_with("new"), turn[1].0.starts_with("new"));
        new_first += usize::from(turn[0].0.starts_with("new"));
    }
    assert!((1..24).contains(&new_first), "the order within a turn is random");
}
