//! The worker's side: it answers requests until its runner is gone.

use std::cell::RefCell;
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use attn_core::{Scope, Variant, Workload, ops};
use candle_core::{DType, Device, Tensor};

use super::job::{Job, JobSpec};
use super::protocol::{Built, CaseMeasured, Memory, PROTOCOL, Reply, Request, Settings};
use super::share::{Share, thread_count};
use super::slate::{Chalk, Phase};
use super::train::{School, Trained, TrainingJob};
use crate::ceilings::Ceilings;
use crate::conditions::ClockLooks;
use crate::device::{self, DeviceError, Resolved};
use crate::environment::Build;
use crate::flush::{self, Flusher};
use crate::memory::meter::Meter;
use crate::memory::{self, CountingAllocator, Kept};
use crate::run::check;
use crate::run::measure::{Taken, Task, WallClock, caught, measure, warm};
use crate::run::subject::{Cold, Place, SharedFlusher, Subject};
use crate::run::{Failure, Measured};
use crate::sweep::{DeviceRequest, Dtype, Regime};

/// Room that the system's limit leaves above the allocator's: stacks, the allocator's own needs, code.
const RLIMIT_SLACK_BYTES: u64 = 1 << 30;

/// Answers the runner `runner` until it is gone.
///
/// # Errors
/// The system's, where the slate cannot be opened or a reply not be written.
pub fn serve(variants: &[&'static Variant], slate: &Path, runner: u32) -> io::Result<()> {
    die_with(runner);
    // The kernel should end workers before anything else of the user's, the runner above all.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    attn_core::keep_freed_memory(); // where the system has none such, samples pay for pages anew
    let requests = listen();
    let mut bench = Bench {
        variants,
        chalk: Arc::new(Mutex::new(Chalk::new(slate)?)),
        settings: Settings::default(),
        place: None,
        flusher: None,
        subjects: Vec::new(),
    };
    while let Ok(request) = requests.recv() {
        bench.answer(request)?;
    }
    Ok(())
}

/// Ends this process when the runner ends, also while it computes.
fn die_with(runner: u32) {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
        let _ = set_parent_process_death_signal(Some(Signal::KILL));
        // It may have ended before the kernel knew.
        if getppid() != Pid::from_raw(runner as i32) {
            std::process::exit(0);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = runner;
}

/// The requests, read by a thread of its own: the end of standard input is the end of the runner.
fn listen() -> Receiver<Request> {
    let (sender, requests) = channel();
    thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let request = line.ok().and_then(|line| serde_json::from_str(&line).ok());
            let Some(request) = request else { break };
            if sender.send(request).is_err() {
                break;
            }
        }
        std::process::exit(0);
    });
    requests
}

fn say(reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_string(reply)?;
    line.push('\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(line.as_bytes())?;
    stdout.flush()
}

struct Bench<'a> {
    variants: &'a [&'static Variant],
    chalk: Arc<Mutex<Chalk>>,
    settings: Settings,
    /// Where the last case runs, most likely the next one too: opening a GPU takes a second.
    place: Option<Place>,
    /// Made for the first case that begins cold, of the device it is for.
    flusher: Option<(Resolved, SharedFlusher)>,
    /// By the number of the case; none where it was not built.
    subjects: Vec<Option<Subject>>,
}

/// A subject that notes on the slate what it is about to do.
struct Noted<'a> {
    subject: &'a mut Subject,
    chalk: &'a Mutex<Chalk>,
    case: usize,
    phase: Phase,
}

impl Task for Noted<'_> {
    fn sample(&mut self) -> Result<Taken, String> {
        note(self.chalk, self.case, self.phase);
        self.subject.sample()
    }
}

fn note(chalk: &Mutex<Chalk>, case: usize, phase: Phase) {
    chalk
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .note(case, phase);
}

