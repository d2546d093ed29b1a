//! A language of exactly known entropy: what a model loses over it is its own.

use serde::{Deserialize, Serialize};

use crate::check::{Check, MOST};
use crate::error::Result;
use crate::markov::{Markov, contexts};
use crate::parts::{Parts, draw_in};
use crate::registry::Registered;
use crate::rng::{Rng, hash};
use crate::task::{Example, Measure, Part, Source, SourceKind, Task, TaskSpec};

/// A Markov source. `order`, `symbols` and `branching` make it harder: it has about `symbols^order` contexts to learn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EntropyConfig {
    /// Seed of the language and of its texts. Default: 0.
    pub seed: u64,
    /// Examples of each part.
    pub parts: Parts,
    /// Symbols of the language. Default: 16.
    pub symbols: usize,
    /// Symbols before each that it depends on, 1 to 3. Default: 2.
    pub order: usize,
    /// Symbols that can follow a context. Default: 4.
    pub branching: usize,
    /// Symbols of every text. Default: 64.
    pub tokens: usize,
}

impl Default for EntropyConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            parts: Parts::default(),
            symbols: 16,
            order: 2,
            branching: 4,
            tokens: 64,
        }
    }
}

const BOS: u32 = 0;

/// The task. Texts are told apart into parts by a hash of all their symbols, which tells a model nothing that it could use:
/// the nats are those of the source before its texts are told apart.
pub(crate) struct Entropy {
    config: EntropyConfig,
    source: Markov,
}

impl Registered for Entropy {
    type Config = EntropyConfig;
    const NAME: &'static str = "entropy";
    const SUMMARY: &'static str = "write a language of exactly known entropy, a sparse Markov source";

    fn new(config: &EntropyConfig) -> Result<Self> {
        let check = Check(Self::NAME);
        config.parts.check(check)?;
        check.between("symbols", config.symbols, 2, MOST)?;
        check.between("order", config.order, 1, 3)?;
        check.between("branching", config.branching, 1, config.symbols)?;
        check.between("tokens", config.tokens, 1, MOST)?;
        let contexts = contexts(config.symbols, config.order);
        if contexts > MOST {
            return check.fail(
                "order",
                config.order,
                format!("at most {MOST} contexts, these are {contexts}"),
            );
        }
        let world = &mut Rng::world(config.seed, Self::NAME);
        let source = Markov::new(world, config.symbols, config.order, config.branching);
        let typical = source.mean_nats(config.tokens).exp();
        check.contents("tokens", config.tokens, typical as u128)?;
        Ok(Self {
            config: *config,
            source,
        })
    }
}

impl Task for Entropy {
    fn spec(&self) -> TaskSpec {
        TaskSpec {
            source: SourceKind::None,
            max_source: 0,
            vocab: self.config.symbols + 1,
            max_text: self.config.tokens + 1,
            bos: BOS,
            eos: None,
            measure: Measure::ExcessLoss,
            best: 0.0,
        }
    }

    fn len(&self, part: Part) -> Option<u64> {
        self.config.parts.len(part)
    }

    fn example(&self, part: Part, index: u64) -> Example {
        let rng = &mut Rng::example(self.config.seed, Self::NAME, part, index);
        let draw = |rng: &mut Rng| self.source.draw(rng, self.config.tokens);
        let symbols = draw_in(part, rng, draw, |text| {
            hash(text.iter().map(|symbol| *symbol as u32))
        });
        let text = symbols.iter().map(|symbol| *symbol as u32 + 1);
        Example::of_text(Source::None, std::iter::once(BOS).chain(text).collect())
    }

    fn true_nats(&self, example: &Example) -> Option<f64> {
        // What is no symbol becomes one that never follows.
        let symbols = example.text.iter().skip(1);
        let symbols = symbols.map(|token| (*token as usize).checked_sub(1).unwrap_or(usize::MAX));
        Some(self.source.nats(symbols))
    }
}
