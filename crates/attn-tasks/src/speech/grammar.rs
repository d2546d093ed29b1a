//! Utterances of clauses: who does what to whom.

use serde::{Deserialize, Serialize};

use super::sound::SoundConfig;
use crate::check::{Check, MOST, power};
use crate::error::Result;
use crate::parts::{Parts, draw_in};
use crate::rng::{Rng, hash};
use crate::span::Span;
use crate::task::Part;

/// Words and sounds of speech recognition and translation, which with equal settings hear the same frames. Larger
/// vocabularies, more clauses and more noise make both harder.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpeechConfig {
    /// Seed of the lexicon, of its sounds and of the utterances. Default: 0.
    pub seed: u64,
    /// Examples of each part.
    pub parts: Parts,
    /// Nouns, each of one of two genders. Default: 16.
    pub nouns: usize,
    /// Adjectives. Default: 8.
    pub adjectives: usize,
    /// Verbs. Default: 8.
    pub verbs: usize,
    /// Clauses of an utterance, of three to five words each. Default: 2 to 3.
    pub clauses: Span,
    /// How words sound.
    pub sound: SoundConfig,
}

impl Default for SpeechConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            parts: Parts::default(),
            nouns: 16,
            adjectives: 8,
            verbs: 8,
            clauses: Span::new(2, 3),
            sound: SoundConfig::default(),
        }
    }
}

/// Words of the longest clause.
pub(crate) const CLAUSE_WORDS: usize = 5;

/// A noun, and in one of two cases an adjective before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Phrase {
    pub(crate) adjective: Option<usize>,
    pub(crate) noun: usize,
}

/// A subject, a verb and an object, in the order in which they are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Clause {
    pub(crate) subject: Phrase,
    pub(crate) verb: usize,
    pub(crate) object: Phrase,
}

impl SpeechConfig {
    pub(crate) fn check(&self, check: Check) -> Result<()> {
        self.parts.check(check)?;
        check.between("nouns", self.nouns, 2, MOST)?;
        check.between("adjectives", self.adjectives, 1, MOST)?;
        check.between("verbs", self.verbs, 1, MOST)?;
        check.span("clauses", self.clauses, 1, 256)?;
        let phrases = self.nouns * (1 + self.adjectives);
        let clauses = power(phrases, 2).saturating_mul(self.verbs as u128);
        let contents = clauses.saturating_pow(self.clauses.min as u32);
        check.contents("clauses", self.clauses, contents)
    }

    /// Words that can be spoken.
    pub(crate) fn n_words(&self) -> usize {
        self.nouns + self.adjectives + self.verbs
    }

    /// What is said in an example, and the stream that its sounds are drawn from.
    pub(crate) fn utterance(&self, part: Part, index: u64) -> (Vec<Clause>, Rng) {
        let mut rng = Rng::example(self.seed, "utterance", part, index);
        let draw = |rng: &mut Rng| -> Vec<Clause> {
            let n = rng.within(self.clauses);
            (0..n).map(|_| self.clause(rng)).collect()
        };
        let content = |clauses: &Vec<Clause>| hash(self.spoken(clauses).into_iter().map(|word| word as u32));
        let clauses = draw_in(part, &mut rng, draw, content);
        (clauses, rng)
    }

    fn clause(&self, rng: &mut Rng) -> Clause {
        let phrase = |rng: &mut Rng| Phrase {
            adjective: (rng.below(2) == 1).then(|| rng.below(self.adjectives)),
            noun: rng.below(self.nouns),
        };
        Clause {
            subject: phrase(rng),
            verb: rng.below(self.verbs),
            object: phrase(rng),
        }
    }

    /// The words as they are spoken: nouns are numbered first, then adjectives, then verbs.
    pub(crate) fn spoken(&self, clauses: &[Clause]) -> Vec<usize> {
        let adjective = |phrase: &Phrase| phrase.adjective.map(|adjective| self.nouns + adjective);
        let mut words = Vec::with_capacity(CLAUSE_WORDS * clauses.len());
        for Clause {
            subject,
            verb,
            object,
        } in clauses
        {
            words.extend(adjective(subject));
            words.extend([subject.noun, self.nouns + self.adjectives + verb]);
            words.extend(adjective(object));
            words.push(object.noun);
        }
        words
    }
}
