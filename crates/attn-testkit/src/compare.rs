//! How far two tensors are apart.

use attn_core::Result;
use candle_core::{DType, Tensor};

/// How far a result is from what was expected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// Largest absolute difference over the scale of what was expected (its largest absolute value).
    pub max: f64,
    /// One minus the cosine between the two: what a few large errors and many small ones do not share.
    pub cosine: f64,
    /// Whether NaN and infinities stand in the same places.
    pub same_non_finite: bool,
}

impl Difference {
    /// Whether the largest difference is within `tolerance`, and nothing is NaN that should not be.
    pub fn within(&self, tolerance: f64) -> bool {
        self.same_non_finite && self.max <= tolerance
    }
}

/// Compares a result with what was expected, in f64, over the finite elements.
///
/// # Errors
/// Shapes differ.
pub fn compare(got: &Tensor, expected: &Tensor) -> Result<Difference> {
    if got.dims() != expected.dims() {
        return Err(attn_core::Error::Shape {
            op: "compare",
            expected: format!("{:?}", expected.dims()),
            got: got.dims().to_vec(),
        });
    }
    let flat = |t: &Tensor| t.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>();
    let (got, expected) = (flat(got)?, flat(expected)?);
    let (mut max, mut scale, mut same) = (0f64, 0f64, true);
    let (mut dot, mut norm_got, mut norm_expected) = (0f64, 0f64, 0f64);
    for (&g, &e) in got.iter().zip(&expected) {
        if !g.is_finite() || !e.is_finite() {
            same &= g.is_nan() == e.is_nan() && (g.is_nan() || g == e);
            continue;
        }
        max = max.max((g - e).abs());
        scale = scale.max(e.abs());
        dot += g * e;
        norm_got += g * g;
        norm_expected += e * e;
    }
    let norms = (norm_got * norm_expected).sqrt();
    let cosine = if norms > 0.0 {
        (1.0 - dot / norms).max(0.0)
    } else {
        f64::from(norm_got != norm_expected)
    };
    Ok(Difference {
        max: if scale > 0.0 { max / scale } else { max },
        cosine,
        same_non_finite: same,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn tensor(values: &[f32]) -> Tensor {
        Tensor::new(values, &Device::Cpu).unwrap()
    }

    #[test]
    fn difference_is_relative_to_the_scale_of_what_was_expected() {
        let d = compare(&tensor(&[1.0, -8.0]), &tensor(&[2.0, -8.0])).unwrap();
        assert_eq!(d.max, 1.0 / 8.0);
        assert!(d.within(0.2) && !d.within(0.1));
    }

    #[test]
    fn a_nan_in_the_wrong_place_never_passes() {
        let d = compare(&tensor(&[1.0, f32::NAN]), &tensor(&[1.0, 2.0])).unwrap();
        assert!(!d.within(1.0));
        let d = compare(&tensor(&[1.0, f32::NAN]), &tensor(&[1.0, f32::NAN])).unwrap();
        assert!(d.within(0.0));
    }
}
