//! Memory that several tasks write.

use std::marker::PhantomData;

/// Memory that tasks write different parts of.
pub(crate) struct Places<'a, T> {
    at: *mut T,
    len: usize,
    of: PhantomData<&'a mut [T]>,
}

// SAFETY: what is shared is an exclusive borrow of elements that may be sent, of which `part` hands out parts that its
// callers keep apart.
unsafe impl<T: Send> Sync for Places<'_, T> {}

impl<'a, T> Places<'a, T> {
    pub(crate) fn new(all: &'a mut [T]) -> Self {
        Self {
            at: all.as_mut_ptr(),
            len: all.len(),
            of: PhantomData,
        }
    }

    /// `n` elements from `first` on.
    ///
    /// # Safety
    /// Nobody else has any of them meanwhile.
    #[allow(clippy::mut_from_ref, reason = "parts are kept apart by the callers")]
    pub(crate) unsafe fn part(&self, first: usize, n: usize) -> &mut [T] {
        assert!(first + n <= self.len, "a part beyond the end");
        // SAFETY: within the borrow, and the caller's.
        unsafe { std::slice::from_raw_parts_mut(self.at.add(first), n) }
    }
}
