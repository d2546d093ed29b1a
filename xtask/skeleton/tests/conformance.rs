//! The variant against independent implementations, and against what must hold of any layer.

use attn_core::{ModelDims, ParamValue, Params};

#[test]
fn passes_the_conformance_suite() {
    let dims = ModelDims {
        d_model: 24,
        n_heads: 4,
        head_dim: 8,
    };
    // Unwritten: the settings that it has, and a second test with odd sizes.
    for params in [
        Params::default(),
        Params::default().with("rope_theta", ParamValue::Float(5e5)),
    ] {
        attn_testkit::suite(&attn_skeleton::VARIANT, &dims, &params)
            .unwrap()
            .assert();
    }
}
