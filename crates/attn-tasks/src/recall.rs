//! Multi-query associative recall: pairs of a key and a value, then questions for all of them.
//!
//! Source: Zoology, arXiv 2312.04927, section 4, and its generator `multiquery_ar`: all keys differ, each is asked for once,
//! and the earlier a place after the pairs the likelier a question stands there. Where we differ: places are weighted by
//! `1 / place^power` with a whole `power` (theirs is 0.99), what stands between questions is never a key or a value, so
//! that each question has one answer, and several keys may have the same value.

use serde::{Deserialize, Serialize};

use crate::check::{Check, MOST, power};
use crate::error::Result;
use crate::parts::{Parts, draw_in};
use crate::registry::Registered;
use crate::rng::{Rng, hash};
use crate::span::Span;
use crate::task::{Example, Measure, Part, Probe, Source, SourceKind, Task, TaskSpec};

/// What is asked for. More pairs make it harder, and longer texts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecallConfig {
    /// Seed of the texts. Default: 0.
    pub seed: u64,
    /// Examples of each part.
    pub parts: Parts,
    /// Keys to choose from. Default: 32.
    pub keys: usize,
    /// Values to choose from. Default: 32.
    pub values: usize,
    /// Tokens to choose from that mean nothing. Default: 8.
    pub fillers: usize,
    /// Pairs of a text, as many as its questions. Default: 4 to 8.
    pub pairs: Span,
    /// Tokens of every text after its beginning, an even number and at least four for each pair. Default: 64.
    pub tokens: usize,
    /// How fast questions get rare with their distance to the pairs: 0 not at all, 1 as 1 / distance, up to 3. Default: 1.
    pub power: u32,
}

impl Default for RecallConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            parts: Parts::default(),
            keys: 32,
            values: 32,
            fillers: 8,
            pairs: Span::new(4, 8),
            tokens: 64,
            power: 1,
        }
    }
}

const BOS: u32 = 0;

/// The task: tokens are the beginning, then keys, values and fillers.
pub(crate) struct Recall(RecallConfig);

impl Registered for Recall {
    type Config = RecallConfig;
    const NAME: &'static str = "recall";
    const SUMMARY: &'static str =
        "answer with the values of many keys that were read before (multi-query associative recall)";

    fn new(config: &RecallConfig) -> Result<Self> {
        let check = Check(Self::NAME);
        config.parts.check(check)?;
        check.between("keys", config.keys, 1, MOST)?;
        check.between("values", config.values, 2, MOST)?;
        check.between("fillers", config.fillers, 1, MOST)?;
        check.span("pairs", config.pairs, 1, config.keys)?;
        check.between("tokens", config.tokens, 4 * config.pairs.max, MOST)?;
        if config.tokens % 2 != 0 {
            return check.fail("tokens", config.tokens, "an even number");
        }
        check.between("power", config.power as usize, 0, 3)?;
        check.contents("pairs", config.pairs, power(config.values, config.pairs.min))?;
        Ok(Self(*config))
    }
}

impl Recall {
    fn draw(&self, rng: &mut Rng) -> Example {
        let RecallConfig {
            keys,
            values,
            fillers,
            tokens,
            ..
        } = self.0;
        let n = rng.within(self.0.pairs);
        let pairs: Vec<[u32; 2]> = rng
            .distinct(keys, n)
            .into_iter()
            .map(|key| [1 + key as u32, (1 + keys + rng.below(values)) as u32])
            .collect();

        let mut slots: Vec<Option<usize>> = vec![None; (tokens - 2 * n) / 2];
        let mut weights: Vec<u64> = (1..=slots.len() as u64)
            .map(|place| ((1 << 40) / place.pow(self.0.power)).max(1))
            .collect();
        for pair in 0..n {
            let slot = rng.weighted(&weights);
            weights[slot] = 0;
            slots[slot] = Some(pair);
        }

        let mut text: Vec<u32> = std::iter::once(BOS)
            .chain(pairs.iter().flatten().copied())
            .collect();
        let mut is_answer = vec![false; 2 * n];
        let mut probes = Vec::with_capacity(n);
        for slot in slots {
            match slot {
                Some(pair) => {
                    let distance = text.len() - (2 + 2 * pair);
                    probes.push(Probe { distance, load: n });
                    text.extend(pairs[pair]);
                }
                None => text.extend([0; 2].map(|_| (1 + keys + values + rng.below(fillers)) as u32)),
            }
            is_answer.extend([false, slot.is_some()]);
        }
        Example {
            source: Source::None,
            text,
            is_answer,
            probes,
        }
    }
}

impl Task for Recall {
    fn spec(&self) -> TaskSpec {
        TaskSpec {
            source: SourceKind::None,
            max_source: 0,
            vocab: 1 + self.0.keys + self.0.values + self.0.fillers,
            max_text: 1 + self.0.tokens,
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
