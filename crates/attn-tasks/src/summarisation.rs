//! Summarisation: records of facts in, those of the entity that is mentioned most often out.
//!
//! A record is a time, an entity, an attribute and its value. The summary is the entity's name, then attribute and value of
//! each of its records in order of time. Records of other entities and tokens that mean nothing are to be passed over.

use serde::{Deserialize, Serialize};

use crate::check::{Check, MOST, power};
use crate::error::Result;
use crate::parts::{Parts, draw_in};
use crate::registry::Registered;
use crate::rng::{Rng, hash};
use crate::span::Span;
use crate::task::{Example, Measure, Part, Source, SourceKind, Task, TaskSpec};

/// What is summed up. More records make it harder, and above all records that do not stand in order of time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SummarisationConfig {
    /// Seed of the sources. Default: 0.
    pub seed: u64,
    /// Examples of each part.
    pub parts: Parts,
    /// Entities to choose from, enough for all records with fewer of any other than of the salient one. Default: 12.
    pub entities: usize,
    /// Attributes to choose from. Default: 8.
    pub attributes: usize,
    /// Values to choose from. Default: 32.
    pub values: usize,
    /// Tokens to choose from that mean nothing. Default: 8.
    pub fillers: usize,
    /// Times to choose from; no two records of a source have the same. Default: 32.
    pub times: usize,
    /// Records of a source. Default: 10 to 20.
    pub records: Span,
    /// Records of the entity that is mentioned most often; every other one has fewer. Default: 3 to 5.
    pub salient: Span,
    /// Tokens before each record that mean nothing. Default: 0 to 2.
    pub gaps: Span,
    /// Whether records stand in any order, so that their times have to be compared. Default: false.
    pub shuffled: bool,
}

impl Default for SummarisationConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            parts: Parts::default(),
            entities: 12,
            attributes: 8,
            values: 32,
            fillers: 8,
            times: 32,
            records: Span::new(10, 20),
            salient: Span::new(3, 5),
            gaps: Span::new(0, 2),
            shuffled: false,
        }
    }
}

const BOS: u32 = 0;
const EOS: u32 = 1;
const FIRST_ENTITY: usize = 2;

/// The task. Tokens of texts are beginning, end, entities, attributes and values; those of sources entities, attributes,
/// values, times and fillers.
pub(crate) struct Summarisation(pub(crate) SummarisationConfig);

struct Record {
    time: usize,
    entity: usize,
    attribute: usize,
    value: usize,
}

/// A source and its summary.
struct Document {
    source: Vec<u32>,
    text: Vec<u32>,
}

impl Registered for Summarisation {
    type Config = SummarisationConfig;
    const NAME: &'static str = "summarisation";
    const SUMMARY: &'static str =
        "sum up records by those of the entity that is mentioned most often, in order of time";

    fn new(config: &SummarisationConfig) -> Result<Self> {
        let check = Check(Self::NAME);
        config.parts.check(check)?;
        check.between("attributes", config.attributes, 1, MOST)?;
        check.between("values", config.values, 2, MOST)?;
        check.between("fillers", config.fillers, 1, MOST)?;
        check.span("salient", config.salient, 2, 1024)?;
        check.span("records", config.records, config.salient.max, 4096)?;
        check.between("times", config.times, config.records.max, MOST)?;
        check.span("gaps", config.gaps, 0, 1024)?;
        // All others together must have room for what is not salient, each with fewer records than the salient one.
        let others = (config.records.max - config.salient.min).div_ceil(config.salient.min - 1);
        check.between("entities", config.entities, 1 + others, MOST)?;
        let facts = power(
            config.entities * config.attributes * config.values,
            config.records.min,
        );
        check.contents("records", config.records, facts)?;
        Ok(Self(*config))
    }
}

impl Summarisation {
    /// Records in order of time.
    fn records(&self, rng: &mut Rng, n: usize, n_salient: usize) -> (usize, Vec<Record>) {
        let config = &self.0;
        let salient = rng.below(config.entities);
        let mut left = vec![n_salient - 1; config.entities];
        let mut entities = vec![salient; n_salient];
        while entities.len() < n {
            let entity = rng.below(config.entities);
            if entity != salient && left[entity] > 0 {
                left[entity] -= 1;
                entities.push(entity);
            }
        }
        rng.shuffle(&mut entities);
        let mut times = rng.distinct(config.times, n);
        times.sort_unstable();
        let records = times.into_iter().zip(entities).map(|(time, entity)| Record {
            time,
            entity,
            attribute: rng.below(config.attributes),
            value: rng.below(config.values),
        });
        (salient, records.collect())
    }

    fn draw(&self, rng: &mut Rng) -> Document {
        let SummarisationConfig {
            entities,
            attributes,
            values,
            times,
            ..
        } = self.0;
        let n = rng.within(self.0.records);
        let n_salient = rng.within(self.0.salient);
        let (salient, mut records) = self.records(rng, n, n_salient);

        let mut text = vec![BOS, (FIRST_ENTITY + salient) as u32];
        for record in records.iter().filter(|record| record.entity == salient) {
            let attribute = FIRST_ENTITY + entities + record.attribute;
            let value = FIRST_ENTITY + entities + attributes + record.value;
            text.extend([attribute as u32, value as u32]);
        }
        text.push(EOS);

        if self.0.shuffled {
            rng.shuffle(&mut records);
        }
        let first_time = entities + attributes + values;
        let mut source = Vec::new();
        for record in records {
            for _ in 0..rng.within(self.0.gaps) {
                source.push((first_time + times + rng.below(self.0.fillers)) as u32);
            }
            let Record {
                time,
                entity,
                attribute,
                value,
            } = record;
            let tokens = [
                first_time + time,
                entity,
                entities + attribute,
                entities + attributes + value,
            ];
            source.extend(tokens.map(|token| token as u32));
        }
        Document { source, text }
    }
}

impl Task for Summarisation {
    fn spec(&self) -> TaskSpec {
        let facts = self.0.entities + self.0.attributes + self.0.values;
        TaskSpec {
            source: SourceKind::Tokens {
                vocab: facts + self.0.times + self.0.fillers,
            },
            max_source: self.0.records.max * (4 + self.0.gaps.max),
            vocab: FIRST_ENTITY + facts,
            max_text: 3 + 2 * self.0.salient.max,
            bos: BOS,
            eos: Some(EOS),
            measure: Measure::RougeL,
            best: 100.0,
        }
    }

    fn len(&self, part: Part) -> Option<u64> {
        self.0.parts.len(part)
    }

    fn example(&self, part: Part, index: u64) -> Example {
        let rng = &mut Rng::example(self.0.seed, Self::NAME, part, index);
        let Document { source, text } = draw_in(
            part,
            rng,
            |rng| self.draw(rng),
            |document| hash(document.source.iter().copied()),
        );
        Example::of_text(Source::Tokens(source), text)
    }
}
