//! Parallel text: two files that go line by line.

use std::path::{Path, PathBuf};

use attn_tasks::{Measure, Part};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files::{Line, Lines};
use crate::limits::Limits;
use crate::pairs::{Pair, PairRows, PairSetup, Pairs};
use crate::tokenizer::{Tokenizer, TokenizerConfig};

/// Text and its translation, from pairs of files that go line by line: measured by BLEU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ParallelConfig {
    /// The files of what a model is trained on.
    pub train: ParallelFiles,
    /// The files of what chooses checkpoints.
    pub valid: ParallelFiles,
    /// The files of what results are reported of.
    pub test: ParallelFiles,
    /// The tokenizer of targets, and of sources where these have no other. One that is trained learns from what it is
    /// for.
    pub tokenizer: TokenizerConfig,
    /// The tokenizer of sources. Default: that of targets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_tokenizer: Option<TokenizerConfig>,
    /// The longest source and target, and the largest vocabulary.
    #[serde(default)]
    pub limits: Limits,
}

/// Two files that go line by line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ParallelFiles {
    /// What is translated.
    pub source: PathBuf,
    /// What it is translated to.
    pub target: PathBuf,
}

impl ParallelConfig {
    pub(crate) fn open(&self, base: &Path) -> Result<Pairs> {
        self.limits.check()?;
        let files = |part| match part {
            Part::Train => &self.train,
            Part::Valid => &self.valid,
            Part::Test => &self.test,
        };
        // Both at once, so that files of different lengths are found before a tokenizer is trained on them.
        let texts = |source: bool, target: bool| -> Result<_> {
            Ok(rows(&self.train, base)?.flat_map(move |pair| match pair {
                Ok(pair) => [(source, pair.source), (target, pair.text)]
                    .into_iter()
                    .filter_map(|(wanted, text)| wanted.then_some(Ok(text)))
                    .collect(),
                Err(error) => vec![Err(error)],
            }))
        };
        let make = |config, source, target| {
            Tokenizer::make(config, base, self.limits.max_vocab, || texts(source, target))
        };
        let source_tokenizer = match &self.source_tokenizer {
            Some(config) => Some(make(config, true, false)?),
            None => None,
        };
        let setup = PairSetup {
            tokenizer: make(&self.tokenizer, source_tokenizer.is_none(), true)?,
            source_tokenizer,
            limits: self.limits.clone(),
            cut_sources: false,
            measure: Measure::Bleu,
        };
        Pairs::open(setup, |part| rows(files(part), base))
    }
}

/// Two files at once.
struct Rows {
    sources: Lines,
    targets: Lines,
    paths: [PathBuf; 2],
    read: u64,
}

fn rows(files: &ParallelFiles, base: &Path) -> Result<PairRows> {
    let paths = [base.join(&files.source), base.join(&files.target)];
    let mut rows = Rows {
        sources: Lines::open(&paths[0])?,
        targets: Lines::open(&paths[1])?,
        paths,
        read: 0,
    }
    .peekable();
    match rows.peek() {
        Some(_) => Ok(Box::new(rows)),
        None => Err(Error::Empty {
            path: base.join(&files.source),
        }),
    }
}

impl Rows {
    fn pair(&mut self) -> Result<Option<Pair>> {
        let lines = (self.sources.next().transpose()?, self.targets.next().transpose()?);
        let (source, target) = match lines {
            (Some(source), Some(target)) => (source, target),
            (None, None) => return Ok(None),
            (source, target) => {
                return Err(self.lengths_differ(source.is_some().into(), target.is_some().into()));
            }
        };
        self.read += 1;
        for (line, side) in [(&source, "the source"), (&target, "the target")] {
            not_empty(line, side)?;
        }
        Ok(Some(Pair {
            at: target.at,
            source: source.text,
            text: target.text,
        }))
    }

    /// Counts what is left of the longer file, of which so many lines were read more.
    fn lengths_differ(&mut self, more_sources: u64, more_targets: u64) -> Error {
        let [source_path, target_path] = self.paths.clone();
        Error::LineCounts {
            source_path,
            source_lines: self.read + more_sources + self.sources.by_ref().count() as u64,
            target_path,
            target_lines: self.read + more_targets + self.targets.by_ref().count() as u64,
        }
    }
}

fn not_empty(line: &Line, side: &str) -> Result<()> {
    match line.text.trim() {
        "" => Err(Error::EmptyText {
            at: line.at.clone(),
            field: side.into(),
        }),
        _ => Ok(()),
    }
}

impl Iterator for Rows {
    type Item = Result<Pair>;

    fn next(&mut self) -> Option<Self::Item> {
        self.pair().transpose()
    }
}
