//! The variant against independent implementations, and against what must hold of any layer.

use std::path::Path;

use attn_core::{ModelDims, ParamValue, Params};

fn latent(more: &[(&str, ParamValue)]) -> Params {
    let base = Params::default()
        .with("kv_rank", ParamValue::Int(16))
        .with("rope_dim", ParamValue::Int(6));
    more.iter()
        .fold(base, |params, (name, value)| params.with(name, value.clone()))
}

/// What the paper's way is held against.
fn other(merge: &str, rope_key: &str, stride: u64) -> Params {
    let text = |word: &str| ParamValue::Text(word.to_string());
    latent(&[
        ("merge", text(merge)),
        ("rope_key", text(rope_key)),
        ("stride", ParamValue::Int(stride)),
    ])
}

#[test]
fn agrees_with_independent_implementations() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    attn_testkit::verify_dir(&fixtures, &[&attn_mtla::VARIANT])
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
        latent(&[("stride", ParamValue::Int(1))]),
        latent(&[("stride", ParamValue::Int(2))]),
        latent(&[("stride", ParamValue::Int(3)), ("q_rank", ParamValue::Int(12))]),
        latent(&[("stride", ParamValue::Int(4)), ("v_dim", ParamValue::Int(6))]),
        latent(&[("stride", ParamValue::Int(5)), ("hyper_rank", ParamValue::Int(3))]),
        latent(&[("stride", ParamValue::Int(17))]),
        other("constant", "newest", 2),
        other("mean", "newest", 3),
        other("sum", "newest", 2),
        other("last", "newest", 3),
        other("hyper", "first", 3),
        other("hyper", "mean", 2),
        other("last", "mean", 4),
        other("mean", "first", 1),
    ] {
        attn_testkit::suite(&attn_mtla::VARIANT, &dims, &params)
            .unwrap()
            .assert();
    }
}
