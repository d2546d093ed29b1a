//! The work of a whole decoder: a beam search, or greedy generation, to a forced length.
//!
//! A sample is a whole search, from empty caches to hypotheses: the caches are made within it, as every program that
//! searches makes them. Sentences are random encoder states of unit variance, the scale that an encoder's last norm
//! leaves, the same for every variant and every way.

use std::time::Instant;

use attn_core::phase::{self, PhaseTimes};
use attn_core::{Build, DecoderKind, ModelShape, Prefix, Weights, Workload, random_tensor};
use attn_model::{
    BeamOptions, BeamSearch, Decoder, DecoderConfig, GenerateOptions, Generation, Hypothesis, Prompts,
};
use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use super::Failure;
use super::saboteur::Saboteur;
use crate::memory;
use crate::worker::Fault;
use crate::worker::job::Job;

/// Streams of the random data.
const STATES: u64 = 31;
const PROMPT: u64 = 32;

/// A decoder with the sentences that it is to continue.
pub(crate) struct Whole {
    decoder: Decoder,
    prompts: Prompts,
    beam: Option<BeamOptions>,
    new_tokens: usize,
    /// What the last search found, until a new one begins.
    pub(crate) found: Option<Found>,
}

/// What a search found, and what it took.
pub(crate) struct Found {
    /// Hypotheses of every sentence, best first; of greedy generation one each, without a score.
    pub(crate) hypotheses: Vec<Vec<Hypothesis>>,
    /// Bytes of every layer's cache at the end: in use, allocated, beside the slots.
    pub(crate) caches: Vec<[u64; 3]>,
    /// Bytes the allocator had handed out for the search at its end, where it counts.
    pub(crate) handed_out: Option<u64>,
    /// Where its time went.
    pub(crate) phases: Option<Phases>,
}

/// Where the time of a search went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Phases {
    /// By phase.
    pub times: PhaseTimes,
    /// Until every sentence had its first token, in seconds.
    pub first_token_s: f64,
    /// All of it, in seconds.
    pub total_s: f64,
}

/// The token that a text begins with, and that a forced length never chooses: fairseq's.
fn start_token(shape: &ModelShape) -> u32 {
    2.min(shape.vocab as u32 - 1)
}

/// Weights of a whole decoder and its configuration; a reference gets the same. `sabotaged` is what a test wants to go
/// wrong in its layers.
fn configure(job: &Job, shape: &ModelShape, sabotaged: bool) -> Result<DecoderConfig, Failure> {
    let layer: std::sync::Arc<dyn attn_core::LayerConfig> =
        job.variant.configure(&job.dims, &job.params)?.into();
    let layer = match job.fault {
        Some(Fault::Misordered) if sabotaged => Saboteur::around(layer),
        _ => layer,
    };
    let config = DecoderConfig::new(shape.decoder, layer, shape.n_layers);
    Ok(config.with_d_ff(shape.d_ff).with_vocab(shape.vocab))
}

/// The decoder of a case by another build, as its reference.
pub(crate) fn decoder(job: &Job, shape: &ModelShape, seed: u64, build: &Build) -> Result<Decoder, Failure> {
    let config = configure(job, shape, false)?;
    let weights = Weights::seeded(&config.weight_specs(), seed)?;
    config.build(&weights, build).map_err(failure)
}

/// Encoder states `[B, S, M]` of the case's sentences, `None` for a decoder that is prompted; and the tokens that each
/// begins with.
pub(crate) fn sentences(
    job: &Job,
    shape: &ModelShape,
    seed: u64,
    dtype: DType,
    device: &Device,
) -> Result<(Option<Tensor>, Vec<Vec<u32>>), Failure> {
    let (batch, tokens) = match job.workload {
        Workload::Beam { batch, tokens, .. } | Workload::Generate { batch, tokens, .. } => (batch, tokens),
        other => {
            let name = other.name();
            return Err(Failure::Unsupported(format!(
                "scope model has no {name}, use scope layer"
            )));
        }
    };
    let start = start_token(shape);
    if shape.decoder == DecoderKind::Prefix {
        let states = random_tensor(
            &[batch, tokens, job.geometry.d_model],
            seed,
            STATES,
            dtype,
            device,
        )?;
        return Ok((Some(states), vec![vec![start]; batch]));
    }
    // Normal variates to tokens that are spread evenly enough: what they are decides nothing.
    let drawn = random_tensor(&[batch, tokens], seed, PROMPT, DType::F32, &Device::Cpu)?;
    let drawn: Vec<Vec<f32>> = drawn.to_vec2().map_err(attn_core::Error::from)?;
    let token = |x: f32| ((x.to_bits() >> 3) % shape.vocab as u32).min(shape.vocab as u32 - 1);
    let prompt = |row: Vec<f32>| -> Vec<u32> { row.into_iter().map(token).chain([start]).collect() };
    Ok((None, drawn.into_iter().map(prompt).collect()))
}

