//! The variant against independent implementations, and against what must hold of any layer.

use std::path::Path;

use attn_core::{ModelDims, ParamValue, Params};

#[test]
fn agrees_with_independent_implementations() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    attn_testkit::verify_dir(&fixtures, &[&attn_mha::VARIANT])
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
        Params::default(),
        Params::default().with("bias", ParamValue::Bool(false)),
    ] {
        attn_testkit::suite(&attn_mha::VARIANT, &dims, &params)
            .unwrap()
            .assert();
    }
}
