//! Where a layer's work runs.

/// Runs `work` on a thread of rayon's pool.
///
/// A thread outside the pool hands over every parallel operation and sleeps until it is done; on a virtual machine
/// waking two threads takes longer than a decode step's projection. A layer's call has several such operations: it
/// enters the pool once.
///
/// The pool's other threads sleep where nothing is parallel for some microseconds. They cannot be kept awake by a job that
/// waits: a thread may take it up in the middle of a part of the work, which then never ends.
pub fn in_pool<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    if rayon::current_thread_index().is_some() {
        return work();
    }
    rayon::scope(|_| work())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_runs_in_the_pool_once_entered() {
        assert!(rayon::current_thread_index().is_none());
        let outer = in_pool(rayon::current_thread_index);
        assert!(outer.is_some());
        let nested = in_pool(|| {
            (
                rayon::current_thread_index(),
                in_pool(rayon::current_thread_index),
            )
        });
        assert_eq!(nested.0, nested.1);
    }
}
