//! Into how many pieces a decode kernel splits a cache, and what memory that takes.

use super::machine::{Arch, Machine};

/// Bytes a second that one multiprocessor takes at most, from memory or the second cache. An estimate: its wire has 64
/// bytes a clock, and with all of them reading each gets 33e9 of an H200's memory.
const MULTIPROCESSOR_BYTES_PER_S: f64 = 50e9;

/// Seconds from the last block's end to the begin of the sum over blocks: a fence, a ticket and a first load. An
/// estimate.
const TICKET_S: f64 = 1.5e-6;

/// What splitting a launch costs and saves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    /// Sequences, KV heads and blocks of heads: blocks of a launch without splits.
    pub(super) groups: usize,
    /// Blocks that a multiprocessor holds at once.
    pub(super) blocks: usize,
    /// Entries of a sequence.
    pub(super) slots: usize,
    /// Bytes of an entry.
    pub(super) entry_bytes: usize,
    /// Entries below which a split does not keep a block's warps busy.
    pub(super) fewest: usize,
    /// Bytes of what a block leaves for the sum over blocks.
    pub(super) partial_bytes: usize,
    /// Splits that the kernel's memory allows.
    pub(super) most: usize,
}

/// Bytes a second that memory gives to all multiprocessors together: as an H200 was seen to copy, and for the rest an
/// A100's data sheet less a tenth.
fn memory_bytes_per_s(arch: Arch) -> f64 {
    match arch {
        Arch::Sm80 => 1.8e12,
        Arch::Sm90a => 4.3e12,
    }
}

/// The number of splits whose estimated time is least, the smaller of equals. Constants are estimates: nothing was
/// measured yet.
pub(super) fn splits(machine: Machine, work: Work) -> usize {
    let most = (work.slots / work.fewest).clamp(1, work.most.max(1));
    let time_s = |splits: usize| {
        let at_once = (machine.multiprocessors * work.blocks) as f64;
        let blocks = work.groups as f64 * splits as f64;
        let waves = (blocks / at_once).ceil();
        // A last wave that is not full takes as long as a full one.
        let own_bytes = work.slots.div_ceil(splits) as f64 * work.entry_bytes as f64;
        let sharing = blocks.min(at_once);
        let rate =
            (memory_bytes_per_s(machine.arch) / sharing).min(MULTIPROCESSOR_BYTES_PER_S / work.blocks as f64);
        let sum_s = match splits {
            1 => 0.0,
            _ => TICKET_S + (splits * work.partial_bytes) as f64 / MULTIPROCESSOR_BYTES_PER_S,
        };
        waves * own_bytes / rate + sum_s
    };
    let times = (1..=most).map(|splits| (splits, time_s(splits)));
    let least = times.reduce(|best, next| if next.1 < best.1 { next } else { best });
    least.map_or(1, |(splits, _)| splits)
}

/// Entries `from..to` of a split, and the number of splits that have any but at least one: `range_of` of `combine.cuh`.
pub fn range_of(slots: usize, split: usize, splits: usize, tile: usize) -> (std::ops::Range<usize>, usize) {
    let each = slots.div_ceil(splits).max(1).next_multiple_of(tile);
    let from = (split * each).min(slots);
    (from..(from + each).min(slots), slots.div_ceil(each).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latents(groups: usize, slots: usize) -> usize {
        let work = Work {
            groups,
            blocks: 1,
            slots,
            entry_bytes: 576,
            fewest: 128,
            partial_bytes: 8 * 256 * 4,
            most: 256,
        };
        splits(Machine::usual(Arch::Sm90a), work)
    }

    #[test]
    fn one_sequence_is_split_and_many_are_not() {
        assert_eq!(latents(1, 100), 1);
        assert!((8..64).contains(&latents(1, 4096)), "{}", latents(1, 4096));
        assert!(latents(1, 131_072) > latents(1, 4096));
        assert_eq!(latents(132, 4096), 1);
        // Half of the multiprocessors do not get all that memory gives.
        assert_eq!(latents(64, 4096), 2);
        // Two waves would leave half of the second idle.
        assert!(latents(64, 65_536) <= 2, "{}", latents(64, 65_536));
    }

    #[test]
    fn ranges_of_splits_cover_the_entries_once_in_order() {
        for slots in [0, 1, 3, 15, 16, 17, 63, 111, 1000] {
            for splits in [1, 2, 3, 7, 64] {
                let mut end = 0;
                let (_, active) = range_of(slots, 0, splits, 16);
                for split in 0..splits {
                    let (range, same) = range_of(slots, split, splits, 16);
                    assert_eq!((range.start, active), (end, same));
                    assert_eq!(range.is_empty(), split >= active || slots == 0);
                    end = range.end;
                }
                assert_eq!(end, slots);
            }
        }
    }
}
