//! Examples side by side, padded to the longest: what a training step or an evaluation reads.

use crate::error::{Error, Result};
use crate::task::{Example, Part, Source, Task};

/// B examples. Behind a source or a text stands padding that is zero, that lengths leave out and that weighs nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Examples B.
    pub batch: usize,
    /// What is read first.
    pub sources: Sources,
    /// Tokens T of the longest text, but for the last.
    pub tokens: usize,
    /// Tokens of each text that are read, `[B]`.
    pub text_lens: Vec<usize>,
    /// Tokens that are read, `[B, T]`.
    pub inputs: Vec<u32>,
    /// Tokens that are to be predicted after them, `[B, T]`.
    pub targets: Vec<u32>,
    /// 1 where the target is an answer, 0 where no loss is taken, `[B, T]`.
    pub weights: Vec<f32>,
}

/// Sources side by side.
#[derive(Debug, Clone, PartialEq)]
pub enum Sources {
    /// There are none.
    None,
    /// Frames of a signal.
    Frames {
        /// Elements, `[B, S, F]`.
        features: Vec<f32>,
        /// Frames of each source, `[B]`; the most are S.
        lens: Vec<usize>,
        /// Elements F of a frame.
        dim: usize,
    },
    /// Tokens.
    Tokens {
        /// Tokens, `[B, S]`.
        tokens: Vec<u32>,
        /// Tokens of each source, `[B]`; the most are S.
        lens: Vec<usize>,
    },
}

impl Sources {
    /// Frames or tokens S of the longest.
    pub fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Frames { lens, .. } | Self::Tokens { lens, .. } => lens.iter().copied().max().unwrap_or(0),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn pack(examples: &[Example]) -> Result<Self> {
        let lens: Vec<usize> = examples.iter().map(|example| example.source.len()).collect();
        let s = lens.iter().copied().max().unwrap_or(0);
        let mut packed = match &examples[0].source {
            Source::None => Self::None,
            Source::Frames { dim, .. } => Self::Frames {
                features: Vec::with_capacity(examples.len() * s * dim),
                lens,
                dim: *dim,
            },
            Source::Tokens(_) => Self::Tokens {
                tokens: Vec::with_capacity(examples.len() * s),
                lens,
            },
        };
        for (b, example) in examples.iter().enumerate() {
            match (&mut packed, &example.source) {
                (Self::None, Source::None) => {}
                (
                    Self::Frames { features, dim, .. },
                    Source::Frames {
                        features: own,
                        dim: d,
                    },
                ) if dim == d => {
                    features.extend(own);
                    features.resize((b + 1) * s * *dim, 0.0);
                }
                (Self::Tokens { tokens, .. }, Source::Tokens(own)) => {
                    tokens.extend(own);
                    tokens.resize((b + 1) * s, 0);
                }
                _ => {
                    return Err(Error::input(
                        "a source of the batch",
                        "of another kind",
                        "one kind of sources",
                    ));
                }
            }
        }
        Ok(packed)
    }
}

impl Batch {
    /// These examples in this order.
    ///
    /// # Errors
    /// There are none, their sources are not of one kind, or a text has nothing to predict.
    pub fn new(examples: &[Example]) -> Result<Self> {
        if examples.is_empty() {
            return Err(Error::input("the number of examples", 0, "at least 1"));
        }
        for example in examples {
            let n = example.is_answer.len();
            if n == 0 || n + 1 != example.text.len() {
                let expected = format!("one less than the {} tokens, and at least 1", example.text.len());
                return Err(Error::input("the number of marks for answers", n, expected));
            }
        }
        let text_lens: Vec<usize> = examples.iter().map(|example| example.is_answer.len()).collect();
        let (b, t) = (examples.len(), text_lens.iter().copied().max().unwrap_or(0));
        let mut batch = Self {
            batch: b,
            sources: Sources::pack(examples)?,
            tokens: t,
            text_lens,
            inputs: vec![0; b * t],
            targets: vec![0; b * t],
            weights: vec![0.0; b * t],
        };
        for (row, example) in examples.iter().enumerate() {
            for (i, is_answer) in example.is_answer.iter().enumerate() {
                batch.inputs[row * t + i] = example.text[i];
                batch.targets[row * t + i] = example.text[i + 1];
                batch.weights[row * t + i] = f32::from(u8::from(*is_answer));
            }
        }
        Ok(batch)
    }

    /// Examples of a task by their numbers.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn of(task: &dyn Task, part: Part, indices: &[u64]) -> Result<Self> {
        let examples: Vec<Example> = indices.iter().map(|index| task.example(part, *index)).collect();
        Self::new(&examples)
    }

    /// Answers, of all texts together: what a sum of weighted losses is divided by.
    pub fn answers(&self) -> usize {
        self.weights.iter().filter(|weight| **weight > 0.0).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(source: Source, text: &[u32], is_answer: &[bool]) -> Example {
        Example {
            source,
            text: text.to_vec(),
            is_answer: is_answer.to_vec(),
            probes: Vec::new(),
        }
    }

    #[test]
    fn texts_are_shifted_padded_and_weighted() {
        let batch = Batch::new(&[
            example(Source::None, &[9, 5, 6, 7], &[false, true, true]),
            example(Source::None, &[9, 4], &[true]),
        ])
        .unwrap();
        assert_eq!(
            (batch.batch, batch.tokens, batch.text_lens.as_slice()),
            (2, 3, &[3, 1][..])
        );
        assert_eq!(batch.inputs, [9, 5, 6, 9, 0, 0]);
        assert_eq!(batch.targets, [5, 6, 7, 4, 0, 0]);
        assert_eq!(batch.weights, [0.0, 1.0, 1.0, 1.0, 0.0, 0.0]);
        assert_eq!((batch.answers(), batch.sources), (3, Sources::None));
    }

    #[test]
    fn sources_are_padded_with_zeros_behind_their_ends() {
        let frames = |n: usize| Source::Frames {
            features: (1..=2 * n).map(|x| x as f32).collect(),
            dim: 2,
        };
        let batch = Batch::new(&[
            example(frames(1), &[0, 1], &[true]),
            example(frames(2), &[0, 1], &[true]),
        ])
        .unwrap();
        assert_eq!(batch.sources.len(), 2);
        let expected = Sources::Frames {
            features: vec![1.0, 2.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0],
            lens: vec![1, 2],
            dim: 2,
        };
        assert_eq!(batch.sources, expected);

        let tokens = |tokens: &[u32]| example(Source::Tokens(tokens.to_vec()), &[0, 1], &[true]);
        let batch = Batch::new(&[tokens(&[3, 4, 5]), tokens(&[6])]).unwrap();
        let expected = Sources::Tokens {
            tokens: vec![3, 4, 5, 6, 0, 0],
            lens: vec![3, 1],
        };
        assert_eq!(batch.sources, expected);
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let plain = example(Source::None, &[0, 1], &[true]);
        let other = example(Source::Tokens(vec![1]), &[0, 1], &[true]);
        assert!(Batch::new(&[]).is_err());
        assert!(Batch::new(&[plain.clone(), other]).is_err());
        assert!(Batch::new(&[example(Source::None, &[0], &[])]).is_err());
        assert!(Batch::new(&[example(Source::None, &[0, 1], &[true, true])]).is_err());
        assert!(Batch::new(&[plain]).is_ok());
    }
}
