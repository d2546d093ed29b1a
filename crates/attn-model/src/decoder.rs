//! A whole decoder: embedding, layers, and the projection to the vocabulary.

use std::fmt;

use attn_core::linear::Linear;
use attn_core::norm::Norm;
use attn_core::phase::{Phase, timed};
use attn_core::{Build, Cache, Capacity, DecoderKind, Queries, Weights, in_pool};
use candle_core::{DType, Tensor};

use crate::block::Block;
use crate::config::{DecoderConfig, Names};
use crate::error::{Error, Result};
use crate::prompts::{Prompts, Run, check_prefix, check_tokens};
use crate::state::State;

/// A decoder with its weights.
pub struct Decoder {
    config: DecoderConfig,
    build: Build,
    /// `[V, M]`.
    embedding: Tensor,
    /// What embeddings are multiplied with.
    scale: f64,
    blocks: Vec<Block>,
    norm: Norm,
    output: Linear,
}

impl Decoder {
    pub(crate) fn new(config: DecoderConfig, weights: &Weights, build: &Build) -> Result<Self> {
        let weights = weights.for_build(build)?;
        let (names, m) = (Names::of(config.kind), config.d_model());
        let embedding = weights.get(&format!("{}.weight", names.embedding), &[config.vocab, m])?;
        let output = match config.tie_embeddings {
            true => Linear::new(embedding.clone(), None),
            false => Linear::load(names.output, config.vocab, m, false, &weights)?,
        };
        let blocks = (0..config.n_layers)
            .map(|i| Block::new(&config, i, &weights, build))
            .collect::<Result<_>>()?;
        Ok(Self {
            scale: match config.kind {
                DecoderKind::Prefix => (m as f64).sqrt(),
                DecoderKind::Llama => 1.0,
            },
            norm: Norm::load(config.norm(), names.norm, m, config.norm_eps, &weights)?,
            build: build.clone(),
            embedding,
            blocks,
            output,
            config,
        })
    }

    /// Everything about it but its weights.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Path, element type and device.
    pub fn build(&self) -> &Build {
        &self.build
    }

    /// Logits of whole sequences; token i sees the prefix and the tokens up to itself. Gradients flow to the weights
    /// and to the prefix.
    ///
    /// # Shapes
    /// - `prefix`: `[B, S, M]`, given to every layer as it is, at positions 0..S
    /// - `tokens`: `[B, T]` u32, at positions S..S+T
    /// - returns `[B, T, V]`, f32 (f64 for an f64 decoder)
    ///
    /// # Errors
    /// [`Error::Input`] where prefix or tokens do not fit.
    pub fn forward(&self, prefix: Option<&Tensor>, tokens: &Tensor) -> Result<Tensor> {
        let (b, t) = tokens.dims2().map_err(|_| {
            Error::input(
                "tokens",
                format!("{:?}", tokens.dims()),
                "[B, T] of type u32 with B, T > 0",
            )
        })?;
        if tokens.dtype() != DType::U32 || b * t == 0 {
            return Err(Error::input(
                "tokens",
                format!("{:?} of type {}", tokens.dims(), tokens.dtype().as_str()),
                "[B, T] of type u32 with B, T > 0",
            ));
        }
        check_tokens(&tokens.flatten_all()?.to_vec1()?, self.config.vocab)?;
        let prefix = match prefix {
            Some(prefix) => {
                check_prefix(prefix, b, &self.config)?;
                Some(self.moved(prefix)?)
            }
            None => None,
        };
        in_pool(|| {
            let mut x = self.embed(&tokens.to_device(&self.build.device)?)?;
            for block in &self.blocks {
                let y = behind(prefix.as_ref(), &block.before(&x)?)?;
                x = block.after(&x, &block.attention.forward(&y, Queries::Last(t))?)?;
            }
            self.logits(&x)
        })
    }

    /// Empty caches for `batch` sequences; `capacity` counts prefix and tokens.
    ///
    /// # Errors
    /// [`attn_core::Error::Candle`] where memory runs out.
    pub fn new_state(&self, batch: usize, capacity: Capacity) -> Result<State> {
        let layers = self.blocks.iter().map(|block| block.attention.clone()).collect();
        State::new(layers, batch, capacity)
    }

    /// Gives the caches of `state` the prompts' prefixes and tokens, and returns the logits `[B, V]` of each
    /// sequence's last token, f32 (f64 for an f64 decoder).
    ///
    /// Sequences of different lengths are taken run by run, adjacent ones of equal lengths together, so that no
    /// padding enters a cache. The state may hold tokens already where the prompts have no prefix.
    ///
    /// # Errors
    /// [`Error::Input`] where prompts do not fit the model or the state, [`attn_core::Error::CacheFull`]. The state is
    /// then of no use.
    pub fn prefill(&self, prompts: &Prompts, state: &mut State) -> Result<Tensor> {
        prompts.check(&self.config)?;
        let is_empty = state.lens().iter().all(|&len| len == 0);
        if prompts.batch() != state.batch() {
            return Err(Error::input(
                "state",
                format!("of {} sequences", state.batch()),
                format!("{} as in the prompts", prompts.batch()),
            ));
        }
        if prompts.prefix.is_some() && !is_empty {
            return Err(Error::input(
                "prefix",
                "behind tokens",
                "an empty state, or no prefix",
            ));
        }
        timed(Phase::Prefill, || {
            in_pool(|| match (prompts.runs().as_slice(), is_empty) {
                ([run], _) => self.prefill_run(prompts, *run, &mut state.caches),
                (runs, true) => {
                    let parts = runs.iter().map(|run| state.empty(run.n)).collect::<Result<_>>()?;
                    self.prefill_runs(prompts, runs, parts, state)
                }
                (runs, false) => {
                    let mut parts: Vec<Vec<Cache>> = vec![Vec::new(); prompts.batch()];
                    for cache in &state.caches {
                        for (part, own) in parts.iter_mut().zip(cache.split()?) {
                            part.push(own);
                        }
                    }
                    let single = |run: &Run| {
                        let run = *run;
                        (0..run.n).map(move |i| Run {
                            first: run.first + i,
                            n: 1,
                            ..run
                        })
                    };
                    let runs: Vec<Run> = runs.iter().flat_map(single).collect();
                    self.prefill_runs(prompts, &runs, parts, state)
                }
            })
        })
    }

