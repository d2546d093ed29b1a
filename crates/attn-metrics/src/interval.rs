//! How far a metric is known: percentile bootstrap over examples (Efron and Tibshirani, 1993, chapter 13), of one
//! system or of the difference of two (Koehn, 2004).

mod pcg;

use serde::{Deserialize, Serialize};

use self::pcg::Pcg64;
use crate::{Error, Result, Statistics, total};

/// Share of resamples outside either end of a 95 % interval.
const TAIL: f64 = 0.025;

/// A seeded bootstrap. The same seed draws the same examples for every metric and system, and those that sacrebleu
/// draws with `SACREBLEU_SEED`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bootstrap {
    /// Resamples, 1 or more.
    pub resamples: usize,
    /// Seed.
    pub seed: u64,
}

impl Default for Bootstrap {
    /// sacrebleu's numbers.
    fn default() -> Self {
        Self {
            resamples: 1_000,
            seed: 12_345,
        }
    }
}

/// A metric with its interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Value of the corpus.
    pub value: f64,
    /// Mean of the resamples.
    pub mean: f64,
    /// Lower end of the 95 % interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// The difference of two systems, the baseline's value taken from the system's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Difference of the corpora.
    pub value: f64,
    /// Mean of the resamples.
    pub mean: f64,
    /// Lower end of the 95 % interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Two-sided p of no difference, as in sacrebleu's paired bootstrap: the share of resamples whose absolute
    /// difference is above their mean by more than the one that was seen, with 1 added to both counts. Of a
    /// system against itself it is therefore the least there is, and not 1.
    pub p: f64,
}

impl Bootstrap {
    /// The metric of a corpus with its 95 % interval.
    ///
    /// # Errors
    /// `Empty` without examples, `NoResamples` without resamples, `Nothing` or `Resample` where the metric has no
    /// finite value.
    pub fn interval<S: Statistics>(&self, examples: &[S]) -> Result<Interval> {
        let [value] = self.check([examples])?;
        let values = self.resample([examples])?;
        let (mean, low, high) = summary(values.iter().map(|[value]| *value).collect());
        Ok(Interval {
            value,
            mean,
            low,
            high,
        })
    }

    /// The difference of two systems on the same examples, which every resample draws in pairs.
    ///
    /// # Errors
    /// As [`interval`](Self::interval), and `Lengths` where there are not as many examples.
    pub fn difference<S: Statistics>(&self, system: &[S], baseline: &[S]) -> Result<Difference> {
        if system.len() != baseline.len() {
            return Err(Error::Lengths {
                left_name: "examples of the system",
                left: system.len(),
                right_name: "of the baseline",
                right: baseline.len(),
            });
        }
        let [ours, theirs] = self.check([system, baseline])?;
        let values = self.resample([system, baseline])?;
        let differences: Vec<f64> = values.iter().map(|[ours, theirs]| ours - theirs).collect();

        let seen = (ours - theirs).abs();
        let center = mean(differences.iter().map(|difference| difference.abs()));
        let above = differences
            .iter()
            .filter(|difference| difference.abs() - center > seen)
            .count();
        let p = (above + 1) as f64 / (differences.len() + 1) as f64;
        let (mean, low, high) = summary(differences);
        Ok(Difference {
            value: ours - theirs,
            mean,
            low,
            high,
            p,
        })
    }

    /// The values of the corpora themselves.
    fn check<S: Statistics, const N: usize>(&self, sides: [&[S]; N]) -> Result<[f64; N]> {
        if self.resamples == 0 {
            return Err(Error::NoResamples);
        }
        let mut values = [0.0; N];
        for (value, examples) in values.iter_mut().zip(sides) {
            if examples.is_empty() {
                return Err(Error::Empty);
            }
            *value = finite(&total(examples)).ok_or(Error::Nothing)?;
        }
        Ok(values)
    }

    /// The values of each resample: as many examples as there are, drawn with replacement.
    fn resample<S: Statistics, const N: usize>(&self, sides: [&[S]; N]) -> Result<Vec<[f64; N]>> {
        let n = sides.first().map_or(0, |examples| examples.len());
        let mut rng = Pcg64::new(self.seed);
        let mut drawn = vec![0; n];
        (0..self.resamples)
            .map(|resample| {
                drawn.fill_with(|| rng.below(n));
                let mut values = [0.0; N];
                for (value, examples) in values.iter_mut().zip(sides) {
                    let mut sum = S::default();
                    drawn.iter().for_each(|i| sum.add(&examples[*i]));
                    *value = finite(&sum).ok_or(Error::Resample { resample })?;
                }
                Ok(values)
            })
            .collect()
    }
}

fn finite<S: Statistics>(sum: &S) -> Option<f64> {
    sum.value().filter(|value| value.is_finite())
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len() as f64;
    values.sum::<f64>() / n
}

/// Mean and the middle 95 % of one value or more.
fn summary(mut values: Vec<f64>) -> (f64, f64, f64) {
    let mean = mean(values.iter().copied());
    values.sort_by(f64::total_cmp);
    (mean, quantile(&values, TAIL), quantile(&values, 1.0 - TAIL))
}

/// Between the sorted values around it (type 7 of Hyndman and Fan, numpy's default).
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let rank = (sorted.len() - 1) as f64 * q;
    let (below, above) = (sorted[rank.floor() as usize], sorted[rank.ceil() as usize]);
    below + (above - below) * rank.fract()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Nats, Share, matches};

    const BOOTSTRAP: Bootstrap = Bootstrap {
        resamples: 200,
        seed: 1,
    };

    #[test]
    fn a_system_does_not_differ_from_itself() {
        let examples = matches(&[1, 2, 3, 4, 5], &[1, 2, 0, 4, 0]).unwrap();
        let difference = BOOTSTRAP.difference(&examples, &examples).unwrap();
        assert_eq!(
            (difference.value, difference.low, difference.high),
            (0.0, 0.0, 0.0)
        );
        // sacrebleu asks for more than the difference that was seen, and no resample has more than 0.
        assert_eq!(difference.p, 1.0 / 201.0);
    }

    #[test]
    fn one_example_has_an_interval_without_width() {
        let interval = BOOTSTRAP.interval(&[Share { right: 1, total: 4 }]).unwrap();
        assert_eq!((interval.mean, interval.low, interval.high), (0.25, 0.25, 0.25));
    }

    #[test]
    fn what_has_no_value_is_an_error() {
        let nothing = Share::default();
        let some = Share { right: 1, total: 1 };
        assert_eq!(BOOTSTRAP.interval::<Share>(&[]), Err(Error::Empty));
        assert_eq!(BOOTSTRAP.interval(&[nothing]), Err(Error::Nothing));
        assert!(matches!(
            BOOTSTRAP.interval(&[nothing, some]),
            Err(Error::Resample { .. })
        ));
        assert!(matches!(
            BOOTSTRAP.difference(&[some], &[some, some]),
            Err(Error::Lengths {
                left: 1,
                right: 2,
                ..
            })
        ));
        let endless = Nats { nats: 1e6, tokens: 1 };
        assert_eq!(BOOTSTRAP.interval(&[endless]), Err(Error::Nothing));
        let none = Bootstrap {
            resamples: 0,
            seed: 1,
        };
        assert_eq!(none.interval(&[some]), Err(Error::NoResamples));
    }
}
