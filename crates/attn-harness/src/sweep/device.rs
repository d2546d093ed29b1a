//! The words of a sweep for element types, devices, paths and scopes.

use std::fmt;
use std::str::FromStr;

use candle_core::DType;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};

/// Element type of weights, activations and cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 32-bit IEEE.
    F32,
    /// 16-bit IEEE.
    F16,
    /// The upper half of an f32.
    BF16,
}

impl Dtype {
    /// Every dtype of sweeps.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::BF16];

    /// The name in sweeps and rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
        }
    }

    /// Bytes of one element.
    pub fn size_in_bytes(self) -> usize {
        DType::from(self).size_in_bytes()
    }
}

impl From<Dtype> for DType {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::BF16 => Self::BF16,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Dtype {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|dtype| dtype.name() == word);
        found.ok_or_else(|| format!("unknown dtype `{word}`, expected f32, f16 or bf16"))
    }
}

/// What the caches of the device hold when a sample begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Regime {
    /// What the sample before left there.
    #[default]
    Hot,
    /// None of the case's data: they are flushed before each sample, outside the clock.
    Cold,
}

impl Regime {
    /// Every regime, with one sentence each.
    pub const ALL: [(Self, &'static str); 2] = [
        (
            Self::Hot,
            "the device's caches hold what the sample before left there",
        ),
        (
            Self::Cold,
            "they hold none of the case's data: flushed before each sample, outside the clock",
        ),
    ];

    /// The name in sweeps and rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Cold => "cold",
        }
    }

    /// For `skip_serializing_if`.
    pub(crate) fn is_hot(&self) -> bool {
        *self == Self::Hot
    }
}

impl fmt::Display for Regime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How the work of a decode step gets to a GPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Launch {
    /// At once, as a CUDA graph that was recorded before.
    #[default]
    Graph,
    /// One launch after the other, as the layer makes them.
    Eager,
}

impl Launch {
    /// Every way, with one sentence each.
    pub const ALL: [(Self, &'static str); 2] = [
        (
            Self::Graph,
            "a decode step on a GPU is one CUDA graph, recorded before: the time is the GPU's",
        ),
        (
            Self::Eager,
            "its launches are made one by one: beside a graph's, the time is what launching costs",
        ),
    ];

    /// The name in sweeps and rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Graph => "graph",
            Self::Eager => "eager",
        }
    }

    /// For `skip_serializing_if`.
    pub(crate) fn is_graph(&self) -> bool {
        *self == Self::Graph
    }
}

impl fmt::Display for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The device a sweep asks for; a row says which one it got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum DeviceRequest {
    /// The processor.
    #[default]
    Cpu,
    /// A GPU, the first one where no number is given.
    Cuda(Option<usize>),
    /// The first GPU where there is one, else the processor.
    Auto,
}

impl fmt::Display for DeviceRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(None) => f.write_str("cuda"),
            Self::Cuda(Some(ordinal)) => write!(f, "cuda:{ordinal}"),
            Self::Auto => f.write_str("auto"),
        }
    }
}

impl FromStr for DeviceRequest {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let ordinal = word
            .strip_prefix("cuda:")
            .filter(|digits| !digits.starts_with('+'));
        match (word, ordinal.map(str::parse)) {
            ("cpu", _) => Ok(Self::Cpu),
            ("cuda", _) => Ok(Self::Cuda(None)),
            ("auto", _) => Ok(Self::Auto),
            (_, Some(Ok(ordinal))) => Ok(Self::Cuda(Some(ordinal))),
            _ => Err(format!(
                "unknown device `{word}`, expected cpu, cuda, cuda:N or auto"
            )),
        }
    }
}

impl<'de> Deserialize<'de> for DeviceRequest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

impl Serialize for DeviceRequest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

pub(super) fn device_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "pattern": "^(cpu|cuda|cuda:[0-9]+|auto)$"})
}

/// [`attn_core::Path`] for the schema.
#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(dead_code, reason = "read by the derive only")]
pub(super) enum PathName {
    Seedlike,
    Fused,
}

/// [`attn_core::Scope`] for the schema.
#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(dead_code, reason = "read by the derive only")]
pub(super) enum ScopeName {
    Layer,
    Op,
    Model,
}
