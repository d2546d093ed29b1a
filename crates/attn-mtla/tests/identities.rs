//! MTLA that merges nothing and weighs nothing is MLA.

use attn_core::{Build, Capacity, ModelDims, ParamValue, Params, Path, Queries, Weights, random_tensor};
use candle_core::{DType, Device, Tensor};

const DIMS: ModelDims = ModelDims {
    d_model: 24,
    n_heads: 4,
    head_dim: 8,
};

#[test]
fn with_stride_one_and_unit_weights_it_is_mla() {
    let int = ParamValue::Int;
    let latent = Params::default()
        .with("kv_rank", int(16))
        .with("rope_dim", int(6));
    let mtla = attn_mtla::VARIANT
        .configure(&DIMS, &latent.clone().with("stride", int(1)))
        .unwrap();
    let mla = attn_mla::VARIANT.configure(&DIMS, &latent).unwrap();
    let mut weights = Weights::seeded(&mtla.weight_specs(), 42).unwrap();
    // fc_c and fc_p constant and large: the sigmoid of their product is one, to the last digit.
    for name in ["hypernet_down.fc_c", "hypernet_down.fc_p"] {
        let device = &Device::Cpu;
        weights.insert(
            format!("{name}.weight"),
            Tensor::zeros((4, 16), DType::F32, device).unwrap(),
        );
        weights.insert(format!("{name}.bias"), Tensor::full(100f32, 4, device).unwrap());
    }
    let x = random_tensor(&[2, 9, DIMS.d_model], 42, 1, DType::F64, &Device::Cpu).unwrap();
    for path in [Path::Fused, Path::Seedlike] {
        let build = Build::cpu(path, DType::F64);
        let (a, b) = (
            mtla.build(&weights, &build).unwrap(),
            mla.build(&weights, &build).unwrap(),
        );
        let forward = |layer: &dyn attn_core::Attention| layer.forward(&x, Queries::All).unwrap();
        let difference = attn_testkit::compare(&forward(a.as_ref()), &forward(b.as_ref())).unwrap();
        assert!(difference.within(1e-13), "{path}: {difference:?}");
        let decode = |layer: &dyn attn_core::Attention| {
            let mut cache = layer.new_cache(2, Capacity::Exact(9)).unwrap();
            let steps = (0..9).map(|i| layer.decode(&x.narrow(1, i, 1).unwrap(), &mut cache).unwrap());
            Tensor::cat(&steps.collect::<Vec<_>>(), 1).unwrap()
        };
        let difference = attn_testkit::compare(&decode(a.as_ref()), &decode(b.as_ref())).unwrap();
        assert!(difference.within(1e-13), "{path}, decoding: {difference:?}");
    }
}

#[test]
fn the_cache_shrinks_with_the_stride_and_mqa_is_below_stride_two() {
    let int = ParamValue::Int;
    let dims = ModelDims {
        d_model: 512,
        n_heads: 8,
        head_dim: 64,
    };
    let elements = |stride: u64| {
        let params = Params::default()
            .with("kv_rank", int(256))
            .with("rope_dim", int(32))
            .with("stride", int(stride));
        attn_mtla::VARIANT
            .configure(&dims, &params)
            .unwrap()
            .geometry()
            .kv_bytes(1, 12, 1)
            / 12
    };
    assert_eq!([1, 2, 3, 4].map(elements), [288, 144, 96, 72]);
}

#[test]
fn impossible_ranks_name_their_setting() {
    let int = ParamValue::Int;
    for (rank, rope, key) in [(18, 6, "kv_rank"), (15, 6, "kv_rank"), (16, 5, "rope_dim")] {
        let params = Params::default()
            .with("kv_rank", int(rank))
            .with("rope_dim", int(rope));
        let error = attn_mtla::VARIANT.configure(&DIMS, &params).unwrap_err();
        assert!(
            matches!(&error, attn_core::Error::Geometry { keys, .. } if keys == &[key]),
            "{error}"
        );
    }
    let params = Params::default()
        .with("kv_rank", int(16))
        .with("rope_dim", int(6))
        .with("stride", int(0));
    let error = attn_mtla::VARIANT.configure(&DIMS, &params).unwrap_err();
    assert!(matches!(error, attn_core::Error::ParamValue { .. }), "{error}");
}
