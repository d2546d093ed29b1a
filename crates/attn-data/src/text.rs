//! Plain text, packed into blocks of one length.

use std::path::{Path, PathBuf};

use attn_tasks::{Example, Measure, Part, Source, SourceKind, Task, TaskSpec};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dataset::{Dataset, Faults, position};
use crate::error::{Error, Result};
use crate::files::{Line, Lines};
use crate::limits::Limits;
use crate::parts::Parts;
use crate::report::{PartReport, Report};
use crate::target;
use crate::tokenizer::{Tokenizer, TokenizerConfig};

/// Plain text for a language model: measured by perplexity.
///
/// Every line that is not blank is followed by `</s>`; the tokens of all lines behind one another are cut into blocks, of
/// which each begins with `<s>`. What does not fill the last block is left out and counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TextConfig {
    /// The file of what a model is trained on.
    pub train: PathBuf,
    /// The file of what chooses checkpoints.
    pub valid: PathBuf,
    /// The file of what results are reported of.
    pub test: PathBuf,
    /// The tokenizer.
    pub tokenizer: TokenizerConfig,
    /// Tokens that are predicted in a block. Default: 512.
    #[serde(default = "block")]
    pub block: usize,
    /// The largest vocabulary. Blocks have their length from `block`.
    #[serde(default)]
    pub limits: Limits,
}

fn block() -> usize {
    512
}

/// Blocks of plain text.
pub(crate) struct Text {
    tokenizer: Tokenizer,
    block: usize,
    parts: Parts<Vec<u32>>,
    spec: TaskSpec,
    report: Report,
    faults: Faults,
}

impl TextConfig {
    pub(crate) fn open(&self, base: &Path) -> Result<Text> {
        self.limits.check()?;
        if self.limits.max_source.or(self.limits.max_text).is_some() {
            return Err(Error::config(
                "limits",
                "a text has blocks of length `block`, say `max_vocab` alone",
            ));
        }
        if !(1..=1 << 24).contains(&self.block) {
            return Err(Error::config("block", "from 1 to 16777216 tokens"));
        }
        let lines = |part| lines(&base.join(self.file(part)));
        let tokenizer = Tokenizer::make(&self.tokenizer, base, self.limits.max_vocab, || {
            Ok(lines(Part::Train)?.map(|line| line.map(|line| line.text)))
        })?;
        let mut report = Report {
            vocab: tokenizer.vocab(),
            ..Report::default()
        };
        let parts = Parts::try_from_fn(|part| {
            let mut tokens = Vec::new();
            for line in lines(part)? {
                let line = line?;
                let encoded = tokenizer.encode(&line.text);
                tokens.extend(encoded.map_err(|error| error.at(&line.at))?);
                tokens.push(tokenizer.eos());
            }
            if tokens.is_empty() {
                return Err(Error::Empty {
                    path: base.join(self.file(part)),
                });
            }
            Ok(tokens)
        })?;
        report.parts = Parts::try_from_fn(|part| {
            let tokens = parts.get(part).len();
            let report = PartReport {
                kept: (tokens / self.block) as u64,
                tail_tokens: (tokens % self.block) as u64,
                ..PartReport::default()
            };
            report.none_left(part)?;
            Ok(report)
        })?;
        let spec = TaskSpec {
            source: SourceKind::None,
            max_source: 0,
            vocab: tokenizer.vocab(),
            max_text: self.block + 1,
            bos: tokenizer.bos(),
            eos: None,
            measure: Measure::Perplexity,
            best: 1.0,
        };
        Ok(Text {
            tokenizer,
            block: self.block,
            parts,
            spec,
            report,
            faults: Faults::default(),
        })
    }

    fn file(&self, part: Part) -> &Path {
        match part {
            Part::Train => &self.train,
            Part::Valid => &self.valid,
            Part::Test => &self.test,
        }
    }
}

/// The lines that are not blank.
fn lines(path: &Path) -> Result<impl Iterator<Item = Result<Line>> + use<>> {
    let blank = |line: &Result<Line>| matches!(line, Ok(line) if line.text.trim().is_empty());
    Ok(Lines::open(path)?.filter(move |line| !blank(line)))
}

impl Task for Text {
    fn spec(&self) -> TaskSpec {
        self.spec
    }

    fn len(&self, part: Part) -> Option<u64> {
        Some(self.report.parts.get(part).kept)
    }

    fn example(&self, part: Part, index: u64) -> Example {
        self.faults.or_blank(self.try_example(part, index), &self.spec)
    }

    fn words(&self, tokens: &[u32]) -> Vec<String> {
        self.tokenizer
            .decode(tokens)
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    }
}

impl Dataset for Text {
    fn try_example(&self, part: Part, index: u64) -> Result<Example> {
        let tokens = self.parts.get(part);
        let i = position(part, index, tokens.len() / self.block)?;
        let mut text = vec![self.spec.bos];
        text.extend_from_slice(&tokens[i * self.block..(i + 1) * self.block]);
        Ok(target::example(Source::None, &text))
    }

    fn report(&self) -> &Report {
        &self.report
    }

    fn fault(&self) -> Option<&Error> {
        self.faults.first()
    }
}
