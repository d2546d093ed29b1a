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
        latent(&[]),
        latent(&[
            ("q_rank", ParamValue::Int(12)),
            ("norm", ParamValue::Text("rms".to_string())),
        ]),
    ];
    attn_testkit::composed(&attn_mla::VARIANT, &fixtures, &params)
        .unwrap()
        .assert();
}
