//! Where the time of a whole model goes: wall time by phase, taken by the thread that does the work.
//!
//! Layers and models say what they are at with [`timed`]; whoever wants to know collects it with [`collect`]. A phase
//! within a phase takes its time away from the outer one, so that phases add up. On a GPU work is launched and not done
//! while the clock runs, so that phases there say nothing.
//!
//! ```
//! use attn_core::phase::{Phase, collect, timed};
//!
//! let (sum, times) = collect(|| timed(Phase::Attention, || (0..1000_u64).sum::<u64>()));
//! assert_eq!(sum, 499_500);
//! assert!(times[Phase::Attention] > 0.0);
//! ```

use std::cell::RefCell;
use std::ops::{AddAssign, Index};
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// What a model is at.
///
/// ```
/// use attn_core::phase::Phase;
///
/// assert_eq!(Phase::ALL[0], Phase::Prefill);
/// assert_eq!(Phase::ALL.len(), 8);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The prompt or prefix, with all that belongs to it.
    Prefill,
    /// Projections of attention, RoPE included.
    Projections,
    /// Writing a token to the cache, MTLA's gate and merge included.
    CacheUpdate,
    /// Attention itself.
    Attention,
    /// Moving caches where a beam's hypotheses changed places.
    Reorder,
    /// Embedding, norms, feed-forward layers, residuals.
    FeedForward,
    /// The last norm and the projection to the vocabulary.
    Vocabulary,
    /// From logits to the next tokens: softmax, choice, bookkeeping.
    Sampling,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 8] = [
        Self::Prefill,
        Self::Projections,
        Self::CacheUpdate,
        Self::Attention,
        Self::Reorder,
        Self::FeedForward,
        Self::Vocabulary,
        Self::Sampling,
    ];
}

/// Seconds by phase.
///
/// ```
/// use attn_core::phase::{Phase, PhaseTimes, collect, timed};
///
/// let mut all = PhaseTimes::default();
/// for _ in 0..2 {
///     let ((), times) = collect(|| timed(Phase::Reorder, || ()));
///     all += times;
/// }
/// assert_eq!(all.total_s(), all[Phase::Reorder]);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct PhaseTimes {
    seconds: [f64; Phase::ALL.len()],
}

impl PhaseTimes {
    /// Seconds of all phases.
    pub fn total_s(&self) -> f64 {
        self.seconds.iter().sum()
    }

    /// The same shares of another total.
    #[must_use]
    pub(crate) fn scaled_to(mut self, total_s: f64) -> Self {
        let own_s = self.total_s();
        if own_s > 0.0 {
            self.seconds.iter_mut().for_each(|s| *s *= total_s / own_s);
        }
        self
    }

    fn add(&mut self, phase: Phase, seconds: f64) {
        self.seconds[phase as usize] += seconds;
    }
}

impl Index<Phase> for PhaseTimes {
    type Output = f64;

    fn index(&self, phase: Phase) -> &f64 {
        &self.seconds[phase as usize]
    }
}

impl AddAssign for PhaseTimes {
    fn add_assign(&mut self, other: Self) {
        for (own, other) in self.seconds.iter_mut().zip(other.seconds) {
            *own += other;
        }
    }
}

/// The phases that a thread is in, and what those that ended took.
#[derive(Debug)]
struct Collector {
    times: PhaseTimes,
    /// The phases that are under way, the innermost last.
    open: Vec<Phase>,
    /// When the time of the innermost one began to count.
    since: Instant,
}

thread_local! {
    static COLLECTOR: RefCell<Option<Collector>> = const { RefCell::new(None) };
}

impl Collector {
    fn new() -> Self {
        Self {
            times: PhaseTimes::default(),
            open: Vec::new(),
            since: Instant::now(),
        }
    }

    /// Gives the time since the last change to the innermost phase.
    fn settle(&mut self) {
        let now = Instant::now();
        if let Some(&phase) = self.open.last() {
            self.times.add(phase, (now - self.since).as_secs_f64());
        }
        self.since = now;
    }

    fn enter(&mut self, phase: Phase) {
        self.settle();
        // All of a prompt is the prompt.
        let phase = match self.open.first() {
            Some(Phase::Prefill) => Phase::Prefill,
            _ => phase,
        };
        self.open.push(phase);
    }

    fn leave(&mut self) {
        self.settle();
        self.open.pop();
    }
}

