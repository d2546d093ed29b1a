//! Asking memory for the next block while this one is computed.

use crate::rows::Rows;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Lines of keys, then of what lies beside them, that are still to be asked for. Entries lie one after the other, so that
/// a block is a run of lines; what may lie between two entries is fetched with them.
pub(super) struct Ahead {
    at: *const u8,
    left: usize,
    /// Values and a tail, after the keys.
    next: [(*const u8, usize); 2],
    /// Lines to ask for at a time: a few, because a thread that waits for memory computes nothing.
    each: usize,
}

impl Ahead {
    /// `n` rows of keys, to be asked for over so many `calls`.
    #[inline(always)]
    pub(super) fn new<E>(n: usize, calls: usize, (at, rows): (&[E], &Rows<'_, E>)) -> Self {
        let mut ahead = Self::none();
        ahead.and(n, calls, (at, rows));
        ahead
    }

    /// And as many rows that lie elsewhere, after those that were given before.
    #[inline(always)]
    pub(super) fn and<E>(&mut self, n: usize, calls: usize, (at, rows): (&[E], &Rows<'_, E>)) {
        let lines = (n * rows.row_stride * size_of::<E>()).div_ceil(LINE);
        let at = at.as_ptr().cast();
        if self.left == 0 {
            (self.at, self.left) = (at, lines);
        } else if self.next[0].1 == 0 {
            self.next[0] = (at, lines);
        } else {
            self.next[1] = (at, lines);
        }
        let all = self.left + self.next[0].1 + self.next[1].1;
        self.each = all.div_ceil(calls.max(1));
    }

    /// Nothing is left to ask for.
    #[inline(always)]
    pub(super) fn none() -> Self {
        Self {
            at: std::ptr::null(),
            left: 0,
            next: [(std::ptr::null(), 0); 2],
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
            (self.at, self.left) = self.next[0];
            self.next = [self.next[1], (std::ptr::null(), 0)];
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
