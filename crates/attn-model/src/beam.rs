//! Beam search over a batch of sentences.

use std::cmp::Reverse;

use rayon::prelude::*;

use attn_core::phase::{Phase, timed};
use attn_core::{Capacity, Prefix, in_pool};
use candle_core::Tensor;

use crate::decoder::Decoder;
use crate::error::{Error, Result};
use crate::prompts::Prompts;
use crate::scores::{Best, Candidate, Logit, Rows, Scores, best_of_row, with_rows};
use crate::sentence::{Next, Rules, Sentence};
use crate::state::State;

/// How to search.
#[derive(Debug, Clone, PartialEq)]
pub struct BeamOptions {
    /// Hypotheses of a sentence.
    pub beam: usize,
    /// Tokens after which a hypothesis must end, the end not counted: it has at most one more.
    pub max_len: usize,
    /// Tokens before which it must not, the end not counted.
    pub min_len: usize,
    /// The token that ends a hypothesis.
    pub eos: u32,
    /// A hypothesis of n tokens, its end counted, is worth its log-probability over `n^length_penalty`.
    pub length_penalty: f64,
    /// What logits are divided by.
    pub temperature: f64,
    /// For timing: every hypothesis has exactly so many tokens, and none of them ends it.
    pub forced_len: Option<usize>,
    /// Where the prefix is kept, and the prompt behind it. Replicated is the seed's way in full: the best hypothesis is in
    /// the first row of its sentence, the next in the second, so that every step moves most of them. Else hypotheses stay
    /// in their rows as long as they live.
    pub prefix: Prefix,
}

impl BeamOptions {
    /// A search to the end of the sentence, or `max_len` tokens.
    pub fn new(beam: usize, max_len: usize, eos: u32) -> Self {
        Self {
            beam,
            max_len,
            min_len: 0,
            eos,
            length_penalty: 1.0,
            temperature: 1.0,
            forced_len: None,
            prefix: Prefix::Copied,
        }
    }

    /// A search of exactly `tokens` tokens.
    pub fn forced(beam: usize, tokens: usize, eos: u32, prefix: Prefix) -> Self {
        Self {
            forced_len: Some(tokens),
            prefix,
            ..Self::new(beam, tokens, eos)
        }
    }

    fn check(&self, vocab: usize) -> Result<()> {
        let positive = |what, value: f64| match value.is_finite() && value > 0.0 {
            true => Ok(()),
            false => Err(Error::input(what, value, "a positive number")),
        };
        let at_least_one = |what, value: usize| match value {
            0 => Err(Error::input(what, 0, "at least 1")),
            _ => Ok(()),
        };
        positive("temperature", self.temperature)?;
        at_least_one("beam", self.beam)?;
        at_least_one("forced length", self.forced_len.unwrap_or(1))?;
        if !self.length_penalty.is_finite() {
            return Err(Error::input(
                "length penalty",
                self.length_penalty,
                "a finite number",
            ));
        }
        if self.min_len > self.max_len {
            return Err(Error::input(
                "minimum length",
                self.min_len,
                format!("at most the maximum, {}", self.max_len),
            ));
        }
        crate::prompts::check_tokens([&self.eos], vocab)
    }
}

/// What a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct Hypothesis {
    /// Its tokens, the prompt not among them, the end among them unless the length was forced.
    pub tokens: Vec<u32>,
    /// Log-probability over `n^length_penalty`.
    pub score: f64,
    /// Log-probability.
    pub sum_log_prob: f64,
}

/// The best hypotheses of every sentence, best first; at most `beam` of each, fewer only where the vocabulary does not
/// have more.
///
/// At each step the 2 beam best of a sentence's candidates are looked at: every hypothesis with every token (in the
/// first step the first hypothesis alone), by log-probability, equal ones by the lower hypothesis, then by the lower
/// token. Of the first `beam` of them those that end are kept; the first `beam` that do not end go on. A sentence with
/// `beam` ended hypotheses leaves the batch.
///
/// # Errors
/// [`Error::Input`] where prompts or options do not fit the model, [`Error::NonFinite`].
///
/// # Source
/// fairseq's `SequenceGenerator`, which the paper's numbers were taken with. Where it leaves ties to the library, ours
/// are broken as said; where it takes NaN for impossible, ours is an error.
pub fn beam(decoder: &Decoder, prompts: &Prompts, options: &BeamOptions) -> Result<Vec<Vec<Hypothesis>>> {
    in_pool(|| {
        let mut search = BeamSearch::start(decoder, prompts, options)?;
        while search.advance()? {}
        Ok(search.finish())
    })
}

/// A search step by step, for whoever times its steps or looks at its caches.
pub struct BeamSearch<'a> {
    decoder: &'a Decoder,
    options: BeamOptions,
    state: State,
    /// Those that still search; sentence i has the rows from `i * beam` on.
    active: Vec<Sentence>,
    finished: Vec<Sentence>,
    /// Tokens every hypothesis has.
    len: usize,
    best: Vec<Best>,
}

