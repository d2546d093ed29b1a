//! How fast all threads together read memory, and copy it.

use std::hint::black_box;
use std::time::Instant;

use rayon::prelude::*;

/// Elements a thread takes at a time, 1 MiB: small enough that a thread the system holds up delays little,
/// large enough that taking the next piece costs nothing.
const PIECE: usize = 1 << 18;

/// Bytes per second.
pub(super) struct Bandwidth {
    pub(super) read_bytes_per_s: f64,
    pub(super) copy_bytes_per_s: f64,
}

/// The best of `passes` over a buffer. A copy goes from one half to the other, so that it touches as much.
pub(super) fn measure(buffer_bytes: u64, passes: usize) -> Result<Bandwidth, String> {
    let mut buffer = allocate(buffer_bytes)?;
    let read_s = best_of(passes, || {
        black_box(read(&buffer));
    });
    let (target, source) = buffer.split_at_mut(buffer_bytes as usize / 4 / 2);
    let copied_bytes = 2 * size_of_val(target);
    let copy_s = best_of(passes, || copy(black_box(&mut *target), black_box(source)));
    Ok(Bandwidth {
        read_bytes_per_s: buffer_bytes as f64 / read_s,
        copy_bytes_per_s: copied_bytes as f64 / copy_s,
    })
}

/// A buffer whose pages are those of a tensor: a `Vec` of f32 from the global allocator, filled by one thread,
/// as candle fills a new tensor. Nothing of it is zero, because zero pages are not there until written.
///
/// # Errors
/// The reason, with its remedy, where there is no memory for it.
pub(crate) fn allocate(bytes: u64) -> Result<Vec<f32>, String> {
    let elements = bytes as usize / size_of::<f32>();
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(elements).map_err(|_| {
        format!(
            "no memory for a buffer of {} MiB; set measure.llc_bytes where the last-level cache is smaller than \
             the system reports",
            bytes >> 20
        )
    })?;
    buffer.resize(elements, 1.0);
    Ok(buffer)
}

/// The shortest of several runs, in seconds.
fn best_of(passes: usize, mut work: impl FnMut()) -> f64 {
    let time = |_| {
        let began = Instant::now();
        work();
        began.elapsed().as_secs_f64()
    };
    (0..passes).map(time).fold(f64::INFINITY, f64::min)
}

/// The sum of the bits of all elements: integers, so that the order does not matter and nothing waits for an
/// addition before it.
fn read(buffer: &[f32]) -> u32 {
    let pieces = buffer.par_chunks(PIECE);
    pieces
        .map(|piece| sum_bits(black_box(piece)))
        .reduce(|| 0, u32::wrapping_add)
}

fn copy(target: &mut [f32], source: &[f32]) {
    let pieces = target.par_chunks_mut(PIECE).zip(source.par_chunks(PIECE));
    pieces.for_each(|(target, source)| target.copy_from_slice(source));
}

/// The widest loads the processor has: on a virtual Sapphire Rapids, 512-bit loads read 10 GB/s where the 128
/// bits every x86-64 has read 6 GB/s, and kernels choose theirs at run time too.
fn sum_bits(piece: &[f32]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has just been asked.
            return unsafe { x86::sum_bits_avx512(piece) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { x86::sum_bits_avx2(piece) };
        }
    }
    sum_bits_portable(piece)
}

fn sum_bits_portable(piece: &[f32]) -> u32 {
    let (blocks, rest) = piece.as_chunks::<32>();
    let mut sums = [0u32; 32];
    for block in blocks {
        for (sum, element) in sums.iter_mut().zip(block) {
            *sum = sum.wrapping_add(element.to_bits());
        }
    }
    let tail = rest.iter().map(|element| element.to_bits());
    sums.into_iter().chain(tail).fold(0, u32::wrapping_add)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::sum_bits_portable;

    /// Two cache lines at a time, in four sums that do not wait for each other.
    ///
    /// # Safety
    /// The processor must have AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn sum_bits_avx2(piece: &[f32]) -> u32 {
        let (blocks, rest) = piece.as_chunks::<32>();
        let mut sums = [_mm256_setzero_si256(); 4];
        for block in blocks {
            let from = block.as_ptr().cast::<__m256i>();
            for (lane, sum) in sums.iter_mut().enumerate() {
                // SAFETY: a block is four vectors of 32 bytes, and the load asks for no alignment.
                let loaded = unsafe { _mm256_loadu_si256(from.add(lane)) };
                *sum = _mm256_add_epi32(*sum, loaded);
            }
        }
        let both = _mm256_add_epi32(
            _mm256_add_epi32(sums[0], sums[1]),
            _mm256_add_epi32(sums[2], sums[3]),
        );
        let mut lanes = [0u32; 8];
        // SAFETY: the array is 32 bytes, and the store asks for no alignment.
        unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), both) };
        lanes.into_iter().fold(sum_bits_portable(rest), u32::wrapping_add)
    }

    /// Four cache lines at a time, in four sums that do not wait for each other.
    ///
    /// # Safety
    /// The processor must have AVX-512 F.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn sum_bits_avx512(piece: &[f32]) -> u32 {
        let (blocks, rest) = piece.as_chunks::<64>();
        let mut sums = [_mm512_setzero_si512(); 4];
        for block in blocks {
            let from = block.as_ptr().cast::<__m512i>();
            for (lane, sum) in sums.iter_mut().enumerate() {
                // SAFETY: a block is four vectors of 64 bytes, and the load asks for no alignment.
                let loaded = unsafe { _mm512_loadu_si512(from.add(lane)) };
                *sum = _mm512_add_epi32(*sum, loaded);
            }
        }
        let both = _mm512_add_epi32(
            _mm512_add_epi32(sums[0], sums[1]),
            _mm512_add_epi32(sums[2], sums[3]),
        );
        (_mm512_reduce_add_epi32(both) as u32).wrapping_add(sum_bits_portable(rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_of_reading_reads_every_element() {
        // Odd, so that there is a rest after blocks of any size.
        let elements: Vec<f32> = (0..1_003).map(|i| f32::from_bits(i * 2_654_435)).collect();
        let expected = elements
            .iter()
            .fold(0u32, |sum, element| sum.wrapping_add(element.to_bits()));
        assert_eq!(sum_bits_portable(&elements), expected);
        assert_eq!(sum_bits(&elements), expected);
        assert_eq!(read(&elements), expected);
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has just been asked.
            assert_eq!(unsafe { x86::sum_bits_avx2(&elements) }, expected);
        }
        let mut target = vec![0.0; elements.len()];
        copy(&mut target, &elements);
        assert_eq!(read(&target), expected);
    }

    #[test]
    fn a_buffer_nobody_has_is_an_error_with_its_remedy() {
        let refused = allocate(u64::MAX / 4).unwrap_err();
        assert!(refused.contains("measure.llc_bytes"), "{refused}");
    }
}
