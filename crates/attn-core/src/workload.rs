//! What a layer is asked to do: the unit that is planned, verified and timed.
//!
//! ```
//! use attn_core::Workload;
//!
//! let search = Workload::Beam { batch: 2, tokens: 145, new_tokens: 27, beam: 8 };
//! assert_eq!((search.name(), search.cached_tokens()), ("beam", 172));
//! ```

use serde::{Deserialize, Serialize};

use crate::cost::Scope;

/// One workload at one point of its axes.
///
/// ```
/// use attn_core::{Scope, Workload};
///
/// let step = Workload::Decode { batch: 4, context: 512 };
/// assert_eq!((step.batch(), step.beam()), (4, 1));
/// assert_eq!(step.cached_tokens(), 512); // its own token included
/// assert_eq!(step.processed_tokens(), 4); // what tokens per second count
/// assert_eq!(step.scopes(), [Scope::Layer, Scope::Op]);
/// assert!(Workload::ALL.iter().any(|(name, _)| *name == step.name()));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Workload {
    /// One token per sequence against a cache; `context` counts the entries read, its own token included.
    Decode {
        /// Sequences B.
        batch: usize,
        /// Tokens L that a step attends to, its own included.
        context: usize,
    },
    /// A prompt into an empty cache, every token a query.
    Prefill {
        /// Sequences B.
        batch: usize,
        /// Tokens T of the prompt.
        tokens: usize,
    },
    /// Forward and backward of a whole sequence: gradients of all weights and of the input.
    TrainStep {
        /// Sequences B.
        batch: usize,
        /// Tokens T.
        tokens: usize,
    },
    /// A prompt, then one token at a time.
    Generate {
        /// Sequences B.
        batch: usize,
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens decoded after it.
        new_tokens: usize,
    },
    /// One token at a time against a cache that is filled already, each step timed on its own.
    Trajectory {
        /// Sequences B.
        batch: usize,
        /// Tokens in the cache before the first step.
        tokens: usize,
        /// Tokens decoded after them.
        new_tokens: usize,
    },
    /// Beam search by a whole decoder, to a forced length: a sample is a whole search.
    Beam {
        /// Sentences B.
        batch: usize,
        /// Encoder states of each sentence, or tokens of its prompt.
        tokens: usize,
        /// Tokens generated after them.
        new_tokens: usize,
        /// Hypotheses K of each sentence.
        beam: usize,
    },
}

impl Workload {
    /// Names of all workloads, as sweeps and rows spell them, with one sentence each.
    pub const ALL: [(&'static str, &'static str); 6] = [
        (
            "decode",
            "one token per sequence against a cache of `context` tokens, its own included",
        ),
        (
            "prefill",
            "a prompt of `tokens` into an empty cache, every token a query",
        ),
        (
            "train_step",
            "forward and backward over `tokens`, gradients of all weights and of the input",
        ),
        (
            "generate",
            "a prompt of `tokens`, then `new_tokens` decoded one at a time",
        ),
        (
            "trajectory",
            "`new_tokens` decoded one at a time after a cache of `tokens`, each step timed",
        ),
        (
            "beam",
            "search of width `beam` by a whole decoder: `tokens` of prefix, then `new_tokens` generated",
        ),
    ];

    /// The name in sweeps and rows.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Decode { .. } => "decode",
            Self::Prefill { .. } => "prefill",
            Self::TrainStep { .. } => "train_step",
            Self::Generate { .. } => "generate",
            Self::Trajectory { .. } => "trajectory",
            Self::Beam { .. } => "beam",
        }
    }

    /// Sequences B; of a beam search its sentences.
    pub fn batch(&self) -> usize {
        match *self {
            Self::Decode { batch, .. }
            | Self::Prefill { batch, .. }
            | Self::TrainStep { batch, .. }
            | Self::Generate { batch, .. }
            | Self::Trajectory { batch, .. }
            | Self::Beam { batch, .. } => batch,
        }
    }

    /// Hypotheses of a sentence that are decoded side by side: 1 where nothing is searched.
    pub fn beam(&self) -> usize {
        match *self {
            Self::Beam { beam, .. } => beam,
            _ => 1,
        }
    }

    /// Scopes in which the workload exists: a beam search is made by whole decoders alone, what is no generation by
    /// single layers alone.
    pub fn scopes(&self) -> &'static [Scope] {
        match self {
            Self::Beam { .. } => &[Scope::Model],
            Self::Generate { .. } => &[Scope::Layer, Scope::Op, Scope::Model],
            _ => &[Scope::Layer, Scope::Op],
        }
    }

    /// Tokens a cache holds at the end, 0 where the workload keeps none.
    pub fn cached_tokens(&self) -> usize {
        match *self {
            Self::Decode { context, .. } => context,
            Self::Prefill { tokens, .. } => tokens,
            Self::TrainStep { .. } => 0,
            Self::Generate {
                tokens, new_tokens, ..
            }
            | Self::Trajectory {
                tokens, new_tokens, ..
            }
            | Self::Beam {
                tokens, new_tokens, ..
            } => tokens + new_tokens,
        }
    }

    /// Tokens that pass through the layer in one run: what `tokens_per_s` counts. Of a beam search those of one
    /// hypothesis a sentence, which is what it is for.
    pub fn processed_tokens(&self) -> usize {
        match *self {
            Self::Decode { batch, .. } => batch,
            Self::Prefill { batch, tokens } | Self::TrainStep { batch, tokens } => batch * tokens,
            Self::Generate {
                batch, new_tokens, ..
            }
            | Self::Trajectory {
                batch, new_tokens, ..
            }
            | Self::Beam {
                batch, new_tokens, ..
            } => batch * new_tokens,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beam_counts_the_tokens_of_one_hypothesis_and_keeps_those_of_each() {
        let beam = Workload::Beam {
            batch: 3,
            tokens: 20,
            new_tokens: 7,
            beam: 5,
        };
        assert_eq!((beam.batch(), beam.beam()), (3, 5));
        assert_eq!((beam.processed_tokens(), beam.cached_tokens()), (21, 27));
        assert_eq!(beam.scopes(), [Scope::Model]);
        let decode = Workload::Decode { batch: 3, context: 4 };
        assert!(decode.beam() == 1 && !decode.scopes().contains(&Scope::Model));
    }

    #[test]
    fn every_workload_has_its_name_in_the_list() {
        let words = Workload::ALL.map(|(name, _)| name);
        assert_eq!(
            words,
            [
                "decode",
                "prefill",
                "train_step",
                "generate",
                "trajectory",
                "beam"
            ]
        );
    }
}