impl Whole {
    /// The decoder of a case, and its sentences.
    pub(crate) fn new(job: &Job, build: &Build) -> Result<Self, Failure> {
        let missing = || Failure::Failed("a whole decoder without its sizes".to_string());
        let shape = job.model.ok_or_else(missing)?;
        let config = configure(job, &shape, true)?;
        let weights = Weights::seeded(&config.weight_specs(), job.seed)?;
        let decoder = config.build(&weights, build).map_err(failure)?;
        let seed = match job.fault {
            Some(Fault::Prefix) => job.seed.wrapping_add(1),
            _ => job.seed,
        };
        let (states, tokens) = sentences(job, &shape, seed, build.dtype, &build.device)?;
        let mut prompts = Prompts::new(tokens);
        if let Some(states) = states {
            prompts = prompts.with_prefix(states);
        }
        let (beam, new_tokens) = match job.workload {
            Workload::Beam { new_tokens, beam, .. } => {
                let prefix = job.prefix.unwrap_or(Prefix::Copied);
                let options = BeamOptions::forced(beam, new_tokens, start_token(&shape), prefix);
                (Some(options), new_tokens)
            }
            Workload::Generate { new_tokens, .. } => (None, new_tokens),
            _ => (None, 0),
        };
        Ok(Self {
            decoder,
            prompts,
            beam,
            new_tokens,
            found: None,
        })
    }

    /// Forgets what was found; not timed.
    pub(crate) fn reset(&mut self) {
        self.found = None;
    }

    /// A search.
    pub(crate) fn search(&mut self) -> attn_core::Result<()> {
        let device = self.decoder.build().device.clone();
        let is_cpu = device.is_cpu();
        let before = is_cpu.then(|| memory::live_bytes(&device));
        let began = Instant::now();
        let (found, times) = phase::collect(|| match &self.beam {
            Some(options) => self.search_beams(options, began, before),
            None => self.generate(began, before),
        });
        let (mut found, first_token_s) = found.map_err(error)?;
        let total_s = began.elapsed().as_secs_f64();
        // On a GPU work is launched while the clock runs, and not done.
        found.phases = is_cpu.then_some(Phases {
            times,
            first_token_s,
            total_s,
        });
        self.found = Some(found);
        Ok(())
    }

    fn search_beams(
        &self,
        options: &BeamOptions,
        began: Instant,
        before: Option<u64>,
    ) -> attn_model::Result<(Found, f64)> {
        let mut search = BeamSearch::start(&self.decoder, &self.prompts, options)?;
        let first_token_s = began.elapsed().as_secs_f64();
        while search.advance()? {}
        let found = Found::with_caches(search.state(), before);
        let hypotheses = search.finish();
        Ok((Found { hypotheses, ..found }, first_token_s))
    }

    fn generate(&self, began: Instant, before: Option<u64>) -> attn_model::Result<(Found, f64)> {
        let options = GenerateOptions::forced(self.new_tokens);
        let mut generation = Generation::start(&self.decoder, &self.prompts, &options)?;
        let first_token_s = began.elapsed().as_secs_f64();
        while generation.advance()? {}
        let found = Found::with_caches(generation.state(), before);
        let only = |tokens| {
            vec![Hypothesis {
                tokens,
                score: f64::NAN,
                sum_log_prob: f64::NAN,
            }]
        };
        let hypotheses = generation.finish().into_iter().map(only).collect();
        Ok((Found { hypotheses, ..found }, first_token_s))
    }

    /// Whether it searches beams, whose scores are known.
    pub(crate) fn has_scores(&self) -> bool {
        self.beam.is_some()
    }
}

impl Found {
    /// What there is to say of caches, before they are let go.
    fn with_caches(state: &attn_model::State, before: Option<u64>) -> Self {
        let bytes = |cache: &attn_core::Cache| {
            [
                cache.kv_bytes(),
                cache.kv_allocated_bytes(),
                cache.kv_state_bytes(),
            ]
        };
        Self {
            hypotheses: Vec::new(),
            caches: state.caches().iter().map(bytes).collect(),
            handed_out: before
                .filter(|bytes| *bytes > 0)
                .map(|before| memory::live_bytes(&Device::Cpu).saturating_sub(before)),
            phases: None,
        }
    }
}

fn error(error: attn_model::Error) -> attn_core::Error {
    match error {
        attn_model::Error::Layer(error) => error,
        other => attn_core::Error::Candle(candle_core::Error::Msg(other.to_string())),
    }
}

fn failure(of: attn_model::Error) -> Failure {
    error(of).into()
}
