//! A worker at work: asking, waiting, and saying what became of one that does not answer.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::status::Status;
use crate::units::format_bytes;
use crate::worker::{Ended, Hired, Note, Received, Reply, Request};

/// How often a wait looks up.
const LOOK_UP: Duration = Duration::from_millis(100);

/// Why there is no reply.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Stop {
    /// The user wants the run to end.
    Interrupted,
    /// Something happened to the worker; it is of no more use.
    Incident(Incident),
}

/// What happened to a worker.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Incident {
    /// Number of the case it was at work on; none where it was idle.
    pub(super) case: Option<usize>,
    /// What the case's row says.
    pub(super) status: Status,
    /// Why.
    pub(super) reason: String,
}

/// The workers of a run that live, by their process.
#[derive(Debug, Clone, Default)]
pub(super) struct Crowd(Arc<Mutex<BTreeSet<u32>>>);

impl Crowd {
    /// All of them.
    pub(super) fn pids(&self) -> Vec<u32> {
        let pids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pids.iter().copied().collect()
    }

    fn join(&self, pid: u32) -> Member {
        let mut pids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pids.insert(pid);
        Member {
            crowd: self.clone(),
            pid,
        }
    }
}

/// A place in the crowd, for as long as it is held.
struct Member {
    crowd: Crowd,
    pid: u32,
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut pids = self.crowd.0.lock().unwrap_or_else(PoisonError::into_inner);
        pids.remove(&self.pid);
    }
}

/// A worker and how long to wait for it.
pub(super) struct Session<'a> {
    // Dropped before its place in the crowd: the time of a worker that is gone is its runner's.
    worker: Hired,
    _member: Option<Member>,
    timeout: Duration,
    interrupted: &'a AtomicBool,
    limit_bytes: Option<u64>,
}

impl<'a> Session<'a> {
    pub(super) fn new(worker: Hired, timeout_s: f64, interrupted: &'a AtomicBool) -> Self {
        Self {
            worker,
            _member: None,
            // Longer than a day is as good as for ever, and what a duration can hold.
            timeout: Duration::from_secs_f64(timeout_s.clamp(0.0, 1e6)),
            interrupted,
            limit_bytes: None,
        }
    }

    /// Tells the session what limit its worker has, for the words of a refusal.
    pub(super) fn with_limit(mut self, limit_bytes: Option<u64>) -> Self {
        self.limit_bytes = limit_bytes;
        self
    }

    /// Has the worker among those of the run.
    pub(super) fn within(mut self, crowd: &Crowd) -> Self {
        self._member = Some(crowd.join(self.worker.pid()));
        self
    }

    pub(super) fn pid(&self) -> u32 {
        self.worker.pid()
    }

    pub(super) fn send(&mut self, request: &Request) {
        self.worker.send(request);
    }

    /// The next reply. A worker that stays in one step for longer than the time limit is ended.
    pub(super) fn reply(&mut self) -> Result<Reply, Stop> {
        let (mut steps, mut since) = (self.worker.note().steps, Instant::now());
        loop {
            if self.interrupted.load(Ordering::Relaxed) {
                self.worker.kill();
                return Err(Stop::Interrupted);
            }
            match self.worker.receive(LOOK_UP.min(self.timeout)) {
                Received::Reply(reply) => return Ok(*reply),
                Received::Ended(ended) => return Err(Stop::Incident(self.classify(&ended))),
                Received::Nothing => {}
            }
            let note = self.worker.note();
            if note.steps != steps {
                (steps, since) = (note.steps, Instant::now());
            } else if since.elapsed() >= self.timeout {
                self.worker.kill();
                let reason = format!(
                    "{} took longer than measure.timeout_s, {} s",
                    note.phase.words(),
                    self.timeout.as_secs_f64()
                );
                return Err(Stop::Incident(Incident {
                    case: culprit(&note),
                    status: Status::Timeout,
                    reason,
                }));
            }
        }
    }

    /// What the end of a worker means for the case it was at work on.
    fn classify(&self, ended: &Ended) -> Incident {
        let note = self.worker.note();
        let (status, reason) = if let Some(bytes) = note.refused_bytes {
            let limit = self.limit_bytes.map_or(String::new(), |limit| {
                format!(" of {}", format_bytes(limit as f64))
            });
            let reason = format!(
                "an allocation of {} went beyond the memory limit{limit} while {}",
                format_bytes(bytes as f64),
                note.phase.words()
            );
            (Status::Oom, reason)
        } else if ended.by_oom_killer {
            (
                Status::Oom,
                format!(
                    "the kernel ended the worker while {}: no memory left",
                    note.phase.words()
                ),
            )
        } else if ended.last_words.contains("memory allocation of") {
            (
                Status::Oom,
                format!(
                    "the system refused memory while {}: {}",
                    note.phase.words(),
                    ended.describe()
                ),
            )
        } else {
            (
                Status::Crash,
                format!("the worker {} while {}", ended.describe(), note.phase.words()),
            )
        };
        Incident {
            case: culprit(&note),
            status,
            reason,
        }
    }
}

fn culprit(note: &Note) -> Option<usize> {
    (note.phase != crate::worker::Phase::Idle).then_some(note.case)
}
