//! A whole decoder in closed form: parameters, cache bytes, and the work of generating with it.
//!
//! Letters as everywhere, and of a search: B sentences, S states of prefix each (or tokens of a prompt), K hypotheses a
//! sentence, N tokens generated to a forced length. That takes N steps: the first reads the start token for one
//! hypothesis a sentence, since all are alike still, every later one the last token of each of the B K hypotheses. The
//! last token chosen is never read again, so that a cache ends with S + N tokens.
//!
//! ```
//! use attn_core::{DecoderKind, ModelShape, Prefix};
//!
//! let shape = ModelShape { n_layers: 9, d_ff: 2048, vocab: 8000, decoder: DecoderKind::Prefix };
//! assert_eq!((shape.decoder.name(), Prefix::Copied.name()), ("prefix", "copied"));
//! ```

use serde::{Deserialize, Serialize};

use crate::cost::Cost;
use crate::geometry::Geometry;
use crate::workload::Workload;

/// What stands around the attention layers.
///
/// ```
/// use attn_core::DecoderKind;
///
/// assert_eq!(DecoderKind::default().name(), "prefix"); // the paper's
/// assert_eq!(DecoderKind::ALL.map(|(kind, _)| kind.name()), ["prefix", "llama"]);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecoderKind {
    /// The paper's: encoder states are keys and values of every layer and never queries; LayerNorm and ReLU.
    #[default]
    Prefix,
    /// A plain language model: the prefix is a prompt that passes through all layers; RMSNorm and SwiGLU.
    Llama,
}

impl DecoderKind {
    /// Every decoder, with one sentence each.
    pub const ALL: [(Self, &'static str); 2] = [
        (
            Self::Prefix,
            "the paper's: encoder states are keys and values of every layer, LayerNorm and ReLU",
        ),
        (
            Self::Llama,
            "a plain language model: the prefix is a prompt through all layers, RMSNorm and SwiGLU",
        ),
    ];

    /// The name in sweeps and rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prefix => "prefix",
            Self::Llama => "llama",
        }
    }
}

/// Where the hypotheses of a beam search keep the prefix they have in common.
///
/// ```
/// use attn_core::Prefix;
///
/// assert_eq!(Prefix::ALL.map(|(way, _)| way.name()), ["replicated", "copied", "shared"]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Prefix {
    /// Every hypothesis computes and stores it, as in the seed.
    Replicated,
    /// It is computed once a sentence and copied to its hypotheses.
    Copied,
    /// It is computed and stored once a sentence.
    Shared,
}

impl Prefix {
    /// Every way, with one sentence each.
    pub const ALL: [(Self, &'static str); 3] = [
        (
            Self::Replicated,
            "every hypothesis computes and stores the prefix, as in the seed",
        ),
        (
            Self::Copied,
            "the prefix is computed once a sentence and copied to its hypotheses",
        ),
        (Self::Shared, "the prefix is computed and stored once a sentence"),
    ];

    /// The name in sweeps and rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Replicated => "replicated",
            Self::Copied => "copied",
            Self::Shared => "shared",
        }
    }
}

/// Sizes of a decoder beside those of its attention layers.
///
/// ```
/// use attn_core::grouped::GroupedConfig;
/// use attn_core::{DecoderKind, Entry, LayerConfig, ModelDims, ModelShape, Params, Prefix, Values, Workload};
///
/// let dims = ModelDims { d_model: 64, n_heads: 4, head_dim: 16 };
/// let entry = Entry::new(4, 16, Values::Own(16));
/// let layer = GroupedConfig::new(&dims, entry, &Params::default())?.geometry();
/// let shape = ModelShape { n_layers: 2, d_ff: 128, vocab: 100, decoder: DecoderKind::Llama };
/// let search = Workload::Beam { batch: 1, tokens: 30, new_tokens: 10, beam: 4 };
/// // Four hypotheses that copy their prefix, and four that share it.
/// let copied = shape.kv_bytes(&layer, &search, Some(Prefix::Copied), 4);
/// let shared = shape.kv_bytes(&layer, &search, Some(Prefix::Shared), 4);
/// assert_eq!(copied, 2 * layer.kv_bytes(4, 40, 4));
/// assert_eq!(shared, 2 * (layer.kv_bytes(1, 31, 4) + layer.kv_bytes(4, 9, 4)));
/// assert!(shape.cost(&layer, &search, 4).is_some());
/// // A single step is no whole decoder's workload.
/// assert!(shape.cost(&layer, &Workload::Decode { batch: 1, context: 8 }, 4).is_none());
/// # Ok::<(), attn_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ModelShape {
    /// Layers.
    pub n_layers: usize,
    /// Width F of the feed-forward layers.
    pub d_ff: usize,
    /// Tokens V of the vocabulary.
    pub vocab: usize,
    /// What stands around the layers.
    pub decoder: DecoderKind,
}

