//! No `[T, T]` tensor on the fused path: a long prompt fits in little memory. One test to this program, since it
//! looks at the peak of the whole process.

use attn_core::{Build, ModelDims, ParamValue, Params, Path, Queries, Weights, random_tensor};
use candle_core::{DType, Device};

const TOKENS: usize = 16_384;
const LIMIT_BYTES: u64 = 2 << 30;

#[test]
fn a_prompt_of_16384_tokens_stays_below_two_gibibytes() {
    let int = ParamValue::Int;
    let dims = ModelDims {
        d_model: 512,
        n_heads: 8,
        head_dim: 64,
    };
    let params = Params::default()
        .with("kv_rank", int(256))
        .with("rope_dim", int(32))
        .with("stride", int(4));
    let config = attn_mtla::VARIANT.configure(&dims, &params).unwrap();
    let weights = Weights::seeded(&config.weight_specs(), 42).unwrap();
    let layer = config
        .build(&weights, &Build::cpu(Path::Fused, DType::F32))
        .unwrap();
    let x = random_tensor(&[1, TOKENS, dims.d_model], 42, 1, DType::F32, &Device::Cpu).unwrap();
    let y = layer.forward(&x, Queries::All).unwrap();
    assert_eq!(y.dims(), [1, TOKENS, dims.d_model]);
    // The seed's merge matrix alone would be 1 GiB, its scores 8 GiB.
    if let Some(peak) = peak_rss_bytes() {
        eprintln!("peak of resident memory: {} MiB", peak >> 20);
        assert!(
            peak < LIMIT_BYTES,
            "peak of resident memory is {} MiB",
            peak >> 20
        );
    }
}

/// Only Linux tells; elsewhere the test shows that the prompt runs.
fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace()
        .nth(1)?
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}
