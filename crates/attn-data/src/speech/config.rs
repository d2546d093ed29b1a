//! How speech is described.

use std::path::{Path, PathBuf};

use attn_tasks::Part;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::AudioCheck;
use crate::error::{Error, Result};
use crate::fbank::FeatureConfig;
use crate::limits::Limits;
use crate::tokenizer::TokenizerConfig;

/// Speech from manifests: tables with a header and fields separated by tabs, as fairseq's S2T recipes write them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpeechConfig {
    /// The manifest of what a model is trained on.
    pub manifest_train: PathBuf,
    /// The manifest of what chooses checkpoints.
    pub manifest_valid: PathBuf,
    /// The manifest of what results are reported of.
    pub manifest_test: PathBuf,
    /// What the text of a manifest is.
    pub task: SpeechTask,
    /// The tokenizer of the texts. `understanding` has none: its labels are its tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<TokenizerConfig>,
    /// The column with the path of a WAV or FLAC file, absolute or from the manifest's folder; `path:start:samples` is a
    /// piece of it. Default: `audio`.
    #[serde(default = "audio_column")]
    pub audio_column: String,
    /// The column with the text or the label. Default: `tgt_text`.
    #[serde(default = "text_column")]
    pub text_column: String,
    /// How frames are made from sound.
    #[serde(default)]
    pub features: FeatureConfig,
    /// The longest utterance and text, and the largest vocabulary.
    #[serde(default)]
    pub limits: Limits,
    /// How audio is checked: `whole` (every file is decoded once) or `headers`. Default: `whole`.
    #[serde(default)]
    pub check: AudioCheck,
    /// Memory for features that were read before, in MiB. Default: 256.
    #[serde(default = "cache_mib")]
    pub cache_mib: usize,
}

/// What the text of a manifest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SpeechTask {
    /// What is said, in another language: measured by BLEU.
    Translation,
    /// What is said: measured by word error rate.
    Recognition,
    /// What is wanted, as one label: measured by the share of labels that are right.
    Understanding,
}

fn audio_column() -> String {
    "audio".into()
}

fn text_column() -> String {
    "tgt_text".into()
}

fn cache_mib() -> usize {
    256
}

impl SpeechConfig {
    /// The manifest of a part.
    pub(super) fn manifest(&self, part: Part) -> &Path {
        match part {
            Part::Train => &self.manifest_train,
            Part::Valid => &self.manifest_valid,
            Part::Test => &self.manifest_test,
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        self.limits.check()?;
        if self.cache_mib > 1 << 20 {
            return Err(Error::config("cache_mib", "at most 1048576"));
        }
        match (self.task, &self.tokenizer) {
            (SpeechTask::Understanding, Some(_)) => Err(Error::config(
                "tokenizer",
                "task understanding has none, its labels are its tokens",
            )),
            (SpeechTask::Translation | SpeechTask::Recognition, None) => {
                Err(Error::config("tokenizer", "it is missing"))
            }
            _ => Ok(()),
        }
    }
}
