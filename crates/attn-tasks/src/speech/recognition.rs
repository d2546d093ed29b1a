//! Speech recognition: frames, and the words that were spoken.

use super::grammar::{CLAUSE_WORDS, SpeechConfig};
use super::sound::Sound;
use super::{FIRST_TOKEN, spec, written};
use crate::check::Check;
use crate::error::Result;
use crate::registry::Registered;
use crate::task::{Example, Measure, Part, Task, TaskSpec};

/// The task. Tokens are beginning, end, and the words in the grammar's numbers.
pub(crate) struct Recognition {
    pub(crate) config: SpeechConfig,
    pub(crate) sound: Sound,
}

impl Registered for Recognition {
    type Config = SpeechConfig;
    const NAME: &'static str = "speech_recognition";
    const SUMMARY: &'static str =
        "write the words whose frames are read, phones that last and sound differently each time";

    fn new(config: &SpeechConfig) -> Result<Self> {
        let check = Check(Self::NAME);
        config.check(check)?;
        Ok(Self {
            config: *config,
            sound: Sound::new(config.sound, config.n_words(), config.seed, check)?,
        })
    }
}

impl Task for Recognition {
    fn spec(&self) -> TaskSpec {
        let words = CLAUSE_WORDS * self.config.clauses.max;
        spec(
            &self.sound,
            words,
            self.config.n_words(),
            words,
            Measure::Wer,
            0.0,
        )
    }

    fn len(&self, part: Part) -> Option<u64> {
        self.config.parts.len(part)
    }

    fn example(&self, part: Part, index: u64) -> Example {
        let (clauses, mut rng) = self.config.utterance(part, index);
        let words = self.config.spoken(&clauses);
        let text = written(words.iter().map(|word| (FIRST_TOKEN + word) as u32));
        Example::of_text(self.sound.speak(&words, &mut rng), text)
    }
}
