//! GQA with a KV head for every query head is MHA, with one for all it is MQA.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use attn_core::{Build, ModelDims, ParamValue, Params, Path, Queries, Variant, Weights, random_tensor};
use candle_core::{DType, Device, Tensor};

const DIMS: ModelDims = ModelDims {
    d_model: 24,
    n_heads: 4,
    head_dim: 8,
};

fn output(variant: &Variant, params: &Params, path: Path) -> Tensor {
    let config = variant.configure(&DIMS, params).unwrap();
    let weights = Weights::seeded(&config.weight_specs(), 42).unwrap();
    let x = random_tensor(&[2, 11, DIMS.d_model], 42, 1, DType::F64, &Device::Cpu).unwrap();
    config
        .build(&weights, &Build::cpu(path, DType::F64))
        .unwrap()
        .forward(&x, Queries::All)
        .unwrap()
}

fn assert_same(n_kv_heads: u64, other: &Variant) {
    let params = Params::default().with("n_kv_heads", ParamValue::Int(n_kv_heads));
    for path in [Path::Fused, Path::Seedlike] {
        let (a, b) = (
            output(&attn_gqa::VARIANT, &params, path),
            output(other, &Params::default(), path),
        );
        assert_eq!(
            attn_testkit::compare(&a, &b).unwrap().max,
            0.0,
            "{n_kv_heads} KV heads, {path}"
        );
    }
}

#[test]
fn with_all_kv_heads_it_is_mha() {
    assert_same(4, &attn_mha::VARIANT);
}

#[test]
fn with_one_kv_head_it_is_mqa() {
    assert_same(1, &attn_mqa::VARIANT);
}

#[test]
fn impossible_head_counts_name_both_settings() {
    let params = Params::default().with("n_kv_heads", ParamValue::Int(3));
    let error = attn_gqa::VARIANT.configure(&DIMS, &params).unwrap_err();
    assert!(
        matches!(&error, attn_core::Error::Geometry { keys, .. } if keys == &["n_heads", "n_kv_heads"]),
        "{error}"
    );
}
