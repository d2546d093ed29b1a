//! The longest source and text, and the largest vocabulary.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The longest source and text, and the largest vocabulary. Examples that are longer are left out and counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Frames (after stacking) or tokens of the longest source. Default: no limit.
    pub max_source: Option<usize>,
    /// Tokens of the longest text, with its beginning and its end. Default: no limit.
    pub max_text: Option<usize>,
    /// Tokens of the largest vocabulary that the model may have. Default: 262144.
    pub max_vocab: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_source: None,
            max_text: None,
            max_vocab: 1 << 18,
        }
    }
}

impl Limits {
    pub(crate) fn check(&self) -> Result<()> {
        for (key, limit, least) in [
            ("limits.max_source", self.max_source, 1),
            ("limits.max_text", self.max_text, 2),
            ("limits.max_vocab", Some(self.max_vocab), 2),
        ] {
            if limit.is_some_and(|limit| limit < least) {
                return Err(Error::config(key, format!("at least {least}")));
            }
        }
        Ok(())
    }

    /// Whether a source is too long.
    pub(crate) fn source_too_long(&self, len: usize) -> bool {
        self.max_source.is_some_and(|max| len > max)
    }

    /// Whether a text is too long.
    pub(crate) fn text_too_long(&self, len: usize) -> bool {
        self.max_text.is_some_and(|max| len > max)
    }
}
