//! Speech translation: frames, and what was said in another language.
//!
//! Every word has its translation. Adjectives follow their nouns and have a form for either gender. The verb ends its
//! clause, and agrees with the subject that began it: the longest dependency, over the object between them.

use super::grammar::{CLAUSE_WORDS, Clause, Phrase, SpeechConfig};
use super::sound::Sound;
use crate::check::Check;
use crate::error::Result;
use crate::registry::Registered;
use crate::rng::Rng;
use crate::task::{Example, Measure, Part, SourceKind, Task, TaskSpec};

const BOS: u32 = 0;
const EOS: u32 = 1;
const FIRST_WORD: usize = 2;

/// The task. Tokens are beginning, end, and the other language's words in no order that says anything.
pub(crate) struct Translation {
    pub(crate) config: SpeechConfig,
    pub(crate) sound: Sound,
    /// Gender of every noun: half of them have either.
    pub(crate) genders: Vec<usize>,
    /// Token of every form: of nouns, then of adjectives and of verbs in both genders.
    pub(crate) forms: Vec<u32>,
}

impl Registered for Translation {
    type Config = SpeechConfig;
    const NAME: &'static str = "speech_translation";
    const SUMMARY: &'static str =
        "translate the words whose frames are read into a language of another order, with agreement";

    fn new(config: &SpeechConfig) -> Result<Self> {
        let check = Check(Self::NAME);
        config.check(check)?;
        let sound = Sound::new(config.sound, config.n_words(), config.seed, check)?;
        let rng = &mut Rng::world(config.seed, Self::NAME);
        let mut genders: Vec<usize> = (0..config.nouns).map(|noun| noun % 2).collect();
        rng.shuffle(&mut genders);
        let forms = rng.permutation(config.nouns + 2 * (config.adjectives + config.verbs));
        Ok(Self {
            config: *config,
            sound,
            genders,
            forms: forms.into_iter().map(|form| (FIRST_WORD + form) as u32).collect(),
        })
    }
}

impl Translation {
    fn translate(
        &self,
        Clause {
            subject,
            verb,
            object,
        }: &Clause,
    ) -> Vec<u32> {
        let SpeechConfig {
            nouns, adjectives, ..
        } = self.config;
        let mut words = Vec::with_capacity(CLAUSE_WORDS);
        for Phrase { adjective, noun } in [subject, object] {
            words.push(self.forms[*noun]);
            words.extend(adjective.map(|adjective| self.forms[nouns + 2 * adjective + self.genders[*noun]]));
        }
        let verb = 2 * (adjectives + verb) + self.genders[subject.noun];
        words.push(self.forms[nouns + verb]);
        words
    }
}

impl Task for Translation {
    fn spec(&self) -> TaskSpec {
        let words = CLAUSE_WORDS * self.config.clauses.max;
        TaskSpec {
            source: SourceKind::Frames {
                dim: self.config.sound.dim,
            },
            max_source: self.sound.max_frames(words),
            vocab: FIRST_WORD + self.forms.len(),
            max_text: words + 2,
            bos: BOS,
            eos: Some(EOS),
            measure: Measure::Bleu,
            best: 100.0,
        }
    }

    fn len(&self, part: Part) -> Option<u64> {
        self.config.parts.len(part)
    }

    fn example(&self, part: Part, index: u64) -> Example {
        let (clauses, mut rng) = self.config.utterance(part, index);
        let mut text = vec![BOS];
        text.extend(clauses.iter().flat_map(|clause| self.translate(clause)));
        text.push(EOS);
        let words = self.config.spoken(&clauses);
        Example::of_text(self.sound.speak(&words, &mut rng), text)
    }
}
