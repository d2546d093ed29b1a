//! A decode step and a forward pass at the seed's geometry: `cargo bench -p attn-mtla`.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a benchmark that cannot be set up should stop"
)]

use attn_core::{ParamValue, Params};
use criterion::{Criterion, criterion_group, criterion_main};

fn layer(c: &mut Criterion) {
    let latent = Params::default()
        .with("kv_rank", ParamValue::Int(256))
        .with("rope_dim", ParamValue::Int(32));
    for stride in [2, 4] {
        let params = latent.clone().with("stride", ParamValue::Int(stride));
        attn_testkit::bench::layer(c, &attn_mtla::VARIANT, &params).unwrap();
    }
}

criterion_group!(benches, layer);
criterion_main!(benches);