/// Whether this thread collects.
pub(crate) fn is_collecting() -> bool {
    COLLECTOR.with_borrow(Option::is_some)
}

/// Adds what another thread did for this one.
pub(crate) fn add(times: PhaseTimes) {
    COLLECTOR.with_borrow_mut(|collector| {
        if let Some(collector) = collector {
            // The time passed here meanwhile is that of the other's phases.
            collector.since = Instant::now();
            match collector.open.first() {
                Some(Phase::Prefill) => collector.times.add(Phase::Prefill, times.total_s()),
                _ => collector.times += times,
            }
        }
    });
}

/// Gives the time up to now to the phase that is under way, before another thread is set to work.
pub(crate) fn settle() {
    COLLECTOR.with_borrow_mut(|collector| {
        if let Some(collector) = collector {
            collector.settle();
        }
    });
}

/// Runs `work` as part of `phase`, where this thread collects.
///
/// ```
/// use attn_core::phase::{Phase, collect, timed};
///
/// assert_eq!(timed(Phase::Sampling, || 7), 7); // where nobody collects it is the work alone
/// let ((), times) = collect(|| {
///     timed(Phase::FeedForward, || timed(Phase::Attention, || ()));
/// });
/// assert!(times.total_s() >= times[Phase::Attention]); // the inner phase's time is not the outer one's
/// ```
pub fn timed<R>(phase: Phase, work: impl FnOnce() -> R) -> R {
    /// Leaves the phase, also where the work panics.
    struct Leave(bool);
    impl Drop for Leave {
        fn drop(&mut self) {
            if self.0 {
                COLLECTOR.with_borrow_mut(|collector| {
                    if let Some(collector) = collector {
                        collector.leave();
                    }
                });
            }
        }
    }
    let entered = COLLECTOR.with_borrow_mut(|collector| match collector {
        Some(collector) => {
            collector.enter(phase);
            true
        }
        None => false,
    });
    let _leave = Leave(entered);
    work()
}

/// Runs `work` and returns what its phases took on this thread.
///
/// ```
/// use attn_core::phase::{Phase, collect, timed};
///
/// let (answer, times) = collect(|| timed(Phase::Vocabulary, || 42));
/// assert_eq!((answer, times[Phase::Attention]), (42, 0.0));
/// ```
pub fn collect<R>(work: impl FnOnce() -> R) -> (R, PhaseTimes) {
    /// Puts back what the thread collected before.
    struct Restore(Option<Collector>);
    impl Drop for Restore {
        fn drop(&mut self) {
            COLLECTOR.set(self.0.take());
        }
    }
    let _restore = Restore(COLLECTOR.replace(Some(Collector::new())));
    let result = work();
    let times = COLLECTOR.with_borrow(|collector| collector.as_ref().map(|collector| collector.times));
    (result, times.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn work() {
        std::thread::sleep(Duration::from_millis(20));
    }

    #[test]
    fn a_phase_within_a_phase_takes_its_time_away() {
        let began = Instant::now();
        let ((), times) = collect(|| {
            timed(Phase::FeedForward, || {
                work();
                timed(Phase::Attention, work);
                work();
            });
            work(); // in no phase
        });
        let elapsed_s = began.elapsed().as_secs_f64();
        assert!(times[Phase::FeedForward] >= 0.040, "{times:?}");
        assert!(times[Phase::Attention] >= 0.020, "{times:?}");
        // Nothing is counted twice, and what is in no phase not at all.
        assert!(times.total_s() <= elapsed_s - 0.020, "{times:?} of {elapsed_s}");
    }

    #[test]
    fn all_of_a_prompt_is_the_prompt() {
        let ((), times) = collect(|| timed(Phase::Prefill, || timed(Phase::Attention, work)));
        assert!(times[Phase::Prefill] >= 0.020);
        assert_eq!(times[Phase::Attention], 0.0);
    }

    #[test]
    fn who_does_not_collect_gets_nothing_and_disturbs_nobody() {
        assert_eq!(timed(Phase::Sampling, || 7), 7);
        let ((), outer) = collect(|| {
            let ((), inner) = collect(|| timed(Phase::Reorder, work));
            assert!(inner[Phase::Reorder] >= 0.020);
        });
        assert_eq!(outer[Phase::Reorder], 0.0);
        assert!(!is_collecting());
    }
}
