//! A decode step and a forward pass at the seed's geometry: `cargo bench -p attn-tpa`.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a benchmark that cannot be set up should stop"
)]

use attn_core::{ParamValue, Params};
use criterion::{Criterion, criterion_group, criterion_main};

fn layer(c: &mut Criterion) {
    let params = Params::default()
        .with("k_factors", ParamValue::Int(2))
        .with("v_factors", ParamValue::Int(2));
    attn_testkit::bench::layer(c, &attn_tpa::VARIANT, &params).unwrap();
}

criterion_group!(benches, layer);
criterion_main!(benches);
