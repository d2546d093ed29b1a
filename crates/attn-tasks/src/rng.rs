//! Random numbers that are the same on every machine: ChaCha8, and integers alone.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};

use crate::span::Span;
use crate::task::Part;

/// A stream of random numbers of its own for every seed, purpose, part and index.
#[derive(Debug)]
pub(crate) struct Rng(ChaCha8Rng);

impl Rng {
    /// The stream of one example.
    pub(crate) fn example(seed: u64, purpose: &str, part: Part, index: u64) -> Self {
        let part = match part {
            Part::Train => 1,
            Part::Valid => 2,
            Part::Test => 3,
        };
        Self::keyed([seed, hash(purpose.bytes().map(u32::from)), part, index])
    }

    /// The stream of what all examples share: a lexicon, a table, a language.
    pub(crate) fn world(seed: u64, purpose: &str) -> Self {
        Self::keyed([seed, hash(purpose.bytes().map(u32::from)), 0, 0])
    }

    fn keyed(words: [u64; 4]) -> Self {
        let mut key = [0; 32];
        for (bytes, word) in key.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        Self(ChaCha8Rng::from_seed(key))
    }

    /// Uniform in `0..n`; `n` is at least 1.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.below_u64(n as u64) as usize
    }

    /// The same, without bias (Lemire, arXiv 1805.10941).
    fn below_u64(&mut self, n: u64) -> u64 {
        let biased = n.wrapping_neg() % n;
        loop {
            let wide = u128::from(self.0.next_u64()) * u128::from(n);
            if wide as u64 >= biased {
                return (wide >> 64) as u64;
            }
        }
    }

    /// Uniform in a span.
    pub(crate) fn within(&mut self, span: Span) -> usize {
        span.min + self.below(span.max - span.min + 1)
    }

    /// Place of one of the weights, as likely as it is large.
    pub(crate) fn weighted(&mut self, weights: &[u64]) -> usize {
        let total: u64 = weights.iter().sum();
        let mut left = self.below_u64(total);
        for (i, weight) in weights.iter().enumerate() {
            if left < *weight {
                return i;
            }
            left -= weight;
        }
        weights.len() - 1
    }

    /// All orders as likely as each other.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }

    /// `0..n` in random order.
    pub(crate) fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut items: Vec<usize> = (0..n).collect();
        self.shuffle(&mut items);
        items
    }

    /// `k` different ones of `0..n`, in random order.
    pub(crate) fn distinct(&mut self, n: usize, k: usize) -> Vec<usize> {
        let mut items: Vec<usize> = (0..n).collect();
        for i in 0..k {
            let j = i + self.below(n - i);
            items.swap(i, j);
        }
        items.truncate(k);
        items
    }

    /// Nearly normal, with mean 0 and standard deviation [`NOISE_UNIT`]: eight bytes added up.
    pub(crate) fn noise(&mut self) -> i32 {
        let bytes = self.0.next_u64().to_le_bytes();
        bytes.iter().map(|byte| i32::from(*byte)).sum::<i32>() - 1020
    }
}

/// Standard deviation of [`Rng::noise`]: sqrt(8 (256^2 - 1) / 12).
pub(crate) const NOISE_UNIT: f32 = 209.021_53;

/// FNV-1a of the words, mixed so that all bits depend on all of them.
pub(crate) fn hash(words: impl IntoIterator<Item = u32>) -> u64 {
    let fnv = words.into_iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, word| {
        (hash ^ u64::from(word)).wrapping_mul(0x0100_0000_01b3)
    });
    mix(fnv)
}

/// The last step of splitmix64: a permutation of 64 bits that leaves no trace of order.
pub(crate) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_the_mean_and_deviation_that_it_says() {
        let rng = &mut Rng::world(1, "noise");
        let drawn: Vec<f64> = (0..100_000)
            .map(|_| f64::from(rng.noise()) / f64::from(NOISE_UNIT))
            .collect();
        let mean = drawn.iter().sum::<f64>() / 1e5;
        let variance = drawn.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 1e5;
        let beyond = drawn.iter().filter(|x| x.abs() > 1.96).count() as f64 / 1e5;
        assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.02 && (beyond - 0.05).abs() < 0.005);
    }

    #[test]
    fn numbers_below_and_weighted_ones_are_as_frequent_as_they_should_be() {
        let rng = &mut Rng::world(2, "numbers");
        let mut counts = [[0; 3]; 2];
        for _ in 0..30_000 {
            counts[0][rng.below(3)] += 1;
            counts[1][rng.weighted(&[1, 0, 2])] += 1;
        }
        assert!(
            counts[0].iter().all(|n| (9_700..10_300).contains(n)),
            "{counts:?}"
        );
        assert!(
            (9_700..10_300).contains(&counts[1][0]) && counts[1][1] == 0,
            "{counts:?}"
        );
    }

    #[test]
    fn distinct_numbers_are_distinct_and_all_of_them_a_permutation() {
        let rng = &mut Rng::world(3, "distinct");
        let mut all = rng.distinct(9, 9);
        all.sort_unstable();
        assert_eq!(all, (0..9).collect::<Vec<usize>>());
        let mut some = rng.distinct(100, 50);
        some.sort_unstable();
        some.dedup();
        assert_eq!(some.len(), 50);
    }
}
