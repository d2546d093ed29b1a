//! Speech recognition: frames, and the words that were spoken.

use super::grammar::{CLAUSE_WORDS, SpeechConfig};
use super::sound::Sound;
use crate::check::Check;
use crate::error::Result;
use crate::registry::Registered;
use crate::task::{Example, Measure, Part, SourceKind, Task, TaskSpec};

const BOS: u32 = 0;
const EOS: u32 = 1;
const FIRST_WORD: usize = 2;

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
        TaskSpec {
            source: SourceKind::Frames {
                dim: self.config.sound.dim,
            },
            max_source: self.sound.max_frames(words),
            vocab: FIRST_WORD + self.config.n_words(),
            max_text: words + 2,
            bos: BOS,
            eos: Some(EOS),
            measure: Measure::Wer,
            best: 0.0,
        }
    }

    fn len(&self, part: Part) -> Option<u64> {
        self.config.parts.len(part)
    }

    fn example(&self, part: Part, index: u64) -> Example {
        let (clauses, mut rng) = self.config.utterance(part, index);
        let words = self.config.spoken(&clauses);
        let mut text = vec![BOS];
        text.extend(words.iter().map(|word| (FIRST_WORD + word) as u32));
        text.push(EOS);
        Example::of_text(self.sound.speak(&words, &mut rng), text)
    }
}
