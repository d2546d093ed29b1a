//! A model for a task: an encoder where there is a source, and a decoder around the variant.

use std::sync::Arc;

use attn_core::{Build, Capacity, LayerConfig, WeightSpec, Weights};
use attn_model::{
    Decoder, DecoderConfig, DecoderKind, Encoder, EncoderConfig, EncoderInput, GenerateOptions, Prompts,
    generate,
};
use attn_tasks::{Batch, SourceKind, Sources, TaskSpec};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Sizes of a model around its attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSizes {
    /// Layers of the decoder.
    pub n_layers: usize,
    /// Inner size F of feed-forward layers, the encoder's too.
    pub d_ff: usize,
    /// Layers of the encoder, where there is one.
    pub encoder_layers: usize,
    /// States that a layer of the encoder looks at.
    pub encoder_kernel: usize,
    /// States of the encoder that are made one by their mean: the plain way to a smaller cache.
    pub downsample: usize,
}

/// Everything about a model but its weights.
#[derive(Debug, Clone)]
pub struct TaskModelConfig {
    /// What reads the source.
    pub encoder: Option<EncoderConfig>,
    /// What writes the text.
    pub decoder: DecoderConfig,
    /// Frames or tokens of every source: shorter ones are followed by silence, as a fixed window of a recording is. Text
    /// then begins at one position in training and in use.
    pub source_len: usize,
}

impl TaskModelConfig {
    /// A model for a task: the paper's decoder behind an encoder where there is a source, else a plain language model.
    pub fn new(spec: &TaskSpec, attention: Arc<dyn LayerConfig>, sizes: &ModelSizes) -> Self {
        let input = match spec.source {
            SourceKind::None => None,
            SourceKind::Frames { dim } => Some(EncoderInput::Frames(dim)),
            SourceKind::Tokens { vocab } => Some(EncoderInput::Tokens(vocab)),
        };
        let kind = match input {
            Some(_) => DecoderKind::Prefix,
            None => DecoderKind::Llama,
        };
        let encoder = input.map(|input| EncoderConfig {
            input,
            d_model: attention.geometry().d_model,
            n_layers: sizes.encoder_layers,
            d_ff: sizes.d_ff,
            kernel: sizes.encoder_kernel,
            downsample: sizes.downsample,
        });
        Self {
            encoder,
            decoder: DecoderConfig::new(kind, attention, sizes.n_layers)
                .with_d_ff(sizes.d_ff)
                .with_vocab(spec.vocab),
            source_len: spec.max_source,
        }
    }

    /// Name, shape and initialisation of every weight.
    ///
    /// Those that a decoder is measured with keep the scale of what passes through; a training begins with an output
    /// that says little, so that its first steps are not spent on unlearning it.
    pub fn weight_specs(&self) -> Vec<WeightSpec> {
        let mut specs = self.decoder.weight_specs();
        for spec in &mut specs {
            if spec.name == "output_projection.weight" || spec.name == "lm_head.weight" {
                spec.std *= 0.1;
            }
        }
        let encoder = self.encoder.iter().flat_map(EncoderConfig::weight_specs);
        specs.extend(encoder);
        specs
    }

    /// Parameters of the whole model.
    pub fn parameters(&self) -> usize {
        self.weight_specs().iter().map(WeightSpec::elements).sum()
    }

    /// Bytes of all layers' caches of one sequence, with elements of `element` bytes, where the longest text has been
    /// written behind its source.
    pub fn kv_bytes(&self, spec: &TaskSpec, element: usize) -> u64 {
        let states = self
            .encoder
            .as_ref()
            .map_or(0, |encoder| encoder.states(self.source_len));
        // The last token is chosen, and enters no cache.
        let entries = states + spec.max_text.saturating_sub(1).max(1);
        let layer = self.decoder.attention.geometry();
        self.decoder.n_layers as u64 * layer.kv_bytes(1, entries, element)
    }

    /// The model over the given weights; over variables it sees their updates.
    ///
    /// # Errors
    /// A weight is missing or misshapen.
    pub fn build(&self, weights: &Weights, build: &Build) -> Result<TaskModel> {
        let encoder = self.encoder.as_ref().map(|encoder| encoder.build(weights, build));
        Ok(TaskModel {
            encoder: encoder.transpose()?,
            decoder: self.decoder.build(weights, build)?,
            source_len: self.source_len,
        })
    }
}

