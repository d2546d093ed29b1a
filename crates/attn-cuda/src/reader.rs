//! A buffer on a device that is read, or copied, as often as wanted. Each call puts its work on the stream and waits for
//! nothing.
//!
//! Not yet run on a GPU.

use std::sync::Arc;

use attn_kernels::cuda::{Memory, ReadAllPlan};
use cudarc::driver::{CudaSlice, CudaStream, DevicePtr, DevicePtrMut};

use crate::load::{CudaError, Kernels, Loaded, driver};

/// Words of the pattern that buffers are filled with, a prime: places that lie a power of two apart differ.
const PATTERN: usize = 1_048_573;

/// A buffer, and the kernel that reads it.
#[derive(Debug)]
pub struct Reader {
    stream: Arc<CudaStream>,
    plan: ReadAllPlan,
    kernel: Loaded,
    /// Words.
    buffer: CudaSlice<u32>,
    sums: CudaSlice<u32>,
}

impl Reader {
    /// A buffer of `bytes`, rounded up to multiples of 16, filled with bits of no order: neither a memory that
    /// compresses nor one that saves power on zeros is helped by them.
    ///
    /// # Errors
    /// [`CudaError`]; most likely there is no memory for it.
    pub fn new(kernels: &Kernels, stream: &Arc<CudaStream>, bytes: usize) -> Result<Self, CudaError> {
        let plan = ReadAllPlan::new(kernels.machine(), bytes)?;
        let kernel = kernels.load(&plan.planned)?;
        let words = plan.bytes() / size_of::<u32>();
        let what = format!("a buffer of {} MiB", plan.bytes() >> 20);
        // SAFETY: all of it is written below, before anybody reads it.
        let mut buffer = driver(&what, unsafe { stream.alloc(words) })?;
        let pattern = pattern(PATTERN.min(words));
        for at in (0..words).step_by(PATTERN) {
            let end = words.min(at + PATTERN);
            let mut part = buffer.slice_mut(at..end);
            driver(&what, stream.memcpy_htod(&pattern[..end - at], &mut part))?;
        }
        let sums = driver(&what, stream.alloc_zeros(plan.sums()))?;
        Ok(Self {
            stream: stream.clone(),
            plan,
            kernel,
            buffer,
            sums,
        })
    }

    /// Bytes that [`read`](Self::read) reads, and that [`copy`](Self::copy) reads and writes together.
    pub fn bytes(&self) -> usize {
        self.plan.bytes()
    }

    /// Reads the buffer.
    ///
    /// # Errors
    /// [`CudaError::Driver`].
    pub fn read(&mut self) -> Result<(), CudaError> {
        let memory = |address, words: usize| Memory {
            address,
            bytes: words * size_of::<u32>(),
        };
        let (words, blocks) = (self.buffer.len(), self.sums.len());
        let (from, _reads) = self.buffer.device_ptr(&self.stream);
        let (sums, _writes) = self.sums.device_ptr_mut(&self.stream);
        let params = self.plan.params(memory(from, words), memory(sums, blocks))?;
        // SAFETY: the parameters are of the kernel's plan; both are memory of this stream's device, freed in its order,
        // and nobody else has them.
        unsafe { self.kernel.launch(&self.stream, &params) }
    }

    /// Copies the first half of the buffer over the second.
    ///
    /// # Errors
    /// [`CudaError::Driver`].
    pub fn copy(&mut self) -> Result<(), CudaError> {
        let half = self.buffer.len() / 2;
        let (from, mut to) = self.buffer.split_at_mut(half);
        driver("copying a buffer", self.stream.memcpy_dtod(&from, &mut to))
    }

    /// The words of all reads so far, added up modulo 2^32; waits for them.
    ///
    /// # Errors
    /// [`CudaError::Driver`].
    pub fn sum(&self) -> Result<u32, CudaError> {
        let sums = driver("reading sums", self.stream.clone_dtoh(&self.sums))?;
        Ok(sums.into_iter().fold(0, u32::wrapping_add))
    }

    /// What one read of the buffer as [`new`](Self::new) filled it adds to [`sum`](Self::sum).
    pub fn expected_sum(&self) -> u32 {
        let words = self.buffer.len();
        let pattern = pattern(PATTERN.min(words));
        let add = |words: &[u32]| words.iter().fold(0_u32, |sum, word| sum.wrapping_add(*word));
        let (whole, rest) = (words / PATTERN, words % PATTERN);
        (whole as u32)
            .wrapping_mul(add(&pattern))
            .wrapping_add(add(&pattern[..rest.min(pattern.len())]))
    }
}

/// Numbers of no order: a full period of Weyl's sequence, mixed.
fn pattern(n: usize) -> Vec<u32> {
    let mix = |i: u32| {
        let x = i.wrapping_mul(0x9e37_79b9);
        (x ^ (x >> 16)).wrapping_mul(0x85eb_ca6b)
    };
    (1..=n as u32).map(mix).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_patterns_bits_are_set() {
        let set: u32 = pattern(PATTERN).iter().map(|word| word.count_ones()).sum();
        let share = f64::from(set) / (32.0 * PATTERN as f64);
        assert!((share - 0.5).abs() < 0.01, "{share}");
    }
}
