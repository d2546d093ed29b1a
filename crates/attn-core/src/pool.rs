//! Where a layer's work runs.

use std::sync::atomic::{AtomicBool, Ordering};

/// Runs `work` on a thread of rayon's pool.
///
/// A thread outside the pool hands over every parallel operation and sleeps until it is done; on a virtual machine
/// waking two threads takes longer than a decode step's projection. A layer's call has several such operations: it
/// enters the pool once.
pub fn in_pool<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    if rayon::current_thread_index().is_some() {
        return work();
    }
    rayon::scope(|_| work())
}

/// The same, with the pool's other threads kept awake until it is done: for work of many short parallel operations,
/// a decode step. OpenMP's threads wait so by default.
pub fn in_pool_awake<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    let is_done = AtomicBool::new(false);
    in_pool(|| {
        let owner = rayon::current_thread_index();
        rayon::scope(|scope| {
            // The owner must not wait for itself.
            scope.spawn_broadcast(|_, _| {
                while rayon::current_thread_index() != owner && !is_done.load(Ordering::Acquire) {
                    if rayon::yield_now() != Some(rayon::Yield::Executed) {
                        std::hint::spin_loop();
                    }
                }
            });
            let _done = SetOnDrop(&is_done);
            work()
        })
    })
}

/// Tells the waiting threads, also where the work panics.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

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

    #[test]
    fn threads_kept_awake_share_the_work_and_end_with_it() {
        let sum = |n: u64| (0..n).into_par_iter().sum::<u64>();
        for n in [1, 100, 10_000] {
            assert_eq!(in_pool_awake(|| sum(n) + in_pool_awake(|| sum(n))), n * (n - 1));
        }
        let panicked = std::panic::catch_unwind(|| in_pool_awake(|| panic!("as asked")));
        assert!(panicked.is_err());
    }
}
