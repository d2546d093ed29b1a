//! The layer of candle's operations alone, as a GPU computes it where there is no kernel: on the processor, and apart
//! from other tests, since the whole process goes that way.

use std::path::Path;

use attn_core::{ParamValue, Params};

#[test]
fn agrees_with_independent_implementations_and_passes_the_suite() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let params = [
        Params::default().with("n_kv_heads", ParamValue::Int(2)),
        Params::default().with("n_kv_heads", ParamValue::Int(1)),
    ];
    attn_testkit::composed(&attn_gqa::VARIANT, &fixtures, &params)
        .unwrap()
        .assert();
}
