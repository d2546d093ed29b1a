//! The paper's measure of memory: allocated bytes, looked at in regular intervals by a thread, on average.
//!
//! The seed's script looks every 0.1 s at runs of 50 to 280 s, from before the model is there to the end. Here a pass may
//! take a tenth of a second, so that the interval is shorter in proportion.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use candle_core::Device;

use super::CountingAllocator;
use super::device::now_bytes;

/// Time between two looks.
pub(crate) const INTERVAL: Duration = Duration::from_millis(5);

/// Looks at the allocated bytes of a device until it is asked for their mean.
pub(crate) struct Meter {
    stop: Sender<()>,
    thread: JoinHandle<Looks>,
}

/// Sum and number of looks.
#[derive(Debug, Clone, Copy, Default)]
struct Looks {
    sum: f64,
    n: u64,
}

impl Looks {
    fn take(&mut self, bytes: u64) {
        self.sum += bytes as f64;
        self.n += 1;
    }
}

impl Meter {
    /// Begins to look; what is allocated now is no part of it. None where nobody counts, or no thread can be started.
    pub(crate) fn start(device: &Device) -> Option<Self> {
        if device.is_cpu() && !CountingAllocator::is_installed() {
            return None;
        }
        let (stop, stopped) = channel();
        let device = device.clone();
        let before = now_bytes(&device)?;
        let look = move || {
            let mut looks = Looks::default();
            // The first one before there is anything, and the last one when it is asked to stop.
            loop {
                looks.take(now_bytes(&device).unwrap_or(before).saturating_sub(before));
                match stopped.recv_timeout(INTERVAL) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => return looks,
                }
            }
        };
        let thread = thread::Builder::new()
            .name("memory".to_string())
            .spawn(look)
            .ok()?;
        Some(Self { stop, thread })
    }

    /// Mean bytes over all looks.
    pub(crate) fn finish(self) -> Option<u64> {
        let _ = self.stop.send(());
        let looks = self.thread.join().ok()?;
        (looks.n > 0).then(|| (looks.sum / looks.n as f64) as u64)
    }
}