impl<'a> BeamSearch<'a> {
    /// Takes the prompts in, and chooses the first token of every hypothesis.
    ///
    /// # Errors
    /// As of [`beam()`].
    pub fn start(decoder: &'a Decoder, prompts: &Prompts, options: &BeamOptions) -> Result<Self> {
        options.check(decoder.config().vocab)?;
        prompts.check(decoder.config())?;
        let longest = prompts.lens().into_iter().max().unwrap_or(0);
        let capacity = match options.forced_len {
            // The last token is chosen, and enters no cache.
            Some(tokens) => Capacity::Exact(longest + tokens - 1),
            None => Capacity::Growing(longest + options.max_len.min(64)),
        };
        let (logits, state) = timed(Phase::Prefill, || -> Result<_> {
            let b = prompts.batch();
            if options.prefix == Prefix::Replicated {
                let mut state = decoder.new_state(b * options.beam, capacity)?;
                let logits = decoder.prefill(&prompts.repeated(options.beam)?, &mut state)?;
                return Ok((logits, state));
            }
            let mut state = decoder.new_state(b, capacity)?;
            let logits = decoder.prefill(prompts, &mut state)?;
            match options.prefix {
                Prefix::Shared => state.share(options.beam)?,
                _ => {
                    let rows: Vec<usize> = (0..b * options.beam).map(|row| row / options.beam).collect();
                    state.reorder(&rows)?;
                }
            }
            Ok((logits, state))
        })?;
        let mut search = Self {
            decoder,
            options: options.clone(),
            state,
            active: (0..prompts.batch()).map(Sentence::new).collect(),
            finished: Vec::new(),
            len: 0,
            best: Vec::new(),
        };
        search.choose(&logits)?;
        Ok(search)
    }

    /// Decodes the last token of every hypothesis and chooses the next one; whether there was a sentence left.
    ///
    /// # Errors
    /// As of [`beam()`].
    pub fn advance(&mut self) -> Result<bool> {
        if self.active.is_empty() {
            return Ok(false);
        }
        in_pool(|| {
            let tokens: Vec<u32> = self
                .active
                .iter()
                .flat_map(|sentence| sentence.last_tokens(self.options.beam))
                .collect();
            let logits = self.decoder.step(&tokens, &mut self.state)?;
            self.choose(&logits)
        })?;
        Ok(!self.active.is_empty())
    }

    /// The caches of the sentences that still search.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Sentences that still search.
    pub fn sentences(&self) -> usize {
        self.active.len()
    }

    /// Tokens chosen of every hypothesis so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token was chosen yet: never, since [`start`](Self::start) chooses the first.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The hypotheses of every sentence in the order of the prompts, best first.
    pub fn finish(self) -> Vec<Vec<Hypothesis>> {
        let mut sentences = self.finished;
        sentences.extend(self.active);
        sentences.sort_by_key(|sentence| sentence.index);
        sentences.into_iter().map(Sentence::into_hypotheses).collect()
    }

    /// The next token of every hypothesis by logits of its row (or of its sentence's prompt), and caches in the order of
    /// the new hypotheses.
    fn choose(&mut self, logits: &Tensor) -> Result<()> {
        let order = timed(Phase::Sampling, || {
            let vocab = logits.dim(1)?;
            with_rows(logits, |rows| match rows {
                Rows::F32(rows) => self.select(rows, vocab),
                Rows::F64(rows) => self.select(rows, vocab),
            })?
        })?;
        if self.active.is_empty() {
            return Ok(());
        }
        self.state.reorder(&order)
    }

    /// Chooses among `rows` of logits; returns the row that each row of the sentences left continues.
    fn select<T: Logit>(&mut self, rows: &[T], vocab: usize) -> Result<Vec<usize>> {
        let (beam, len) = (self.options.beam, self.len);
        let is_first = len == 0;
        // Before the first token all rows of a sentence are alike, and may be a single one.
        let rows_of_sentence = rows.len() / vocab / self.active.len();
        let rules = Rules::new(&self.options, len);
        let work: Vec<(usize, u32, usize, f64)> = self
            .active
            .iter()
            .enumerate()
            .flat_map(|(i, sentence)| {
                let at = move |(hypothesis, (row, sum)): (usize, (usize, f64))| {
                    (i, hypothesis as u32, i * rows_of_sentence + row, sum)
                };
                sentence.rows_and_sums(is_first).enumerate().map(at)
            })
            .collect();
        self.best.resize_with(self.best.len().max(work.len()), Best::new);
        let scale = 1.0 / self.options.temperature;
        let damaged = self
            .best
            .par_iter_mut()
            .zip(&work)
            .filter_map(|(best, &(sentence, hypothesis, row, sum))| {
                let row = &rows[row * vocab..(row + 1) * vocab];
                let Some(scores) = Scores::new(row, scale, sum) else {
                    return Some(sentence);
                };
                match rules.only {
                    Some(token) => {
                        best.clear();
                        best.push(Reverse(Candidate {
                            score: scores.of(row[token as usize]),
                            hypothesis,
                            token,
                        }));
                    }
                    None => best_of_row(row, scores, hypothesis, rules.excluded, 2 * beam, best),
                }
                None
            })
            .min();
        if let Some(i) = damaged {
            return Err(Error::NonFinite {
                sentence: self.active[i].index,
                tokens: len,
            });
        }
        let mut best = self.best.iter();
        let mut order = Vec::with_capacity(self.active.len() * beam);
        let mut active = Vec::with_capacity(self.active.len());
        let stays = self.options.prefix != Prefix::Replicated;
        for (i, mut sentence) in std::mem::take(&mut self.active).into_iter().enumerate() {
            let n = sentence.rows_and_sums(is_first).count();
            let candidates = best.by_ref().take(n).flatten().map(|candidate| candidate.0);
            match sentence.extend(candidates.collect(), &rules, &self.options) {
                Next::Finished => self.finished.push(sentence),
                Next::Continues => {
                    let parents = sentence.place(beam, stays, is_first);
                    order.extend(parents.into_iter().map(|row| i * beam + row));
                    active.push(sentence);
                }
            }
        }
        self.active = active;
        self.len += 1;
        Ok(order)
    }
}
