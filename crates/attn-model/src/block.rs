//! One layer of a decoder: norms, residuals and the feed-forward layer around an attention layer.

use std::sync::Arc;

use attn_core::linear::Linear;
use attn_core::norm::Norm;
use attn_core::phase::{Phase, timed};
use attn_core::{Attention, Build, DecoderKind, Weights};
use candle_core::Tensor;

use crate::config::{DecoderConfig, Names};
use crate::error::Result;

#[derive(Debug)]
enum FeedForward {
    /// `fc2(relu(fc1(x)))`
    Relu { fc1: Linear, fc2: Linear },
    /// `down(silu(gate(x)) * up(x))`
    SwiGlu { gate: Linear, up: Linear, down: Linear },
}

impl FeedForward {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Relu { fc1, fc2 } => fc2.forward(&fc1.forward(x)?.relu()?)?,
            Self::SwiGlu { gate, up, down } => down.forward(&(gate.forward(x)?.silu()? * up.forward(x)?)?)?,
        })
    }
}

/// A layer; the attention itself is called between [`before`](Self::before) and [`after`](Self::after), by whoever
/// knows whether there is a cache.
pub(crate) struct Block {
    pub(crate) attention: Arc<dyn Attention>,
    kind: DecoderKind,
    attention_norm: Norm,
    feed_forward_norm: Norm,
    feed_forward: FeedForward,
}

impl Block {
    /// Layer `i` among the weights of a whole model, which are of the build's dtype already.
    pub(crate) fn new(config: &DecoderConfig, i: usize, weights: &Weights, build: &Build) -> Result<Self> {
        let (names, m) = (Names::of(config.kind), config.d_model());
        let prefix = names.layer(i);
        let attention = format!("{prefix}self_attn.");
        let own: Weights = weights
            .iter()
            .filter_map(|(name, tensor)| Some((name.strip_prefix(&attention)?.to_string(), tensor.clone())))
            .collect();
        // A layer names its weights without the prefix; whoever reads the error has the file's names before him.
        let attention = config.attention.build(&own, build).map_err(|error| match error {
            attn_core::Error::MissingWeight { name, expected } => attn_core::Error::MissingWeight {
                name: format!("{attention}{name}"),
                expected,
            },
            attn_core::Error::WeightShape { name, expected, got } => attn_core::Error::WeightShape {
                name: format!("{attention}{name}"),
                expected,
                got,
            },
            other => other,
        })?;
        let norm = |name: &str| {
            let name = format!("{prefix}{name}");
            Norm::load(config.norm(), &name, m, config.norm_eps, weights)
        };
        let bias = config.has_feed_forward_bias();
        let mut linears = Vec::new();
        for (name, out, input) in config.feed_forward() {
            linears.push(Linear::load(
                &format!("{prefix}{name}"),
                out,
                input,
                bias,
                weights,
            )?);
        }
        let feed_forward = match <[Linear; 2]>::try_from(linears) {
            Ok([fc1, fc2]) => FeedForward::Relu { fc1, fc2 },
            Err(linears) => match <[Linear; 3]>::try_from(linears) {
                Ok([gate, up, down]) => FeedForward::SwiGlu { gate, up, down },
                Err(linears) => unreachable!("{} feed-forward projections", linears.len()),
            },
        };
        Ok(Self {
            attention: Arc::from(attention),
            kind: config.kind,
            attention_norm: norm(names.attention_norm)?,
            feed_forward_norm: norm(names.feed_forward_norm)?,
            feed_forward,
        })
    }

    /// What the attention layer is given of the text `[B, n, M]`.
    pub(crate) fn before(&self, x: &Tensor) -> Result<Tensor> {
        timed(Phase::FeedForward, || Ok(self.attention_norm.forward(x)?))
    }

    /// The layer's output of its input and of what attention made of it, `[B, n, M]` each.
    ///
    /// The paper's: `h = LN1(x + a)`, the same norm again, then `LN2(h + ff(h))`. The plain one: `h = x + a`, then
    /// `h + ff(N2(h))`.
    pub(crate) fn after(&self, x: &Tensor, attended: &Tensor) -> Result<Tensor> {
        timed(Phase::FeedForward, || {
            let h = (x + attended)?;
            Ok(match self.kind {
                DecoderKind::Prefix => {
                    let h = self.attention_norm.forward(&h)?;
                    self.feed_forward_norm
                        .forward(&(&h + self.feed_forward.forward(&h)?)?)?
                }
                DecoderKind::Llama => {
                    let inner = self.feed_forward.forward(&self.feed_forward_norm.forward(&h)?)?;
                    (h + inner)?
                }
            })
        })
    }
}
