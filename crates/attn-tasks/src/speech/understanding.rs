//! Spoken language understanding: frames, and what the speaker wants.
//!
//! An utterance has one action, one object, some slots (a word that says which, and its value after it) and words that mean
//! nothing. The intent is decided by action and object together, and either alone leaves several.

use serde::{Deserialize, Serialize};

use super::sound::{Sound, SoundConfig};
use crate::check::{Check, MOST, power};
use crate::error::Result;
use crate::parts::{Parts, draw_in};
use crate::registry::Registered;
use crate::rng::{Rng, hash};
use crate::span::Span;
use crate::task::{Example, Measure, Part, SourceKind, Task, TaskSpec};

/// What can be wanted. More words, more intents and more noise make it harder.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UnderstandingConfig {
    /// Seed of the lexicon, of its sounds and of the utterances. Default: 0.
    pub seed: u64,
    /// Examples of each part.
    pub parts: Parts,
    /// Intents there are, of which the pairs of an action and an object have equally many each. Default: 12.
    pub intents: usize,
    /// Words for actions. Default: 6.
    pub actions: usize,
    /// Words for objects. Default: 6.
    pub objects: usize,
    /// Kinds of slots, each with a word that announces it. Default: 4.
    pub kinds: usize,
    /// Words that can be a slot's value. Default: 16.
    pub values: usize,
    /// Words that mean nothing. Default: 12.
    pub fillers: usize,
    /// Slots of an utterance, of different kinds. Default: 1 to 3.
    pub slots: Span,
    /// Words of an utterance, at least two and two for each slot. Default: 8 to 12.
    pub words: Span,
    /// How words sound.
    pub sound: SoundConfig,
}

impl Default for UnderstandingConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            parts: Parts::default(),
            intents: 12,
            actions: 6,
            objects: 6,
            kinds: 4,
            values: 16,
            fillers: 12,
            slots: Span::new(1, 3),
            words: Span::new(8, 12),
            sound: SoundConfig::default(),
        }
    }
}

const BOS: u32 = 0;
const EOS: u32 = 1;
const FIRST_INTENT: usize = 2;

/// The task. Tokens are beginning, end, intents, kinds of slots and their values.
pub(crate) struct Understanding {
    pub(crate) config: UnderstandingConfig,
    pub(crate) sound: Sound,
    /// Intent of an action and an object, `[actions, objects]`.
    pub(crate) table: Vec<usize>,
}

/// What is said: words numbered as actions, objects, kinds, values and fillers, in this order.
struct Utterance {
    words: Vec<usize>,
    intent: usize,
    slots: Vec<[usize; 2]>,
}

impl Registered for Understanding {
    type Config = UnderstandingConfig;
    const NAME: &'static str = "spoken_understanding";
    const SUMMARY: &'static str =
        "say what a speaker wants, which two words decide together, and with which slots";

    fn new(config: &UnderstandingConfig) -> Result<Self> {
        let check = Check(Self::NAME);
        config.parts.check(check)?;
        check.between("actions", config.actions, 2, 256)?;
        check.between("objects", config.objects, 2, 256)?;
        let pairs = config.actions * config.objects;
        check.between("intents", config.intents, 2, pairs)?;
        if pairs % config.intents != 0 {
            let expected = format!("a divisor of actions times objects, which are {pairs}");
            return check.fail("intents", config.intents, expected);
        }
        check.between("kinds", config.kinds, 1, MOST)?;
        check.between("values", config.values, 1, MOST)?;
        check.between("fillers", config.fillers, 1, MOST)?;
        check.span("slots", config.slots, 0, config.kinds)?;
        check.span("words", config.words, 2 + 2 * config.slots.max, 1024)?;
        let free = config.words.min - 2 - 2 * config.slots.min;
        let contents = power(config.fillers, free)
            .saturating_mul(power(config.values, config.slots.min))
            .saturating_mul(pairs as u128);
        check.contents("words", config.words, contents)?;
        let mut table: Vec<usize> = (0..pairs).map(|pair| pair % config.intents).collect();
        Rng::world(config.seed, Self::NAME).shuffle(&mut table);
        Ok(Self {
            config: *config,
            sound: Sound::new(config.sound, config.n_words(), config.seed, check)?,
            table,
        })
    }
}

impl UnderstandingConfig {
    fn n_words(&self) -> usize {
        self.first_filler() + self.fillers
    }

    fn first_kind(&self) -> usize {
        self.actions + self.objects
    }

    fn first_value(&self) -> usize {
        self.first_kind() + self.kinds
    }

    fn first_filler(&self) -> usize {
        self.first_value() + self.values
    }
}

impl Understanding {
    fn draw(&self, rng: &mut Rng) -> Utterance {
        let config = &self.config;
        let [action, object] = [config.actions, config.objects].map(|n| rng.below(n));
        let n_slots = rng.within(config.slots);
        let n_words = rng.within(config.words);
        let mut pieces = vec![vec![action], vec![config.actions + object]];
        for kind in rng.distinct(config.kinds, n_slots) {
            let value = rng.below(config.values);
            pieces.push(vec![config.first_kind() + kind, config.first_value() + value]);
        }
        for _ in 0..n_words - 2 - 2 * n_slots {
            pieces.push(vec![config.first_filler() + rng.below(config.fillers)]);
        }
        rng.shuffle(&mut pieces);
        let slots = pieces.iter().filter_map(|piece| match piece[..] {
            [kind, value] => Some([kind - config.first_kind(), value - config.first_value()]),
            _ => None,
        });
        Utterance {
            intent: self.table[action * config.objects + object],
            slots: slots.collect(),
            words: pieces.concat(),
        }
    }
}

impl Task for Understanding {
    fn spec(&self) -> TaskSpec {
        TaskSpec {
            source: SourceKind::Frames {
                dim: self.config.sound.dim,
            },
            max_source: self.sound.max_frames(self.config.words.max),
            vocab: FIRST_INTENT + self.config.intents + self.config.kinds + self.config.values,
            max_text: 3 + 2 * self.config.slots.max,
            bos: BOS,
            eos: Some(EOS),
            measure: Measure::ExactMatch,
            best: 1.0,
        }
    }

    fn len(&self, part: Part) -> Option<u64> {
        self.config.parts.len(part)
    }

    fn example(&self, part: Part, index: u64) -> Example {
        let rng = &mut Rng::example(self.config.seed, Self::NAME, part, index);
        let content = |said: &Utterance| hash(said.words.iter().map(|word| *word as u32));
        let said = draw_in(part, rng, |rng| self.draw(rng), content);
        let first_kind = FIRST_INTENT + self.config.intents;
        let mut text = vec![BOS, (FIRST_INTENT + said.intent) as u32];
        for [kind, value] in said.slots {
            text.extend(
                [first_kind + kind, first_kind + self.config.kinds + value].map(|token| token as u32),
            );
        }
        text.push(EOS);
        Example::of_text(self.sound.speak(&said.words, rng), text)
    }

    /// The intent alone: it is what the measure is about. The slots train the model and are not judged.
    fn words(&self, tokens: &[u32]) -> Vec<String> {
        self.body(tokens).iter().take(1).map(u32::to_string).collect()
    }
}