impl Bench<'_> {
    fn answer(&mut self, request: Request) -> io::Result<()> {
        match request {
            Request::Settings(settings) => {
                if let Some(bytes) = settings.memory_limit_bytes {
                    self.limit(bytes)?;
                }
                if settings.pin {
                    pin_threads(settings.share);
                }
                self.settings = settings;
                say(&Reply::Ready { protocol: PROTOCOL })
            }
            Request::Describe => say(&Reply::Build(Build::probe())),
            Request::Ceilings { device, dtypes } => say(&Reply::Ceilings(self.ceilings(device, &dtypes))),
            Request::Build { jobs } => {
                self.subjects.clear();
                prewarm();
                for (case, spec) in jobs.into_iter().enumerate() {
                    let (subject, built) = self.build(case, spec);
                    self.subjects.push(subject);
                    self.idle();
                    let built = Box::new(built);
                    say(&Reply::Built { case, built })?;
                }
                Ok(())
            }
            Request::Warm { cases, warmup_ms } => {
                memory::reset_peak_rss();
                if let Some(place) = &self.place {
                    memory::reset_kept(&place.device);
                }
                let clock = WallClock::default();
                let spent_s = self.with(&cases, Phase::Warming, |tasks| warm(tasks, warmup_ms, &clock));
                self.idle();
                // Steps of the warm-up are none of the samples'.
                for subject in self.subjects.iter_mut().flatten() {
                    subject.take_steps();
                    subject.take_phases();
                }
                say(&Reply::Warmed { spent_s })
            }
            Request::Measure {
                cases,
                settings,
                seed,
                now_s,
            } => {
                let clock = WallClock::starting_at(now_s);
                let turns: Vec<Vec<usize>> = (0..cases.len()).map(|i| vec![i]).collect();
                let mut looks = ClockLooks::default();
                let measured = self.with(&cases, Phase::Sampling, |tasks| {
                    measure(tasks, &turns, &settings, seed, &clock, &mut || looks.take())
                });
                self.idle();
                self.conclude(&cases, measured, looks)
            }
            Request::Sample { case, lead_in } => {
                let led = if lead_in { self.lead_in(case) } else { Ok(()) };
                let taken = led.and_then(|()| self.sample(case));
                self.idle();
                say(&Reply::Sampled { taken })
            }
            Request::Train(job) => {
                let trained = self.train(&job);
                self.idle();
                say(&Reply::Trained(Box::new(trained)))
            }
            Request::Burn { case, seconds } => {
                let burned = self.burn(case, seconds);
                self.idle();
                say(&Reply::Burned { burned })
            }
            Request::Conclude { cases } => {
                let nothing = vec![Measured::default(); cases.len()];
                self.conclude(&cases, nothing, ClockLooks::default())
            }
        }
    }

    fn train(&mut self, job: &TrainingJob) -> Trained {
        prewarm();
        let mut trained = Trained::default();
        let place = match self.place_for(job.case.device) {
            Ok(place) => place,
            Err(failure) => {
                trained.unsupported = Some(failure.into_reason());
                return trained;
            }
        };
        let mut school = School {
            variants: self.variants,
            place,
            note: &|| note(&self.chalk, 0, Phase::Training),
            // Where it cannot be said the runner is gone, and this process with it.
            say: &mut |progress| drop(say(&Reply::Progress(progress))),
        };
        match crate::run::caught(|| school.train(job, &mut trained)) {
            Ok(()) => {}
            Err(Failure::Unsupported(reason)) => trained.unsupported = Some(reason),
            Err(Failure::Failed(reason)) => trained.failed = Some(reason),
        }
        trained
    }

    fn sample(&mut self, case: usize) -> Result<Taken, String> {
        self.with(&[case], Phase::Sampling, |tasks| match tasks.first_mut() {
            Some(task) => caught(*task),
            None => Err("no such case".to_string()),
        })
    }

    /// Takes samples of a case for some time: how many, and in how many seconds.
    fn burn(&mut self, case: usize, seconds: f64) -> Result<(u64, f64), String> {
        let began = Instant::now();
        let mut samples = 0;
        loop {
            self.sample(case)?;
            samples += 1;
            if let Some(subject) = self.subjects.get_mut(case).and_then(Option::as_mut) {
                subject.forget_last_steps();
            }
            let spent_s = began.elapsed().as_secs_f64();
            if spent_s >= seconds {
                return Ok((samples, spent_s));
            }
        }
    }

    /// Does the work of a sample that does not count.
    fn lead_in(&mut self, case: usize) -> Result<(), String> {
        self.sample(case)?;
        if let Some(subject) = self.subjects.get_mut(case).and_then(Option::as_mut) {
            subject.forget_last_steps();
        }
        Ok(())
    }

    fn idle(&self) {
        note(&self.chalk, 0, Phase::Idle);
    }

    /// Sets both limits: the allocator's, which says what it refuses, and the system's behind it.
    fn limit(&self, bytes: u64) -> io::Result<()> {
        let file = self.chalk.lock().unwrap_or_else(PoisonError::into_inner).file()?;
        CountingAllocator::limit(bytes, file);
        #[cfg(target_os = "linux")]
        {
            use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
            let hard = getrlimit(Resource::Data).maximum;
            let ours = bytes.saturating_add(RLIMIT_SLACK_BYTES);
            let limit = Rlimit {
                current: Some(hard.map_or(ours, |hard| hard.min(ours))),
                maximum: hard,
            };
            // Where the system refuses, the allocator's limit still holds.
            let _ = setrlimit(Resource::Data, limit);
        }
        Ok(())
    }

    /// Runs `work` over the subjects of these cases.
    fn with<T>(&mut self, cases: &[usize], phase: Phase, work: impl FnOnce(&mut [&mut dyn Task]) -> T) -> T {
        let chalk = &self.chalk;
        let mut noted: Vec<Noted<'_>> = Vec::with_capacity(cases.len());
        let mut subjects: Vec<Option<&mut Subject>> = self.subjects.iter_mut().map(Option::as_mut).collect();
        for &case in cases {
            if let Some(subject) = subjects.get_mut(case).and_then(Option::take) {
                noted.push(Noted {
                    subject,
                    chalk,
                    case,
                    phase,
                });
            }
        }
        let mut tasks: Vec<&mut dyn Task> = noted.iter_mut().map(|task| task as &mut dyn Task).collect();
        work(&mut tasks)
    }

    fn conclude(&mut self, cases: &[usize], measured: Vec<Measured>, looks: ClockLooks) -> io::Result<()> {
        let mut concluded = Vec::with_capacity(cases.len());
        let place = self.place.as_ref();
        let kept = place.map_or_else(Kept::default, |place| memory::kept(&place.device));
        for (&case, measured) in cases.iter().zip(measured) {
            let subject = self.subjects.get_mut(case).and_then(Option::as_mut);
            let mut case = CaseMeasured {
                measured,
                kept,
                ..CaseMeasured::default()
            };
            if let Some(subject) = subject {
                case.clock = subject.clock().to_string();
                case.peak_bytes = subject.peak_bytes();
                case.steps_s = subject.take_steps();
                case.phases = subject.take_phases();
                case.composed = subject.composed();
            }
            concluded.push(case);
        }
        say(&Reply::Measured {
            cases: concluded,
            rss_peak_bytes: memory::peak_rss_bytes(),
            looks,
        })
    }

    /// Builds and, if asked to, verifies; no subject where the case must not be timed.
    fn build(&mut self, case: usize, spec: JobSpec) -> (Option<Subject>, Built) {
        let mut built = Built::default();
        match self.try_build(case, spec, &mut built) {
            Ok(subject) => {
                let wrong = built
                    .verdict
                    .as_ref()
                    .is_some_and(|verdict| verdict.failure.is_some());
                return (Some(subject).filter(|_| !wrong), built);
            }
            Err(Failure::Unsupported(reason)) => built.unsupported = Some(reason),
            Err(Failure::Failed(reason)) => built.failed = Some(reason),
        }
        (None, built)
    }

    /// How the samples of a case begin cold, where they do.
    fn cold(&mut self, spec: &JobSpec, place: &Place) -> Result<Option<Cold>, Failure> {
        if spec.regime == Regime::Hot {
            return Ok(None);
        }
        let llc_bytes = flush::cache_bytes(place.resolved, self.settings.llc_bytes);
        let llc_bytes = llc_bytes.map_err(Failure::Unsupported)?;
        if let (Workload::Decode { .. }, Resolved::Cuda(_)) = (spec.workload, place.resolved) {
            return Ok(Some(Cold::Rotated { llc_bytes }));
        }
        if let Some((_, flusher)) = self.flusher.as_ref().filter(|(of, _)| *of == place.resolved) {
            return Ok(Some(Cold::Flushed(flusher.clone())));
        }
        let flusher = Flusher::new(&place.device, llc_bytes).map_err(Failure::Unsupported)?;
        let flusher = Rc::new(RefCell::new(flusher));
        self.flusher = Some((place.resolved, flusher.clone()));
        Ok(Some(Cold::Flushed(flusher)))
    }

    fn ceilings(&mut self, device: DeviceRequest, dtypes: &[Dtype]) -> Result<Ceilings, String> {
        let place = self.place_for(device).map_err(Failure::into_reason)?;
        let cache_bytes = flush::cache_bytes(place.resolved, self.settings.llc_bytes).ok();
        Ceilings::measure_on(&place.device, dtypes, cache_bytes)
    }

    /// The device of a case, opened.
    fn place_for(&mut self, request: DeviceRequest) -> Result<Place, Failure> {
        let missing = |error: DeviceError| Failure::Unsupported(error.reason());
        let resolved = device::resolve(request).map_err(missing)?;
        if let Some(place) = self.place.as_ref().filter(|place| place.resolved == resolved) {
            return Ok(place.clone());
        }
        let device = resolved.open().map_err(missing)?;
        let place = Place { resolved, device };
        self.place = Some(place.clone());
        Ok(place)
    }

    fn try_build(&mut self, case: usize, spec: JobSpec, built: &mut Built) -> Result<Subject, Failure> {
        note(&self.chalk, case, Phase::Building);
        let place = self.place_for(spec.device)?;
        let cold = self.cold(&spec, &place)?;
        let device = place.device.clone();
        let verify = spec.verify;
        // The paper's metric is that of a program: from before there is a model to the end of its only pass.
        let is_measured = verify && spec.scope == Scope::Model;
        let meter = is_measured.then(|| Meter::start(&device)).flatten();
        let (subject, build_s, memory) = watched(&device, || {
            let job = Job::new(spec, self.variants)?;
            Subject::new(job, place, cold)
        });
        (built.build_s, built.build_memory) = (build_s, memory);
        let mut subject = subject?;
        built.flush_bytes = subject.flush_bytes();
        built.resolved = Some(subject.resolved());
        (built.launch, built.launch_note) = subject.launch();

        if !verify {
            return Ok(subject);
        }
        note(&self.chalk, case, Phase::Verifying);
        let before = ops::fallbacks();
        if is_measured {
            built.paper_time_s = Some(crate::run::caught(|| subject.first_pass())?);
            built.paper_memory_bytes = meter.and_then(Meter::finish);
        }
        let (verdict, verify_s, memory) = watched(&device, || check::verify(&mut subject));
        subject.note_fallbacks(&before);
        built.resolved = Some(subject.resolved());
        (built.verify_s, built.verify_memory) = (verify_s, memory);
        // What was built is held while it is verified.
        let held = subject.held_bytes();
        let peak_bytes = &mut built.verify_memory.peak_bytes;
        *peak_bytes = peak_bytes.map(|bytes| bytes + held);
        built.verdict = Some(verdict?);
        Ok(subject)
    }
}

