//! The layer of candle's operations alone, as a GPU computes it where there is no kernel: on the processor, and apart
//! from other tests, since the whole process goes that way.

use std::path::Path;

use attn_core::route::without_kernels;
use attn_core::{ModelDims, ParamValue, Params};

#[test]
fn agrees_with_independent_implementations_and_passes_the_suite() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let dims = ModelDims {
        d_model: 24,
        n_heads: 4,
        head_dim: 8,
    };
    without_kernels(|| {
        attn_testkit::verify_dir(&fixtures, &[&attn_gqa::VARIANT])
            .unwrap()
            .assert();
        for params in [
            Params::default().with("n_kv_heads", ParamValue::Int(2)),
            Params::default().with("n_kv_heads", ParamValue::Int(1)),
        ] {
            attn_testkit::suite(&attn_gqa::VARIANT, &dims, &params)
                .unwrap()
                .assert();
        }
    });
}
