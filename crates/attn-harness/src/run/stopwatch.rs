//! Clocks around work: the host's, and a GPU's own.

use std::time::Instant;

use candle_core::Device;
#[cfg(feature = "cuda")]
use candle_core::cuda::cudarc::driver::{CudaEvent, CudaStream, DriverError, sys::CUevent_flags};

/// Stands around work on a device.
pub(crate) struct Stopwatch {
    device: Device,
    #[cfg(feature = "cuda")]
    events: Option<Events>,
}

/// Marks that a GPU puts into its own time as it gets to them.
#[cfg(feature = "cuda")]
struct Events {
    stream: std::sync::Arc<CudaStream>,
    before: CudaEvent,
    after: CudaEvent,
}

/// What both clocks showed. They are never mixed: the host's has the way to the device and back in it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Lap {
    /// Seconds of the device, where it has a clock of its own.
    pub(crate) device_s: Option<f64>,
    /// Seconds of the host, from a device that had nothing to do to one that has again.
    pub(crate) wall_s: f64,
}

impl Lap {
    /// What a row's time is: the device's own where it has one.
    pub(crate) fn time_s(&self) -> f64 {
        self.device_s.unwrap_or(self.wall_s)
    }
}

impl Stopwatch {
    /// That of a device.
    ///
    /// # Errors
    /// What CUDA says where it makes no events.
    pub(crate) fn of(device: &Device) -> candle_core::Result<Self> {
        Ok(Self {
            device: device.clone(),
            #[cfg(feature = "cuda")]
            events: match device {
                Device::Cuda(device) => Some(Events::on(device.cuda_stream()).map_err(wrapped)?),
                _ => None,
            },
        })
    }

    /// The name of the clock that [`Lap::time_s`] is read from.
    pub(crate) fn clock(&self) -> &'static str {
        #[cfg(feature = "cuda")]
        if self.events.is_some() {
            return "event";
        }
        "wall"
    }

    /// Times `work`; the device has nothing to do before and after.
    ///
    /// # Errors
    /// Those of the work, and of a device that fails meanwhile.
    pub(crate) fn time<T>(&self, work: impl FnOnce() -> attn_core::Result<T>) -> attn_core::Result<(T, Lap)> {
        self.device.synchronize()?;
        let began = Instant::now();
        #[cfg(feature = "cuda")]
        if let Some(Events {
            stream,
            before,
            after,
        }) = &self.events
        {
            before.record(stream).map_err(wrapped)?;
            let done = work()?;
            after.record(stream).map_err(wrapped)?;
            self.device.synchronize()?;
            let wall_s = began.elapsed().as_secs_f64();
            let device_s = f64::from(before.elapsed_ms(after).map_err(wrapped)?) * 1e-3;
            let lap = Lap {
                device_s: Some(device_s),
                wall_s,
            };
            return Ok((done, lap));
        }
        let done = work()?;
        self.device.synchronize()?;
        let lap = Lap {
            device_s: None,
            wall_s: began.elapsed().as_secs_f64(),
        };
        Ok((done, lap))
    }
}

#[cfg(feature = "cuda")]
impl Events {
    fn on(stream: std::sync::Arc<CudaStream>) -> Result<Self, DriverError> {
        let event = || stream.context().new_event(Some(CUevent_flags::CU_EVENT_DEFAULT));
        Ok(Self {
            before: event()?,
            after: event()?,
            stream,
        })
    }
}

#[cfg(feature = "cuda")]
fn wrapped(error: DriverError) -> candle_core::Error {
    candle_core::Error::wrap(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_has_the_hosts_clock_alone() {
        let stopwatch = Stopwatch::of(&Device::Cpu).unwrap();
        assert_eq!(stopwatch.clock(), "wall");
        let pause = std::time::Duration::from_millis(2);
        let (done, lap) = stopwatch
            .time(|| {
                std::thread::sleep(pause);
                Ok(7)
            })
            .unwrap();
        assert_eq!((done, lap.device_s), (7, None));
        assert!(lap.wall_s >= pause.as_secs_f64() && lap.time_s() == lap.wall_s);
        let failed = stopwatch.time(|| -> attn_core::Result<()> {
            Err(attn_core::Error::Unsupported {
                what: "this".to_string(),
                remedy: "nothing".to_string(),
            })
        });
        assert!(failed.is_err());
    }
}
