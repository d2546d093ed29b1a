//! A case made runnable: its work built, and its samples taken.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Instant;

use attn_core::ops::{self, Fallback};
use attn_core::{Workload, in_pool};
use candle_core::Device;

use super::Failure;
use super::measure::{Taken, Task};
use super::model::Phases;
use super::rotation::Rotation;
use super::stopwatch::{Lap, Stopwatch};
use super::work::{Part, Work};
use crate::device::Resolved;
use crate::flush::Flusher;
use crate::memory;
use crate::sweep::Launch;
use crate::worker::Fault;
use crate::worker::job::Job;

/// What empties the caches: one for all cases of a worker, since it is large.
pub(crate) type SharedFlusher = Rc<RefCell<Flusher>>;

/// Where a case runs.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) resolved: Resolved,
    pub(crate) device: Device,
}

/// How samples of a case begin cold.
pub(crate) enum Cold {
    /// The caches are emptied before each.
    Flushed(SharedFlusher),
    /// Copies of the case take turns on a GPU whose last-level cache has so many bytes.
    Rotated { llc_bytes: u64 },
}

/// A case ready to run.
pub(crate) struct Subject {
    pub(crate) job: Job,
    pub(crate) work: Work,
    place: Place,
    stopwatch: Stopwatch,
    /// How its steps get to a GPU, and why not as they should.
    launch: Option<Launch>,
    launch_note: Option<String>,
    /// Bytes the allocator handed out for the cache when it was made, where it counts.
    pub(crate) cache_bytes: Option<u64>,
    /// Empties the caches before each sample, where it begins cold.
    flusher: Option<SharedFlusher>,
    /// The other way to begin cold.
    rotation: Option<Rotation>,
    /// Bytes the case holds between samples: weights, inputs, cache.
    held_bytes: u64,
    /// Most bytes a sample held beyond those; none where nobody counts.
    sample_bytes: Option<u64>,
    /// Times of every step of every sample, for a trajectory.
    steps_s: Vec<Vec<f64>>,
    /// Where the time of every sample went, for a whole decoder on the processor.
    phases: Vec<Phases>,
    /// What of the work was composed in place of a kernel, and why.
    composed: BTreeSet<String>,
}

impl Subject {
    /// Builds layer, inputs and cache; samples begin hot where nothing else is said.
    pub(crate) fn new(job: Job, place: Place, cold: Option<Cold>) -> Result<Self, Failure> {
        let before = memory::live_bytes(&place.device);
        let mut cache_bytes = 0;
        let mut work = Work::new(&job, &place.device, 0, &mut cache_bytes)?;
        let held_bytes = memory::live_bytes(&place.device).saturating_sub(before);
        let (launch, launch_note) = launched(&job, &mut work, &place)?;
        let (flusher, rotation) = match cold {
            None => (None, None),
            Some(Cold::Flushed(flusher)) => (Some(flusher), None),
            Some(Cold::Rotated { llc_bytes }) => {
                (None, Rotation::new(&job, &place.device, llc_bytes, launch)?)
            }
        };
        Ok(Self {
            stopwatch: Stopwatch::of(&place.device).map_err(attn_core::Error::from)?,
            launch,
            launch_note,
            rotation,
            job,
            work,
            cache_bytes: Some(cache_bytes).filter(|bytes| *bytes > 0),
            place,
            flusher,
            held_bytes,
            sample_bytes: None,
            steps_s: Vec::new(),
            phases: Vec::new(),
            composed: BTreeSet::new(),
        })
    }

    /// Bytes the case holds between samples: weights, inputs, cache.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Most bytes the allocator, or the pool of a GPU, held for the case at once: weights, inputs, cache and what a sample
    /// needed.
    pub(crate) fn peak_bytes(&self) -> Option<u64> {
        self.sample_bytes.map(|bytes| self.held_bytes + bytes)
    }

    /// Bytes that pass through the caches before a cold sample.
    pub(crate) fn flush_bytes(&self) -> Option<u64> {
        match (&self.flusher, &self.rotation) {
            (Some(flusher), _) => Some(flusher.borrow().bytes()),
            (None, Some(rotation)) => Some(rotation.bytes()),
            (None, None) => None,
        }
    }

