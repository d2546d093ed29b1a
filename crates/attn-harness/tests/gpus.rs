//! Runs on GPUs that are played: what their counters say, and several of them at once. Neither CUDA nor a driver is
//! needed.
#![allow(clippy::unwrap_used)] // in helpers too

mod fake;

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use attn_harness::conditions::ClockLooks;
use attn_harness::device::{Cuda, Gpu, Resolved, Version};
use attn_harness::environment::Environment;
use attn_harness::nvml::{Counters, Gpus, NvmlError, Reading, Reason};
use attn_harness::plan::Setup;
use attn_harness::progress::Observer;
use attn_harness::row::Row;
use attn_harness::run::{self, Measured, Outcome, RunError, Side};
use attn_harness::status::{Status, Trust};
use attn_harness::store::{Run, RunDir, StoredCase};
use attn_harness::worker::{
    Built, CaseMeasured, Ended, Hired, JobSpec, Note, Phase, Plants, Received, Reply, Request, Share,
    Verdict, Worker, Workshop,
};
use attn_harness::{DeviceRequest, Plan, Sweep};
use serde_json::json;

const SWEEP: &str = "\
name: gpus
device: cuda
model: {d_model: 64, n_heads: 4}
variants:
  - full: {}
  - merged: {kv_rank: 32, stride: 2}
workloads:
  - decode: {context: [16, 24, 32, 40, 48, 64], batch: 1}
measure: {ceilings: false, timeout_s: 5, min_samples: 4, seed: 1}
";

fn plan(yaml: &str) -> Plan {
    let sweep = Sweep::parse(Path::new("sweep.yaml"), yaml.to_string(), &[]).unwrap();
    let setup = Setup {
        device: |_| Ok(Resolved::Cuda(0)),
        ..fake::setup()
    };
    Plan::build(&sweep, &setup).unwrap()
}

/// The counters of a GPU that draws 300 W all the time.
#[derive(Debug)]
struct Played {
    began: Instant,
    reads: AtomicUsize,
    throttle: Vec<Reason>,
    processes: Result<Vec<(u32, Option<u64>)>, String>,
    no_energy: bool,
}

impl Default for Played {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            reads: AtomicUsize::new(0),
            throttle: Vec::new(),
            processes: Ok(vec![(std::process::id(), Some(3000))]),
            no_energy: false,
        }
    }
}

impl Counters for Played {
    fn driver(&self) -> Option<String> {
        Some("580.65.06".to_string())
    }

    fn read(&self, uuid: &str) -> Result<Reading, NvmlError> {
        if !uuid.starts_with("GPU-") {
            return Err(NvmlError::NoGpu { uuid: uuid.into() });
        }
        let is_first = self.reads.fetch_add(1, Ordering::Relaxed) == 0;
        let energy_j = 300.0 * self.began.elapsed().as_secs_f64();
        Ok(Reading {
            used_bytes: Ok(if is_first { 1000 } else { 5000 }),
            power_w: Ok(300.0),
            energy_j: if self.no_energy {
                Err("not measured: no such counter".to_string())
            } else {
                Ok(energy_j)
            },
            sm_mhz: Ok(1980),
            memory_mhz: Ok(2619),
            temperature_c: Ok(64),
            throttle: Ok(self.throttle.clone()),
            processes: self.processes.clone(),
        })
    }
}

fn gpus(counters: Result<Played, NvmlError>) -> Gpus {
    let gpu = |ordinal: usize| Gpu {
        name: format!("played {ordinal}"),
        uuid: format!("GPU-{ordinal}"),
        capability: Version { major: 99, minor: 0 },
        memory_bytes: 80 << 30,
        l2_bytes: 50 << 20,
    };
    Gpus {
        cuda: Ok(Cuda {
            driver: Version { major: 13, minor: 0 },
            gpus: vec![gpu(0), gpu(1)],
        }),
        counters: counters.map(|played| Arc::new(played) as Arc<dyn Counters>),
    }
}

