//! The variant against independent implementations, and against what must hold of any layer.

use std::path::Path;

use attn_core::{ModelDims, ParamValue, Params};

fn factors(k: u64, v: u64, q: u64) -> Params {
    Params::default()
        .with("k_factors", ParamValue::Int(k))
        .with("v_factors", ParamValue::Int(v))
        .with("q_factors", ParamValue::Int(q))
}

#[test]
fn agrees_with_independent_implementations() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    attn_testkit::verify_dir(&fixtures, &[&attn_tpa::VARIANT])
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
    for params in [factors(2, 2, 6), factors(1, 3, 2), factors(3, 1, 0)] {
        attn_testkit::suite(&attn_tpa::VARIANT, &dims, &params)
            .unwrap()
            .assert();
    }
}
