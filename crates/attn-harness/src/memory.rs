//! Two measures of memory on the CPU: what the allocator handed out, and what the system keeps resident. Of a GPU, what
//! the driver's pool handed out, and what it keeps.
//!
//! They differ in both directions. Allocated pages that were never written are not resident, and code, stacks
//! and freed pages that the allocator keeps are. A row therefore has both, each under its own name.

mod device;
pub(crate) mod meter;
#[cfg(feature = "cuda")]
mod pool;

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::{self, File};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

pub use self::device::Kept;
pub(crate) use self::device::{kept, live_bytes, peak_bytes, reset_kept, reset_peak};

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);
/// Where a refusal is noted.
static REFUSALS: OnceLock<File> = OnceLock::new();

/// Requests below this pass whatever the limit: what reports an error allocates too.
const ALWAYS_GRANTED: usize = 64 << 10;

/// The system's allocator, counting. A binary installs it once:
///
/// ```standalone_crate
/// use attn_harness::memory::CountingAllocator;
///
/// #[global_allocator]
/// static ALLOCATOR: CountingAllocator = CountingAllocator;
///
/// CountingAllocator::reset_peak();
/// let before = CountingAllocator::snapshot();
/// drop(vec![0u8; 1 << 20]);
/// let after = CountingAllocator::snapshot();
/// assert!(after.peak_bytes - before.live_bytes >= 1 << 20);
/// ```
///
/// An allocation costs two relaxed additions and a load more than without. The counts are exact once threads
/// have been joined; while they run, the peak may miss what another thread allocates at the same instant.
#[derive(Debug, Clone, Copy, Default)]
pub struct CountingAllocator;

/// Counts of the allocator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemorySnapshot {
    /// Bytes handed out and not returned.
    pub live_bytes: u64,
    /// Most of them at once since the last reset.
    pub peak_bytes: u64,
    /// Allocations since the process began, growing ones included.
    pub allocations: u64,
}

impl CountingAllocator {
    /// The counts now; all zero where the allocator is not installed.
    pub fn snapshot() -> MemorySnapshot {
        let live = LIVE.load(Relaxed);
        MemorySnapshot {
            live_bytes: live as u64,
            peak_bytes: PEAK.load(Relaxed).max(live) as u64,
            allocations: ALLOCATIONS.load(Relaxed) as u64,
        }
    }

    /// Forgets the peak: from here it is what is live now.
    pub fn reset_peak() {
        PEAK.store(LIVE.load(Relaxed), Relaxed);
    }

    /// Refuses requests that would take the process beyond `bytes`, and notes each in `refusals` first (a slate's
    /// file): a refused request usually ends the process. For the life of the process; a second call changes the
    /// limit alone.
    pub fn limit(bytes: u64, refusals: File) {
        let _ = REFUSALS.set(refusals);
        LIMIT.store(usize::try_from(bytes).unwrap_or(usize::MAX), Relaxed);
    }

    /// Whether this process counts. Every program allocates before `main`, so zero means no.
    pub fn is_installed() -> bool {
        ALLOCATIONS.load(Relaxed) > 0
    }
}

/// Whether a request goes beyond the limit; noted if so.
fn refused(bytes: usize) -> bool {
    let limit = LIMIT.load(Relaxed);
    if bytes < ALWAYS_GRANTED || LIVE.load(Relaxed).saturating_add(bytes) <= limit {
        return false;
    }
    if let Some(file) = REFUSALS.get() {
        crate::worker::slate::refuse(file, bytes as u64);
    }
    true
}

fn grow(bytes: usize) {
    ALLOCATIONS.fetch_add(1, Relaxed);
    let live = LIVE.fetch_add(bytes, Relaxed) + bytes;
    // The load spares the common case a contended write.
    if live > PEAK.load(Relaxed) {
        PEAK.fetch_max(live, Relaxed);
    }
}

fn shrink(bytes: usize) {
    LIVE.fetch_sub(bytes, Relaxed);
}

// SAFETY: every method passes its arguments to `System` unchanged and returns what it returns, or returns null,
// which every method may, so the contract of `GlobalAlloc` holds because it holds for `System`. Counting and
// noting allocate nothing, cannot panic and do not touch the memory.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if refused(layout.size()) {
            return ptr::null_mut();
        }
        // SAFETY: the caller promises a layout of non-zero size, as `System` asks.
        let pointer = unsafe { System.alloc(layout) };
        if !pointer.is_null() {
            grow(layout.size());
        }
        pointer
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if refused(layout.size()) {
            return ptr::null_mut();
        }
        // SAFETY: as in `alloc`. Passed on and not written by us, so that fresh pages stay untouched.
        let pointer = unsafe { System.alloc_zeroed(layout) };
        if !pointer.is_null() {
            grow(layout.size());
        }
        pointer
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller promises a live pointer of ours with its layout; ours are `System`'s.
        unsafe { System.dealloc(pointer, layout) };
        shrink(layout.size());
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if new_size > layout.size() && refused(new_size - layout.size()) {
            return ptr::null_mut();
        }
        // SAFETY: as in `dealloc`, and the caller promises a non-zero size that does not overflow with padding.
        let moved = unsafe { System.realloc(pointer, layout, new_size) };
        if !moved.is_null() {
            // Both may exist during a move, but most are grown in place: count the result alone.
            shrink(layout.size());
            grow(new_size);
        }
        moved
    }
}

/// Most bytes of this process resident at once, since it began or since [`reset_peak_rss`]; `None` where the
/// system does not tell.
pub fn peak_rss_bytes() -> Option<u64> {
    status_bytes("VmHWM:")
}

/// Bytes of this process resident now; `None` where the system does not tell.
pub fn rss_bytes() -> Option<u64> {
    status_bytes("VmRSS:")
}

/// Forgets the peak of resident memory; `None` where the system does not let us (the peak is then that of the
/// whole process, and a row must say so).
pub fn reset_peak_rss() -> Option<()> {
    // 5 resets the high-water mark: proc_pid_clear_refs(5).
    fs::write("/proc/self/clear_refs", "5").ok()
}

fn status_bytes(key: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
