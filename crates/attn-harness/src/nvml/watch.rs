//! Readings taken in the background, while this process or another one computes.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{Counters, GpuConditions, NvmlError, Tally};

/// Watches a GPU until it is finished; dropped, it stops by itself.
#[derive(Debug)]
pub struct Watch {
    stop: Sender<()>,
    thread: JoinHandle<Tally>,
}

impl Watch {
    /// Starts watching, with the first reading taken before this returns and another one every `interval`. Processes
    /// of `ours` are not foreign: a runner passes its worker's.
    ///
    /// # Errors
    /// [`NvmlError::NoGpu`].
    pub fn start(
        counters: &Arc<dyn Counters>,
        uuid: &str,
        ours: &[u32],
        interval: Duration,
    ) -> Result<Self, NvmlError> {
        let began = Instant::now();
        let mut tally = Tally::new(ours);
        tally.add(0.0, counters.read(uuid)?);
        let (stop, stopped) = channel();
        let (counters, uuid) = (counters.clone(), uuid.to_string());
        let thread = thread::spawn(move || {
            loop {
                let ends = !matches!(stopped.recv_timeout(interval), Err(RecvTimeoutError::Timeout));
                // A GPU that is lost meanwhile leaves what was read of it.
                if let Ok(reading) = counters.read(&uuid) {
                    tally.add(began.elapsed().as_secs_f64(), reading);
                }
                if ends {
                    return tally;
                }
            }
        });
        Ok(Self { stop, thread })
    }

    /// Takes a last reading and says what happened.
    pub fn finish(self) -> GpuConditions {
        // It ends all the same where it is gone already.
        let _ = self.stop.send(());
        self.thread.join().unwrap_or_default().conditions()
    }
}
