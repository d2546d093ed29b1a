//! What a batch begins with: encoder states of one length or several, and the first tokens.

use attn_core::DecoderKind;
use candle_core::Tensor;

use crate::config::DecoderConfig;
use crate::error::{Error, Result};

/// The beginnings of B sequences.
#[derive(Debug, Clone)]
pub struct Prompts {
    pub(crate) tokens: Vec<Vec<u32>>,
    pub(crate) prefix: Option<Tensor>,
    prefix_lens: Option<Vec<usize>>,
}

/// Adjacent sequences of equal lengths, which one call can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first: usize,
    pub(crate) n: usize,
    /// Encoder states S of each.
    pub(crate) prefix: usize,
    /// Tokens of each.
    pub(crate) tokens: usize,
}

impl Prompts {
    /// Sequences that begin with these tokens, at least one each.
    pub fn new(tokens: Vec<Vec<u32>>) -> Self {
        Self {
            tokens,
            prefix: None,
            prefix_lens: None,
        }
    }

    /// The same behind encoder states `[B, S, M]`, which every layer is given as keys and values.
    #[must_use]
    pub fn with_prefix(mut self, prefix: Tensor) -> Self {
        self.prefix = Some(prefix);
        self
    }

    /// Only the first `lens[b]` of the S states are sequence b's; what lies behind them is padding that nothing reads.
    #[must_use]
    pub fn with_prefix_lens(mut self, lens: Vec<usize>) -> Self {
        self.prefix_lens = Some(lens);
        self
    }

    /// Sequences B.
    pub fn batch(&self) -> usize {
        self.tokens.len()
    }

    /// Tokens of each sequence, its prefix included.
    pub fn lens(&self) -> Vec<usize> {
        (0..self.batch())
            .map(|b| self.prefix_len(b) + self.tokens[b].len())
            .collect()
    }

    /// Every sequence `n` times, its copies side by side.
    ///
    /// # Errors
    /// [`attn_core::Error::Candle`] where memory runs out.
    pub fn repeated(&self, n: usize) -> Result<Self> {
        let rows: Vec<u32> = (0..self.batch() * n).map(|row| (row / n) as u32).collect();
        let prefix = match &self.prefix {
            Some(prefix) => {
                let rows = Tensor::new(rows.as_slice(), prefix.device())?;
                Some(prefix.contiguous()?.index_select(&rows, 0)?)
            }
            None => None,
        };
        let at = |row: &u32| *row as usize;
        Ok(Self {
            tokens: rows.iter().map(|row| self.tokens[at(row)].clone()).collect(),
            prefix,
            prefix_lens: self
                .prefix_lens
                .as_ref()
                .map(|lens| rows.iter().map(|row| lens[at(row)]).collect()),
        })
    }

    fn prefix_len(&self, b: usize) -> usize {
        match (&self.prefix, &self.prefix_lens) {
            (None, _) => 0,
            (Some(_), Some(lens)) => lens[b],
            (Some(prefix), None) => prefix.dims()[1],
        }
    }

    /// Whether a model can take them.
    pub(crate) fn check(&self, config: &DecoderConfig) -> Result<()> {
        let b = self.batch();
        if b == 0 || self.tokens.iter().any(Vec::is_empty) {
            let lens: Vec<usize> = self.tokens.iter().map(Vec::len).collect();
            return Err(Error::input(
                "prompt",
                format!("{lens:?} tokens"),
                "one or more sequences of at least one token",
            ));
        }
        check_tokens(self.tokens.iter().flatten(), config.vocab)?;
        let Some(prefix) = &self.prefix else {
            return match &self.prefix_lens {
                None => Ok(()),
                Some(lens) => Err(Error::input(
                    "prefix",
                    format!("missing beside its lengths {lens:?}"),
                    "encoder states",
                )),
            };
        };
        check_prefix(prefix, b, config)?;
        let s = prefix.dims()[1];
        match &self.prefix_lens {
            Some(lens) if lens.len() != b || lens.iter().any(|&len| len > s) => Err(Error::input(
                "prefix lengths",
                format!("{lens:?}"),
                format!("{b} of at most {s}"),
            )),
            _ => Ok(()),
        }
    }

    /// Adjacent sequences of equal lengths.
    pub(crate) fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for b in 0..self.batch() {
            let (prefix, tokens) = (self.prefix_len(b), self.tokens[b].len());
            match runs.last_mut() {
                Some(run) if (run.prefix, run.tokens) == (prefix, tokens) => run.n += 1,
                _ => runs.push(Run {
                    first: b,
                    n: 1,
                    prefix,
                    tokens,
                }),
            }
        }
        runs
    }
}

/// Whether encoder states `[B, S, M]` fit `b` sequences of a model.
pub(crate) fn check_prefix(prefix: &Tensor, b: usize, config: &DecoderConfig) -> Result<()> {
    if config.kind == DecoderKind::Llama {
        return Err(attn_core::Error::Unsupported {
            what: "a prefix of a plain language model".to_string(),
            remedy: "prompt it with tokens, or take the decoder `prefix`".to_string(),
        }
        .into());
    }
    match prefix.dims() {
        &[rows, _, width] if rows == b && width == config.d_model() => Ok(()),
        got => Err(Error::input(
            "prefix",
            format!("{got:?}"),
            format!("[{b}, S, {}]", config.d_model()),
        )),
    }
}

/// Whether tokens are of the vocabulary.
pub(crate) fn check_tokens<'a>(tokens: impl IntoIterator<Item = &'a u32>, vocab: usize) -> Result<()> {
    match tokens.into_iter().find(|&&token| token as usize >= vocab) {
        None => Ok(()),
        Some(token) => Err(Error::input(
            "token",
            token,
            format!("one below {vocab}, the size of the vocabulary"),
        )),
    }
}
