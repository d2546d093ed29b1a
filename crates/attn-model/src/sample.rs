//! One token of a row of logits: the largest, or a draw.

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::error::{Error, Result};
use crate::scores::{Candidate, Logit, Scores, keep_best};

/// How tokens are drawn: of the `top_k` most likely ones the fewest that have `top_p` of the probability together.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// What logits are divided by.
    pub temperature: f64,
    /// The most likely tokens to draw from.
    pub top_k: Option<usize>,
    /// The share of probability to draw from, of what `top_k` leaves.
    pub top_p: Option<f64>,
    /// A seed for each sequence: what it draws does not depend on its place in the batch.
    pub seeds: Vec<u64>,
}

/// The random numbers of one sequence.
pub(crate) struct Sampler(ChaCha8Rng);

impl Sampler {
    /// Uniform in [0, 1).
    fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl Sampling {
    /// Draws from the whole vocabulary, by a seed for each sequence.
    pub fn new(temperature: f64, seeds: Vec<u64>) -> Self {
        Self {
            temperature,
            top_k: None,
            top_p: None,
            seeds,
        }
    }

    pub(crate) fn check(&self, batch: usize) -> Result<()> {
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return Err(Error::input("temperature", self.temperature, "a positive number"));
        }
        if self.top_k == Some(0) {
            return Err(Error::input("top k", 0, "at least 1"));
        }
        if let Some(p) = self.top_p.filter(|p| !(*p > 0.0 && *p <= 1.0)) {
            return Err(Error::input("top p", p, "a share above 0, at most 1"));
        }
        match self.seeds.len() == batch {
            true => Ok(()),
            false => Err(Error::input(
                "seeds",
                format!("{} of them", self.seeds.len()),
                format!("{batch}, one for each sequence"),
            )),
        }
    }

    pub(crate) fn sampler(&self, sequence: usize) -> Sampler {
        Sampler(ChaCha8Rng::seed_from_u64(self.seeds[sequence]))
    }

    /// A token of the row; `None` where a logit is not finite.
    pub(crate) fn draw<T: Logit>(&self, row: &[T], sampler: &mut Sampler) -> Option<u32> {
        let scores = Scores::new(row, 1.0 / self.temperature, 0.0)?;
        let mut candidates: Vec<Candidate> = row
            .iter()
            .enumerate()
            .map(|(token, &logit)| Candidate {
                score: scores.of(logit),
                hypothesis: 0,
                token: token as u32,
            })
            .collect();
        if self.top_k.is_some() || self.top_p.is_some() {
            keep_best(&mut candidates, self.top_k.unwrap_or(row.len()));
        }
        if let Some(p) = self.top_p {
            let enough = p * candidates
                .iter()
                .map(|candidate| candidate.score.exp())
                .sum::<f64>();
            let mut sum = 0.0;
            let before = candidates.iter().take_while(|candidate| {
                let is_needed = sum < enough;
                sum += candidate.score.exp();
                is_needed
            });
            let n = before.count().max(1);
            candidates.truncate(n);
        }
        let total: f64 = candidates.iter().map(|candidate| candidate.score.exp()).sum();
        let mut left = sampler.unit() * total;
        let drawn = candidates.iter().find(|candidate| {
            left -= candidate.score.exp();
            left < 0.0
        });
        // Rounding may leave a last crumb to nobody.
        drawn.or(candidates.last()).map(|candidate| candidate.token)
    }
}

/// The largest of a row, of equal ones the first; `None` where one is not finite.
pub(crate) fn largest<T: Logit>(row: &[T]) -> Option<u32> {
    let (mut best, mut at) = (f64::NEG_INFINITY, None);
    for (token, &logit) in row.iter().enumerate() {
        let logit = logit.wide();
        if !logit.is_finite() {
            return None;
        }
        if logit > best {
            (best, at) = (logit, Some(token as u32));
        }
    }
    at
}
