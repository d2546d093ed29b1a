//! What runner and worker say to each other.

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::job::JobSpec;
use super::share::Share;
use super::slate::Note;
use super::train::{Progress, Trained, TrainingJob};
use crate::ceilings::Ceilings;
use crate::conditions::ClockLooks;
use crate::memory::Kept;
use crate::run::{Measured, Phases, Taken};
use crate::sweep::{DeviceRequest, Dtype, Launch, Measure};

/// Version of the messages: builds that differ in it cannot be compared side by side.
pub const PROTOCOL: u32 = 4;

/// What a worker is told before anything else.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Bytes its allocator may hand out.
    pub memory_limit_bytes: Option<u64>,
    /// Size of the last-level cache, where the sweep says it.
    pub llc_bytes: Option<u64>,
    /// Whether each computing thread gets a processor of its own.
    pub pin: bool,
    /// The processors it gets, where other workers of the run work beside it.
    #[serde(default)]
    pub share: Share,
}

/// From the runner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// The first request; answered by [`Reply::Ready`].
    Settings(Settings),
    /// Say what build it is; answered by [`Reply::Build`].
    Describe,
    /// Measure what the machine can do; answered by [`Reply::Ceilings`].
    Ceilings {
        /// What of the machine.
        device: DeviceRequest,
        /// Element types of the matrix products.
        dtypes: Vec<Dtype>,
    },
    /// Build cases, and verify those that say so; each is answered by a [`Reply::Built`]. Later requests number cases by this list.
    Build {
        /// The cases.
        jobs: Vec<JobSpec>,
    },
    /// Warm these cases; answered by [`Reply::Warmed`].
    Warm {
        /// Their numbers.
        cases: Vec<usize>,
        /// For how long each.
        warmup_ms: u64,
    },
    /// Sample these cases in turns until each has enough; answered by [`Reply::Measured`].
    Measure {
        /// Their numbers.
        cases: Vec<usize>,
        /// How long and how precisely.
        settings: Measure,
        /// Seed of the order of turns.
        seed: u64,
        /// Seconds since the run began.
        now_s: f64,
    },
    /// Take one sample; answered by [`Reply::Sampled`].
    Sample {
        /// The case's number.
        case: usize,
        /// Whether to do the work once more before, outside the clock.
        lead_in: bool,
    },
    /// Run one case by itself for some time, while its energy is counted; answered by [`Reply::Burned`].
    Burn {
        /// The case's number.
        case: usize,
        /// How long, in seconds; the sample that is under way then is taken to its end.
        seconds: f64,
    },
    /// Train a case once for each of its seeds; answered by any number of [`Reply::Progress`], then by [`Reply::Trained`].
    Train(Box<TrainingJob>),
    /// Say what the samples since [`Request::Warm`] needed; answered by [`Reply::Measured`] without times.
    Conclude {
        /// Numbers of the cases.
        cases: Vec<usize>,
    },
}

/// From a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It has its settings.
    Ready {
        /// [`PROTOCOL`] of its build.
        protocol: u32,
    },
    /// The build.
    Build(crate::environment::Build),
    /// What the machine can do.
    Ceilings(Result<Ceilings, String>),
    /// A case was built and verified, or not.
    Built {
        /// The case's number.
        case: usize,
        /// What became of it.
        built: Box<Built>,
    },
    /// All cases asked for are warm.
    Warmed {
        /// Seconds spent on each, or what went wrong, in the order asked for.
        spent_s: Vec<Result<f64, String>>,
    },
    /// All cases asked for are measured.
    Measured {
        /// Each, in the order asked for.
        cases: Vec<CaseMeasured>,
        /// Most bytes of the worker resident since [`Request::Warm`]; none where the system does not tell.
        rss_peak_bytes: Option<u64>,
        /// Looks at the clock, where the worker took the samples by itself.
        looks: ClockLooks,
    },
    /// A sample was taken.
    Sampled {
        /// Its time and the time spent around it, in seconds, or what went wrong.
        taken: Result<Taken, String>,
    },
    /// How far a training is.
    Progress(Progress),
    /// All trainings of a case have ended.
    Trained(Box<Trained>),
    /// A case ran by itself.
    Burned {
        /// The samples it did and the seconds they took, or what went wrong.
        burned: Result<(u64, f64), String>,
    },
}

