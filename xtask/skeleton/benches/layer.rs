//! A decode step and a forward pass at the seed's geometry: `cargo bench -p attn-skeleton`.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a benchmark that cannot be set up should stop"
)]

use attn_core::Params;
use criterion::{Criterion, criterion_group, criterion_main};

fn layer(c: &mut Criterion) {
    let params = Params::default(); // unwritten: the settings that it requires
    attn_testkit::bench::layer(c, &attn_skeleton::VARIANT, &params).unwrap();
}

criterion_group!(benches, layer);
criterion_main!(benches);
