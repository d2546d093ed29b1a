//! Conformance files and the suite every attention variant must pass.
//!
//! [`verify_file`] holds a layer against the outputs of an independent implementation; [`suite()`] needs no file and
//! checks what must hold of any layer: training, prefill and decoding agree, nothing reads the future or unwritten
//! cache, batches do not mix, gradients are right, caches are as large as they claim.
//!
//! A variant gets both in a few lines:
//!
//! ```ignore
//! attn_testkit::suite(&attn_mtla::VARIANT, &dims, &params)?.assert();
//! attn_testkit::verify_dir(Path::new("tests/fixtures"), &[&attn_mtla::VARIANT])?.assert();
//! ```
#![warn(missing_docs)]

#[cfg(feature = "bench")]
pub mod bench;
mod compare;
mod composed;
mod file;
mod report;
mod suite;
mod verify;

pub use compare::{Difference, compare};
pub use composed::composed;
pub use file::{ConformanceFile, Error, is_model_dir};
pub use report::{Check, Outcome, Report};
pub use suite::{suite, suite_on};
pub use verify::{Pair, pairs, tolerance, verify_dir, verify_file};
