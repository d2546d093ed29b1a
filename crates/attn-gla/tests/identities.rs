//! What grouped latents must agree with: MLA where there is one.

use attn_core::{Build, LayerConfig, ModelDims, ParamValue, Params, Path, Queries, Weights, random_tensor};
use candle_core::{DType, Device};

#[test]
fn one_latent_head_is_mla() {
    let dims = ModelDims {
        d_model: 24,
        n_heads: 4,
        head_dim: 8,
    };
    let params = Params::default()
        .with("kv_rank", ParamValue::Int(16))
        .with("rope_dim", ParamValue::Int(6));
    let mla = attn_mla::configure(&dims, &params).unwrap();
    let gla = attn_gla::configure(&dims, &params.with("n_kv_heads", ParamValue::Int(1))).unwrap();
    assert_eq!(mla.weight_specs(), gla.weight_specs());
    let weights = Weights::seeded(&mla.weight_specs(), 42).unwrap();
    let x = random_tensor(&[2, 17, 24], 42, 7, DType::F64, &Device::Cpu).unwrap();
    for path in [Path::Fused, Path::Seedlike] {
        let build = Build::cpu(path, DType::F64);
        let [a, b] = [&mla as &dyn LayerConfig, &gla].map(|config| {
            config
                .build(&weights, &build)
                .unwrap()
                .forward(&x, Queries::All)
                .unwrap()
        });
        assert!(attn_testkit::compare(&a, &b).unwrap().within(1e-13));
    }
}
