//! Kernels on trial: before the first use in a process, each is held against another implementation.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Tensor};

use crate::error::Result;

/// What came of the trials of kernels `K`.
pub(super) struct Trials<K> {
    /// Held during a trial.
    verdicts: Mutex<HashMap<K, std::result::Result<(), String>>>,
    /// Apart from verdicts: a kernel that cannot be launched is refused in the middle of its own trial.
    refused: Mutex<HashMap<K, String>>,
}

impl<K> Default for Trials<K> {
    fn default() -> Self {
        Self {
            verdicts: Mutex::default(),
            refused: Mutex::default(),
        }
    }
}

impl<K: Eq + Hash> Trials<K> {
    /// Whether a kernel may be used. The first to ask tries it; others wait.
    ///
    /// # Errors
    /// Why not, for the rest of the process.
    pub(super) fn verdict(
        &self,
        kernel: K,
        trial: impl FnOnce() -> std::result::Result<(), String>,
    ) -> std::result::Result<(), String> {
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = refused.get(&kernel) {
            return Err(reason.clone());
        }
        drop(refused);
        verdicts.entry(kernel).or_insert_with(trial).clone()
    }

    /// A kernel that failed, in its trial or after it: it is not used again.
    pub(super) fn refuse(&self, kernel: K, reason: &str) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.insert(kernel, reason.to_string());
    }
}

/// How far a kernel may be from the other implementation, over the largest expected value.
///
/// f32: 1e-5, some eighty units in the last place; on the few hundred terms of a trial sums in another order and an
/// approximate exponential stay below a tenth of it. Half precision: four units in the last place. The output is
/// rounded on both sides, half a unit each, and a kernel rounds its weights before it multiplies them, half a unit of
/// each, which a sum over entries does not enlarge.
pub(super) fn bound(dtype: DType) -> f64 {
    match dtype {
        DType::BF16 => 4.0 / 256.0,
        DType::F16 => 4.0 / 2048.0,
        _ => 1e-5,
    }
}

/// Holds a result against what is expected, which has no NaN.
///
/// # Errors
/// How they differ; the text of an error where they cannot be compared.
pub(super) fn agree(got: &Tensor, expected: &Tensor, bound: f64) -> std::result::Result<(), String> {
    let flat = |x: &Tensor| -> Result<Vec<f64>> { Ok(x.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?) };
    let (got, expected) = match (flat(got), flat(expected)) {
        (Ok(got), Ok(expected)) => (got, expected),
        (Err(error), _) | (_, Err(error)) => return Err(error.to_string()),
    };
    if got.len() != expected.len() {
        return Err(format!("{} elements in place of {}", got.len(), expected.len()));
    }
    let scale = expected.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
    let errors = got
        .iter()
        .zip(&expected)
        .map(|(got, expected)| (got - expected).abs());
    let limit = bound * scale;
    if errors.clone().all(|error| error <= limit) {
        return Ok(()); // which no NaN is
    }
    if errors.clone().any(|error| !error.is_finite()) {
        return Err("it has NaN or infinity where another implementation has none".to_string());
    }
    let error = errors.fold(0.0, f64::max) / scale;
    Err(format!(
        "it differs from another implementation by {error:.1e} of the scale, {bound:.1e} is allowed"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use std::cell::Cell;

    #[test]
    fn a_kernel_is_tried_once_and_the_verdict_holds() {
        let (trials, tried) = (Trials::default(), Cell::new(0));
        let ask = |kernel, result: std::result::Result<(), String>| {
            trials.verdict(kernel, || {
                tried.set(tried.get() + 1);
                result
            })
        };
        let wrong = || Err("wrong".to_string());
        assert_eq!((ask("good", Ok(())), tried.get()), (Ok(()), 1));
        assert_eq!((ask("good", wrong()), tried.get()), (Ok(()), 1));
        assert_eq!((ask("bad", wrong()), tried.get()), (wrong(), 2));
        assert_eq!((ask("bad", Ok(())), tried.get()), (wrong(), 2));
        trials.refuse("good", "the launch failed");
        assert_eq!(ask("good", Ok(())), Err("the launch failed".to_string()));
        assert_eq!(tried.get(), 2);
    }

    #[test]
    fn a_kernel_can_be_refused_in_its_own_trial() {
        let trials = Trials::default();
        let refused = Err("it cannot be launched".to_string());
        let found = trials.verdict("bad", || {
            trials.refuse("bad", "it cannot be launched");
            refused.clone()
        });
        assert_eq!(found, refused);
        assert_eq!(trials.verdict("bad", || Ok(())), refused);
    }

    #[test]
    fn agreement_is_relative_to_the_scale_and_nan_is_none() -> Result<()> {
        let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu);
        let expected = tensor(&[8.0, 1.0])?;
        let agrees = |got: &[f32]| {
            agree(&tensor(got)?, &expected, bound(DType::BF16)).map_err(candle_core::Error::msg)
        };
        assert!(agrees(&[8.05, 1.05]).is_ok());
        let error = agrees(&[8.0, 1.2]).unwrap_err().to_string();
        assert!(
            error.contains("by 2.5e-2 of the scale, 1.6e-2 is allowed"),
            "{error}"
        );
        assert!(agrees(&[f32::NAN, 1.0]).is_err() && agrees(&[8.0, f32::INFINITY]).is_err());
        assert!(agrees(&[8.0]).unwrap_err().to_string().contains("1 elements"));
        Ok(())
    }
}
