//! What a sweep holds equal between variants.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

/// A quantity that variants are to have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    /// The model's width and heads: nothing is solved.
    Width,
    /// Parameters of the layer.
    Params,
    /// Bytes of cache per token, at the length of the workload.
    KvBytes,
    /// Operations of the workload over the whole layer.
    Flops,
}

impl Hold {
    /// Every quantity, with one sentence each.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Width, "the model's width and heads, nothing is solved"),
        (Self::Params, "parameters of the layer"),
        (
            Self::KvBytes,
            "bytes of cache per token, at the length of the workload",
        ),
        (Self::Flops, "operations of the workload over the whole layer"),
    ];

    /// The name in sweeps and rows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Width => "width",
            Self::Params => "params",
            Self::KvBytes => "kv_bytes",
            Self::Flops => "flops",
        }
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What to hold equal, and to which variant: `params`, or `{hold: params, reference: mha}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FairRule {
    /// The quantity.
    pub hold: Hold,
    /// Key of the variant that the others are matched to; the sweep's first where none is named.
    pub reference: Option<String>,
}

impl<'de> Deserialize<'de> for FairRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FairRuleVisitor)
    }
}

struct FairRuleVisitor;

/// The long form.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Long {
    hold: Hold,
    #[serde(default)]
    reference: Option<String>,
}

impl<'de> Visitor<'de> for FairRuleVisitor {
    type Value = FairRule;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("width, params, kv_bytes or flops, or a mapping as in {hold: params, reference: mha}")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<FairRule, E> {
        Ok(FairRule {
            hold: Hold::deserialize(word.into_deserializer())?,
            reference: None,
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<FairRule, A::Error> {
        let Long { hold, reference } = Long::deserialize(de::value::MapAccessDeserializer::new(map))?;
        Ok(FairRule { hold, reference })
    }
}

impl JsonSchema for FairRule {
    fn schema_name() -> Cow<'static, str> {
        "FairRule".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let holds = Hold::ALL.map(|(hold, _)| hold.name());
        json_schema!({
            "anyOf": [
                {"enum": holds},
                {
                    "type": "object",
                    "properties": {
                        "hold": {"enum": holds, "description": "What to hold equal."},
                        "reference": {
                            "type": "string",
                            "description": "The variant to match. Default: the first of the sweep.",
                        },
                    },
                    "required": ["hold"],
                    "additionalProperties": false,
                },
            ]
        })
    }
}
