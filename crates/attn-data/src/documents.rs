//! Documents with summaries, one JSON object a line.

use std::path::{Path, PathBuf};

use attn_tasks::{Measure, Part};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Place, Result};
use crate::files::Lines;
use crate::limits::Limits;
use crate::pairs::{Pair, PairRows, PairSetup, Pairs};
use crate::tokenizer::{Tokenizer, TokenizerConfig};

/// Documents with summaries, from files with one JSON object a line: measured by ROUGE-L.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DocumentsConfig {
    /// The file of what a model is trained on.
    pub train: PathBuf,
    /// The file of what chooses checkpoints.
    pub valid: PathBuf,
    /// The file of what results are reported of.
    pub test: PathBuf,
    /// The tokenizer of documents and summaries.
    pub tokenizer: TokenizerConfig,
    /// The key of the document. Default: `document`.
    #[serde(default = "document_key")]
    pub document_key: String,
    /// The key of the summary. Default: `summary`.
    #[serde(default = "summary_key")]
    pub summary_key: String,
    /// Whether documents longer than `limits.max_source` are cut to it, and counted, in place of being left out.
    /// Default: no.
    #[serde(default)]
    pub cut_documents: bool,
    /// The longest document and summary, and the largest vocabulary.
    #[serde(default)]
    pub limits: Limits,
}

fn document_key() -> String {
    "document".into()
}

fn summary_key() -> String {
    "summary".into()
}

impl DocumentsConfig {
    pub(crate) fn open(&self, base: &Path) -> Result<Pairs> {
        self.limits.check()?;
        if self.cut_documents && self.limits.max_source.is_none() {
            return Err(Error::config("cut_documents", "say `limits.max_source` too"));
        }
        let rows = |part| self.rows(base, part);
        let tokenizer = Tokenizer::make(&self.tokenizer, base, self.limits.max_vocab, || {
            let sides = |pair: Pair| [pair.source, pair.text];
            Ok(rows(Part::Train)?.flat_map(move |pair| match pair {
                Ok(pair) => sides(pair).map(Ok).into_iter().collect(),
                Err(error) => vec![Err(error)],
            }))
        })?;
        let setup = PairSetup {
            source_tokenizer: None,
            tokenizer,
            limits: self.limits.clone(),
            cut_sources: self.cut_documents,
            measure: Measure::RougeL,
        };
        Pairs::open(setup, rows)
    }

    fn rows(&self, base: &Path, part: Part) -> Result<PairRows> {
        let path = base.join(match part {
            Part::Train => &self.train,
            Part::Valid => &self.valid,
            Part::Test => &self.test,
        });
        let mut lines = Lines::open(&path)?.peekable();
        if lines.peek().is_none() {
            return Err(Error::Empty { path });
        }
        let keys = [self.document_key.clone(), self.summary_key.clone()];
        Ok(Box::new(lines.map(move |line| {
            let line = line?;
            let [source, text] = fields(&line.text, &line.at, &keys)?;
            Ok(Pair {
                at: line.at,
                source,
                text,
            })
        })))
    }
}

/// The texts under keys of a JSON object.
fn fields(line: &str, at: &Place, keys: &[String; 2]) -> Result<[String; 2]> {
    let bad = |reason: String| Error::Json {
        at: at.clone(),
        reason,
    };
    let mut object: Map<String, Value> =
        serde_json::from_str(line).map_err(|error| bad(format!("no JSON object: {error}")))?;
    let mut text_of = |key: &String| match object.remove(key) {
        Some(Value::String(text)) if text.trim().is_empty() => Err(Error::EmptyText {
            at: at.clone(),
            field: format!("`{key}`"),
        }),
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(bad(format!("`{key}` is no string"))),
        None => Err(bad(format!("there is no key `{key}`"))),
    };
    Ok([text_of(&keys[0])?, text_of(&keys[1])?])
}
