//! The skeleton of a new variant compiles as it is, and its tests say what is missing.
#![allow(
    clippy::unwrap_used,
    dead_code,
    unused_imports,
    reason = "a crate's files as modules of a test"
)]

#[path = "../skeleton/src/cache.rs"]
mod cache;
#[path = "../skeleton/src/config.rs"]
mod config;
#[path = "../skeleton/src/forward.rs"]
mod forward;

use attn_core::{ModelDims, Params};

#[test]
fn the_suite_fails_with_what_is_to_be_written() {
    let dims = ModelDims {
        d_model: 24,
        n_heads: 4,
        head_dim: 8,
    };
    let report = attn_testkit::suite(&config::VARIANT, &dims, &Params::default()).unwrap();
    let reasons: Vec<String> = report
        .failures()
        .map(|check| format!("{:?}", check.outcome))
        .collect();
    assert!(!reasons.is_empty());
    assert!(
        reasons
            .iter()
            .all(|reason| reason.contains("write it in src/forward.rs")),
        "{reasons:?}"
    );
}
