//! Where a layer's work runs.
//!
//! ```
//! use attn_core::{in_pool, join};
//! use candle_core::Device;
//!
//! let (a, b) = in_pool(|| join(&Device::Cpu, || 1 + 1, || 2 * 2));
//! assert_eq!((a, b), (2, 4));
//! ```

use std::time::Instant;

use candle_core::Device;

use crate::phase;

/// Runs `work` on a thread of rayon's pool.
///
/// A thread outside the pool hands over every parallel operation and sleeps until it is done; on a virtual machine
/// waking two threads takes longer than a decode step's projection. A layer's call has several such operations: it
/// enters the pool once.
///
/// The pool's other threads sleep where nothing is parallel for some microseconds. They cannot be kept awake by a job that
/// waits: a thread may take it up in the middle of a part of the work, which then never ends.
///
/// ```
/// // A call within a call is no second entry.
/// assert_eq!(attn_core::in_pool(|| attn_core::in_pool(|| 7)), 7);
/// ```
pub fn in_pool<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    if rayon::current_thread_index().is_some() {
        return work();
    }
    rayon::scope(|_| work())
}

/// Runs both, on the processor side by side. A GPU is handed its work in one order by one thread: it has one stream, and
/// nothing is gained by who writes to it.
///
/// Phases of both share the time that passed here, in proportion to what each took.
///
/// ```
/// use candle_core::Device;
///
/// let (query, key) = attn_core::join(&Device::Cpu, || "query", || "key");
/// assert_eq!((query, key), ("query", "key"));
/// ```
pub fn join<A: Send, B: Send>(
    device: &Device,
    first: impl FnOnce() -> A + Send,
    second: impl FnOnce() -> B + Send,
) -> (A, B) {
    if !device.is_cpu() {
        return (first(), second());
    }
    if !phase::is_collecting() {
        return rayon::join(first, second);
    }
    phase::settle();
    let began = Instant::now();
    let ((a, mut times), (b, others)) = rayon::join(|| phase::collect(first), || phase::collect(second));
    times += others;
    phase::add(times.scaled_to(began.elapsed().as_secs_f64()));
    (a, b)
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
