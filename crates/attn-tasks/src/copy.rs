//! Copying: random tokens, a separator, and the same tokens again.

use serde::{Deserialize, Serialize};

use crate::check::{Check, MOST, power};
use crate::error::Result;
use crate::parts::{Parts, draw_in};
use crate::registry::Registered;
use crate::rng::{Rng, hash};
use crate::span::Span;
use crate::task::{Example, Measure, Part, Probe, Source, SourceKind, Task, TaskSpec};

/// What is copied. More tokens make it harder.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CopyConfig {
    /// Seed of the texts. Default: 0.
    pub seed: u64,
    /// Examples of each part.
    pub parts: Parts,
    /// Tokens to choose from. Default: 32.
    pub symbols: usize,
    /// Tokens to copy. Default: 8 to 24.
    pub tokens: Span,
}

impl Default for CopyConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            parts: Parts::default(),
            symbols: 32,
            tokens: Span::new(8, 24),
        }
    }
}

const BOS: u32 = 0;
const SEPARATOR: u32 = 1;
const FIRST_SYMBOL: u32 = 2;

/// The task.
pub(crate) struct Copying(CopyConfig);

impl Registered for Copying {
    type Config = CopyConfig;
    const NAME: &'static str = "copy";
    const SUMMARY: &'static str = "write random tokens again after a separator";

    fn new(config: &CopyConfig) -> Result<Self> {
        let check = Check(Self::NAME);
        config.parts.check(check)?;
        check.between("symbols", config.symbols, 2, MOST)?;
        check.span("tokens", config.tokens, 1, MOST)?;
        check.contents("tokens", config.tokens, power(config.symbols, config.tokens.min))?;
        Ok(Self(*config))
    }
}

impl Task for Copying {
    fn spec(&self) -> TaskSpec {
        TaskSpec {
            source: SourceKind::None,
            max_source: 0,
            vocab: FIRST_SYMBOL as usize + self.0.symbols,
            max_text: 2 + 2 * self.0.tokens.max,
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
        let draw = |rng: &mut Rng| -> Vec<u32> {
            let n = rng.within(self.0.tokens);
            (0..n)
                .map(|_| FIRST_SYMBOL + rng.below(self.0.symbols) as u32)
                .collect()
        };
        let tokens = draw_in(part, rng, draw, |tokens| hash(tokens.iter().copied()));
        let n = tokens.len();
        Example {
            source: Source::None,
            text: [&[BOS], tokens.as_slice(), &[SEPARATOR], tokens.as_slice()].concat(),
            is_answer: [vec![false; n + 1], vec![true; n]].concat(),
            probes: vec![Probe { distance: n, load: n }],
        }
    }
}