    /// Appends one token to every sequence and returns the logits `[B, V]` of it, f32 (f64 for an f64 decoder).
    ///
    /// # Errors
    /// [`Error::Input`] where there is not one token of the vocabulary for each sequence,
    /// [`attn_core::Error::CacheFull`].
    pub fn step(&self, tokens: &[u32], state: &mut State) -> Result<Tensor> {
        if tokens.len() != state.batch() {
            return Err(Error::input(
                "step",
                format!("{} tokens", tokens.len()),
                format!("{}, one for each sequence", state.batch()),
            ));
        }
        check_tokens(tokens, self.config.vocab)?;
        in_pool(|| {
            let ids = Tensor::from_slice(tokens, (tokens.len(), 1), &self.build.device)?;
            let mut x = self.embed(&ids)?;
            for (block, cache) in self.blocks.iter().zip(&mut state.caches) {
                let attended = block.attention.decode(&block.before(&x)?, cache)?;
                x = block.after(&x, &attended)?;
            }
            Ok(self.logits(&x)?.squeeze(1)?)
        })
    }

    /// Each run by itself, its caches put together again. Returns logits `[B, V]`.
    fn prefill_runs(
        &self,
        prompts: &Prompts,
        runs: &[Run],
        mut parts: Vec<Vec<Cache>>,
        state: &mut State,
    ) -> Result<Tensor> {
        let mut logits = Vec::with_capacity(runs.len());
        for (run, caches) in runs.iter().zip(&mut parts) {
            logits.push(self.prefill_run(prompts, *run, caches)?);
        }
        // Layer by layer from the last, so that no more than one lies in memory twice.
        for cache in state.caches.iter_mut().rev() {
            let layer: Vec<Cache> = parts.iter_mut().filter_map(Vec::pop).collect();
            cache.join(&layer)?;
        }
        Ok(Tensor::cat(&logits, 0)?)
    }

    /// Sequences of equal lengths; returns logits `[n, V]`.
    fn prefill_run(&self, prompts: &Prompts, run: Run, caches: &mut [Cache]) -> Result<Tensor> {
        let prefix = match &prompts.prefix {
            Some(prefix) => {
                let own = prefix.narrow(0, run.first, run.n)?.narrow(1, 0, run.prefix)?;
                Some(self.moved(&own)?)
            }
            None => None,
        };
        let tokens = prompts.tokens[run.first..run.first + run.n].concat();
        let ids = Tensor::from_vec(tokens, (run.n, run.tokens), &self.build.device)?;
        let mut x = self.embed(&ids)?;
        for (block, cache) in self.blocks.iter().zip(caches) {
            let y = behind(prefix.as_ref(), &block.before(&x)?)?;
            let attended = block.attention.prefill(&y, cache, Queries::Last(run.tokens))?;
            x = block.after(&x, &attended)?;
        }
        let last = x.narrow(1, run.tokens - 1, 1)?;
        Ok(self.logits(&last)?.squeeze(1)?)
    }

    /// `[B, T]` -> `[B, T, M]`.
    fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        timed(Phase::FeedForward, || {
            let (b, t) = ids.dims2()?;
            let rows = self.embedding.index_select(&ids.flatten_all()?, 0)?;
            let x = rows.reshape((b, t, self.config.d_model()))?;
            Ok(if self.scale == 1.0 { x } else { (x * self.scale)? })
        })
    }

    /// `[B, T, M]` -> `[B, T, V]`.
    fn logits(&self, x: &Tensor) -> Result<Tensor> {
        timed(Phase::Vocabulary, || {
            let logits = self.output.forward(&self.norm.forward(x)?)?;
            Ok(match logits.dtype() {
                DType::F64 | DType::F32 => logits,
                _ => logits.to_dtype(DType::F32)?,
            })
        })
    }

    fn moved(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.to_dtype(self.build.dtype)?.to_device(&self.build.device)?)
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder")
            .field("config", &self.config)
            .field("build", &self.build)
            .finish_non_exhaustive()
    }
}

/// Text `[B, n, M]` behind encoder states `[B, S, M]`.
fn behind(prefix: Option<&Tensor>, text: &Tensor) -> Result<Tensor> {
    Ok(match prefix {
        Some(prefix) if prefix.dim(1)? > 0 => Tensor::cat(&[prefix, text], 1)?,
        _ => text.clone(),
    })
}