/// What workers do wrong.
#[derive(Debug, Default)]
struct Script {
    /// Shares whose workers die before they touch a case.
    dead: Vec<usize>,
    /// Measurements that the dead wait for before they die.
    dead_after: usize,
    /// Share and context of a case that ends its worker while it is sampled.
    crash: Option<(usize, usize)>,
    /// Variant of a case that ends its worker while its energy is counted.
    burns_out: Option<&'static str>,
    /// Measurements after which the user interrupts.
    interrupt_after: Option<usize>,
}

/// What all workers of a play share.
struct Scene {
    script: Script,
    /// The first workers of two shares wait for each other: both devices then have a group.
    meeting: Option<Barrier>,
    hired: Mutex<Vec<Share>>,
    /// Share, device and context of each case that was built.
    built: Mutex<Vec<(usize, String, usize)>>,
    measured: AtomicUsize,
    interrupted: AtomicBool,
}

struct Stage(Arc<Scene>);

impl Workshop for Stage {
    fn hire(&mut self, share: Share) -> io::Result<Hired> {
        let mut hired = self.0.hired.lock().unwrap();
        let is_first = !hired.contains(&share);
        hired.push(share);
        Ok(Box::new(Actor {
            scene: self.0.clone(),
            share,
            is_first,
            jobs: Vec::new(),
            replies: VecDeque::new(),
            note: Note::default(),
        }))
    }
}

struct Actor {
    scene: Arc<Scene>,
    share: Share,
    is_first: bool,
    jobs: Vec<JobSpec>,
    replies: VecDeque<Received>,
    note: Note,
}

impl Actor {
    fn die(&mut self, case: usize, phase: Phase) {
        self.note = Note {
            steps: 1,
            case,
            phase,
            refused_bytes: None,
        };
        let signal = Some(11);
        self.replies.push_back(Received::Ended(Ended {
            signal,
            ..Ended::default()
        }));
    }

    fn built(&self, case: usize) -> Reply {
        let device = match self.jobs[case].device {
            DeviceRequest::Cuda(ordinal) => Resolved::Cuda(ordinal.unwrap_or(0)),
            _ => Resolved::Cpu,
        };
        let device = device.to_string();
        let built = Built {
            verdict: Some(Verdict::default()),
            resolved: Some([device, "f32".to_string(), "fused".to_string()]),
            ..Built::default()
        };
        let built = Box::new(built);
        Reply::Built { case, built }
    }
}

fn context(job: &JobSpec) -> usize {
    job.workload.cached_tokens()
}

impl Worker for Actor {
    fn send(&mut self, request: &Request) {
        let scene = self.scene.clone();
        if scene.script.dead.contains(&self.share.index) {
            while scene.measured.load(Ordering::Relaxed) < scene.script.dead_after {
                thread::sleep(Duration::from_millis(1));
            }
            return self.die(0, Phase::Idle);
        }
        let reply = match request {
            Request::Build { jobs } => {
                if let (Some(meeting), true) = (&scene.meeting, self.is_first) {
                    meeting.wait();
                }
                self.jobs.clone_from(jobs);
                let of = |job: &JobSpec| (self.share.index, job.device.to_string(), context(job));
                scene.built.lock().unwrap().extend(jobs.iter().map(of));
                for case in 0..jobs.len() {
                    let reply = self.built(case);
                    self.replies.push_back(Received::Reply(Box::new(reply)));
                }
                return;
            }
            Request::Warm { cases, .. } => Reply::Warmed {
                spent_s: vec![Ok(0.1); cases.len()],
            },
            Request::Measure { cases, .. } => {
                let crash = cases
                    .iter()
                    .find(|case| scene.script.crash == Some((self.share.index, context(&self.jobs[**case]))));
                if let Some(case) = crash {
                    return self.die(*case, Phase::Sampling);
                }
                let count = scene.measured.fetch_add(1, Ordering::Relaxed) + 1;
                if scene.script.interrupt_after.is_some_and(|after| count > after) {
                    scene.interrupted.store(true, Ordering::Relaxed);
                    return;
                }
                let measured = Measured {
                    times_s: vec![0.5; 6],
                    started_at_s: vec![0.0; 6],
                    rounds: (0..6).collect(),
                    sampling_s: 3.0,
                    ..Measured::default()
                };
                let measured = CaseMeasured {
                    measured,
                    ..CaseMeasured::default()
                };
                Reply::Measured {
                    cases: vec![measured; cases.len()],
                    rss_peak_bytes: None,
                    looks: ClockLooks::default(),
                }
            }
            Request::Burn { case, seconds } => {
                if scene.script.burns_out == Some(self.jobs[*case].variant.as_str()) {
                    return self.die(*case, Phase::Sampling);
                }
                thread::sleep(Duration::from_secs_f64(seconds + 0.05));
                Reply::Burned {
                    burned: Ok((100, seconds + 0.05)),
                }
            }
            other => panic!("{other:?} is not in the script"),
        };
        self.replies.push_back(Received::Reply(Box::new(reply)));
    }

