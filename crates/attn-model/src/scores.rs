//! Logits on the host: log-probabilities and the best of them, without a copy of either.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use candle_core::{CpuStorage, Storage, Tensor};

use crate::error::Result;

/// An element of a row of logits.
pub(crate) trait Logit: Copy + PartialOrd + Send + Sync {
    /// As f64, exactly.
    fn wide(self) -> f64;

    /// The largest of `row` times `scale`, and the sum of `e^(scale x - that)`; NaN where anything is not finite.
    fn exponentials(row: &[Self], scale: f64) -> (f64, f64);
}

/// Logits `[N, V]` of an f32 or f64 tensor.
pub(crate) enum Rows<'a> {
    F32(&'a [f32]),
    F64(&'a [f64]),
}

/// Runs `work` on logits `[N, V]`, where they lie if that is the host.
pub(crate) fn with_rows<R>(logits: &Tensor, work: impl FnOnce(Rows<'_>) -> R) -> Result<R> {
    let logits = logits.to_device(&candle_core::Device::Cpu)?.contiguous()?;
    let elements = logits.elem_count();
    let (storage, layout) = logits.storage_and_layout();
    let first = layout.start_offset();
    Ok(match &*storage {
        Storage::Cpu(CpuStorage::F32(data)) => work(Rows::F32(&data[first..first + elements])),
        Storage::Cpu(CpuStorage::F64(data)) => work(Rows::F64(&data[first..first + elements])),
        _ => {
            return Err(attn_core::Error::Unsupported {
                what: format!("logits of type {}", logits.dtype().as_str()),
                remedy: "give them in f32 or f64".to_string(),
            }
            .into());
        }
    })
}

/// A row's scores: `base + log softmax(scale x)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scores {
    scale: f64,
    shift: f64,
}

impl Scores {
    /// Of a row with `base` added to every log-probability; `None` where a logit is not finite.
    pub(crate) fn new<T: Logit>(row: &[T], scale: f64, base: f64) -> Option<Self> {
        let (max, sum) = T::exponentials(row, scale);
        let normaliser = max + sum.ln();
        normaliser.is_finite().then_some(Self {
            scale,
            shift: base - normaliser,
        })
    }

    /// The score of a logit. Never falls as the logit grows.
    pub(crate) fn of<T: Logit>(self, logit: T) -> f64 {
        logit.wide() * self.scale + self.shift
    }
}

/// A token that may follow a hypothesis. Greater is better: a higher score, then a lower hypothesis, then a lower token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) score: f64,
    pub(crate) hypothesis: u32,
    pub(crate) token: u32,
}

impl Eq for Candidate {}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score
            .total_cmp(&other.score)
            .then(other.hypothesis.cmp(&self.hypothesis))
            .then(other.token.cmp(&self.token))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The best candidates of one row, kept between rows for their memory.
pub(crate) type Best = BinaryHeap<Reverse<Candidate>>;

/// Tokens whose largest logit is looked at before each of them.
const CHUNK: usize = 32;

/// Puts the `n` best tokens of a row into `best`, all but `excluded`.
///
/// # Cost
/// O(V): a chunk that holds nothing better than the worst kept is passed over.
pub(crate) fn best_of_row<T: Logit>(
    row: &[T],
    scores: Scores,
    hypothesis: u32,
    excluded: Option<u32>,
    n: usize,
    best: &mut Best,
) {
    best.clear();
    if n == 0 {
        return;
    }
    for (chunk, logits) in row.chunks(CHUNK).enumerate() {
        if best.len() == n
            && let (Some(Reverse(worst)), Some(&first)) = (best.peek(), logits.first())
        {
            let largest = logits.iter().fold(first, |a, &b| if b > a { b } else { a });
            // An equal score loses to the lower token that is there.
            if scores.of(largest) <= worst.score {
                continue;
            }
        }
        for (i, &logit) in logits.iter().enumerate() {
            let token = (chunk * CHUNK + i) as u32;
            if Some(token) == excluded {
                continue;
            }
            let candidate = Candidate {
                score: scores.of(logit),
                hypothesis,
                token,
            };
            if best.len() < n {
                best.push(Reverse(candidate));
            } else if let Some(mut worst) = best.peek_mut()
                && candidate > worst.0
            {
                *worst = Reverse(candidate);
            }
        }
    }
}

/// Keeps the `n` best of `candidates`, best first.
pub(crate) fn keep_best(candidates: &mut Vec<Candidate>, n: usize) {
    let descending = |a: &Candidate, b: &Candidate| b.cmp(a);
    if n < candidates.len() && n > 0 {
        candidates.select_nth_unstable_by(n - 1, descending);
    }
    candidates.truncate(n);
    candidates.sort_unstable_by(descending);
}

impl Logit for f64 {
    fn wide(self) -> f64 {
        self
    }

