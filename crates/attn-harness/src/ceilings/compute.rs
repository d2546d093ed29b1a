//! How fast matrices are multiplied by what layers multiply them with, and what handing out work costs.

use std::hint::black_box;
use std::time::{Duration, Instant};

use attn_core::linear::Linear;
use candle_core::{Device, Tensor};

use crate::stats::median;
use crate::sweep::Dtype;

/// Square sizes. Which is best depends on the caches and the threads: small ones stay in L2, large ones give
/// every one of many cores its share.
const SIZES: [usize; 4] = [512, 1024, 2048, 4096];

/// A size is left out where one product of it would take longer, by the rate of the one before.
const LONGEST_PRODUCT: Duration = Duration::from_millis(120);

/// Time after which a size has had enough passes, whatever it reached.
const TIME_PER_SIZE: Duration = Duration::from_millis(400);

/// Empty launches that are timed.
const LAUNCHES: usize = 1_000;

/// Operations per second of the best square matrix product, as a layer's projection computes it.
pub(super) fn matmul_flops_per_s(dtype: Dtype, passes: usize) -> candle_core::Result<f64> {
    let mut best = 0f64;
    for size in SIZES {
        let flops = 2.0 * (size as f64).powi(3);
        if best > 0.0 && flops / best > LONGEST_PRODUCT.as_secs_f64() {
            break;
        }
        let shape = (size, size);
        let a = Tensor::rand(-1f32, 1f32, shape, &Device::Cpu)?.to_dtype(dtype.into())?;
        let b = Tensor::rand(-1f32, 1f32, shape, &Device::Cpu)?.to_dtype(dtype.into())?;
        let (a, product) = (a.unsqueeze(0)?, Linear::new(b, None));
        let began = Instant::now();
        // One more pass, because the first one warms.
        for _ in 0..=passes {
            let pass = Instant::now();
            black_box(product.forward(black_box(&a)).map_err(candle_core::Error::wrap)?);
            best = best.max(flops / pass.elapsed().as_secs_f64());
            if began.elapsed() > TIME_PER_SIZE {
                break;
            }
        }
    }
    Ok(best)
}

/// Median time of an empty fork and join over all threads, in seconds.
pub(super) fn launch_overhead_s() -> f64 {
    let launch = |_| {
        let began = Instant::now();
        rayon::broadcast(|context| {
            black_box(context.index());
        });
        began.elapsed().as_secs_f64()
    };
    // The first tenth wakes the threads.
    let times: Vec<f64> = (0..LAUNCHES + LAUNCHES / 10).map(launch).collect();
    median(&times[LAUNCHES / 10..])
}
