//! The layer as a GPU computes it where there is no kernel.

use std::path::Path;

use attn_core::route::without_kernels;
use attn_core::{ModelDims, Params, Variant};

use crate::report::Report;
use crate::suite::suite;
use crate::verify::verify_dir;

/// The conformance files of a folder and the suite, for a layer of candle's operations alone, on the processor. For a
/// test in a file of its own: the whole process goes that way meanwhile.
///
/// # Errors
/// As of [`verify_dir`] and [`suite()`].
pub fn composed(
    variant: &'static Variant,
    fixtures: &Path,
    params: &[Params],
) -> Result<Report, Box<dyn std::error::Error>> {
    let dims = ModelDims {
        d_model: 24,
        n_heads: 4,
        head_dim: 8,
    };
    without_kernels(|| {
        let mut report = verify_dir(fixtures, &[variant])?;
        for params in params {
            report.extend(suite(variant, &dims, params)?);
        }
        Ok(report)
    })
}
