//! The variant against independent implementations, and against what must hold of any layer.

use std::path::Path;

use attn_core::{ModelDims, ParamValue, Params};

fn window(n_kv_heads: u64, window: u64) -> Params {
    Params::default()
        .with("n_kv_heads", ParamValue::Int(n_kv_heads))
        .with("window", ParamValue::Int(window))
}

#[test]
fn agrees_with_independent_implementations() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    attn_testkit::verify_dir(&fixtures, &[&attn_swa::VARIANT])
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
        window(2, 1),
        window(2, 2),
        window(2, 3),
        window(2, 4),
        window(4, 5),
        window(1, 13),
        window(2, 40),
    ] {
        attn_testkit::suite(&attn_swa::VARIANT, &dims, &params)
            .unwrap()
            .assert();
    }
}