/// A search in numbers; greedy generation is one of a single hypothesis.
#[derive(Debug, Clone, Copy)]
struct Search {
    batch: u64,
    prefix: usize,
    steps: usize,
    /// B K.
    hypotheses: u64,
}

impl Search {
    /// `None` for what no whole decoder does.
    fn of(workload: &Workload) -> Option<Self> {
        match *workload {
            Workload::Beam {
                batch,
                tokens,
                new_tokens,
                ..
            }
            | Workload::Generate {
                batch,
                tokens,
                new_tokens,
            } => Some(Self {
                batch: batch as u64,
                prefix: tokens,
                steps: new_tokens,
                hypotheses: (batch * workload.beam()) as u64,
            }),
            _ => None,
        }
    }

    /// Tokens that are decoded: B at the first step, B K at every later one.
    fn decoded(&self) -> u64 {
        match self.steps {
            0 => 0,
            n => self.batch + self.hypotheses * (n as u64 - 1),
        }
    }
}

/// One layer's attention in a search: operations, and cache elements read and written.
struct LayerWork {
    flops: u64,
    cache_elements: u64,
}

impl LayerWork {
    fn of(g: &Geometry, search: &Search, decoder: DecoderKind) -> Self {
        let (b, n, later) = (
            search.batch,
            search.hypotheses,
            search.steps.saturating_sub(1) as u64,
        );
        let (s, heads) = (search.prefix, g.n_heads as u64);
        let prefix_flops = match decoder {
            // Keys and values alone, as a decode step projects them: nothing is decompressed where that is absorbed.
            DecoderKind::Prefix => 2 * b * s as u64 * g.decode_macs.key as u64,
            DecoderKind::Llama => {
                let macs = (g.forward_macs.query + g.forward_macs.key) as u64;
                let pairs = g.pairs(0, s);
                2 * b * s as u64 * macs + 2 * b * heads * (g.score_dim + g.v_dim) as u64 * pairs
            }
        };
        // Slots that the first step reads, and that all later ones of a hypothesis read together.
        let first = g.pairs(s, search.steps.min(1));
        let rest = g.pairs(s + 1, search.steps.saturating_sub(1));
        let macs = (g.decode_macs.query + g.decode_macs.key) as u64;
        let step_flops =
            2 * search.decoded() * macs + 2 * heads * g.entry.macs() as u64 * (b * first + n * rest);
        // Closed slots of prefix and start token are the same for all hypotheses of a sentence: read once for them. A
        // window soon leaves them behind.
        let common = match g.window {
            None => later * ((s + 1) / g.stride) as u64,
            Some(_) => 0,
        };
        let slots_read = b * (first + common) + n * (rest - common);
        let slots_written = b * g.slots(s) as u64 + search.decoded();
        Self {
            flops: prefix_flops + step_flops,
            cache_elements: (slots_read + slots_written) * g.entry.elements() as u64,
        }
    }
}

impl Geometry {
    /// One layer's part of a search by the paper's decoder: its weights read by every step, its caches.
    pub(crate) fn search_cost(
        &self,
        batch: usize,
        tokens: usize,
        new_tokens: usize,
        beam: usize,
        element_bytes: usize,
    ) -> Cost {
        let search = Search {
            batch: batch as u64,
            prefix: tokens,
            steps: new_tokens,
            hypotheses: (batch * beam) as u64,
        };
        let work = LayerWork::of(self, &search, DecoderKind::Prefix);
        let weights = self.parameters as u64 * new_tokens as u64;
        Cost {
            flops: work.flops,
            bytes_moved: (weights + work.cache_elements) * element_bytes as u64,
        }
    }
}

