//! Pairs of a source text and a text: what documents and parallel text have in common.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use attn_tasks::{Example, Measure, Part, Source, SourceKind, Task, TaskSpec};

use crate::dataset::{Dataset, Faults, position};
use crate::error::{Error, Place, Result};
use crate::limits::Limits;
use crate::packed::Packed;
use crate::parts::Parts;
use crate::report::{PartReport, Report};
use crate::target::{self, Target};
use crate::tokenizer::Tokenizer;

/// A source text, a text, and where they are.
pub(crate) struct Pair {
    pub at: Place,
    pub source: String,
    pub text: String,
}

/// Pairs one by one; the first that is wrong ends them.
pub(crate) type PairRows = Box<dyn Iterator<Item = Result<Pair>> + Send>;

/// What pairs are made a dataset with.
pub(crate) struct PairSetup {
    /// The tokenizer of sources where it is not that of texts.
    pub source_tokenizer: Option<Tokenizer>,
    pub tokenizer: Tokenizer,
    pub limits: Limits,
    /// Whether sources that are too long are cut, not left out.
    pub cut_sources: bool,
    pub measure: Measure,
}

/// Pairs of a source text and a text, as tokens.
pub(crate) struct Pairs {
    target: Target,
    parts: Parts<Tokens>,
    spec: TaskSpec,
    report: Report,
    faults: Faults,
}

/// The tokens of a part.
#[derive(Default)]
struct Tokens {
    sources: Packed,
    texts: Packed,
    report: PartReport,
}

impl Pairs {
    /// Reads all parts; `rows` gives those of one.
    pub fn open(setup: PairSetup, rows: impl Fn(Part) -> Result<PairRows>) -> Result<Self> {
        let PairSetup {
            source_tokenizer,
            tokenizer,
            limits,
            cut_sources,
            measure,
        } = setup;
        let source_tokenizer = source_tokenizer.unwrap_or_else(|| tokenizer.clone());
        let target = Target::Text(Box::new(tokenizer));
        let mut in_train = HashSet::new();
        let parts = Parts::try_from_fn(|part| {
            let mut tokens = Tokens::default();
            for pair in rows(part)? {
                let pair = pair?;
                let mut source = source_tokenizer
                    .encode(&pair.source)
                    .map_err(|error| error.at(&pair.at))?;
                let text = target.encode(&pair.text, &pair.at)?;
                let report = &mut tokens.report;
                let too_long = limits.source_too_long(source.len());
                if too_long && !cut_sources {
                    report.source_too_long += 1;
                } else if limits.text_too_long(text.len()) {
                    report.text_too_long += 1;
                } else if source.is_empty() {
                    report.source_too_short += 1;
                } else {
                    if let Some(max) = limits.max_source.filter(|_| too_long) {
                        source.truncate(max);
                        report.cut += 1;
                    }
                    match part {
                        Part::Train => drop(in_train.insert(digest(&pair))),
                        _ => report.also_in_train += u64::from(in_train.contains(&digest(&pair))),
                    }
                    report.kept += 1;
                    tokens.sources.push(&source);
                    tokens.texts.push(&text);
                }
            }
            tokens.report.none_left(part)?;
            Ok(tokens)
        })?;
        let longest = |of: fn(&Tokens) -> &Packed| {
            let longest = parts.iter().map(|(_, part)| of(part).longest());
            longest.max().unwrap_or(0)
        };
        let spec = TaskSpec {
            source: SourceKind::Tokens {
                vocab: source_tokenizer.vocab(),
            },
            max_source: longest(|part| &part.sources),
            vocab: target.vocab(),
            max_text: longest(|part| &part.texts),
            bos: target.bos(),
            eos: target.eos(),
            measure,
            best: 100.0,
        };
        let report = Report {
            vocab: spec.vocab,
            parts: Parts::try_from_fn(|part| Ok(parts.get(part).report))?,
        };
        Ok(Self {
            target,
            parts,
            spec,
            report,
            faults: Faults::default(),
        })
    }
}

/// The same for the same pair; two others have the same by chance, 1 in 2^64.
fn digest(pair: &Pair) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&pair.source, &pair.text).hash(&mut hasher);
    hasher.finish()
}

impl Task for Pairs {
    fn spec(&self) -> TaskSpec {
        self.spec
    }

    fn len(&self, part: Part) -> Option<u64> {
        Some(self.parts.get(part).texts.len() as u64)
    }

    fn example(&self, part: Part, index: u64) -> Example {
        self.faults.or_blank(self.try_example(part, index), &self.spec)
    }

    fn words(&self, tokens: &[u32]) -> Vec<String> {
        self.target.words(tokens)
    }
}

impl Dataset for Pairs {
    fn try_example(&self, part: Part, index: u64) -> Result<Example> {
        let tokens = self.parts.get(part);
        let i = position(part, index, tokens.texts.len())?;
        let source = Source::Tokens(tokens.sources.get(i).to_vec());
        Ok(target::example(source, tokens.texts.get(i)))
    }

    fn report(&self) -> &Report {
        &self.report
    }

    fn fault(&self) -> Option<&Error> {
        self.faults.first()
    }
}
