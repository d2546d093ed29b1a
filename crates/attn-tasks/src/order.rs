//! Which examples a step reads: a function of seed and step alone, so that a run that goes on reads what it would have read.

use crate::error::{Error, Result};
use crate::rng::mix;

/// The order in which a part is read, `batch` examples a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    batch: u64,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Endless { first: u64 },
    Shuffled { seed: u64, len: u64 },
    Once { len: u64 },
}

/// Examples of an endless part that each seed has for itself.
const BLOCK_BITS: u32 = 40;
/// Seeds that have examples of their own; numbers stay below 2^52, which JSON can hold.
const BLOCKS: u64 = 1 << 12;

impl Order {
    /// For training on a part of so many examples ([`Task::len`](crate::Task::len)).
    ///
    /// A finite part is read in epochs, each of them in an order of its own and with every example once; a batch may end one
    /// epoch and begin the next. Of an endless part each example is read once, and seeds below 4096 read different ones.
    ///
    /// # Errors
    /// There is nothing to read.
    pub fn new(seed: u64, batch: usize, len: Option<u64>) -> Result<Self> {
        let kind = match len {
            Some(len) => Kind::Shuffled { seed, len },
            None => Kind::Endless {
                first: (seed % BLOCKS) << BLOCK_BITS,
            },
        };
        Self::checked(batch, len, kind)
    }

    /// For judging: every example of a finite part once, as they are numbered. The last batch may be smaller, and those after
    /// it are empty.
    ///
    /// # Errors
    /// There is nothing to read.
    pub fn once(batch: usize, len: u64) -> Result<Self> {
        Self::checked(batch, Some(len), Kind::Once { len })
    }

    fn checked(batch: usize, len: Option<u64>, kind: Kind) -> Result<Self> {
        if batch == 0 {
            return Err(Error::input("the batch", 0, "at least 1"));
        }
        if len == Some(0) {
            return Err(Error::input("the part", "empty", "at least 1 example"));
        }
        let batch = batch as u64;
        Ok(Self { batch, kind })
    }

    /// Examples of a step; the first is step 0.
    pub fn indices(&self, step: u64) -> Vec<u64> {
        let first = step.saturating_mul(self.batch);
        let places = first..first.saturating_add(self.batch);
        match self.kind {
            Kind::Endless { first } => places.map(|place| first.wrapping_add(place)).collect(),
            Kind::Shuffled { seed, len } => places
                .map(|place| permuted(seed, place / len, place % len, len))
                .collect(),
            Kind::Once { len } => places.filter(|place| *place < len).collect(),
        }
    }

    /// Epochs that are over before a step; none where there is no end to the examples.
    pub fn epochs(&self, step: u64) -> Option<u64> {
        match self.kind {
            Kind::Endless { .. } => None,
            Kind::Shuffled { len, .. } | Kind::Once { len } => Some(step.saturating_mul(self.batch) / len),
        }
    }

    /// Steps until every example was read once; none where there is no end to them.
    pub fn steps(&self) -> Option<u64> {
        match self.kind {
            Kind::Endless { .. } => None,
            Kind::Shuffled { len, .. } | Kind::Once { len } => Some(len.div_ceil(self.batch)),
        }
    }
}

/// Example at a place of an epoch: a Feistel network permutes the next power of four, and what falls outside `len` is
/// permuted again until it is inside.
fn permuted(seed: u64, epoch: u64, place: u64, len: u64) -> u64 {
    const ROUNDS: u64 = 8;
    let half = (u64::BITS - (len - 1).leading_zeros()).div_ceil(2).max(1);
    let mask = (1 << half) - 1;
    let key = mix(seed ^ mix(epoch.wrapping_add(0x9e37_79b9_7f4a_7c15)));
    let mut place = place;
    loop {
        let (mut high, mut low) = (place >> half, place & mask);
        for round in 0..ROUNDS {
            let scrambled = mix(key.wrapping_add(mix((round << 32) ^ low.wrapping_add(1)))) & mask;
            (high, low) = (low, high ^ scrambled);
        }
        place = (high << half) | low;
        if place < len {
            return place;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn every_epoch_has_every_example_once() {
        for len in [1, 2, 3, 5, 16, 17, 100, 1000] {
            let order = Order::new(3, 1, Some(len)).unwrap();
            for epoch in 0..5 {
                let read: BTreeSet<u64> = (0..len).map(|i| order.indices(epoch * len + i)[0]).collect();
                assert_eq!(read, (0..len).collect());
            }
        }
    }

    #[test]
    fn epochs_and_seeds_have_different_orders() {
        let read = |seed: u64, epoch: u64| -> Vec<u64> {
            let order = Order::new(seed, 100, Some(100)).unwrap();
            order.indices(epoch)
        };
        let orders: BTreeSet<Vec<u64>> = (0..10)
            .flat_map(|seed| (0..10).map(move |epoch| read(seed, epoch)))
            .collect();
        assert_eq!(orders.len(), 100);
        assert!(!orders.contains(&(0..100).collect::<Vec<u64>>()));
    }

    #[test]
    fn every_order_of_few_examples_is_as_likely() {
        let mut seen: BTreeMap<Vec<u64>, usize> = BTreeMap::new();
        for seed in 0..6000 {
            *seen
                .entry(Order::new(seed, 3, Some(3)).unwrap().indices(0))
                .or_default() += 1;
        }
        assert_eq!(seen.len(), 6);
        assert!(seen.values().all(|n| (850..1150).contains(n)), "{seen:?}");
    }

    #[test]
    fn a_batch_goes_over_the_end_of_an_epoch_and_resumes_anywhere() {
        let order = Order::new(5, 4, Some(10)).unwrap();
        let read: Vec<u64> = (0..5).flat_map(|step| order.indices(step)).collect();
        for epoch in read.chunks(10) {
            assert_eq!(epoch.iter().collect::<BTreeSet<_>>().len(), 10);
        }
        assert_eq!(Order::new(5, 4, Some(10)).unwrap().indices(3), read[12..16]);
        assert_eq!(
            (order.epochs(2), order.epochs(3), order.steps()),
            (Some(0), Some(1), Some(3))
        );
    }

    #[test]
    fn an_endless_part_is_read_once_and_by_each_seed_elsewhere() {
        let order = Order::new(0, 3, None).unwrap();
        assert_eq!(
            (order.indices(0), order.indices(7)),
            (vec![0, 1, 2], vec![21, 22, 23])
        );
        assert_eq!(Order::new(2, 3, None).unwrap().indices(0)[0], 2 << 40);
        assert_eq!((order.epochs(9), order.steps()), (None, None));
    }

    #[test]
    fn judging_ends_with_what_is_left() {
        let order = Order::once(4, 6).unwrap();
        assert_eq!(
            (order.indices(0), order.indices(1), order.indices(2)),
            (vec![0, 1, 2, 3], vec![4, 5], vec![])
        );
        assert_eq!(order.steps(), Some(2));
    }

    #[test]
    fn nothing_to_read_is_refused() {
        assert!(Order::new(0, 0, None).is_err());
        assert!(Order::new(0, 1, Some(0)).is_err());
        assert!(Order::once(1, 0).is_err());
    }
}
