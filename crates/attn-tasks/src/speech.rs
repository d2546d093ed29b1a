//! Speech that is made up: words of phones, phones of frames, and what a listener is asked for.

mod grammar;
mod recognition;
pub(crate) mod sound;
mod translation;
mod understanding;

pub use grammar::SpeechConfig;
pub(crate) use recognition::Recognition;
pub use sound::SoundConfig;
pub(crate) use translation::Translation;
pub(crate) use understanding::Understanding;
pub use understanding::UnderstandingConfig;
