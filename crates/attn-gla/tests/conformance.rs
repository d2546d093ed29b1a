//! The variant against independent implementations, and against what must hold of any layer.

use std::path::Path;

use attn_core::{ModelDims, ParamValue, Params};

fn latent(n_kv_heads: u64, more: &[(&str, ParamValue)]) -> Params {
    let base = Params::default()
        .with("n_kv_heads", ParamValue::Int(n_kv_heads))
        .with("kv_rank", ParamValue::Int(16))
        .with("rope_dim", ParamValue::Int(6));
    more.iter()
        .fold(base, |params, (name, value)| params.with(name, value.clone()))
}

#[test]
fn agrees_with_independent_implementations() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    attn_testkit::verify_dir(&fixtures, &[&attn_gla::VARIANT])
        .unwrap()
        .assert();
}

#[test]
fn passes_the_conformance_suite() {
    let dims = ModelDims {
        d_model: 24,
        n_heads: 4,
        head_dim: 8,
    };
    for params in [
        latent(2, &[]),
        latent(1, &[("q_rank", ParamValue::Int(12))]),
        latent(
            4,
            &[("v_dim", ParamValue::Int(6)), ("nope_dim", ParamValue::Int(10))],
        ),
        latent(
            2,
            &[
                ("norm", ParamValue::Text("rms".to_string())),
                ("bias", ParamValue::Bool(true)),
            ],
        ),
    ] {
        attn_testkit::suite(&attn_gla::VARIANT, &dims, &params)
            .unwrap()
            .assert();
    }
}
