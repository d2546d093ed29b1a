//! Emptying the caches, for cold samples.

#[cfg(feature = "cuda")]
mod gpu;

use std::hint::black_box;

use candle_core::Device;
use rayon::prelude::*;

use crate::ceilings::{BUFFER_LIMIT_BYTES, allocate};
use crate::device::Resolved;
use crate::environment;

/// Size of a device's last-level cache: what the sweep says (`measure.llc_bytes`), else what the system or the driver
/// says. Of a GPU it is the L2 cache.
///
/// # Errors
/// The reason, with its remedy, where nobody knows it.
pub fn cache_bytes(device: Resolved, llc_bytes: Option<u64>) -> Result<u64, String> {
    let told = || match device {
        Resolved::Cpu => environment::last_level_cache_bytes(),
        Resolved::Cuda(_) => device.gpu().map(|gpu| gpu.l2_bytes),
    };
    llc_bytes.or_else(told).filter(|bytes| *bytes > 0).ok_or_else(|| {
        let who = match device {
            Resolved::Cpu => "the system",
            Resolved::Cuda(_) => "the driver",
        };
        format!(
            "{who} does not tell the size of the last-level cache, so that nothing can empty it for sure; set \
             measure.llc_bytes"
        )
    })
}

/// Bytes that replace whatever a cache of `cache_bytes` holds: twice as many, because caches do not evict the oldest
/// line strictly, so that a buffer of just their size leaves some of what was there. At most 1 GiB, like the ceilings'.
pub fn flush_bytes(cache_bytes: u64) -> u64 {
    cache_bytes.saturating_mul(2).min(BUFFER_LIMIT_BYTES)
}

/// What empties the caches of a device.
#[derive(Debug)]
pub enum Flusher {
    /// Those of the processor.
    Cpu(CpuFlusher),
    /// That of a GPU.
    #[cfg(feature = "cuda")]
    Gpu(gpu::GpuFlusher),
}

impl Flusher {
    /// What empties a cache of `cache_bytes`, which is the device's ([`cache_bytes`]).
    ///
    /// # Errors
    /// The reason, with its remedy, where there is no memory for its buffer, or no kernel for the GPU.
    pub fn new(device: &Device, cache_bytes: u64) -> Result<Self, String> {
        match device {
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => Ok(Self::Gpu(gpu::GpuFlusher::new(device, flush_bytes(cache_bytes))?)),
            _ => Ok(Self::Cpu(CpuFlusher::new(flush_bytes(cache_bytes))?)),
        }
    }

    /// Bytes that a flush reads, and on the processor writes.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Cpu(flusher) => flusher.bytes(),
            #[cfg(feature = "cuda")]
            Self::Gpu(flusher) => flusher.bytes(),
        }
    }

    /// Replaces what the caches hold. That of a GPU is put on its stream, before whatever is put there next.
    ///
    /// # Panics
    /// Where nothing would be emptied: a cold sample would then be a warm one under another name.
    pub fn flush(&mut self) {
        match self {
            Self::Cpu(flusher) => flusher.flush(),
            #[cfg(feature = "cuda")]
            Self::Gpu(flusher) => flusher.flush(),
        }
    }
}

/// A buffer that is read and written between samples until nothing else is left in the processor's caches.
#[derive(Debug)]
pub struct CpuFlusher {
    buffer: Vec<f32>,
    needed_bytes: u64,
    flushes: u32,
}

/// Bytes of private cache each thread sweeps: more than the L2 of any core.
const PRIVATE_BYTES: usize = 16 << 20;

/// f32 in a cache line, on the machines with the shortest lines: each line must be touched.
const LINE: usize = 64 / size_of::<f32>();

impl CpuFlusher {
    /// A buffer of so many bytes, its pages touched.
    ///
    /// # Errors
    /// The reason, with its remedy, where there is no memory.
    fn new(needed_bytes: u64) -> Result<Self, String> {
        let line_bytes = (LINE * size_of::<f32>()) as u64;
        Ok(Self {
            buffer: allocate(needed_bytes.next_multiple_of(line_bytes))?,
            needed_bytes,
            flushes: 0,
        })
    }

    /// Bytes that a flush reads and writes.
    fn bytes(&self) -> u64 {
        size_of_val(self.buffer.as_slice()) as u64
    }

    /// Replaces what the caches hold with the buffer's data: every thread reads and writes its part of all of it,
    /// and each then sweeps its private caches once more, because a thread that was held up may have left its
    /// part to others.
    ///
    /// # Panics
    /// Where the buffer is smaller than promised: a cold sample would then be a warm one under another name.
    fn flush(&mut self) {
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
        assert_eq!(flush_bytes(3 << 20), 6 << 20);
        assert_eq!(flush_bytes(u64::MAX), 1 << 30);
        let flusher = Flusher::new(&Device::Cpu, 1_001).unwrap();
        assert_eq!(flusher.bytes(), 2_048, "whole cache lines");
    }

    #[test]
    fn the_sweeps_word_on_a_cache_is_the_last_one() {
        for device in [Resolved::Cpu, Resolved::Cuda(0)] {
            assert_eq!(cache_bytes(device, Some(3 << 20)), Ok(3 << 20));
            let refused = cache_bytes(device, Some(0)).unwrap_err();
            assert!(refused.ends_with("set measure.llc_bytes"), "{refused}");
        }
        // Nobody knows the cache of a GPU that is not there.
        let refused = cache_bytes(Resolved::Cuda(999), None).unwrap_err();
        assert!(refused.starts_with("the driver does not tell"), "{refused}");
    }

    #[test]
    fn every_flush_writes_every_cache_line() {
        let mut flusher = CpuFlusher::new(2 << 20).unwrap();
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
        let mut flusher = CpuFlusher::new(2 << 20).unwrap();
        flusher.buffer.truncate(1 << 10);
        flusher.flush();
    }
}