    /// The clock that samples are timed by.
    pub(crate) fn clock(&self) -> &'static str {
        self.stopwatch.clock()
    }

    /// How its steps get to a GPU, and why not as they should.
    pub(crate) fn launch(&self) -> (Option<Launch>, Option<String>) {
        (self.launch, self.launch_note.clone())
    }

    /// Where it runs: device, element type, path, and whether a kernel was missing on it so far.
    pub(crate) fn resolved(&self) -> [String; 3] {
        let path = self.job.path.to_string();
        [
            self.place.resolved.to_string(),
            self.job.dtype.to_string(),
            match self.composed.is_empty() {
                true => path,
                false => composite(&path),
            },
        ]
    }

    /// What was composed in place of a kernel so far, and why.
    pub(crate) fn composed(&self) -> Vec<String> {
        self.composed.iter().cloned().collect()
    }

    /// Keeps what was composed since `before` was all of it.
    pub(crate) fn note_fallbacks(&mut self, before: &[Fallback]) {
        let since = ops::fallbacks_since(before);
        let reasons = since
            .into_iter()
            .map(|Fallback { op, reason, .. }| format!("{op} is composed: {reason}"));
        self.composed.extend(reasons);
    }

    /// The times of every step since they were last taken, a list for each sample.
    pub(crate) fn take_steps(&mut self) -> Vec<Vec<f64>> {
        std::mem::take(&mut self.steps_s)
    }

    /// Where the time went of every sample since they were last taken.
    pub(crate) fn take_phases(&mut self) -> Vec<Phases> {
        std::mem::take(&mut self.phases)
    }

    /// Forgets steps and phases of the last sample.
    pub(crate) fn forget_last_steps(&mut self) {
        self.steps_s.pop();
        self.phases.pop();
    }

    /// The very first search of a whole decoder, not warmed and not repeated: its wall time, in seconds.
    pub(crate) fn first_pass(&mut self) -> Result<f64, Failure> {
        Ok(self.timed(Part::Steps(1))?.wall_s)
    }

    /// Seconds spent flushing; none where samples begin hot.
    fn flush(&mut self) -> f64 {
        let began = Instant::now();
        if let Some(flusher) = &self.flusher {
            flusher.borrow_mut().flush();
        }
        began.elapsed().as_secs_f64()
    }

    /// Runs the part of a sample that `part` names and times it, on a thread of the pool: that a thread of ours hands over
    /// is not the work. What it computed is dropped after the clock was read: nor is freeing.
    fn timed(&mut self, part: Part) -> attn_core::Result<Lap> {
        let steps = self.job.steps_per_sample;
        let (work, rotation, fault) = (&mut self.work, &mut self.rotation, self.job.fault);
        let stopwatch = &self.stopwatch;
        in_pool(|| {
            let (outputs, lap) = stopwatch.time(|| {
                let began = Instant::now();
                let outputs = match rotation {
                    Some(rotation) if !rotation.is_one() => rotation.run(steps),
                    _ => work.time(part),
                }?;
                if let Some(fault) = fault {
                    commit(fault, began);
                }
                Ok(outputs)
            })?;
            drop(outputs);
            Ok(lap)
        })
    }

    /// Takes the case back to where a sample begins; not timed.
    fn reset(&mut self) -> attn_core::Result<()> {
        match &mut self.rotation {
            Some(rotation) if !rotation.is_one() => rotation.reset(self.job.steps_per_sample),
            _ => self.work.reset(),
        }
    }
}

/// Records a case's steps where they are to be launched as a graph. Where that cannot be, they are launched one by one,
/// with the reason.
fn launched(job: &Job, work: &mut Work, place: &Place) -> Result<(Option<Launch>, Option<String>), Failure> {
    if place.resolved == Resolved::Cpu {
        return Ok((None, None));
    }
    if job.launch != Some(Launch::Graph) {
        return Ok((job.launch, None));
    }
    match work.record(&place.device) {
        Ok(()) => Ok((Some(Launch::Graph), None)),
        Err(error @ attn_core::Error::Unsupported { .. }) => {
            Ok((Some(Launch::Eager), Some(format!("launched one by one: {error}"))))
        }
        Err(error) => Err(error.into()),
    }
}

/// The name of a path on which a kernel was missing.
pub(crate) fn composite(path: &str) -> String {
    format!("{path} (composite)")
}

/// Does what a test planted.
fn commit(fault: Fault, began: Instant) {
    match fault {
        Fault::Oom => {
            // Grows until something refuses, in steps that the kernel has to back.
            let mut hoard = Vec::new();
            loop {
                hoard.push(std::hint::black_box(vec![1_u8; 64 << 20]));
            }
        }
        Fault::Abort => std::process::abort(),
        Fault::Kill => {
            #[cfg(unix)]
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
        Fault::Panic => panic!("planted"),
        Fault::Hang => loop {
            std::thread::sleep(std::time::Duration::from_secs(3600));
        },
        Fault::Slow(fraction) => {
            let until = began.elapsed().mul_f64(1.0 + fraction);
            while began.elapsed() < until {
                std::hint::spin_loop();
            }
        }
        Fault::Wrong | Fault::Misordered | Fault::Prefix => {}
    }
}

impl Task for Subject {
    fn sample(&mut self) -> Result<Taken, String> {
        let entered = Instant::now();
        self.reset().map_err(|error| error.to_string())?;
        let mut around_s = entered.elapsed().as_secs_f64();
        let before = ops::fallbacks();
        let live = memory::live_bytes(&self.place.device);
        memory::reset_peak(&self.place.device);
        // Steps of a trajectory are timed one by one, and what is flushed between steps must not be timed.
        let parts = match self.job.workload {
            Workload::Trajectory { new_tokens, .. } => Part::each(new_tokens),
            Workload::Decode { .. } if self.flusher.is_some() => Part::each(self.job.steps_per_sample),
            _ => vec![Part::Steps(self.job.steps_per_sample)],
        };
        let mut laps = Vec::with_capacity(parts.len());
        for part in parts {
            around_s += self.flush();
            laps.push(self.timed(part).map_err(|error| error.to_string())?);
        }
        let peak = memory::peak_bytes(&self.place.device);
        self.sample_bytes = self.sample_bytes.max(peak.map(|peak| peak.saturating_sub(live)));
        self.note_fallbacks(&before);
        let per_step =
            |of: fn(&Lap) -> f64| laps.iter().map(of).sum::<f64>() / self.job.steps_per_sample as f64;
        let taken = Taken {
            time_s: per_step(Lap::time_s),
            wall_s: per_step(|lap| lap.wall_s),
            around_s,
        };
        if matches!(self.job.workload, Workload::Trajectory { .. }) {
            self.steps_s.push(laps.iter().map(Lap::time_s).collect());
        }
        if let Work::Model(whole) = &self.work {
            self.phases
                .extend(whole.found.as_ref().and_then(|found| found.phases));
        }
        Ok(taken)
    }
}