    fn receive(&mut self, patience: Duration) -> Received {
        self.replies.pop_front().unwrap_or_else(|| {
            thread::sleep(patience.min(Duration::from_millis(1)));
            Received::Nothing
        })
    }

    fn note(&self) -> Note {
        self.note
    }

    fn kill(&mut self) {}

    fn pid(&self) -> u32 {
        std::process::id()
    }
}

/// Keeps the warnings.
#[derive(Default)]
struct Listener(Vec<String>);

impl Observer for Listener {
    fn warning(&mut self, text: &str) {
        self.0.push(text.to_string());
    }
}

struct Play {
    outcome: Result<Outcome, RunError>,
    rows: Vec<Row>,
    scene: Arc<Scene>,
    warnings: Vec<String>,
}

/// Plays a plan on `devices` GPUs, on its own device where there are none.
fn play(plan: &Plan, devices: usize, gpus: Gpus, script: Script, stored: Vec<StoredCase>) -> Play {
    let scene = Arc::new(Scene {
        // The dead never come.
        meeting: (devices == 2 && script.dead.is_empty()).then(|| Barrier::new(2)),
        script,
        hired: Mutex::default(),
        built: Mutex::default(),
        measured: AtomicUsize::new(0),
        interrupted: AtomicBool::new(false),
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r");
    let mut dir = RunDir::create(&path, &plan.sweep_yaml, &json!({}), "played").unwrap();
    let mut listener = Listener::default();
    let outcome = run::run(
        run::Run {
            plan,
            observer: &mut listener,
            interrupted: &scene.interrupted,
            pair: None,
            memory_bytes: None,
            devices: (0..devices).map(|n| DeviceRequest::Cuda(Some(n))).collect(),
            gpus,
        },
        &mut [Side {
            workshop: &mut Stage(scene.clone()),
            dir: &mut dir,
            environment: Environment::probe(),
            stored,
            plants: Plants::default(),
        }],
    );
    drop(dir);
    Play {
        outcome,
        rows: Run::open(&path).unwrap().rows,
        scene,
        warnings: listener.0,
    }
}

fn single() -> Plan {
    plan(&SWEEP.replace("[16, 24, 32, 40, 48, 64]", "16"))
}

fn watched(counters: Result<Played, NvmlError>) -> Vec<Row> {
    let play = play(&single(), 0, gpus(counters), Script::default(), Vec::new());
    assert_eq!(play.outcome.unwrap().cases, [2]);
    assert!(play.rows.iter().all(Row::is_ok), "{:?}", play.rows);
    play.rows
}

/// The columns that only counters fill while cases take turns.
const WATCHED: [&str; 12] = [
    "nvml_used_bytes",
    "nvml_process_bytes",
    "clocks",
    "gpu_sm_mhz_median",
    "gpu_sm_mhz_min",
    "gpu_memory_mhz_median",
    "gpu_memory_mhz_min",
    "gpu_power_w_mean",
    "gpu_power_w_max",
    "gpu_temperature_c",
    "gpu_throttle",
    "gpu_foreign_processes",
];

#[test]
fn a_group_on_a_gpu_has_its_counters_in_every_row() {
    for row in watched(Ok(Played::default())) {
        // What was in use before the worker is not the worker's.
        assert_eq!(
            (row.nvml_used_bytes, row.nvml_process_bytes),
            (Some(4000), Some(3000))
        );
        assert_eq!(
            (row.gpu_sm_mhz_median, row.gpu_sm_mhz_min),
            (Some(1980.0), Some(1980.0))
        );
        assert_eq!(
            (row.gpu_memory_mhz_median, row.gpu_memory_mhz_min),
            (Some(2619.0), Some(2619.0))
        );
        assert_eq!(
            (row.gpu_power_w_mean, row.gpu_power_w_max),
            (Some(300.0), Some(300.0))
        );
        assert_eq!(row.gpu_temperature_c, Some(64.0));
        assert_eq!(
            (row.gpu_throttle.as_deref(), row.gpu_foreign_processes),
            (Some("{}"), Some(0))
        );
        assert_eq!(row.driver.as_deref(), Some("580.65.06"));
        assert_eq!(row.gpu.as_deref(), Some("played 0"));
        let clocks: serde_json::Value = serde_json::from_str(row.clocks.as_deref().unwrap()).unwrap();
        assert_eq!(clocks["memory_mhz_max"], 2619);
        // Nobody asked for energy.
        let reasons = row.null_reasons();
        for column in [
            "energy_j",
            "energy_per_token_j",
            "energy_window_s",
            "energy_power_w",
            "idle_power_w",
        ] {
            assert_eq!(reasons[column], "not measured: measure.energy_s is 0", "{column}");
        }
        assert!(WATCHED.iter().all(|column| !reasons.contains_key(*column)));
        assert!(
            !matches!(row.trust, Some(Trust::Throttled)),
            "{:?}",
            row.trust_reason
        );
    }
}

#[test]
fn what_lowers_clocks_and_who_else_is_there_is_in_the_trust() {
    let rows = watched(Ok(Played {
        throttle: vec![Reason::PowerCap, Reason::ApplicationClocks],
        processes: Ok(vec![(std::process::id(), None), (1, Some(7))]),
        ..Played::default()
    }));
    for row in rows {
        assert_eq!(row.trust, Some(Trust::Throttled));
        let reason = row.trust_reason.clone().unwrap();
        assert!(
            reason.contains("the GPU lowered its clocks: power_cap in 100 % of the readings"),
            "{reason}"
        );
        assert!(
            reason.contains("other processes had work on the GPU: 1") && !reason.contains("application"),
            "{reason}"
        );
        assert_eq!(row.gpu_foreign_processes, Some(1));
        assert!(
            row.gpu_throttle
                .as_deref()
                .unwrap()
                .contains("application_clocks")
        );
        assert!(row.nvml_process_bytes.is_none() && row.null_reasons().contains_key("nvml_process_bytes"));
    }
}

#[test]
fn what_the_driver_does_not_tell_is_null_with_its_reason() {
    let forbidden = "not measured: the driver does not tell this user";
    let rows = watched(Ok(Played {
        processes: Err(forbidden.to_string()),
        ..Played::default()
    }));
    for row in rows {
        let reasons = row.null_reasons();
        for column in ["nvml_process_bytes", "gpu_foreign_processes"] {
            assert_eq!(reasons[column], forbidden, "{column}");
        }
        assert_eq!(row.gpu_temperature_c, Some(64.0));
    }
}

#[test]
fn a_sweep_goes_on_without_a_driver_that_counts() {
    let reason = "libnvidia-ml.so.1: cannot open".to_string();
    for row in watched(Err(NvmlError::NoLibrary { reason })) {
        let reasons = row.null_reasons();
        for column in WATCHED.into_iter().chain(["driver"]) {
            assert!(
                reasons[column].contains("there is no libnvidia-ml.so.1"),
                "{column}: {}",
                reasons[column]
            );
        }
        assert_eq!(row.gpu.as_deref(), Some("played 0"));
    }
}

#[test]
fn energy_is_counted_while_a_case_runs_alone() {
    let plan = plan(
        &SWEEP
            .replace("[16, 24, 32, 40, 48, 64]", "16")
            .replace("batch: 1", "batch: 2")
            .replace("seed: 1", "seed: 1, energy_s: 0.5"),
    );
    let script = Script {
        burns_out: Some("merged"),
        ..Script::default()
    };
    let play = play(&plan, 0, gpus(Ok(Played::default())), script, Vec::new());
    let outcome = play.outcome.unwrap();
    assert!(outcome.ledger.energy_s > 4.0, "{:?}", outcome.ledger);
    let of = |variant: &str| play.rows.iter().find(|row| row.variant == variant).unwrap();
    let row = of("full");
    // No less than two seconds, whatever was asked for; a step is a unit of the row's time.
    let (window_s, power_w) = (row.energy_window_s.unwrap(), row.energy_power_w.unwrap());
    assert!((2.0..4.0).contains(&window_s), "{window_s}");
    assert!((power_w - 300.0).abs() < 15.0, "{power_w}");
    let steps = 100.0 * row.steps_per_sample.unwrap() as f64;
    assert!((row.energy_j.unwrap() - power_w * window_s / steps).abs() < 1e-9);
    assert_eq!(row.energy_per_token_j.unwrap(), row.energy_j.unwrap() / 2.0);
    assert!((row.idle_power_w.unwrap() - 300.0).abs() < 15.0);
    // A worker that ends then costs the energy, not the times.
    let row = of("merged");
    assert!(row.is_ok() && row.time_median_s == Some(0.5) && row.idle_power_w.is_some());
    let reason = &row.null_reasons()["energy_j"];
    assert!(
        reason.contains("while energy was counted, the worker ended by signal 11"),
        "{reason}"
    );
}

#[test]
fn without_a_counter_there_is_no_energy_but_idle_power() {
    let plan = plan(
        &SWEEP
            .replace("[16, 24, 32, 40, 48, 64]", "16")
            .replace("  - merged: {kv_rank: 32, stride: 2}\n", "")
            .replace("seed: 1", "seed: 1, energy_s: 2"),
    );
    let counters = Played {
        no_energy: true,
        ..Played::default()
    };
    let play = play(&plan, 0, gpus(Ok(counters)), Script::default(), Vec::new());
    let row = &play.rows[0];
    assert_eq!(
        row.null_reasons()["energy_per_token_j"],
        "not measured: no such counter"
    );
    assert_eq!(row.idle_power_w, Some(300.0));
}

fn ids(rows: &[Row]) -> BTreeSet<String> {
    rows.iter().map(|row| row.case_id.clone()).collect()
}

fn all_ids(plan: &Plan) -> BTreeSet<String> {
    plan.cases.iter().map(|case| case.id.clone()).collect()
}

#[test]
fn two_gpus_share_the_groups_and_every_case_runs_once() {
    let plan = plan(SWEEP);
    let play = play(
        &plan,
        2,
        gpus(Ok(Played::default())),
        Script::default(),
        Vec::new(),
    );
    let outcome = play.outcome.unwrap();
    assert!(!outcome.interrupted && outcome.cases == [12]);
    assert!(
        outcome.ledger.worked_s >= outcome.ledger.total_s * 0.5,
        "{:?}",
        outcome.ledger
    );
    assert_eq!((play.rows.len(), ids(&play.rows)), (12, all_ids(&plan)));
    let built = play.scene.built.lock().unwrap();
    assert_eq!(built.len(), 12, "no case was built twice: {built:?}");
    for (share, device, _) in built.iter() {
        assert_eq!(*device, format!("cuda:{share}"));
    }
    let of = |device: &str| built.iter().filter(|(_, on, _)| on == device).count();
    assert!(of("cuda:0") >= 2 && of("cuda:1") >= 2, "{built:?}");
    for row in &play.rows {
        let device = row.device_resolved.as_deref().unwrap();
        assert_eq!(row.device_requested, "cuda");
        assert_eq!(
            row.gpu.as_deref(),
            Some(device.replace("cuda:", "played ").as_str())
        );
        let context = row.context.unwrap() as usize;
        assert!(built.iter().any(|(_, on, l)| on == device && *l == context));
        assert_ne!(row.trust, Some(Trust::Fallback));
    }
    // A worker has the processors of its GPU's share.
    let shares: HashSet<(usize, usize)> = play
        .scene
        .hired
        .lock()
        .unwrap()
        .iter()
        .map(|share| (share.index, share.of))
        .collect();
    assert_eq!(shares, HashSet::from([(0, 2), (1, 2)]));
}

#[test]
fn a_worker_that_dies_on_one_gpu_costs_its_case_and_nothing_on_the_other() {
    let plan = plan(SWEEP);
    for context in [16, 64] {
        let script = Script {
            crash: Some((1, context)),
            ..Script::default()
        };
        let play = play(&plan, 2, gpus(Ok(Played::default())), script, Vec::new());
        assert_eq!(play.outcome.unwrap().cases, [12]);
        assert_eq!(ids(&play.rows), all_ids(&plan));
        let failed: Vec<&Row> = play.rows.iter().filter(|row| !row.is_ok()).collect();
        // Whichever GPU took the group: on the other one nothing happens to it.
        for row in &failed {
            assert_eq!(row.status, Status::Crash);
            assert_eq!(
                (row.context, row.device_resolved.as_deref()),
                (Some(context as u64), Some("cuda:1"))
            );
        }
        assert!(failed.len() <= 2 && play.warnings.is_empty());
    }
}

#[test]
fn a_gpu_without_workers_is_given_up_and_the_other_one_does_its_groups() {
    let plan = plan(SWEEP);
    let script = Script {
        dead: vec![1],
        ..Script::default()
    };
    let play = play(&plan, 2, gpus(Ok(Played::default())), script, Vec::new());
    assert_eq!(play.outcome.unwrap().cases, [12]);
    assert_eq!(ids(&play.rows), all_ids(&plan));
    let on_first = |row: &Row| row.is_ok() && row.device_resolved.as_deref() == Some("cuda:0");
    assert!(play.rows.iter().all(on_first));
    // It may have had no turn before all was done.
    assert!(play.warnings.len() <= 1);
    assert!(play.scene.hired.lock().unwrap().len() <= 6 + 3);
    for warning in &play.warnings {
        assert!(
            warning.starts_with("cuda:1 is given up, the other devices go on"),
            "{warning}"
        );
    }
}

#[test]
fn the_last_group_of_a_gpu_that_is_given_up_is_not_lost() {
    let plan = plan(SWEEP);
    let script = Script {
        dead: vec![1],
        // The other GPU is done with all groups but the one that the dead hold, or with all of them.
        dead_after: 5,
        ..Script::default()
    };
    let play = play(&plan, 2, gpus(Ok(Played::default())), script, Vec::new());
    assert_eq!(play.outcome.unwrap().cases, [12]);
    assert_eq!(ids(&play.rows), all_ids(&plan));
}

#[test]
fn without_workers_on_any_gpu_the_run_ends() {
    let script = Script {
        dead: vec![0, 1],
        ..Script::default()
    };
    let play = play(&plan(SWEEP), 2, gpus(Ok(Played::default())), script, Vec::new());
    assert!(matches!(play.outcome, Err(RunError::Worker(_))));
    let hired = play.scene.hired.lock().unwrap().len();
    assert_eq!((hired, play.rows.len()), (6, 0));
}

#[test]
fn an_interrupted_run_on_two_gpus_is_resumed_without_losing_or_repeating_a_case() {
    let plan = plan(SWEEP);
    let script = Script {
        interrupt_after: Some(3),
        ..Script::default()
    };
    let first = play(&plan, 2, gpus(Ok(Played::default())), script, Vec::new());
    assert!(first.outcome.unwrap().interrupted);
    // Whole groups, and no more than were measured.
    assert!(
        first.rows.len() % 2 == 0 && first.rows.len() <= 6,
        "{}",
        first.rows.len()
    );
    let stored = |row: &Row| StoredCase {
        case_id: row.case_id.clone(),
        status: row.status,
    };
    let stored = first.rows.iter().map(stored).collect();
    let second = play(&plan, 2, gpus(Ok(Played::default())), Script::default(), stored);
    assert!(!second.outcome.unwrap().interrupted);
    let (before, after) = (ids(&first.rows), ids(&second.rows));
    assert!(before.is_disjoint(&after));
    assert_eq!(
        before.union(&after).cloned().collect::<BTreeSet<_>>(),
        all_ids(&plan)
    );
}
