//! Asking memory for the next block while this one is computed.

use crate::rows::Rows;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Lines of keys and of values that are still to be asked for. Entries lie one after the other, so that a block is a
/// run of lines; what may lie between two entries is fetched with them.
pub(super) struct Ahead {
    at: [*const u8; 2],
    left: [usize; 2],
    /// Lines to ask for at a time.
    each: [usize; 2],
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
        let (at, value_lines) = match values {
            Some((at, rows)) => (at.as_ptr().cast(), lines(rows)),
            None => (std::ptr::null(), 0),
        };
        let left = [lines(key_rows), value_lines];
        Self {
            at: [keys.as_ptr().cast(), at],
            left,
            each: [left[0].div_ceil(calls), left[1].div_ceil(calls)],
        }
    }

    /// Nothing is left to ask for.
    #[inline(always)]
    pub(super) fn none() -> Self {
        Self {
            at: [std::ptr::null(); 2],
            left: [0; 2],
            each: [0; 2],
        }
    }

    /// Asks for some lines.
    #[inline(always)]
    pub(super) fn some(&mut self) {
        for of in 0..2 {
            let n = self.each[of].min(self.left[of]);
            for line in 0..n {
                prefetch(self.at[of].wrapping_add(line * LINE));
            }
            self.at[of] = self.at[of].wrapping_add(n * LINE);
            self.left[of] -= n;
        }
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
