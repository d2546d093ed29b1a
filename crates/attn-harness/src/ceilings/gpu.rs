//! What a GPU can do: memory read by a kernel of ours, copied by the driver, and matrices multiplied by cuBLAS, which is
//! what candle's products are. Times are the GPU's own, between two events on the stream.
//!
//! Not yet run on a GPU.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use attn_cuda::{Kernels, Reader};
use candle_core::{CudaDevice, Device, Tensor};
use cudarc::driver::CudaStream;
use cudarc::driver::sys::CUevent_flags;

use super::{Ceilings, PASSES, buffer_bytes};
use crate::stats::median;
use crate::sweep::Dtype;

/// Square sizes, each tried where the rate of the one before lets it end in time. f32 without tensor cores needs no
/// size beyond the third to fill a GPU.
const SIZES: [usize; 4] = [256, 1024, 4096, 8192];

/// A size is left out where one product of it would take longer, by the rate of the one before.
const LONGEST_PRODUCT_S: f64 = 0.12;

/// What one pass takes at least, in repeats of the work: events tell half a microsecond apart, and a launch takes some.
const PASS_S: f64 = 0.01;

/// Repeats of a pass at most: a queue holds about a thousand launches before the host has to wait.
const MOST_REPEATS: f64 = 1_000.0;

/// Passes go on until the clock of the GPU has had time to rise.
const WARM: Duration = Duration::from_millis(200);

/// Launches of next to nothing that are timed.
const LAUNCHES: usize = 1_000;

fn text(error: impl Display) -> String {
    // A backtrace or a compiler's log follows in other lines.
    error.to_string().lines().next().unwrap_or_default().to_string()
}

/// A buffer of so many bytes on a device, and what reads it.
///
/// # Errors
/// The reason: no kernel for this GPU, or no memory.
pub(crate) fn reader(device: &CudaDevice, bytes: u64) -> Result<Reader, String> {
    let stream = device.cuda_stream();
    let kernels = Kernels::new(stream.context()).map_err(text)?;
    Reader::new(&kernels, &stream, bytes as usize).map_err(text)
}

/// Measures a GPU; see [`Ceilings`].
pub(super) fn measure(
    device: &CudaDevice,
    dtypes: &[Dtype],
    l2_bytes: Option<u64>,
) -> Result<Ceilings, String> {
    let began = Instant::now();
    let stream = device.cuda_stream();
    let multiprocessors = Kernels::new(stream.context())
        .map_err(text)?
        .machine()
        .multiprocessors;
    let launch_overhead_s = launch_overhead_s(device, &stream)?;
    let buffer_bytes = buffer_bytes(l2_bytes);
    let mut buffer = reader(device, buffer_bytes)?;
    let read_s = best_s(&stream, &mut || buffer.read().map_err(text))?;
    let copy_s = best_s(&stream, &mut || buffer.copy().map_err(text))?;
    drop(buffer);
    let mut flops_per_s = BTreeMap::new();
    for dtype in dtypes {
        let rate = matmul_flops_per_s(device, &stream, *dtype)
            .map_err(|reason| format!("no matrix product in {dtype}: {reason}"))?;
        flops_per_s.insert(dtype.to_string(), rate);
    }
    Ok(Ceilings {
        llc_bytes: l2_bytes,
        buffer_bytes,
        read_bytes_per_s: buffer_bytes as f64 / read_s,
        copy_bytes_per_s: buffer_bytes as f64 / copy_s,
        flops_per_s,
        launch_overhead_s,
        passes: PASSES,
        threads: multiprocessors,
        elapsed_s: began.elapsed().as_secs_f64(),
    })
}

/// Seconds that the GPU took for `work`, one of `repeats`.
fn pass_s(
    stream: &Arc<CudaStream>,
    repeats: usize,
    work: &mut dyn FnMut() -> Result<(), String>,
) -> Result<f64, String> {
    let event = || {
        stream
            .record_event(Some(CUevent_flags::CU_EVENT_DEFAULT))
            .map_err(text)
    };
    let began = event()?;
    for _ in 0..repeats {
        work()?;
    }
    let ms = began.elapsed_ms(&event()?).map_err(text)?;
    // A stream that answers at once has not done anything.
    Ok(f64::from(ms).max(1e-6) * 1e-3 / repeats as f64)
}

/// The shortest of at least [`PASSES`], each of as many repeats as make it long enough.
fn best_s(stream: &Arc<CudaStream>, work: &mut dyn FnMut() -> Result<(), String>) -> Result<f64, String> {
    let began = Instant::now();
    // The first finds the way, the second how long it is.
    pass_s(stream, 1, work)?;
    let once_s = pass_s(stream, 1, work)?;
    let repeats = (PASS_S / once_s).ceil().clamp(1.0, MOST_REPEATS) as usize;
    let mut best = f64::INFINITY;
    let mut passes = 0;
    while passes < PASSES || began.elapsed() < WARM {
        best = best.min(pass_s(stream, repeats, work)?);
        passes += 1;
    }
    Ok(best)
}

/// Operations per second of the best square matrix product.
fn matmul_flops_per_s(device: &CudaDevice, stream: &Arc<CudaStream>, dtype: Dtype) -> Result<f64, String> {
    let device = Device::Cuda(device.clone());
    let mut best = 0_f64;
    for size in SIZES {
        let flops = 2.0 * (size as f64).powi(3);
        if best > 0.0 && flops / best > LONGEST_PRODUCT_S || dtype == Dtype::F32 && size > 4096 {
            break;
        }
        let matrix = || Tensor::rand(-1_f32, 1_f32, (size, size), &device)?.to_dtype(dtype.into());
        let (a, b) = (matrix().map_err(text)?, matrix().map_err(text)?);
        let seconds = best_s(stream, &mut || a.matmul(&b).map(drop).map_err(text))?;
        best = best.max(flops / seconds);
    }
    Ok(best)
}

/// Median time from launching next to nothing until the host knows that it is done, in seconds.
fn launch_overhead_s(device: &CudaDevice, stream: &Arc<CudaStream>) -> Result<f64, String> {
    let mut smallest = reader(device, 1)?;
    let mut launch = |_| {
        let began = Instant::now();
        smallest.read().map_err(text)?;
        stream.synchronize().map_err(text)?;
        Ok(began.elapsed().as_secs_f64())
    };
    // The first tenth warms.
    let times = (0..LAUNCHES + LAUNCHES / 10)
        .map(&mut launch)
        .collect::<Result<Vec<f64>, String>>()?;
    Ok(median(&times[LAUNCHES / 10..]))
}