impl ModelShape {
    /// Parameters of the decoder around layers of this geometry: embedding and vocabulary apart from each other.
    pub fn parameters(&self, layer: &Geometry) -> u64 {
        let m = layer.d_model as u64;
        let table = self.vocab as u64 * m;
        let (norms, last) = match self.decoder {
            // Scale and shift of the two norms of a layer, biases of its feed-forward layers.
            DecoderKind::Prefix => (4 * m + self.d_ff as u64 + m, 2 * m),
            DecoderKind::Llama => (2 * m, m),
        };
        let each = layer.parameters as u64 + self.feed_forward_macs(m) + norms;
        2 * table + last + self.n_layers as u64 * each
    }

    /// Multiply-adds of one token in one feed-forward layer, which are its matrices' elements too.
    fn feed_forward_macs(&self, d_model: u64) -> u64 {
        let matrices = match self.decoder {
            DecoderKind::Prefix => 2,
            DecoderKind::Llama => 3,
        };
        matrices * d_model * self.d_ff as u64
    }

    /// Bytes of the caches of all layers at the end of `workload`: the papers' formula over every sequence kept, which
    /// are B K where each hypothesis has its own prefix. Where it is shared, the closed slots of prefix and start token are
    /// there once a sentence, `floor((S + 1) / s)`, and each hypothesis has the `ceil((S + N) / s) - floor((S + 1) / s)`
    /// others.
    pub fn kv_bytes(
        &self,
        layer: &Geometry,
        workload: &Workload,
        prefix: Option<Prefix>,
        element_bytes: usize,
    ) -> u64 {
        let hypotheses = workload.batch() * workload.beam();
        let each = match (workload, prefix) {
            // Nothing of a window can be shared: hypotheses write over it.
            (&Workload::Beam { batch, tokens, .. }, Some(Prefix::Shared)) if layer.window.is_none() => {
                let closed = (tokens + 1) / layer.stride * layer.stride;
                let own = workload.cached_tokens() - closed;
                layer.kv_bytes(batch, closed, element_bytes) + layer.kv_bytes(hypotheses, own, element_bytes)
            }
            _ => layer.kv_bytes(hypotheses, workload.cached_tokens(), element_bytes),
        };
        self.n_layers as u64 * each
    }

    /// Useful operations and least bytes of a search or of greedy generation, `None` for what no whole decoder does.
    ///
    /// Read are all weights but the embedding by every step, those of the prefix with the first; the encoder's states
    /// once; caches by every step, the closed slots of the prefix once for all hypotheses of a sentence. Activations and
    /// logits need not leave the processor, and reordering need not move anything: neither is counted. The cost does
    /// not depend on where hypotheses keep their prefix, nor on habits, so that all have the same floor.
    pub fn cost(&self, layer: &Geometry, workload: &Workload, element_bytes: usize) -> Option<Cost> {
        let search = Search::of(workload)?;
        let (m, layers) = (layer.d_model as u64, self.n_layers as u64);
        let work = LayerWork::of(layer, &search, self.decoder);
        let prefix_tokens = search.batch * search.prefix as u64;
        let (passing, states) = match self.decoder {
            DecoderKind::Prefix => (search.decoded(), prefix_tokens * m),
            DecoderKind::Llama => (search.decoded() + prefix_tokens, 0),
        };
        let table = self.vocab as u64 * m;
        let weights = search.steps as u64 * (self.parameters(layer) - table);
        Some(Cost {
            flops: layers * (work.flops + 2 * passing * self.feed_forward_macs(m))
                + 2 * search.decoded() * table,
            bytes_moved: (weights + states + layers * work.cache_elements) * element_bytes as u64,
        })
    }
}

#[cfg(test)]
mod tests;
