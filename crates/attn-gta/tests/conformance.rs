//! The variant against independent implementations, and against what must hold of any layer.

use std::path::Path;

use attn_core::{ModelDims, ParamValue, Params};

fn tied(n_kv_heads: u64, rope_dim: u64, bias: bool) -> Params {
    Params::default()
        .with("n_kv_heads", ParamValue::Int(n_kv_heads))
        .with("rope_dim", ParamValue::Int(rope_dim))
        .with("bias", ParamValue::Bool(bias))
}

#[test]
fn agrees_with_independent_implementations() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    attn_testkit::verify_dir(&fixtures, &[&attn_gta::VARIANT])
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
    for params in [tied(2, 4, true), tied(1, 2, false), tied(4, 6, true)] {
        attn_testkit::suite(&attn_gta::VARIANT, &dims, &params)
            .unwrap()
            .assert();
    }
}
