//! Emptying the caches, for cold samples.

use std::hint::black_box;

use rayon::prelude::*;

use crate::ceilings::{BUFFER_LIMIT_BYTES, allocate};

/// A buffer that is read and written between samples until nothing else is left in the caches.
///
/// It is twice the last-level cache: caches do not evict the oldest line strictly, so that a buffer of just
/// their size leaves some of what was there. The machine's 1 GiB limit is that of the ceilings.
#[derive(Debug)]
pub struct Flusher {
    buffer: Vec<f32>,
    needed_bytes: u64,
    flushes: u32,
}

/// Bytes of private cache each thread sweeps: more than the L2 of any core.
const PRIVATE_BYTES: usize = 16 << 20;

/// f32 in a cache line, on the machines with the shortest lines: each line must be touched.
const LINE: usize = 64 / size_of::<f32>();

impl Flusher {
    /// A buffer of `min(2 x llc_bytes, 1 GiB)`, its pages touched.
    ///
    /// # Errors
    /// The reason, with its remedy, where nobody knows the size of the cache or there is no memory.
    pub fn new(llc_bytes: Option<u64>) -> Result<Self, String> {
        let llc_bytes = llc_bytes.filter(|bytes| *bytes > 0).ok_or(
            "the system does not tell the size of the last-level cache, so that nothing can empty it for sure; \
             set measure.llc_bytes",
        )?;
        let needed_bytes = llc_bytes.saturating_mul(2).min(BUFFER_LIMIT_BYTES);
        let line_bytes = (LINE * size_of::<f32>()) as u64;
        Ok(Self {
            buffer: allocate(needed_bytes.next_multiple_of(line_bytes))?,
            needed_bytes,
            flushes: 0,
        })
    }

    /// Bytes that a flush reads and writes.
    pub fn bytes(&self) -> u64 {
        size_of_val(self.buffer.as_slice()) as u64
    }

    /// Replaces what the caches hold with the buffer's data: every thread reads and writes its part of all of it,
    /// and each then sweeps its private caches once more, because a thread that was held up may have left its
    /// part to others.
    ///
    /// # Panics
    /// Where the buffer is smaller than promised: a cold sample would then be a warm one under another name.
    pub fn flush(&mut self) {
        assert!(
            self.bytes() >= self.needed_bytes,
            "a flush of {} bytes would not empty the caches, which takes {}",
            self.bytes(),
            self.needed_bytes
        );
        self.flushes = self.flushes.wrapping_add(1);
        // Another value each time, so that the writes are not those of the flush before.
        let mark = (self.flushes % 1024) as f32;
        let piece = self.buffer.len().div_ceil(rayon::current_num_threads()).max(LINE);
        self.buffer
            .par_chunks_mut(piece)
            .for_each(|part| touch(part, mark));
        let swept = PRIVATE_BYTES.min(size_of_val(self.buffer.as_slice())) / size_of::<f32>();
        let swept = &self.buffer[..swept];
        rayon::broadcast(|_| black_box(lines(swept)));
    }
}

/// Reads and writes an element of each cache line.
fn touch(part: &mut [f32], mark: f32) {
    for line in part.chunks_mut(LINE) {
        if let Some(first) = line.first_mut() {
            *first = mark - *first;
        }
    }
    black_box(part);
}

/// Reads an element of each cache line.
fn lines(part: &[f32]) -> f32 {
    part.chunks(LINE).filter_map(|line| line.first()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_is_twice_the_cache_and_at_most_a_gibibyte() {
        assert_eq!(Flusher::new(Some(3 << 20)).unwrap().bytes(), 6 << 20);
        assert_eq!(
            Flusher::new(Some(1_001)).unwrap().bytes(),
            2_048,
            "whole cache lines"
        );
    }

    #[test]
    fn a_cache_of_unknown_size_is_an_error_with_its_remedy() {
        for unknown in [None, Some(0)] {
            let refused = Flusher::new(unknown).unwrap_err();
            assert!(refused.ends_with("set measure.llc_bytes"), "{refused}");
        }
    }

    #[test]
    fn every_flush_writes_every_cache_line() {
        let mut flusher = Flusher::new(Some(1 << 20)).unwrap();
        for _ in 0..3 {
            let before = flusher.buffer.clone();
            flusher.flush();
            for (line, (old, new)) in before.chunks(LINE).zip(flusher.buffer.chunks(LINE)).enumerate() {
                assert_ne!(old[0], new[0], "line {line}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "would not empty the caches")]
    fn a_buffer_that_is_too_small_is_refused() {
        let mut flusher = Flusher::new(Some(1 << 20)).unwrap();
        flusher.buffer.truncate(1 << 10);
        flusher.flush();
    }
}
