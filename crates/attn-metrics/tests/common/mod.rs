//! What the tests share: cases of `fixtures/metrics.json`, which `scripts/reference/metrics.py` writes.
#![allow(clippy::unwrap_used)] // in helpers too
#![allow(dead_code)] // every test has its own copy

use serde::de::DeserializeOwned;
use serde_json::Value;

/// The part `key` of the fixture; of each case, the fields that `T` has.
pub fn fixture<T: DeserializeOwned>(key: &str) -> T {
    let mut fixture: Value = serde_json::from_str(include_str!("../fixtures/metrics.json")).unwrap();
    serde_json::from_value(fixture[key].take()).unwrap()
}

/// The first reference of each example, for metrics that take one.
pub fn first(references: &[Vec<String>]) -> Vec<&str> {
    references.iter().map(|list| list[0].as_str()).collect()
}

/// Equal to 1e-9, and in four printed digits.
#[track_caller]
pub fn close(got: f64, expected: f64, of: &[String]) {
    let within = 1e-9 * expected.abs();
    assert!(
        (got - expected).abs() <= within,
        "got {got}, expected {expected}: {of:?}"
    );
    assert_eq!(format!("{got:.4}"), format!("{expected:.4}"), "{of:?}");
}
