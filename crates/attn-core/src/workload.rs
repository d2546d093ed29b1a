//! What a layer is asked to do: the unit that is planned, verified and timed.

use serde::{Deserialize, Serialize};

/// One workload at one point of its axes.
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
}

impl Workload {
    /// Names of all workloads, as sweeps and rows spell them, with one sentence each.
    pub const ALL: [(&'static str, &'static str); 5] = [
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
    ];

    /// The name in sweeps and rows.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Decode { .. } => "decode",
            Self::Prefill { .. } => "prefill",
            Self::TrainStep { .. } => "train_step",
            Self::Generate { .. } => "generate",
            Self::Trajectory { .. } => "trajectory",
        }
    }

    /// Sequences B.
    pub fn batch(&self) -> usize {
        match *self {
            Self::Decode { batch, .. }
            | Self::Prefill { batch, .. }
            | Self::TrainStep { batch, .. }
            | Self::Generate { batch, .. }
            | Self::Trajectory { batch, .. } => batch,
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
            } => tokens + new_tokens,
        }
    }

    /// Tokens that pass through the layer in one run: what `tokens_per_s` counts.
    pub fn processed_tokens(&self) -> usize {
        match *self {
            Self::Decode { batch, .. } => batch,
            Self::Prefill { batch, tokens } | Self::TrainStep { batch, tokens } => batch * tokens,
            Self::Generate {
                batch, new_tokens, ..
            }
            | Self::Trajectory {
                batch, new_tokens, ..
            } => batch * new_tokens,
        }
    }
}
