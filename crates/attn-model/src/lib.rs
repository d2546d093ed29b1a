//! Whole models around any attention layer: the paper's decoder, and a plain language model.
//!
//! A [`DecoderConfig`] puts a [`LayerConfig`](attn_core::LayerConfig) into every layer; [`Decoder`] computes logits of
//! whole sequences ([`forward`](Decoder::forward), with gradients), or token by token over a [`State`]
//! ([`prefill`](Decoder::prefill), [`step`](Decoder::step)). [`greedy`], [`generate()`] and [`beam()`] generate over a
//! batch, [`BeamSearch`] and [`Generation`] step by step; [`save`] and [`load`] keep models, [`verify_folder`] holds a
//! saved one against what an independent implementation computed.
//!
//! ```
//! use attn_core::{Build, ModelDims, ParamValue, Params, Path, Weights, random_tensor};
//! use attn_model::{BeamOptions, DecoderConfig, DecoderKind, Prompts, beam, greedy};
//! use candle_core::{DType, Device};
//!
//! let dims = ModelDims { d_model: 64, n_heads: 4, head_dim: 16 };
//! let int = ParamValue::Int;
//! let params = Params::default().with("kv_rank", int(32)).with("rope_dim", int(8)).with("stride", int(2));
//! let attention = attn_mtla::VARIANT.configure(&dims, &params)?;
//! let config = DecoderConfig::new(DecoderKind::Prefix, attention, 2).with_vocab(100);
//! let weights = Weights::seeded(&config.weight_specs(), 42)?;
//! let decoder = config.build(&weights, &Build::cpu(Path::Fused, DType::F32))?;
//!
//! // Two sentences of up to 10 encoder states, the second of 7; both begin with token 2.
//! let states = random_tensor(&[2, 10, 64], 42, 1, DType::F32, &Device::Cpu)?;
//! let prompts = Prompts::new(vec![vec![2], vec![2]]).with_prefix(states).with_prefix_lens(vec![10, 7]);
//! let found = beam(&decoder, &prompts, &BeamOptions::new(3, 20, 2))?;
//! assert_eq!((found.len(), found[0].len()), (2, 3));
//! assert!(found[0][0].score >= found[0][1].score);
//! assert_eq!(greedy(&decoder, &prompts, 5, None)?[1].len(), 5);
//! # Ok::<(), attn_model::Error>(())
//! ```
#![warn(missing_docs)]

mod beam;
mod block;
mod checkpoint;
mod config;
mod decoder;
mod encoder;
mod error;
mod generate;
mod llama_mtla;
mod prompts;
mod sample;
mod scores;
mod sentence;
mod state;
pub mod train;
mod verify;

pub use attn_core::{DecoderKind, Prefix};
pub use beam::{BeamOptions, BeamSearch, Hypothesis, beam};
pub use checkpoint::{ModelSpec, SavedModel, load, save};
pub use config::DecoderConfig;
pub use decoder::Decoder;
pub use encoder::{Encoder, EncoderConfig, EncoderInput};
pub use error::{Error, Result};
pub use generate::{GenerateOptions, Generation, generate, greedy};
pub use prompts::Prompts;
pub use sample::Sampling;
pub use state::State;
pub use verify::{FolderReport, verify_folder};

/// The Rust of the book, run with the doctests of this crate: the one that has every variant beside it.
#[cfg(doctest)]
mod book {
    #[doc = include_str!("../../../docs/adding-a-variant.md")]
    mod adding_a_variant {}
    #[doc = include_str!("../../../docs/mathematics.md")]
    mod mathematics {}
}
