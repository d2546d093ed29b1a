//! The processors of a worker, where several work at the same time.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// A part of the machine's processors: workers of different GPUs each compute on their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Its number, from 0.
    pub index: usize,
    /// How many parts there are.
    pub of: usize,
}

impl Default for Share {
    /// All of them.
    fn default() -> Self {
        Self { index: 0, of: 1 }
    }
}

impl Share {
    /// Its processors among `n`: at least one, which is another part's too where there are more parts than processors.
    pub fn part(self, n: usize) -> Range<usize> {
        let of = self.of.max(1);
        let at = |index: usize| index.min(of) * n / of;
        let start = at(self.index).min(n.saturating_sub(1));
        start..at(self.index + 1).max(start + 1).min(n.max(1))
    }
}

/// The variable by which rayon and candle are told how many threads to have.
pub(crate) const THREADS: &str = "RAYON_NUM_THREADS";

/// Threads that the pool of a process with so many processors will have: `RAYON_NUM_THREADS`, else one for each.
pub(crate) fn thread_count(processors: usize) -> usize {
    let wanted = std::env::var(THREADS).ok().and_then(|n| n.parse().ok());
    wanted.filter(|n| *n > 0).unwrap_or(processors).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_apart_and_together_all_there_is() {
        for (n, of) in [(16, 2), (7, 3), (4, 4), (1, 1)] {
            let all: Vec<usize> = (0..of).flat_map(|index| Share { index, of }.part(n)).collect();
            assert_eq!(all, (0..n).collect::<Vec<_>>(), "{n} {of}");
        }
        assert_eq!(Share::default().part(5), 0..5);
    }

    #[test]
    fn every_part_has_a_processor() {
        for of in 1..6 {
            for index in 0..of {
                let part = Share { index, of }.part(2);
                assert!(!part.is_empty() && part.end <= 2, "{index} {of}");
            }
        }
    }
}
