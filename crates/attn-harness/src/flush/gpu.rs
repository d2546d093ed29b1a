//! Emptying the L2 cache of a GPU.

use attn_cuda::Reader;
use candle_core::CudaDevice;

use crate::ceilings::reader;

/// A buffer that is read before samples until nothing else is left in the L2 cache. It is not written: lines that were
/// would go back to memory later, within the time of a sample.
#[derive(Debug)]
pub struct GpuFlusher(Box<Reader>);

impl GpuFlusher {
    pub(super) fn new(device: &CudaDevice, bytes: u64) -> Result<Self, String> {
        Ok(Self(Box::new(reader(device, bytes)?)))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.bytes() as u64
    }

    /// # Panics
    /// Where the driver refuses: its context is lost then, and the sample with it.
    pub(super) fn flush(&mut self) {
        let queued = self.0.read();
        assert!(queued.is_ok(), "the L2 cache cannot be flushed: {queued:?}");
    }
}
