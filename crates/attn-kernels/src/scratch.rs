//! Memory that starts at a cache line.

/// Floats in a cache line.
const LINE: usize = 16;

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
        Self {
            lines: vec![Line([0.0; LINE]); len.div_ceil(LINE)],
            len,
        }
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
