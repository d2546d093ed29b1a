//! Greedy and sampled generation over a batch.

use rayon::prelude::*;

use attn_core::phase::{Phase, timed};
use attn_core::{Capacity, in_pool};
use candle_core::Tensor;

use crate::decoder::Decoder;
use crate::error::{Error, Result};
use crate::prompts::{Prompts, check_tokens};
use crate::sample::{Sampler, Sampling, largest};
use crate::scores::{Logit, Rows, with_rows};
use crate::state::State;

/// How to generate.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateOptions {
    /// Tokens after which a sequence stops.
    pub max_len: usize,
    /// The token that ends a sequence before; none for a forced length.
    pub eos: Option<u32>,
    /// How tokens are drawn; none takes the most likely one, of equally likely ones the lowest.
    pub sampling: Option<Sampling>,
}

impl GenerateOptions {
    /// The most likely token each time, `max_len` of them whatever they are.
    pub fn forced(max_len: usize) -> Self {
        Self {
            max_len,
            eos: None,
            sampling: None,
        }
    }

    fn check(&self, batch: usize, vocab: usize) -> Result<()> {
        if self.max_len == 0 {
            return Err(Error::input("maximum length", 0, "at least 1"));
        }
        if let Some(sampling) = &self.sampling {
            sampling.check(batch)?;
        }
        check_tokens(&self.eos, vocab)
    }
}

/// The most likely tokens after each prompt: up to `max_len`, and to `eos`, which is the last of them.
///
/// # Errors
/// As of [`generate`].
pub fn greedy(
    decoder: &Decoder,
    prompts: &Prompts,
    max_len: usize,
    eos: Option<u32>,
) -> Result<Vec<Vec<u32>>> {
    let options = GenerateOptions {
        eos,
        ..GenerateOptions::forced(max_len)
    };
    generate(decoder, prompts, &options)
}

/// Tokens after each prompt, the prompt not among them, the token that ended it among them.
///
/// # Errors
/// [`Error::Input`] where prompts or options do not fit the model, [`Error::NonFinite`].
pub fn generate(decoder: &Decoder, prompts: &Prompts, options: &GenerateOptions) -> Result<Vec<Vec<u32>>> {
    in_pool(|| {
        let mut generation = Generation::start(decoder, prompts, options)?;
        while generation.advance()? {}
        Ok(generation.finish())
    })
}

/// A sequence under way.
struct Sequence {
    index: usize,
    tokens: Vec<u32>,
    /// Where its tokens are drawn.
    sampler: Option<Sampler>,
}

/// A generation step by step, for whoever times its steps or looks at its caches.
pub struct Generation<'a> {
    decoder: &'a Decoder,
    options: GenerateOptions,
    state: State,
    /// Those under way, one for each row.
    active: Vec<Sequence>,
    finished: Vec<Sequence>,
}

impl<'a> Generation<'a> {
    /// Takes the prompts in, and chooses the first token of every sequence.
    ///
    /// # Errors
    /// As of [`generate`].
    pub fn start(decoder: &'a Decoder, prompts: &Prompts, options: &GenerateOptions) -> Result<Self> {
        prompts.check(decoder.config())?;
        options.check(prompts.batch(), decoder.config().vocab)?;
        let longest = prompts.lens().into_iter().max().unwrap_or(0);
        let capacity = match options.eos {
            // The last token is chosen, and enters no cache.
            None => Capacity::Exact(longest + options.max_len - 1),
            Some(_) => Capacity::Growing(longest + options.max_len.min(64)),
        };
        let mut state = decoder.new_state(prompts.batch(), capacity)?;
        let logits = decoder.prefill(prompts, &mut state)?;
        let sequence = |index| Sequence {
            index,
            tokens: Vec::new(),
            sampler: options.sampling.as_ref().map(|sampling| sampling.sampler(index)),
        };
        let mut generation = Self {
            decoder,
            options: options.clone(),
            state,
            active: (0..prompts.batch()).map(sequence).collect(),
            finished: Vec::new(),
        };
        generation.choose(&logits)?;
        Ok(generation)
    }

    /// Decodes the last token of every sequence and chooses the next one; whether there was a sequence left.
    ///
    /// # Errors
    /// As of [`generate`].
    pub fn advance(&mut self) -> Result<bool> {
        if self.active.is_empty() {
            return Ok(false);
        }
        in_pool(|| {
            let last = self.active.iter().filter_map(|sequence| sequence.tokens.last());
            let tokens: Vec<u32> = last.copied().collect();
            let logits = self.decoder.step(&tokens, &mut self.state)?;
            self.choose(&logits)
        })?;
        Ok(!self.active.is_empty())
    }

    /// The caches of the sequences under way.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Sequences under way.
    pub fn sequences(&self) -> usize {
        self.active.len()
    }

    /// The tokens of every sequence in the order of the prompts.
    pub fn finish(self) -> Vec<Vec<u32>> {
        let mut sequences = self.finished;
        sequences.extend(self.active);
        sequences.sort_by_key(|sequence| sequence.index);
        sequences.into_iter().map(|sequence| sequence.tokens).collect()
    }

    fn choose(&mut self, logits: &Tensor) -> Result<()> {
        let rows = timed(Phase::Sampling, || {
            let vocab = logits.dim(1)?;
            with_rows(logits, |rows| match rows {
                Rows::F32(rows) => self.select(rows, vocab),
                Rows::F64(rows) => self.select(rows, vocab),
            })?
        })?;
        if self.active.is_empty() {
            return Ok(());
        }
        self.state.reorder(&rows)
    }

    /// Appends a token to every sequence; returns the rows of those that go on.
    fn select<T: Logit>(&mut self, rows: &[T], vocab: usize) -> Result<Vec<usize>> {
        let sampling = self.options.sampling.as_ref();
        let pick = |(sequence, row): (&mut Sequence, &[T])| -> Result<()> {
            let token = match (sampling, &mut sequence.sampler) {
                (Some(sampling), Some(sampler)) => sampling.draw(row, sampler),
                _ => largest(row),
            };
            let token = token.ok_or(Error::NonFinite {
                sentence: sequence.index,
                tokens: sequence.tokens.len(),
            })?;
            sequence.tokens.push(token);
            Ok(())
        };
        self.active
            .par_iter_mut()
            .zip(rows.par_chunks(vocab))
            .map(pick)
            .collect::<Result<()>>()?;
        let (mut left, mut active) = (Vec::new(), Vec::new());
        for (row, sequence) in std::mem::take(&mut self.active).into_iter().enumerate() {
            let has_ended = self.options.eos.is_some() && sequence.tokens.last() == self.options.eos.as_ref();
            if has_ended || sequence.tokens.len() == self.options.max_len {
                self.finished.push(sequence);
            } else {
                left.push(row);
                active.push(sequence);
            }
        }
        self.active = active;
        Ok(left)
    }
}
