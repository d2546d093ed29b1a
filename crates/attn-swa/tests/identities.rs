//! What a window must agree with: GQA where it hides nothing.

use attn_core::{Build, LayerConfig, ModelDims, ParamValue, Params, Path, Queries, Weights, random_tensor};
use candle_core::{DType, Device};

#[test]
fn a_window_longer_than_the_sequence_is_gqa() {
    let dims = ModelDims {
        d_model: 24,
        n_heads: 4,
        head_dim: 8,
    };
    let params = Params::default().with("n_kv_heads", ParamValue::Int(2));
    let gqa = attn_gqa::configure(&dims, &params).unwrap();
    let swa = attn_swa::configure(&dims, &params.with("window", ParamValue::Int(17))).unwrap();
    let weights = Weights::seeded(&gqa.weight_specs(), 42).unwrap();
    let x = random_tensor(&[2, 17, 24], 42, 7, DType::F64, &Device::Cpu).unwrap();
    for path in [Path::Fused, Path::Seedlike] {
        let build = Build::cpu(path, DType::F64);
        let [a, b] = [&gqa as &dyn LayerConfig, &swa].map(|config| {
            config
                .build(&weights, &build)
                .unwrap()
                .forward(&x, Queries::All)
                .unwrap()
        });
        assert!(attn_testkit::compare(&a, &b).unwrap().within(1e-13));
    }
}
