//! How models are trained, and on what: the words of a sweep for the workload `quality`.

use std::borrow::Cow;
use std::path::Path;

use attn_data::{DataConfig, Dataset};
use attn_model::train::{AdamWOptions, Decay};
use attn_quality::TrainingOptions;
use attn_tasks::{Task, TaskConfig};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};

use super::Axis;

/// Words that name data of one's own; all others name generated tasks.
const DATA: [&str; 4] = ["speech", "documents", "parallel", "text"];

/// What a model is trained on.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum TaskChoice {
    /// Generated from a seed.
    Generated(TaskConfig),
    /// Read from files.
    Data(DataConfig),
}

impl TaskChoice {
    /// The task; relative paths of its files begin at `base`.
    ///
    /// # Errors
    /// What is wrong with its settings or its files, in words.
    pub fn open(&self, base: &Path) -> Result<OpenTask, String> {
        match self {
            Self::Generated(config) => config.build().map(OpenTask::Generated).map_err(|e| e.to_string()),
            Self::Data(config) => config.open(base).map(OpenTask::Data).map_err(|e| e.to_string()),
        }
    }
}

/// A task that is ready.
pub enum OpenTask {
    /// Generated from a seed.
    Generated(Box<dyn Task>),
    /// Read from files.
    Data(Box<dyn Dataset>),
}

impl OpenTask {
    /// The task.
    pub fn task(&self) -> &dyn Task {
        match self {
            Self::Generated(task) => task.as_ref(),
            Self::Data(data) => data.as_ref(),
        }
    }

    /// What became of the examples of its files; none where it has no files.
    pub fn report(&self) -> Option<String> {
        match self {
            Self::Generated(_) => None,
            Self::Data(data) => Some(data.report().to_string().trim().replace('\n', "; ")),
        }
    }

    /// What went wrong with its files since it was opened.
    pub fn fault(&self) -> Option<String> {
        match self {
            Self::Generated(_) => None,
            Self::Data(data) => data.fault().map(ToString::to_string),
        }
    }
}

impl<'de> Deserialize<'de> for TaskChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let names_data = |map: &serde_json::Map<String, serde_json::Value>| {
            map.keys().any(|key| DATA.contains(&key.as_str()))
        };
        match value.as_object() {
            Some(map) if names_data(map) => serde_json::from_value(value).map(Self::Data),
            _ => serde_json::from_value(value).map(Self::Generated),
        }
        .map_err(de::Error::custom)
    }
}

impl JsonSchema for TaskChoice {
    fn schema_name() -> Cow<'static, str> {
        "Task".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let names: Vec<&str> = attn_tasks::names().iter().map(|(name, _)| *name).collect();
        let settings: serde_json::Map<String, serde_json::Value> = names
            .iter()
            .map(|name| (name.to_string(), serde_json::json!({"type": "object"})))
            .collect();
        let data = generator.subschema_for::<DataConfig>();
        json_schema!({
            "anyOf": [
                {"enum": names},
                {
                    "type": "object",
                    "properties": settings,
                    "additionalProperties": false,
                    "minProperties": 1,
                    "maxProperties": 1,
                },
                data,
            ]
        })
    }
}

/// How models are trained, for `quality`. Defaults are those of small models on generated tasks.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TrainingSettings {
    /// Trainings of a case: seeds `seed`, `seed + 1` and so on draw weights and the order of the data. Default: 3.
    #[schemars(range(min = 1))]
    pub seeds: usize,
    /// The highest learning rate, or several: every model is then trained at each, and figures show each variant at its
    /// best by validation. Default: 0.002.
    pub lr: Axis<f64>,
    /// Updates in which it rises. Default: 50.
    pub warmup: u64,
    /// How it falls then: `constant`, `cosine` or `inverse_sqrt`. Default: `cosine`.
    #[schemars(with = "DecayName")]
    pub decay: Decay,
    /// Share of a target that is spread over the vocabulary. Default: 0.
    #[schemars(range(min = 0))]
    pub label_smoothing: f64,
    /// Decay of weights, in units of the learning rate (AdamW). Default: 0.01.
    #[schemars(range(min = 0))]
    pub weight_decay: f64,
    /// Norm to which larger gradients are cut; 0 cuts none. Default: 1.
    #[schemars(range(min = 0))]
    pub clip_norm: f64,
    /// Decay of the mean of gradients (AdamW). Default: 0.9.
    pub beta1: f64,
    /// Decay of the mean of their squares (AdamW). Default: 0.98.
    pub beta2: f64,
    /// Updates between two evaluations on the validation part. Default: 100.
    #[schemars(range(min = 1))]
    pub eval_every: u64,
    /// Examples of such an evaluation. Default: 64.
    #[schemars(range(min = 1))]
    pub eval_examples: u64,
    /// Best checkpoints by validation loss, whose weights are averaged for the test; 0 takes the last one. Default: 0.
    pub average: usize,
    /// Examples of the test. Default: 256.
    #[schemars(range(min = 1))]
    pub test_examples: u64,
    /// Processors of a training on the CPU: as many trainings run beside each other as there is room for. Default: 1.
    #[schemars(range(min = 1))]
    pub threads: usize,
}

impl Default for TrainingSettings {
    fn default() -> Self {
        Self {
            seeds: 3,
            lr: Axis::one(2e-3),
            warmup: 50,
            decay: Decay::Cosine,
            label_smoothing: 0.0,
            weight_decay: 0.01,
            clip_norm: 1.0,
            beta1: 0.9,
            beta2: 0.98,
            eval_every: 100,
            eval_examples: 64,
            average: 0,
            test_examples: 256,
            threads: 1,
        }
    }
}

impl TrainingSettings {
    /// The same for a training at one learning rate, of so many updates of so many examples.
    pub(crate) fn options(&self, lr: f64, steps: usize, batch: usize) -> TrainingOptions {
        TrainingOptions {
            steps: steps as u64,
            batch,
            lr,
            warmup: self.warmup,
            decay: self.decay,
            label_smoothing: self.label_smoothing,
            adamw: AdamWOptions {
                beta1: self.beta1,
                beta2: self.beta2,
                weight_decay: self.weight_decay,
                clip_norm: self.clip_norm,
                ..AdamWOptions::default()
            },
            eval_every: self.eval_every,
            eval_examples: self.eval_examples,
            average: self.average,
        }
    }
}

/// [`Decay`] for the schema.
#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(dead_code, reason = "read by the derive only")]
enum DecayName {
    Constant,
    Cosine,
    InverseSqrt,
}
