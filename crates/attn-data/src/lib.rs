//! Tasks from data of one's own: speech, documents with summaries, parallel text and plain text.
#![warn(missing_docs)]

mod audio;
mod dataset;
mod documents;
mod error;
mod fbank;
mod files;
mod limits;
mod packed;
mod pairs;
mod parallel;
mod parts;
mod report;
mod speech;
mod target;
mod text;
mod tokenizer;
mod tsv;

pub use audio::AudioProblem;
pub use dataset::Dataset;
pub use documents::DocumentsConfig;
pub use error::{Error, Place, Result};
pub use fbank::{Fbank, FeatureConfig, Normalise};
pub use limits::Limits;
pub use parallel::{ParallelConfig, ParallelFiles};
pub use parts::Parts;
pub use report::{PartReport, Report};
pub use speech::{AudioCheck, Speech, SpeechConfig, SpeechTask};
pub use text::TextConfig;
pub use tokenizer::{BOS, EOS, PAD, SPECIALS, Tokenizer, TokenizerConfig, UNK};
