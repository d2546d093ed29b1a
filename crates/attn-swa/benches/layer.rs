//! A decode step and a forward pass at the seed's geometry: `cargo bench -p attn-swa`.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a benchmark that cannot be set up should stop"
)]

use attn_core::{ParamValue, Params};
use criterion::{Criterion, criterion_group, criterion_main};

fn layer(c: &mut Criterion) {
    let params = Params::default()
        .with("n_kv_heads", ParamValue::Int(2))
        .with("window", ParamValue::Int(1024));
    attn_testkit::bench::layer(c, &attn_swa::VARIANT, &params).unwrap();
}

criterion_group!(benches, layer);
criterion_main!(benches);
