//! A decoder's sizes, the names and shapes of its weights, and the way from both to a decoder.

use std::sync::Arc;

use attn_core::linear::Linear;
use attn_core::norm::NormKind;
use attn_core::{Build, DecoderKind, LayerConfig, WeightSpec, Weights};

use crate::decoder::Decoder;
use crate::error::Result;

/// What one kind of decoder calls its weights.
#[derive(Debug)]
pub(crate) struct Names {
    pub(crate) embedding: &'static str,
    pub(crate) layers: &'static str,
    pub(crate) attention_norm: &'static str,
    pub(crate) feed_forward_norm: &'static str,
    pub(crate) norm: &'static str,
    pub(crate) output: &'static str,
}

impl Names {
    /// Those of the paper's fairseq code, or of transformers.
    pub(crate) fn of(kind: DecoderKind) -> &'static Self {
        match kind {
            DecoderKind::Prefix => &Self {
                embedding: "embed_tokens",
                layers: "layers",
                attention_norm: "self_attn_layer_norm",
                feed_forward_norm: "final_layer_norm",
                norm: "layer_norm",
                output: "output_projection",
            },
            DecoderKind::Llama => &Self {
                embedding: "model.embed_tokens",
                layers: "model.layers",
                attention_norm: "input_layernorm",
                feed_forward_norm: "post_attention_layernorm",
                norm: "model.norm",
                output: "lm_head",
            },
        }
    }

    /// Prefix of the weights of layer `i`.
    pub(crate) fn layer(&self, i: usize) -> String {
        format!("{}.{i}.", self.layers)
    }
}

/// Everything about a decoder but its weights. The model width M is the attention layer's.
#[derive(Debug, Clone)]
pub struct DecoderConfig {
    /// What stands around the attention layers.
    pub kind: DecoderKind,
    /// The attention of every layer.
    pub attention: Arc<dyn LayerConfig>,
    /// Layers N.
    pub n_layers: usize,
    /// Inner size F of the feed-forward layers.
    pub d_ff: usize,
    /// Tokens V of the vocabulary.
    pub vocab: usize,
    /// Epsilon of the decoder's norms (attention has its own).
    pub norm_eps: f64,
    /// Whether the output projection is the embedding.
    pub tie_embeddings: bool,
    /// Whether the projections of SwiGLU have biases; those of the paper's decoder always do.
    pub mlp_bias: bool,
}

impl DecoderConfig {
    /// A decoder of `n_layers` layers with `attention`: feed-forward layers of 4 M, a vocabulary of 8000, norms with
    /// 1e-5, embeddings not tied. The fields are public for other sizes.
    pub fn new(kind: DecoderKind, attention: impl Into<Arc<dyn LayerConfig>>, n_layers: usize) -> Self {
        let attention = attention.into();
        Self {
            kind,
            d_ff: 4 * attention.geometry().d_model,
            attention,
            n_layers,
            vocab: 8000,
            norm_eps: 1e-5,
            tie_embeddings: false,
            mlp_bias: false,
        }
    }

    /// The same with another inner size of feed-forward layers.
    #[must_use]
    pub fn with_d_ff(mut self, d_ff: usize) -> Self {
        self.d_ff = d_ff;
        self
    }

    /// The same with another vocabulary.
    #[must_use]
    pub fn with_vocab(mut self, vocab: usize) -> Self {
        self.vocab = vocab;
        self
    }

    /// Model width M.
    pub fn d_model(&self) -> usize {
        self.attention.geometry().d_model
    }

    /// Name, shape and initialisation of every weight.
    ///
    /// Random weights keep the scale of what passes through: embeddings come out with unit variance (those of the
    /// paper's decoder are multiplied by sqrt(M)), logits too.
    pub fn weight_specs(&self) -> Vec<WeightSpec> {
        let (m, names, norm) = (self.d_model(), Names::of(self.kind), self.norm());
        let embedding = WeightSpec {
            name: format!("{}.weight", names.embedding),
            shape: vec![self.vocab, m],
            mean: 0.0,
            std: match self.kind {
                DecoderKind::Llama if !self.tie_embeddings => 1.0,
                _ => (m as f64).powf(-0.5),
            },
        };
        let mut specs = vec![embedding];
        for i in 0..self.n_layers {
            let prefix = names.layer(i);
            let attention = self.attention.weight_specs().into_iter().map(|spec| WeightSpec {
                name: format!("{prefix}self_attn.{}", spec.name),
                ..spec
            });
            specs.extend(attention);
            specs.extend(norm.specs(&format!("{prefix}{}", names.attention_norm), m));
            for (name, out, input) in self.feed_forward() {
                specs.extend(Linear::specs(
                    &format!("{prefix}{name}"),
                    out,
                    input,
                    self.has_feed_forward_bias(),
                ));
            }
            specs.extend(norm.specs(&format!("{prefix}{}", names.feed_forward_norm), m));
        }
        specs.extend(norm.specs(names.norm, m));
        if !self.tie_embeddings {
            specs.push(WeightSpec::matrix(
                format!("{}.weight", names.output),
                self.vocab,
                m,
            ));
        }
        specs
    }

    /// The decoder's norms: LayerNorm around the paper's layers, RMSNorm around the plain ones.
    pub(crate) fn norm(&self) -> NormKind {
        match self.kind {
            DecoderKind::Prefix => NormKind::Layer,
            DecoderKind::Llama => NormKind::Rms,
        }
    }

    /// Names and sizes [out, in] of the feed-forward projections under a layer's prefix.
    pub(crate) fn feed_forward(&self) -> Vec<(&'static str, usize, usize)> {
        let (m, f) = (self.d_model(), self.d_ff);
        match self.kind {
            DecoderKind::Prefix => vec![("fc1", f, m), ("fc2", m, f)],
            DecoderKind::Llama => vec![
                ("mlp.gate_proj", f, m),
                ("mlp.up_proj", f, m),
                ("mlp.down_proj", m, f),
            ],
        }
    }

    pub(crate) fn has_feed_forward_bias(&self) -> bool {
        self.kind == DecoderKind::Prefix || self.mlp_bias
    }

    /// Parameters of the whole model.
    pub fn parameters(&self) -> usize {
        self.weight_specs().iter().map(WeightSpec::elements).sum()
    }

    /// The decoder over the given weights.
    ///
    /// # Errors
    /// A weight is missing or misshapen, or the path is not defined for the dtype.
    pub fn build(&self, weights: &Weights, build: &Build) -> Result<Decoder> {
        Decoder::new(self.clone(), weights, build)
    }
}