/// Gives every computing thread a processor of its own, spread over those this process may use. Left to itself the
/// scheduler now and then puts two threads on one processor for some milliseconds, and a sample takes twice as long.
/// Of several workers each has its share to itself, and so do the threads that others than the pool start.
fn pin_threads(share: Share) {
    #[cfg(target_os = "linux")]
    {
        use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
        let Ok(allowed) = sched_getaffinity(None) else {
            return;
        };
        let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect();
        let cpus = cpus.get(share.part(cpus.len())).unwrap_or(&cpus).to_vec();
        if share.of > 1 {
            let mut own = CpuSet::new();
            cpus.iter().for_each(|&cpu| own.set(cpu));
            let _ = sched_setaffinity(None, &own);
        }
        let threads = thread_count(cpus.len());
        let pin = move |thread: usize| {
            if let Some(&cpu) = cpus.get(thread * cpus.len() / threads.max(1)) {
                let mut own = CpuSet::new();
                own.set(cpu);
                // Where it is refused the thread computes all the same.
                let _ = sched_setaffinity(None, &own);
            }
        };
        let pool = rayon::ThreadPoolBuilder::new().start_handler(pin);
        // It fails where the pool is there already, which it is not in a process that has just begun.
        let _ = pool.build_global();
    }
}

