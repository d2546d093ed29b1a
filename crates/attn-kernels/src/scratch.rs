//! Memory that starts at a cache line, and is used again.
//!
//! A decode step takes less time than the system takes to find pages for its scratch, so each thread keeps some.

use std::cell::RefCell;

/// Floats in a cache line.
const LINE: usize = 16;

/// Buffers that a thread keeps.
const KEPT: usize = 8;

/// Lines of a buffer that is kept, at most: 8 MiB. What is larger belongs to work that takes longer than its pages.
const MOST_LINES: usize = 1 << 17;

thread_local! {
    static POOL: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Up to whole vectors of any level.
pub(crate) fn whole(n: usize) -> usize {
    n.next_multiple_of(LINE)
}

/// f32 values from the start of a cache line on.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    lines: Vec<Line>,
    len: usize,
}

#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

impl Scratch {
    /// So many zeros.
    pub(crate) fn zeros(len: usize) -> Self {
        let mut lines = taken(len);
        lines.clear();
        lines.resize(len.div_ceil(LINE), Line([0.0; LINE]));
        Self { lines, len }
    }

    /// So many floats that are to be written before they are read. Tests find NaN there.
    pub(crate) fn unwritten(len: usize) -> Self {
        let mut lines = taken(len);
        if cfg!(debug_assertions) {
            lines.clear();
        }
        lines.resize(len.div_ceil(LINE), Line([f32::NAN; LINE]));
        Self { lines, len }
    }

    pub(crate) fn as_slice(&self) -> &[f32] {
        // SAFETY: lines lie one after the other without gaps, each is 16 f32, and `len` is no more than all of them.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        if (1..=MOST_LINES).contains(&lines.capacity()) {
            // A thread that ends has no pool left, and frees.
            let _ = POOL.try_with(|pool| {
                let mut pool = pool.borrow_mut();
                if pool.len() < KEPT {
                    pool.push(lines);
                }
            });
        }
    }
}

/// The smallest buffer of this thread that is large enough, or none yet.
fn taken(len: usize) -> Vec<Line> {
    let need = len.div_ceil(LINE);
    let found = POOL.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        let fitting = pool
            .iter()
            .enumerate()
            .filter(|(_, lines)| lines.capacity() >= need);
        let at = fitting.min_by_key(|(_, lines)| lines.capacity())?.0;
        Some(pool.swap_remove(at))
    });
    found.ok().flatten().unwrap_or_else(|| Vec::with_capacity(need))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_and_are_zeros_when_asked() {
        let mut scratch = Scratch::zeros(100);
        let at = scratch.as_slice().as_ptr();
        assert_eq!(at.align_offset(64), 0);
        scratch.as_mut_slice().fill(1.0);
        drop(scratch);
        let small = Scratch::zeros(40);
        assert_eq!(small.as_slice().as_ptr(), at);
        assert_eq!(small.as_slice(), [0.0; 40]);
        let other = Scratch::unwritten(40);
        assert_ne!(other.as_slice().as_ptr(), at);
        assert_eq!(other.as_slice().len(), 40);
        // New memory; in builds with assertions memory that comes back is made so too.
        assert!(other.as_slice().iter().all(|x| x.is_nan()));
    }

    #[test]
    fn a_thread_keeps_few_buffers_and_no_large_ones() {
        let kept = || POOL.with(|pool| pool.borrow().len());
        drop(Scratch::zeros(LINE * (MOST_LINES + 1)));
        assert_eq!(kept(), 0);
        let many: Vec<Scratch> = (1..=KEPT + 3).map(|n| Scratch::zeros(64 * n)).collect();
        drop(many);
        assert_eq!(kept(), KEPT);
    }
}
