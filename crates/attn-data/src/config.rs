//! Which data, and how it is read.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dataset::Dataset;
use crate::documents::DocumentsConfig;
use crate::error::Result;
use crate::parallel::ParallelConfig;
use crate::speech::{Speech, SpeechConfig};
use crate::text::TextConfig;

/// Which data, and how it is read: one key with its settings, as `text: {train: .., ..}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "OneOf", into = "OneOf")]
pub enum DataConfig {
    /// Speech from manifests.
    Speech(SpeechConfig),
    /// Documents with summaries.
    Documents(DocumentsConfig),
    /// Text and its translation.
    Parallel(ParallelConfig),
    /// Plain text.
    Text(TextConfig),
}

impl DataConfig {
    /// Reads and checks the data. Relative paths begin at `base`.
    ///
    /// # Errors
    /// On the first thing that is wrong with it, with its file and line.
    pub fn open(&self, base: &Path) -> Result<Box<dyn Dataset>> {
        Ok(match self {
            Self::Speech(config) => Box::new(Speech::open(config, base)?),
            Self::Documents(config) => Box::new(config.open(base)?),
            Self::Parallel(config) => Box::new(config.open(base)?),
            Self::Text(config) => Box::new(config.open(base)?),
        })
    }
}

/// The same as a map with one key: YAML writes enums with tags otherwise.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "DataConfig", extend("minProperties" = 1, "maxProperties" = 1))]
struct OneOf {
    /// Speech from manifests.
    #[serde(skip_serializing_if = "Option::is_none")]
    speech: Option<SpeechConfig>,
    /// Documents with summaries.
    #[serde(skip_serializing_if = "Option::is_none")]
    documents: Option<DocumentsConfig>,
    /// Text and its translation.
    #[serde(skip_serializing_if = "Option::is_none")]
    parallel: Option<ParallelConfig>,
    /// Plain text.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<TextConfig>,
}

impl TryFrom<OneOf> for DataConfig {
    type Error = &'static str;

    fn try_from(one: OneOf) -> Result<Self, Self::Error> {
        let OneOf {
            speech,
            documents,
            parallel,
            text,
        } = one;
        match (speech, documents, parallel, text) {
            (Some(config), None, None, None) => Ok(Self::Speech(config)),
            (None, Some(config), None, None) => Ok(Self::Documents(config)),
            (None, None, Some(config), None) => Ok(Self::Parallel(config)),
            (None, None, None, Some(config)) => Ok(Self::Text(config)),
            _ => Err("data are one of `speech`, `documents`, `parallel` and `text`"),
        }
    }
}

impl From<DataConfig> for OneOf {
    fn from(config: DataConfig) -> Self {
        let mut one = Self::default();
        match config {
            DataConfig::Speech(config) => one.speech = Some(config),
            DataConfig::Documents(config) => one.documents = Some(config),
            DataConfig::Parallel(config) => one.parallel = Some(config),
            DataConfig::Text(config) => one.text = Some(config),
        }
        one
    }
}

impl JsonSchema for DataConfig {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "DataConfig".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        OneOf::json_schema(generator)
    }
}