/// What became of building and verifying a case.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Built {
    /// What the gate found; none where it did not come to that.
    pub verdict: Option<Verdict>,
    /// Why the case cannot run here.
    pub unsupported: Option<String>,
    /// What went wrong.
    pub failed: Option<String>,
    /// Seconds spent building, and verifying.
    pub build_s: f64,
    /// Seconds spent verifying.
    pub verify_s: f64,
    /// Memory while it was built.
    pub build_memory: Memory,
    /// Memory while it was verified.
    pub verify_memory: Memory,
    /// Bytes a flush of the caches writes, where samples begin cold.
    pub flush_bytes: Option<u64>,
    /// Where it ran: device, element type, path.
    pub resolved: Option<[String; 3]>,
    /// How its steps get to a GPU.
    pub launch: Option<Launch>,
    /// Why not as they should.
    pub launch_note: Option<String>,
    /// Wall time of the first search of a whole decoder, in seconds.
    #[serde(default)]
    pub paper_time_s: Option<f64>,
    /// Mean of the bytes allocated for it, from before it was built to the end of that search.
    #[serde(default)]
    pub paper_memory_bytes: Option<u64>,
}

/// Memory of a phase.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Most bytes allocated for the case at once; none where the process does not count.
    pub peak_bytes: Option<u64>,
    /// Most bytes of the worker resident; none where the system does not tell.
    pub rss_peak_bytes: Option<u64>,
    /// What a GPU kept for the worker.
    #[serde(default)]
    pub kept: Kept,
}

/// What the gate found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// What the case was compared with.
    pub against: String,
    /// Query rows compared.
    pub rows: usize,
    /// Largest difference over the scale. NaN travels as none.
    pub error_max: Option<f64>,
    /// Largest cosine difference.
    pub error_cosine: Option<f64>,
    /// Bytes of the cache as the audit found them: at this length, allocated, state.
    pub cache_bytes: Option<[u64; 3]>,
    /// Why the case must not be timed.
    pub failure: Option<String>,
}

/// What the samples of a case were.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CaseMeasured {
    /// Times, turns, and what ended them.
    pub measured: Measured,
    /// The clock of the times.
    #[serde(default)]
    pub clock: String,
    /// Most bytes allocated for the case at once; none where the process does not count.
    pub peak_bytes: Option<u64>,
    /// What a GPU kept for the worker meanwhile.
    #[serde(default)]
    pub kept: Kept,
    /// For a trajectory: the times of every step, a list for each sample.
    pub steps_s: Vec<Vec<f64>>,
    /// For a whole decoder on the processor: where the time of every sample went.
    #[serde(default)]
    pub phases: Vec<Phases>,
    /// What was composed in place of a kernel, and why.
    #[serde(default)]
    pub composed: Vec<String>,
}

/// How a worker ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether the kernel ended it because the machine had no memory left.
    pub by_oom_killer: bool,
    /// The last it wrote to standard error.
    pub last_words: String,
}

/// What came of waiting for a worker.
#[derive(Debug, Clone, PartialEq)]
pub enum Received {
    /// It answered.
    Reply(Box<Reply>),
    /// It has not answered yet.
    Nothing,
    /// It is no more.
    Ended(Ended),
}

/// A worker, as the runner sees it.
pub trait Worker {
    /// Asks; that it died meanwhile is seen when its answer is waited for.
    fn send(&mut self, request: &Request);

    /// Waits this long at most.
    fn receive(&mut self, patience: Duration) -> Received;

    /// What it is doing.
    fn note(&self) -> Note;

    /// Ends it.
    fn kill(&mut self);

    /// Its process.
    fn pid(&self) -> u32;
}

/// A worker just hired.
pub type Hired = Box<dyn Worker>;

/// Where workers come from.
pub trait Workshop: Send {
    /// A fresh worker, on its share of the processors.
    ///
    /// # Errors
    /// The system's, where no process can be started.
    fn hire(&mut self, share: Share) -> io::Result<Hired>;
}
