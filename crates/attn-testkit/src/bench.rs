//! The Criterion benchmark every variant crate shares: a decode step and a forward pass at the seed's geometry.

use std::hint::black_box;
use std::time::{Duration, Instant};

use attn_core::{Build, Capacity, ModelDims, Params, Path, Queries, Variant, Weights, random_tensor};
use candle_core::{DType, Device};
use criterion::{BenchmarkId, Criterion, Throughput};

const DIMS: ModelDims = ModelDims {
    d_model: 512,
    n_heads: 8,
    head_dim: 64,
};
const SEED: u64 = 42;

/// `<label>/<path>/decode/<context>` and `<label>/<path>/forward/<tokens>`, in f32.
///
/// # Errors
/// The configuration is impossible, or the layer cannot be built.
///
/// # Panics
/// The layer fails while it is timed.
pub fn layer(c: &mut Criterion, variant: &Variant, params: &Params) -> attn_core::Result<()> {
    let config = variant.configure(&DIMS, params)?;
    let weights = Weights::seeded(&config.weight_specs(), SEED)?;
    for path in [Path::Fused, Path::Seedlike] {
        let layer = config.build(&weights, &Build::cpu(path, DType::F32))?;
        let input =
            |tokens: usize| random_tensor(&[1, tokens, DIMS.d_model], SEED, 1, DType::F32, &Device::Cpu);
        let mut group = c.benchmark_group(format!("{}/{path}", variant.label(params, &[])));
        for context in [512usize, 4096] {
            let x = input(1)?;
            let mut cache = layer.new_cache(1, Capacity::Exact(context))?;
            layer.fill(&mut cache, context - 1, SEED)?;
            group.throughput(Throughput::Elements(1));
            group.bench_function(BenchmarkId::new("decode", context), |b| {
                // Rewinding stands outside the clock.
                b.iter_custom(|steps| {
                    let mut total = Duration::ZERO;
                    for _ in 0..steps {
                        let rewound = layer.rewind(&mut cache, context - 1);
                        let began = Instant::now();
                        let y = black_box(layer.decode(black_box(&x), &mut cache));
                        total += began.elapsed();
                        assert!(rewound.is_ok() && y.is_ok(), "the layer failed: {y:?}");
                    }
                    total
                });
            });
        }
        for tokens in [256usize, 1024] {
            let x = input(tokens)?;
            group.throughput(Throughput::Elements(tokens as u64));
            group.bench_function(BenchmarkId::new("forward", tokens), |b| {
                b.iter(|| layer.forward(black_box(&x), Queries::All));
            });
        }
        group.finish();
    }
    Ok(())
}
