//! The memory of a case, wherever it is: the counting allocator knows the processor's, the driver's pool a GPU's.
//!
//! What is freed on a GPU is freed in its stream's order. So that it is not counted, these functions wait for the
//! stream; they are not for timed work, nor for a stream that is recorded.

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::CountingAllocator;
#[cfg(feature = "cuda")]
use super::pool::Pool;

/// What a GPU keeps beyond what is in use: the pool in order not to ask the driver again, graphs for their own
/// allocations. None on a processor. All cases of a worker share it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Most bytes that the pool had reserved at once.
    pub reserved_peak_bytes: Option<u64>,
    /// Most bytes that allocations of graphs held at once; the pool does not count them.
    pub graph_peak_bytes: Option<u64>,
    /// Most bytes that were reserved for them.
    pub graph_reserved_peak_bytes: Option<u64>,
}

/// Bytes of a device that are handed out to this process and not returned; zero where nobody counts.
pub(crate) fn live_bytes(device: &Device) -> u64 {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(_) = device {
        return pool(device).and_then(|pool| pool.live_bytes().ok()).unwrap_or(0);
    }
    let _ = device;
    CountingAllocator::snapshot().live_bytes
}

/// [`live_bytes`] at this moment, whatever is under way: for a thread that looks on while another one works.
pub(super) fn now_bytes(device: &Device) -> Option<u64> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(gpu) = device {
        return Pool::of(gpu).and_then(|pool| pool.live_bytes()).ok();
    }
    let _ = device;
    Some(CountingAllocator::snapshot().live_bytes)
}

/// Forgets the peak: from here it is what is live now.
pub(crate) fn reset_peak(device: &Device) {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(_) = device {
        if let Some(pool) = pool(device) {
            let _ = pool.reset_peak(); // a pool that refuses this tells no peak either
        }
        return;
    }
    let _ = device;
    CountingAllocator::reset_peak();
}

/// Most bytes of a device live at once since the last reset; none where nobody counts.
pub(crate) fn peak_bytes(device: &Device) -> Option<u64> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(_) = device {
        return pool(device)?.peak_bytes().ok();
    }
    let _ = device;
    CountingAllocator::is_installed().then(|| CountingAllocator::snapshot().peak_bytes)
}

/// What a GPU kept since the last [`reset_kept`].
pub(crate) fn kept(device: &Device) -> Kept {
    #[cfg(feature = "cuda")]
    if let Some(pool) = pool(device) {
        return pool.kept();
    }
    let _ = device;
    Kept::default()
}

/// Forgets those peaks.
pub(crate) fn reset_kept(device: &Device) {
    #[cfg(feature = "cuda")]
    if let Some(pool) = pool(device) {
        let _ = pool.reset_kept(); // what could not be reset is that of the whole process, never less
    }
    let _ = device;
}

/// The pool of a GPU, nothing being under way in its stream.
#[cfg(feature = "cuda")]
fn pool(device: &Device) -> Option<Pool> {
    let Device::Cuda(gpu) = device else { return None };
    device.synchronize().ok()?;
    Pool::of(gpu).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_keeps_nothing_beyond_what_is_in_use() {
        reset_kept(&Device::Cpu);
        assert_eq!(kept(&Device::Cpu), Kept::default());
        // Nobody counts in this binary, and the answers say so.
        assert!(!CountingAllocator::is_installed());
        reset_peak(&Device::Cpu);
        assert_eq!((live_bytes(&Device::Cpu), peak_bytes(&Device::Cpu)), (0, None));
    }
}
