//! The processor's clock, by the speed of a fixed chain of operations.

use std::hint::black_box;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::stats::median;

/// Links of the chain that are timed at once, about a tenth of a millisecond: shorter than a turn of the
/// scheduler, so that other processes cannot make the clock look slow.
const LINKS: u32 = 50_000;

/// Times the chain runs in a look; the fastest counts.
const PASSES: usize = 3;

/// Looks are no closer than this: they take half a percent of the time then.
const APART: Duration = Duration::from_millis(50);

/// Looks at the clock in the course of a measurement. A turbo clock moves by a sixth within a tenth of a second, as
/// other machines of the host come and go: one look at either end says nothing of what lies between.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClockLooks {
    /// Links per second of the chain, in the order seen.
    pub rates: Vec<f64>,
    /// Seconds the looks took.
    pub spent_s: f64,
    #[serde(skip)]
    last: Option<Instant>,
}

impl ClockLooks {
    /// Looks, unless the last time was just now.
    pub fn take(&mut self) {
        if self.last.is_some_and(|last| last.elapsed() < APART) {
            return;
        }
        let began = Instant::now();
        self.rates.push(rate());
        self.spent_s += began.elapsed().as_secs_f64();
        self.last = Some(Instant::now());
    }

    /// The usual rate; `None` before the first look.
    pub fn typical(&self) -> Option<f64> {
        (!self.rates.is_empty()).then(|| median(&self.rates))
    }

    /// The usual rate of the slower half of the looks over that of the faster, earlier and later looks being the
    /// halves; `None` before the second look.
    pub fn steadiness(&self) -> Option<f64> {
        let (earlier, later) = self.rates.split_at(self.rates.len() / 2);
        if earlier.is_empty() {
            return None;
        }
        let (earlier, later) = (median(earlier), median(later));
        Some(earlier.min(later) / earlier.max(later))
    }
}

/// Links per second of a chain in which every operation waits for the one before. It lives in registers: memory,
/// caches and the other threads of a core hardly matter, the clock does.
fn rate() -> f64 {
    let mut best = 0.0_f64;
    for _ in 0..PASSES {
        let pass = Instant::now();
        black_box(chain(black_box(0x9e37_79b9_7f4a_7c15), black_box(LINKS)));
        best = best.max(f64::from(LINKS) / pass.elapsed().as_secs_f64());
    }
    best
}

/// A shift between the products keeps a compiler from multiplying their factors beforehand.
#[inline(never)]
fn chain(mut state: u64, links: u32) -> u64 {
    for _ in 0..links {
        state = (state ^ (state >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_takes_time_in_proportion_to_its_links() {
        // 20 GHz, a link a cycle: no processor is there, a chain that was optimised away would be.
        let rate = rate();
        assert!(rate > 1e6 && rate < 20e9, "{rate}");
        assert_ne!(chain(1, 1), chain(1, 2));
    }

    #[test]
    fn looks_are_apart_and_know_what_they_took() {
        let mut looks = ClockLooks::default();
        assert_eq!((looks.typical(), looks.steadiness()), (None, None));
        looks.take();
        looks.take();
        assert_eq!(looks.rates.len(), 1);
        assert!(looks.spent_s > 0.0 && looks.spent_s < 1.0);
        std::thread::sleep(APART);
        looks.take();
        assert_eq!(looks.rates.len(), 2);
    }

    #[test]
    fn one_look_at_another_rate_is_no_change_and_half_of_them_are() {
        let of = |rates: &[f64]| ClockLooks {
            rates: rates.to_vec(),
            ..ClockLooks::default()
        };
        let blip = of(&[5.0, 3.0, 5.0, 5.0, 5.0, 5.0]);
        assert_eq!((blip.typical(), blip.steadiness()), (Some(5.0), Some(1.0)));
        assert_eq!(of(&[5.0, 5.0, 5.0, 4.0, 4.0, 4.0]).steadiness(), Some(0.8));
        assert_eq!(of(&[4.0, 5.0]).steadiness(), Some(0.8));
    }
}
