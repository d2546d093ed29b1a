//! The layer of candle's operations alone, as a GPU computes it where there is no kernel: on the processor, and apart
//! from other tests, since the whole process goes that way.

use std::path::Path;

use attn_core::{ParamValue, Params};

fn latent(more: &[(&str, ParamValue)]) -> Params {
    let base = Params::default()
        .with("kv_rank", ParamValue::Int(16))
        .with("rope_dim", ParamValue::Int(6));
    more.iter()
        .fold(base, |params, (name, value)| params.with(name, value.clone()))
}

#[test]
fn agrees_with_independent_implementations_and_passes_the_suite() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let params = [
        latent(&[("stride", ParamValue::Int(1))]),
        latent(&[("stride", ParamValue::Int(2))]),
        latent(&[("stride", ParamValue::Int(3)), ("v_dim", ParamValue::Int(6))]),
        latent(&[("stride", ParamValue::Int(17))]),
    ];
    attn_testkit::composed(&attn_mtla::VARIANT, &fixtures, &params)
        .unwrap()
        .assert();
}
