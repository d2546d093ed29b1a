//! Perplexity of a corpus: e to the nats of a token.

use serde::{Deserialize, Serialize};

use crate::text::check_pairs;
use crate::{Error, Result, Statistics, total};

/// The loss of a text, summed over its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Nats {
    /// Sum of -ln p over its tokens.
    pub nats: f64,
    /// Its tokens.
    pub tokens: u64,
}

/// exp(sum of nats / sum of tokens) over all texts, which weighs every token alike; infinite where the mean is so
/// large.
///
/// # Errors
/// `Empty` without texts, `Nats` of a loss that is not finite, `Nothing` where no text has tokens.
pub fn perplexity(texts: &[Nats]) -> Result<f64> {
    check_pairs(texts.len(), texts.len())?;
    if let Some(example) = texts.iter().position(|text| !text.nats.is_finite()) {
        let got = texts[example].nats;
        return Err(Error::Nats { example, got });
    }
    total(texts).value().ok_or(Error::Nothing)
}

impl Statistics for Nats {
    fn add(&mut self, other: &Self) {
        self.nats += other.nats;
        self.tokens += other.tokens;
    }

    fn value(&self) -> Option<f64> {
        let value = (self.nats / self.tokens as f64).exp();
        (self.tokens > 0 && !value.is_nan()).then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uniform_guess_has_the_perplexity_of_its_choices() {
        let text = |tokens: u64| Nats {
            nats: tokens as f64 * 50f64.ln(),
            tokens,
        };
        assert!((perplexity(&[text(3), text(11)]).unwrap() - 50.0).abs() < 1e-12);
    }

    #[test]
    fn nothing_has_no_perplexity() {
        assert_eq!(perplexity(&[]), Err(Error::Empty));
        assert_eq!(perplexity(&[Nats::default()]), Err(Error::Nothing));
        let broken = Nats {
            nats: f64::NAN,
            tokens: 1,
        };
        assert!(matches!(
            perplexity(&[Nats::default(), broken]),
            Err(Error::Nats { example: 1, .. })
        ));
        assert_eq!(broken.value(), None);
    }
}
