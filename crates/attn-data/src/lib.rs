//! Tasks from data of one's own: speech, documents with summaries, parallel text and plain text.
//!
//! A [`DataConfig`] says which files there are and how they are read; it opens as a [`Dataset`], which is an
//! [`attn_tasks::Task`] that also tells what it left out. What is wrong with data is an [`Error`] that names the file and
//! the line, found when a dataset is opened and not in the midst of training.
//!
//! ```
//! use attn_data::DataConfig;
//! use attn_tasks::{Measure, Part, Task};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! for (name, lines) in [("train.txt", 40), ("valid.txt", 8), ("test.txt", 8)] {
//!     std::fs::write(folder.path().join(name), "a line of text\n".repeat(lines))?;
//! }
//! let config: DataConfig = serde_yaml::from_str(
//!     "text: {train: train.txt, valid: valid.txt, test: test.txt, tokenizer: {train: 300}, block: 16}",
//! )?;
//! let data = config.open(folder.path())?;
//! assert_eq!(data.spec().measure, Measure::Perplexity);
//! assert_eq!(data.example(Part::Train, 0).text.len(), 17);
//! println!("{}", data.report());
//! let task: Box<dyn Task> = data;
//! assert_eq!(task.spec().max_text, 17);
//! # Ok(())
//! # }
//! ```
#![warn(missing_docs)]

mod audio;
mod config;
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
pub use config::DataConfig;
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
