//! Tasks from data of one's own: speech, documents with summaries, parallel text and plain text.
#![warn(missing_docs)]

mod audio;
mod error;
mod fbank;
mod files;
mod tokenizer;
mod tsv;

pub use audio::AudioProblem;
pub use error::{Error, Place, Result};
pub use fbank::{Fbank, FeatureConfig, Normalise};
pub use tokenizer::{BOS, EOS, PAD, SPECIALS, Tokenizer, TokenizerConfig, UNK};
