//! A decode step and a forward pass at the seed's geometry: `cargo bench -p attn-gla`.
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
        .with("kv_rank", ParamValue::Int(256))
        .with("rope_dim", ParamValue::Int(32));
    attn_testkit::bench::layer(c, &attn_gla::VARIANT, &params).unwrap();
}

criterion_group!(benches, layer);
criterion_main!(benches);
