//! A needle in a haystack: facts in a long text that means nothing, and a question for one of them at its end.

use serde::{Deserialize, Serialize};

use crate::check::{Check, MOST, power};
use crate::error::Result;
use crate::parts::{Parts, draw_in};
use crate::registry::Registered;
use crate::rng::{Rng, hash};
use crate::span::Span;
use crate::task::{Example, Measure, Part, Probe, Source, SourceKind, Task, TaskSpec};

/// What is hidden where. Longer texts, more needles and longer values make it harder.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NeedleConfig {
    /// Seed of the texts. Default: 0.
    pub seed: u64,
    /// Examples of each part.
    pub parts: Parts,
    /// Keys to choose from. Default: 16.
    pub keys: usize,
    /// Tokens that values are made of. Default: 32.
    pub values: usize,
    /// Tokens of a value. Default: 2.
    pub value_tokens: usize,
    /// Tokens to choose from that mean nothing. Default: 32.
    pub fillers: usize,
    /// Tokens of a text that mean nothing. Default: 48 to 96.
    pub tokens: Span,
    /// Needles of a text, each with a key of its own; one of them is asked for. Default: 2.
    pub needles: Span,
    /// Where the needle that is asked for stands, in percent of the text from its beginning. Default: 0 to 100.
    pub depth: Span,
}

impl Default for NeedleConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            parts: Parts::default(),
            keys: 16,
            values: 32,
            value_tokens: 2,
            fillers: 32,
            tokens: Span::new(48, 96),
            needles: Span::exactly(2),
            depth: Span::new(0, 100),
        }
    }
}

const BOS: u32 = 0;
const NEEDLE: u32 = 1;
const QUESTION: u32 = 2;
const FIRST_KEY: usize = 3;

/// The task: tokens are the three that have a purpose, then keys, values and fillers.
pub(crate) struct Needle(NeedleConfig);

impl Registered for Needle {
    type Config = NeedleConfig;
    const NAME: &'static str = "needle";
    const SUMMARY: &'static str =
        "answer a question at the end of a long text with the one fact in it that has the key";

    fn new(config: &NeedleConfig) -> Result<Self> {
        let check = Check(Self::NAME);
        config.parts.check(check)?;
        check.between("keys", config.keys, 1, MOST)?;
        check.between("values", config.values, 2, MOST)?;
        check.between("value_tokens", config.value_tokens, 1, MOST)?;
        check.between("fillers", config.fillers, 1, MOST)?;
        check.span("tokens", config.tokens, 0, MOST)?;
        check.span("needles", config.needles, 1, config.keys)?;
        check.span("depth", config.depth, 0, 100)?;
        let contents = power(config.fillers, config.tokens.min)
            .saturating_mul(power(config.values, config.value_tokens * config.needles.min));
        check.contents("tokens", config.tokens, contents)?;
        Ok(Self(*config))
    }
}

impl Needle {
    fn draw(&self, rng: &mut Rng) -> Example {
        let NeedleConfig {
            keys,
            values,
            value_tokens,
            fillers,
            ..
        } = self.0;
        let n = rng.within(self.0.tokens);
        let needles = rng.within(self.0.needles);
        // The first one is asked for. Needles at the same place stand in the order they were drawn in.
        let mut facts: Vec<(usize, Vec<u32>)> = Vec::with_capacity(needles);
        for (i, key) in rng.distinct(keys, needles).into_iter().enumerate() {
            let place = match i {
                0 => n * rng.within(self.0.depth) / 100,
                _ => rng.below(n + 1),
            };
            let value = (0..value_tokens).map(|_| (FIRST_KEY + keys + rng.below(values)) as u32);
            facts.push((
                place,
                std::iter::once((FIRST_KEY + key) as u32).chain(value).collect(),
            ));
        }

        let mut text = vec![BOS];
        let mut asked_at = 0;
        for place in 0..=n {
            for (i, (_, fact)) in facts.iter().enumerate().filter(|(_, (at, _))| *at == place) {
                text.push(NEEDLE);
                if i == 0 {
                    asked_at = text.len();
                }
                text.extend(fact);
            }
            if place < n {
                text.push((FIRST_KEY + keys + values + rng.below(fillers)) as u32);
            }
        }
        text.push(QUESTION);
        // From the first token of the value to the key in the question, and so for all tokens of the value.
        let distance = text.len() - (asked_at + 1);
        text.extend(&facts[0].1);
        let answers = vec![true; value_tokens];
        Example {
            source: Source::None,
            is_answer: [vec![false; text.len() - 1 - value_tokens], answers].concat(),
            text,
            probes: vec![Probe {
                distance,
                load: needles,
            }],
        }
    }
}

impl Task for Needle {
    fn spec(&self) -> TaskSpec {
        let fact = 2 + self.0.value_tokens;
        TaskSpec {
            source: SourceKind::None,
            max_source: 0,
            vocab: FIRST_KEY + self.0.keys + self.0.values + self.0.fillers,
            max_text: 1 + self.0.tokens.max + fact * (self.0.needles.max + 1),
            bos: BOS,
            eos: None,
            measure: Measure::TokenAccuracy,
            best: 1.0,
        }
    }

    fn len(&self, part: Part) -> Option<u64> {
        self.0.parts.len(part)
    }

    fn example(&self, part: Part, index: u64) -> Example {
        let rng = &mut Rng::example(self.0.seed, Self::NAME, part, index);
        draw_in(
            part,
            rng,
            |rng| self.draw(rng),
            |example| hash(example.text.iter().copied()),
        )
    }
}