/// A model with its weights.
#[derive(Debug)]
pub struct TaskModel {
    encoder: Option<Encoder>,
    decoder: Decoder,
    source_len: usize,
}

impl TaskModel {
    /// What writes the text.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// Logits after every token that is read, `[B, T, V]`, with gradients.
    ///
    /// # Errors
    /// [`Error::Input`] where the batch is not of the model's task.
    pub fn logits(&self, batch: &Batch) -> Result<Tensor> {
        let inputs = Tensor::from_slice(&batch.inputs, (batch.batch, batch.tokens), &Device::Cpu)?;
        let states = self.states(batch)?;
        Ok(self.decoder.forward(states.as_ref(), &inputs)?)
    }

    /// The same logits as text is written: the first `together` tokens are taken in at once, the others one by one through
    /// the caches. Logits after token `together - 1` come first, each `[B, V]`.
    ///
    /// # Errors
    /// As of [`logits`](Self::logits).
    pub fn logits_through_caches(&self, batch: &Batch, together: usize) -> Result<Vec<Tensor>> {
        let token = |b: usize, t: usize| batch.inputs[b * batch.tokens + t];
        let together = together.clamp(1, batch.tokens);
        let prompt = |b: usize| (0..together).map(|t| token(b, t)).collect();
        let prompts = self.prompts(batch, (0..batch.batch).map(prompt).collect())?;
        let longest = prompts.lens().into_iter().max().unwrap_or(0);
        let capacity = Capacity::Exact(longest + batch.tokens - together);
        let mut state = self.decoder.new_state(batch.batch, capacity)?;
        let mut logits = vec![self.decoder.prefill(&prompts, &mut state)?];
        for t in together..batch.tokens {
            let tokens: Vec<u32> = (0..batch.batch).map(|b| token(b, t)).collect();
            logits.push(self.decoder.step(&tokens, &mut state)?);
        }
        Ok(logits)
    }

    fn prompts(&self, batch: &Batch, tokens: Vec<Vec<u32>>) -> Result<Prompts> {
        let prompts = Prompts::new(tokens);
        Ok(match self.states(batch)? {
            Some(states) => prompts.with_prefix(states),
            None => prompts,
        })
    }

    /// The encoder's states `[B, S, M]`; `None` where the task has no source.
    fn states(&self, batch: &Batch) -> Result<Option<Tensor>> {
        let Some(encoder) = &self.encoder else {
            return Ok(None);
        };
        let (b, s) = (batch.batch, batch.sources.len());
        if s > self.source_len {
            return Err(Error::input(
                "a source",
                s,
                format!("at most {} long", self.source_len),
            ));
        }
        let missing = self.source_len - s;
        let source = match &batch.sources {
            Sources::None => return Err(Error::input("a source", "missing", "one for each text")),
            Sources::Frames { features, dim, .. } => {
                Tensor::from_slice(features, (b, s, *dim), &Device::Cpu)?.pad_with_zeros(1, 0, missing)?
            }
            Sources::Tokens { tokens, .. } => {
                Tensor::from_slice(tokens, (b, s), &Device::Cpu)?.pad_with_zeros(1, 0, missing)?
            }
        };
        Ok(Some(encoder.forward(&source)?))
    }

    /// The most likely texts, token by token through caches, each behind its own `prompt`; `eos` is the last token where
    /// one was found within `max_len`.
    ///
    /// # Errors
    /// [`Error::Input`] where the batch is not of the model's task.
    pub fn greedy(
        &self,
        batch: &Batch,
        prompts: Vec<Vec<u32>>,
        max_len: usize,
        eos: Option<u32>,
    ) -> Result<Vec<Vec<u32>>> {
        let prompts = self.prompts(batch, prompts)?;
        let options = GenerateOptions {
            eos,
            ..GenerateOptions::forced(max_len)
        };
        Ok(generate(&self.decoder, &prompts, &options)?)
    }
}