    fn exponentials(row: &[f64], scale: f64) -> (f64, f64) {
        let max = row.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
        let of = |&x: &f64| {
            if x.is_finite() {
                ((x - max) * scale).exp()
            } else {
                f64::NAN
            }
        };
        (max * scale, row.iter().map(of).sum())
    }
}

impl Logit for f32 {
    fn wide(self) -> f64 {
        f64::from(self)
    }

    fn exponentials(row: &[f32], scale: f64) -> (f64, f64) {
        const LANES: usize = 16;
        let mut maxima = [f32::NEG_INFINITY; LANES];
        let mut damage = [0f32; LANES];
        let mut look = |lane: usize, x: f32| {
            maxima[lane] = if x > maxima[lane] { x } else { maxima[lane] };
            damage[lane] += x * 0.0; // NaN of whatever is not finite
        };
        in_lanes::<LANES>(row, &mut look);
        let max = maxima.into_iter().fold(f32::NEG_INFINITY, f32::max);
        let narrow = scale as f32;
        // Runs are short enough for f32, their sums are not.
        let sum: f64 = row
            .chunks(64 * LANES)
            .map(|run| {
                let mut sums = [0f32; LANES];
                in_lanes::<LANES>(run, &mut |lane, x| sums[lane] += exp((x - max) * narrow));
                sums.iter().map(|&sum| f64::from(sum)).sum::<f64>()
            })
            .sum();
        let damage: f32 = damage.iter().sum();
        (f64::from(max) * scale, sum + f64::from(damage))
    }
}

/// Gives each element to its lane, whole vectors at a time, so that the compiler makes vectors of them.
#[inline(always)]
fn in_lanes<const LANES: usize>(row: &[f32], take: &mut impl FnMut(usize, f32)) {
    let (whole, rest) = row.as_chunks::<LANES>();
    for chunk in whole {
        for (lane, &x) in chunk.iter().enumerate() {
            take(lane, x);
        }
    }
    for (lane, &x) in rest.iter().enumerate() {
        take(lane, x);
    }
}

/// `e^x` for x at most 0, to 2e-7 of the result; about 1e-38 below -87.
///
/// # Source
/// Cephes, `expf`. The rounding by an added constant leaves the power of two in the sum's last bits.
#[inline(always)]
fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    let x = if x > -87.0 { x } else { -87.0 };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN_2[0] - n * LN_2[1];
    let mut p = 1.987_569_1e-4_f32;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_6e-1, 0.5] {
        p = p * r + c;
    }
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    (p * r * r + r + 1.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_exact_enough_and_find_what_is_not_finite() {
        for i in 0..870 {
            let x = -0.1 * i as f32;
            let expected = f64::from(x).exp();
            assert!((f64::from(exp(x)) - expected).abs() < 5e-7 * expected, "{x}");
        }
        assert_eq!(exp(0.0), 1.0);
        let row: Vec<f32> = (0..1000).map(|i| ((i * 37) % 101) as f32 * 0.3 - 20.0).collect();
        let wide: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
        for scale in [1.0, 0.3, 2.5] {
            let (a, b) = (f32::exponentials(&row, scale), f64::exponentials(&wide, scale));
            assert!(
                (a.0 - b.0).abs() < 1e-9 && (a.1 - b.1).abs() < 1e-6 * b.1,
                "{a:?} {b:?}"
            );
        }
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 15, 16, 999] {
                let mut row = row.clone();
                row[at] = bad;
                assert!(Scores::new(&row, 1.0, 0.0).is_none(), "{bad} at {at}");
                let wide: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
                assert!(Scores::new(&wide, 1.0, 0.0).is_none(), "{bad} at {at}");
            }
        }
    }

    #[test]
    fn the_best_are_those_of_a_full_sort() {
        // Many equal values, so that ties are broken everywhere.
        let row: Vec<f32> = (0..311).map(|i| ((i * 7919) % 13) as f32).collect();
        let scores = Scores::new(&row, 1.0, -3.0).unwrap();
        let mut all: Vec<Candidate> = (0u32..311)
            .map(|token| Candidate {
                score: scores.of(row[token as usize]),
                hypothesis: 4,
                token,
            })
            .collect();
        all.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.token.cmp(&b.token)));
        let mut best = Best::new();
        for n in [0, 1, 2, 24, 25, 100, 311, 400] {
            for excluded in [None, Some(12), Some(310)] {
                best_of_row(&row, scores, 4, excluded, n, &mut best);
                let mut got: Vec<Candidate> = best.iter().map(|candidate| candidate.0).collect();
                keep_best(&mut got, n);
                let expected: Vec<Candidate> = all
                    .iter()
                    .copied()
                    .filter(|c| Some(c.token) != excluded)
                    .take(n)
                    .collect();
                assert_eq!(got, expected, "{n} {excluded:?}");
            }
        }
    }
}
