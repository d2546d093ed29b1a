//! Cross entropy with label smoothing.

use candle_core::{D, DType, Tensor};

use crate::error::{Error, Result};

/// What a model's predictions cost.
#[derive(Debug, Clone)]
pub struct Loss {
    /// What is minimised, a scalar with gradient: the mean over answers, smoothed.
    pub mean: Tensor,
    /// Negative log-likelihoods of the answers `[B, T]` in nats, not smoothed, without gradient; 0 where there is none.
    pub nats: Tensor,
}

/// The mean over answers of `(1 - smoothing) nll(target) + smoothing mean_v nll(v)`, in the dtype of the logits.
///
/// # Shapes
/// - `logits`: `[B, T, V]`, f32 or f64; `targets`: `[B, T]` u32, below V; `weights`: `[B, T]`, 1 for an answer, else 0
///
/// # Errors
/// [`Error::Input`] where there is no answer, or shapes do not fit.
///
/// # Source
/// Szegedy et al., arXiv 1512.00567, section 7, as PyTorch's `cross_entropy` computes it.
pub fn cross_entropy(logits: &Tensor, targets: &Tensor, weights: &Tensor, smoothing: f64) -> Result<Loss> {
    let (b, t, _) = logits.dims3()?;
    if targets.dims() != [b, t] || weights.dims() != [b, t] {
        return Err(Error::input(
            "targets and weights",
            format!("{:?} and {:?}", targets.dims(), weights.dims()),
            format!("[{b}, {t}] as the logits"),
        ));
    }
    let weights = weights.to_dtype(logits.dtype())?;
    let answers = weights.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
    if answers <= 0.0 {
        return Err(Error::input("answers", answers, "at least one in a batch"));
    }
    // The maximum has no part in the result, and gets no gradient.
    let shifted = logits.broadcast_sub(&logits.detach().max_keepdim(D::Minus1)?)?;
    let total = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?; // [B, T, 1]
    let own = shifted.gather(&targets.unsqueeze(2)?.contiguous()?, D::Minus1)?;
    let nats = ((&total - own)?.squeeze(2)? * &weights)?;
    let smoothed = match smoothing {
        0.0 => nats.clone(),
        _ => {
            let uniform = ((total - shifted.mean_keepdim(D::Minus1)?)?.squeeze(2)? * &weights)?;
            ((&nats * (1.0 - smoothing))? + (uniform * smoothing)?)?
        }
    };
    Ok(Loss {
        mean: (smoothed.sum_all()? / answers)?,
        nats: nats.detach(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn it_is_what_the_formula_says_and_so_is_its_gradient() -> Result<()> {
        let logits = [[0.3_f64, -1.2, 2.0], [1.0, 0.5, -0.5], [4.0, 4.0, 4.0]];
        let (targets, weights, smoothing) = ([2_u32, 0, 1], [1_f64, 1.0, 0.0], 0.1);
        let var = Var::from_tensor(&Tensor::new(&logits, &Device::Cpu)?.unsqueeze(0)?)?;
        let loss = cross_entropy(
            &var,
            &Tensor::new(&targets, &Device::Cpu)?.unsqueeze(0)?,
            &Tensor::new(&weights, &Device::Cpu)?.unsqueeze(0)?,
            smoothing,
        )?;
        let mut expected = 0.0;
        let mut gradient = Vec::new();
        for ((row, target), weight) in logits.iter().zip(targets).zip(weights) {
            let total: f64 = row.iter().map(|x| x.exp()).sum();
            for (v, x) in row.iter().enumerate() {
                let wanted = smoothing / 3.0
                    + if v == target as usize {
                        1.0 - smoothing
                    } else {
                        0.0
                    };
                expected -= weight / 2.0 * wanted * (x - total.ln());
                gradient.push(weight / 2.0 * (x.exp() / total - wanted));
            }
        }
        let got = loss.mean.to_scalar::<f64>()?;
        assert!((got - expected).abs() < 1e-14, "{got} {expected}");
        let grads = loss.mean.backward()?;
        let grad: Vec<f64> = grads.get(&var).unwrap().flatten_all()?.to_vec1()?;
        for (got, expected) in grad.iter().zip(gradient) {
            assert!((got - expected).abs() < 1e-14, "{got} {expected}");
        }
        let nats: Vec<f64> = loss.nats.flatten_all()?.to_vec1()?;
        assert_eq!(nats[2], 0.0);
        Ok(())
    }

    #[test]
    fn a_batch_without_an_answer_is_refused() -> Result<()> {
        let logits = Tensor::zeros((1, 2, 3), DType::F32, &Device::Cpu)?;
        let targets = Tensor::zeros((1, 2), DType::U32, &Device::Cpu)?;
        let weights = Tensor::zeros((1, 2), DType::F32, &Device::Cpu)?;
        let refused = cross_entropy(&logits, &targets, &weights, 0.0);
        assert!(refused.unwrap_err().to_string().contains("answers"));
        Ok(())
    }
}