/// Makes what the process makes once, threads and their buffers, so that no case has it in its memory.
fn prewarm() {
    let square = || Tensor::ones((256, 256), DType::F32, &Device::Cpu).and_then(|ones| ones.matmul(&ones));
    // Its result is of no interest, and where it fails so will the first case, which then says why.
    let _ = std::hint::black_box(square());
}

/// Runs a phase: what came of it, the seconds it took, the memory it needed. A panic is a failure like any other.
fn watched<T>(
    device: &Device,
    work: impl FnOnce() -> Result<T, Failure>,
) -> (Result<T, Failure>, f64, Memory) {
    // Where the peak cannot be reset it is that of the whole process, which says nothing of the phase.
    let rss_is_ours = memory::reset_peak_rss().is_some();
    memory::reset_kept(device);
    let live = memory::live_bytes(device);
    memory::reset_peak(device);
    let began = Instant::now();
    let result = crate::run::caught(work);
    let spent_s = began.elapsed().as_secs_f64();
    let memory = Memory {
        peak_bytes: memory::peak_bytes(device).map(|peak| peak.saturating_sub(live)),
        rss_peak_bytes: memory::peak_rss_bytes().filter(|_| rss_is_ours),
        kept: memory::kept(device),
    };
    (result, spent_s, memory)
}
