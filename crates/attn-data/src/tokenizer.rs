//! Text as tokens and back.

mod train;

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokenizers::ModelWrapper;

use crate::error::{Error, Result};
use crate::files;

/// The token that every text begins with.
pub const BOS: &str = "<s>";
/// The token that ends a text.
pub const EOS: &str = "</s>";
/// The token that fills up a batch.
pub const PAD: &str = "<pad>";
/// The token of what has no other.
pub const UNK: &str = "<unk>";
/// The special tokens in the order of their ids, 0 to 3, in vocabularies that are made here.
pub const SPECIALS: [&str; 4] = [BOS, EOS, PAD, UNK];

/// Where a tokenizer comes from: a file, or the training texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenizerConfig {
    /// A `tokenizer.json`: it is read, or with `train` it is written, unless another one is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Trains byte-level BPE of so many tokens on the training texts. Small texts give fewer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train: Option<usize>,
}

/// Text as tokens and back.
///
/// # Source
/// The `tokenizers` crate; byte-level BPE as in Radford et al., "Language Models are Unsupervised Multitask Learners"
/// (2019), section 2.2.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    vocab: usize,
    bos: u32,
    eos: u32,
}

impl Tokenizer {
    /// As the configuration says. `texts` are the training texts, which are read where one is trained.
    ///
    /// # Errors
    /// Where neither or nothing that fits is asked for, where texts or file cannot be read, and where there are more
    /// than `max_vocab` tokens.
    pub fn make<I>(
        config: &TokenizerConfig,
        base: &Path,
        max_vocab: usize,
        texts: impl FnOnce() -> Result<I>,
    ) -> Result<Self>
    where
        I: Iterator<Item = Result<String>> + Send,
    {
        let file = config.file.as_ref().map(|file| base.join(file));
        let check = |size| match size {
            size if size > max_vocab => Err(Error::Vocabulary {
                what: "tokenizer",
                size,
                allowed: max_vocab,
            }),
            _ => Ok(()),
        };
        match (file, config.train) {
            (None, None) => Err(Error::config(
                "tokenizer",
                "say `file`, or `train` with the number of tokens, or both",
            )),
            (Some(file), None) => {
                let tokenizer = Self::load(&file)?;
                check(tokenizer.vocab)?;
                Ok(tokenizer)
            }
            (file, Some(size)) => {
                // Before training: room for them is made at its beginning.
                check(size)?;
                let tokenizer = Self::train(size, texts()?)?;
                if let Some(file) = file {
                    tokenizer.save(&file)?;
                }
                Ok(tokenizer)
            }
        }
    }

    /// Reads a `tokenizer.json` that has at least the tokens `<s>` and `</s>`. What it says of truncation, padding and
    /// templates is not followed: a dataset sets lengths and ends itself.
    ///
    /// # Errors
    /// Where it cannot be read, or has no such tokens.
    pub fn load(path: &Path) -> Result<Self> {
        let bad = |reason: String| Error::TokenizerFile {
            path: path.to_owned(),
            reason,
        };
        files::open(path)?;
        let bytes = fs::read(path).map_err(|error| Error::Read {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        // JSON first: the crate's own reader panics on some of what is none.
        let json: Value =
            serde_json::from_slice(&bytes).map_err(|error| bad(format!("no tokenizer: {error}")))?;
        let inner = guarded(|| Ok(serde_json::from_value::<tokenizers::Tokenizer>(json)?))
            .map_err(|reason| bad(format!("no tokenizer: {reason}")))?;
        Self::new(inner).map_err(bad)
    }

    /// Of the tokenizer alone; the error is a sentence.
    fn new(mut inner: tokenizers::Tokenizer) -> Result<Self, String> {
        inner.with_truncation(None).map_err(|error| error.to_string())?;
        inner.with_padding(None);
        if let ModelWrapper::BPE(model) = inner.get_model()
            && model.dropout.is_some_and(|share| share > 0.0)
        {
            return Err("it drops merges by chance, set `dropout` to null".into());
        }
        // `</s>` in a text is four characters, and no end of it.
        inner.set_encode_special_tokens(true);
        let id_of = |token| {
            inner
                .token_to_id(token)
                .ok_or_else(|| format!("the vocabulary lacks the token `{token}`"))
        };
        let (bos, eos) = (id_of(BOS)?, id_of(EOS)?);
        let last = inner.get_vocab(true).into_values().max().unwrap_or(0);
        Ok(Self {
            vocab: last as usize + 1,
            inner,
            bos,
            eos,
        })
    }

    /// Writes a `tokenizer.json`. One that is there stays, and must be the same.
    ///
    /// # Errors
    /// Where another one is there, or the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let failed = |reason: String| Error::Write {
            path: path.to_owned(),
            reason,
        };
        let json = self.inner.to_string(true).map_err(Error::tokenizer)?;
        if path.exists() {
            files::open(path)?;
            return match fs::read_to_string(path) {
                Ok(there) if there == json => Ok(()),
                _ => Err(failed(
                    "another file is there, remove it, or leave out `train` to use it".into(),
                )),
            };
        }
        fs::write(path, json).map_err(|error| failed(error.to_string()))
    }

    /// Tokens of a text, without beginning and end.
    ///
    /// # Errors
    /// Where the tokenizer fails, or finds a beginning or an end in the text itself.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = guarded(|| self.inner.encode_fast(text, false)).map_err(Error::tokenizer)?;
        let tokens = encoding.get_ids();
        // Some models have special tokens among those of text.
        if tokens.contains(&self.bos) || tokens.contains(&self.eos) {
            return Err(Error::tokenizer(format!("the text has `{BOS}` or `{EOS}` in it")));
        }
        Ok(tokens.to_vec())
    }

    /// The text of tokens, without special ones.
    pub fn decode(&self, tokens: &[u32]) -> String {
        guarded(|| self.inner.decode(tokens, true)).unwrap_or_default()
    }

    /// Words of a text, up to its end.
    pub fn words(&self, tokens: &[u32]) -> Vec<String> {
        let text = tokens.split(|&token| token == self.eos).next().unwrap_or(tokens);
        self.decode(text).split_whitespace().map(str::to_owned).collect()
    }

    /// Tokens V, which is the largest id and one.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// Id of `<s>`.
    pub fn bos(&self) -> u32 {
        self.bos
    }

    /// Id of `</s>`.
    pub fn eos(&self) -> u32 {
        self.eos
    }
}

/// What a call to the `tokenizers` crate gives, or why not. It panics on some files that say what cannot be done.
fn guarded<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match panic::catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("it panicked, so that its file is not to be trusted".into()),
    }
}
