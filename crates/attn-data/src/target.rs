//! What is to be written: text, or one label.

use attn_tasks::{Example, Probe, Source};

use crate::error::{Error, Place, Result};
use crate::tokenizer::{SPECIALS, Tokenizer, UNK};

/// What is to be written: text, or one label.
pub(crate) enum Target {
    /// Text, which begins with `<s>` and ends with `</s>`.
    Text(Box<Tokenizer>),
    /// One token: a label.
    Label(Labels),
}

/// Labels as tokens behind the special ones, in the order of their bytes.
pub(crate) struct Labels(Vec<String>);

impl Labels {
    pub fn new(labels: impl Iterator<Item = Result<String>>) -> Result<Self> {
        let mut labels = labels.collect::<Result<Vec<_>>>()?;
        labels.sort_unstable();
        labels.dedup();
        Ok(Self(labels))
    }
}

impl Target {
    /// The whole text of an example: beginning, tokens, and the end where texts have one.
    pub fn encode(&self, text: &str, at: &Place) -> Result<Vec<u32>> {
        match self {
            Self::Text(tokenizer) => {
                let mut tokens = vec![tokenizer.bos()];
                tokens.extend(tokenizer.encode(text).map_err(|error| error.at(at))?);
                if tokens.len() == 1 {
                    return Err(Error::EmptyText {
                        at: at.clone(),
                        field: "the text, as tokens,".into(),
                    });
                }
                tokens.push(tokenizer.eos());
                Ok(tokens)
            }
            Self::Label(Labels(labels)) => match labels.binary_search_by(|label| label.as_str().cmp(text)) {
                Ok(i) => Ok(vec![self.bos(), (SPECIALS.len() + i) as u32]),
                Err(_) => Err(Error::UnknownLabel {
                    at: at.clone(),
                    label: text.to_owned(),
                }),
            },
        }
    }

    /// The words of tokens without beginning and end; a label is one word.
    pub fn words(&self, tokens: &[u32]) -> Vec<String> {
        match self {
            Self::Text(tokenizer) => tokenizer.words(tokens),
            Self::Label(Labels(labels)) => tokens
                .iter()
                .filter(|token| **token != self.bos())
                .map(|token| {
                    let label = (*token as usize).checked_sub(SPECIALS.len());
                    let label = label.and_then(|i| labels.get(i));
                    label.map_or(UNK, String::as_str).to_owned()
                })
                .collect(),
        }
    }

    pub fn vocab(&self) -> usize {
        match self {
            Self::Text(tokenizer) => tokenizer.vocab(),
            Self::Label(Labels(labels)) => SPECIALS.len() + labels.len(),
        }
    }

    pub fn bos(&self) -> u32 {
        match self {
            Self::Text(tokenizer) => tokenizer.bos(),
            Self::Label(_) => 0,
        }
    }

    /// The end of texts. A label has none: it is one token.
    pub fn eos(&self) -> Option<u32> {
        match self {
            Self::Text(tokenizer) => Some(tokenizer.eos()),
            Self::Label(_) => None,
        }
    }
}

/// An example of which all of the text is answer. Its axes are the lengths of source and text.
pub(crate) fn example(source: Source, text: &[u32]) -> Example {
    let answers = text.len().saturating_sub(1);
    Example {
        probes: vec![Probe {
            distance: source.len(),
            load: answers,
        }],
        source,
        text: text.to_vec(),
        is_answer: vec![true; answers],
    }
}
