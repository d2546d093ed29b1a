//! A decode step makes a fixed number of allocations, whatever the context.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use attn_core::{Build, Capacity, ModelDims, ParamValue, Params, Path, Variant, Weights, random_tensor};
use attn_harness::memory::CountingAllocator;
use candle_core::{DType, Device};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Steps of which the one with the fewest allocations counts: now and then a queue of the thread pool grows.
const STEPS: usize = 24;

/// The fewest allocations of a step from `context` on, and the most bytes that a step needed at once beside the cache.
fn of_a_step(variant: &Variant, params: &Params, dtype: DType, context: usize) -> (u64, u64) {
    let dims = ModelDims {
        d_model: 64,
        n_heads: 4,
        head_dim: 16,
    };
    let config = variant.configure(&dims, params).unwrap();
    let weights = Weights::seeded(&config.weight_specs(), 42).unwrap();
    let layer = config.build(&weights, &Build::cpu(Path::Fused, dtype)).unwrap();
    let mut cache = layer
        .new_cache(2, Capacity::Exact(context + 2 * STEPS + 1))
        .unwrap();
    cache.fill(context, 1).unwrap();
    let token = random_tensor(&[2, 1, 64], 1, 1, dtype, &Device::Cpu).unwrap();
    for _ in 0..STEPS {
        layer.decode(&token, &mut cache).unwrap();
    }
    let steps = (0..STEPS).map(|_| {
        CountingAllocator::reset_peak();
        let before = CountingAllocator::snapshot();
        layer.decode(&token, &mut cache).unwrap();
        let after = CountingAllocator::snapshot();
        (
            after.allocations - before.allocations,
            after.peak_bytes - before.live_bytes,
        )
    });
    let (counts, bytes): (Vec<u64>, Vec<u64>) = steps.unzip();
    (*counts.iter().min().unwrap(), *bytes.iter().min().unwrap())
}

#[test]
fn a_decode_step_allocates_as_much_at_a_long_context_as_at_a_short_one() {
    let int = ParamValue::Int;
    let latent = || {
        Params::default()
            .with("kv_rank", int(32))
            .with("rope_dim", int(8))
    };
    let variants = [
        (&attn_mha::VARIANT, Params::default()),
        (&attn_gqa::VARIANT, Params::default().with("n_kv_heads", int(2))),
        (&attn_mqa::VARIANT, Params::default()),
        (&attn_mla::VARIANT, latent()),
        (&attn_mtla::VARIANT, latent().with("stride", int(2))),
    ];
    for (variant, params) in &variants {
        for dtype in [DType::F32, DType::BF16] {
            // Both long enough that every thread has all its pieces.
            let short = of_a_step(variant, params, dtype, 8_192);
            let long = of_a_step(variant, params, dtype, 65_536);
            assert_eq!(short.0, long.0, "allocations of {} in {dtype:?}", variant.key);
            assert!(short.0 > 0 && short.0 < 200, "{} makes {}", variant.key, short.0);
            // Scratch for pieces is kept from step to step; what is left are the tensors between operations.
            let growth = long.1.saturating_sub(short.1);
            assert!(
                growth < 16 << 10,
                "{} in {dtype:?} takes {growth} bytes more",
                variant.key
            );
        }
    }
}
