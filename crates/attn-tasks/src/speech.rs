//! Speech that is made up: words of phones, phones of frames, and what a listener is asked for.

mod grammar;
mod recognition;
pub(crate) mod sound;
mod translation;
mod understanding;

use crate::task::{Measure, TaskSpec};
pub use grammar::SpeechConfig;
pub(crate) use recognition::Recognition;
pub use sound::SoundConfig;
pub(crate) use translation::Translation;
pub(crate) use understanding::Understanding;
pub use understanding::UnderstandingConfig;

/// Tokens of every text's beginning and end, and the first of what stands between.
const BOS: u32 = 0;
const EOS: u32 = 1;
const FIRST_TOKEN: usize = 2;

/// What a listener writes, from its beginning to its end.
fn written(tokens: impl IntoIterator<Item = u32>) -> Vec<u32> {
    std::iter::once(BOS).chain(tokens).chain([EOS]).collect()
}

/// What is heard in up to `words` words, and written with `tokens` tokens beside beginning and end, up to `longest`.
fn spec(
    sound: &sound::Sound,
    words: usize,
    tokens: usize,
    longest: usize,
    measure: Measure,
    best: f64,
) -> TaskSpec {
    TaskSpec {
        source: sound.source(),
        max_source: sound.max_frames(words),
        vocab: FIRST_TOKEN + tokens,
        max_text: longest + 2,
        bos: BOS,
        eos: Some(EOS),
        measure,
        best,
    }
}
