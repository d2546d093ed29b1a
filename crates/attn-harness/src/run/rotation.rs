//! Cold steps on a GPU: copies of a case take turns.
//!
//! A flush between two steps would stand between their launches, and the clock around each of them, a few microseconds of
//! a step that may take ten. Copies are launched one after the other with nothing between them; when one has its turn
//! again, the others' data have gone through the cache (flashinfer 4468 measured a warm L2 in place of a cold one, 36 %
//! off, with too few of them).

use attn_core::{Scope, Workload};
use candle_core::{Device, Tensor};

use super::Failure;
use super::work::{Part, Work};
use crate::flush::flush_bytes;
use crate::sweep::Launch;
use crate::worker::job::Job;

/// Copies of a decode case.
pub(crate) struct Rotation {
    copies: Vec<Work>,
    /// Whose turn it is.
    next: usize,
    /// Bytes that all copies read.
    bytes: u64,
}

/// How many copies there are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Turns {
    copies: usize,
    /// Bytes that one reads.
    each_bytes: u64,
}

impl Turns {
    /// Copies of `each_bytes` that are more than a cache of `llc_bytes` together, those of a layer as often as a sample
    /// has steps: each stands at the length of one of them.
    fn of(each_bytes: u64, llc_bytes: u64, steps: usize, scope: Scope) -> Self {
        let enough_bytes = flush_bytes(llc_bytes);
        let copies = enough_bytes.div_ceil(each_bytes.max(1)).max(1) as usize;
        let copies = match scope {
            Scope::Layer if copies > 1 => copies.next_multiple_of(steps),
            _ => copies,
        };
        let turns = Self { copies, each_bytes };
        // A cold sample would be a warm one under another name.
        assert!(
            turns.bytes() >= enough_bytes,
            "{turns:?} are less than {enough_bytes}"
        );
        turns
    }

    fn bytes(self) -> u64 {
        self.each_bytes.saturating_mul(self.copies as u64)
    }
}

impl Rotation {
    /// Copies of a decode case on a GPU whose last-level cache has `llc_bytes`; `None` for what has no steps to rotate.
    /// Their steps are recorded where the case's are.
    pub(crate) fn new(
        job: &Job,
        device: &Device,
        llc_bytes: u64,
        launch: Option<Launch>,
    ) -> Result<Option<Self>, Failure> {
        let Workload::Decode { batch, context } = job.workload else {
            return Ok(None);
        };
        let (geometry, e) = (&job.geometry, job.dtype.size_in_bytes());
        let (tokens, weights_bytes) = match job.scope {
            Scope::Layer | Scope::Model => (job.cache_capacity, (geometry.parameters * e) as u64),
            Scope::Op => (context, 0),
        };
        let each_bytes = weights_bytes + geometry.kv_bytes(batch, tokens, e);
        let turns = Turns::of(each_bytes, llc_bytes, job.steps_per_sample, job.scope);
        if turns.copies == 1 {
            // A step reads so much that the next one finds none of what it reads first.
            return Ok(Some(Self {
                copies: Vec::new(),
                next: 0,
                bytes: each_bytes,
            }));
        }
        let copy = |i: usize| {
            let ahead = match job.scope {
                Scope::Layer | Scope::Model => i % job.steps_per_sample,
                Scope::Op => 0,
            };
            let mut work = Work::new(job, device, ahead, &mut 0)?;
            if launch == Some(Launch::Graph) {
                work.record(device)?;
            }
            Ok(work)
        };
        Ok(Some(Self {
            copies: (0..turns.copies).map(copy).collect::<Result<_, Failure>>()?,
            next: 0,
            bytes: turns.bytes(),
        }))
    }

    /// Bytes that are read before a copy has its turn again.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the case itself is large enough to have every turn.
    pub(crate) fn is_one(&self) -> bool {
        self.copies.is_empty()
    }

    /// Takes the copies of the next `steps` steps back to where they begin.
    pub(crate) fn reset(&mut self, steps: usize) -> attn_core::Result<()> {
        for i in 0..steps {
            let at = self.at(i);
            self.copies[at].reset()?;
        }
        Ok(())
    }

    /// Queues `steps` steps, each a copy's.
    pub(crate) fn run(&mut self, steps: usize) -> attn_core::Result<Vec<Tensor>> {
        let mut outputs = Vec::new();
        for i in 0..steps {
            let at = self.at(i);
            outputs.extend(self.copies[at].time(Part::Step(0))?);
        }
        self.next = self.at(steps);
        Ok(outputs)
    }

    fn at(&self, i: usize) -> usize {
        (self.next + i) % self.copies.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_more_than_the_cache_together() {
        const MIB: u64 = 1 << 20;
        let of = |each, llc, steps, scope| Turns::of(each, llc, steps, scope).copies;
        assert_eq!(of(30 * MIB, 60 * MIB, 12, Scope::Op), 4);
        assert_eq!(of(30 * MIB, 60 * MIB, 12, Scope::Layer), 12);
        assert_eq!(of(5 * MIB, 60 * MIB, 12, Scope::Layer), 24);
        // Large cases have their turns alone, and no cache is larger than the buffers that measure it.
        assert_eq!(of(120 * MIB, 60 * MIB, 12, Scope::Layer), 1);
        assert_eq!(of(1 << 30, 4 << 30, 12, Scope::Op), 1);
        assert_eq!(of(1, 4, 1, Scope::Op), 8);
        assert_eq!(of(0, 0, 3, Scope::Op), 1);
    }
}
