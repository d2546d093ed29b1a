//! Asking memory for the next block while this one is computed.

use crate::rows::Rows;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Lines of keys, then of values, that are still to be asked for. Entries lie one after the other, so that a block is a
/// run of lines; what may lie between two entries is fetched with them.
pub(super) struct Ahead {
    at: *const u8,
    left: usize,
    /// Values, after the keys.
    next: (*const u8, usize),
    /// Lines to ask for at a time: a few, because a thread that waits for memory computes nothing.
    each: usize,
}

impl Ahead {
    /// `n` entries, to be asked for over so many `calls`: keys and, where they have memory of their own, values.
    #[inline(always)]
    pub(super) fn new<E>(
        n: usize,
        calls: usize,
        (keys, key_rows): (&[E], &Rows<'_, E>),
        values: Option<(&[E], &Rows<'_, E>)>,
    ) -> Self {
        let lines = |rows: &Rows<'_, E>| (n * rows.row_stride * size_of::<E>()).div_ceil(LINE);
        let next = match values {
            Some((at, rows)) => (at.as_ptr().cast(), lines(rows)),
            None => (std::ptr::null(), 0),
        };
        let left = lines(key_rows);
        Self {
            at: keys.as_ptr().cast(),
            left,
            next,
            each: (left + next.1).div_ceil(calls.max(1)),
        }
    }

    /// Nothing is left to ask for.
    #[inline(always)]
    pub(super) fn none() -> Self {
        Self {
            at: std::ptr::null(),
            left: 0,
            next: (std::ptr::null(), 0),
            each: 0,
        }
    }

    /// Asks for some lines at a step of a tile, where that is FINE enough.
    #[inline(always)]
    pub(super) fn step<const FINE: bool>(&mut self) {
        if FINE {
            self.some();
        }
    }

    /// Asks for some lines at a tile, where its steps do not.
    #[inline(always)]
    pub(super) fn tile<const FINE: bool>(&mut self) {
        if !FINE {
            self.some();
        }
    }

    /// Asks for some lines.
    #[inline(always)]
    pub(super) fn some(&mut self) {
        if self.left == 0 {
            (self.at, self.left) = self.next;
            self.next.1 = 0;
        }
        let n = self.each.min(self.left);
        for line in 0..n {
            prefetch(self.at.wrapping_add(line * LINE));
        }
        self.at = self.at.wrapping_add(n * LINE);
        self.left -= n;
    }
}

/// Brings a line into the second cache.
#[inline(always)]
fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a hint that every x86-64 has, which reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
