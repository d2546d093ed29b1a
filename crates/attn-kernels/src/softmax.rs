//! The online softmax: scores of a block to weights, and what came before to the new maximum.

use crate::simd::Simd;

/// Turns scores into weights `e^(score - maximum)`, adds them to `total`, and returns what earlier weights are to be
/// multiplied with because the maximum grew.
///
/// # Safety
/// The processor has the instructions of `S`.
#[inline(always)]
pub(crate) unsafe fn soften<S: Simd>(scores: &mut [f32], maximum: &mut f32, total: &mut f32) -> f32 {
    let whole = scores.len() / S::LANES * S::LANES;
    let at = scores.as_mut_ptr();
    // SAFETY: vectors up to `whole` lie within the scores.
    unsafe {
        let mut largest = S::splat(*maximum);
        for i in (0..whole).step_by(S::LANES) {
            largest = S::max(largest, S::load(at.add(i)));
        }
        let mut max = S::largest(largest);
        for score in &scores[whole..] {
            max = if *score > max { *score } else { max };
        }
        // Where there is nothing but -infinity, or NaN, any finite number gives the weights they deserve.
        let base = if max == f32::NEG_INFINITY { 0.0 } else { max };
        let new = S::splat(base);
        let mut sum = S::splat(0.0);
        for i in (0..whole).step_by(S::LANES) {
            let weight = S::exp(S::sub(S::load(at.add(i)), new));
            S::store(at.add(i), weight);
            sum = S::add(sum, weight);
        }
        let mut sum = S::sum(sum);
        for score in &mut scores[whole..] {
            *score = (*score - base).exp();
            sum += *score;
        }
        let scale = if *maximum == max {
            1.0
        } else {
            (*maximum - max).exp()
        };
        *total = *total * scale + sum;
        *maximum = max;
        scale
    }
}

/// Multiplies whole vectors.
///
/// # Safety
/// The processor has the instructions of `S`.
#[inline(always)]
pub(crate) unsafe fn rescale<S: Simd>(row: &mut [f32], scale: f32) {
    let at = row.as_mut_ptr();
    // SAFETY: rows are of whole vectors.
    unsafe {
        let scale = S::splat(scale);
        for i in (0..row.len()).step_by(S::LANES) {
            S::store(at.add(i), S::mul(S::load(at.add(i)), scale));
        }
    }
}
