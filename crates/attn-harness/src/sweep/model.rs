//! The words of a sweep for whole decoders: habits of the seed's code, and for the schema decoders and prefixes.

use std::borrow::Cow;
use std::fmt;

use attn_core::{Habit, Habits};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer};

use super::source::nearest_word;

/// A value of `habits`: one set, or all sets there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HabitsChoice {
    /// Every set, 32 of them.
    Combinations,
    /// This set.
    Set(Habits),
}

impl HabitsChoice {
    /// Words that stand for sets, with one sentence each.
    pub const WORDS: [(&'static str, &'static str); 3] = [
        ("all", "every habit: the seed's way"),
        ("none", "no habit: bf16, and the two operations"),
        ("combinations", "every set of habits there is, 32 of them"),
    ];

    /// Every habit, with one sentence each.
    pub const HABITS: [(Habit, &'static str); 5] = [
        (
            Habit::Cat,
            "caches grow by concatenation in place of being allocated once",
        ),
        (
            Habit::Expand,
            "keys and values that heads share are repeated for each, at every step",
        ),
        (
            Habit::ReorderCopy,
            "a step of a beam search copies every layer's whole cache",
        ),
        (
            Habit::DenseMask,
            "scores of all pairs, and masks made anew by every call, in place of the two kernels",
        ),
        (Habit::F32, "everything is f32, without it bf16"),
    ];

    /// The sets it stands for.
    pub fn sets(self) -> Vec<Habits> {
        match self {
            Self::Combinations => Habits::combinations().collect(),
            Self::Set(habits) => vec![habits],
        }
    }
}

impl fmt::Display for HabitsChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Combinations => f.write_str("combinations"),
            Self::Set(habits) => habits.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for HabitsChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "combinations" {
            return Ok(Self::Combinations);
        }
        text.parse().map(Self::Set).map_err(|reason: String| {
            let known = Habit::ALL
                .map(Habit::name)
                .into_iter()
                .chain(Self::WORDS.map(|(word, _)| word));
            let wrong = text
                .split('+')
                .find(|word| !known.clone().any(|name| name == *word));
            let near = wrong.and_then(|word| nearest_word(word, known.clone()));
            let hint = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
            de::Error::custom(format!("{reason}, or combinations{hint}"))
        })
    }
}

impl JsonSchema for HabitsChoice {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Habits".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names = Habit::ALL.map(Habit::name).join("|");
        let words = Self::WORDS.map(|(word, _)| word).join("|");
        json_schema!({"type": "string", "pattern": format!("^({words}|({names})(\\+({names}))*)$")})
    }
}

/// [`attn_core::DecoderKind`] for the schema.
#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(dead_code, reason = "read by the derive only")]
pub(super) enum DecoderName {
    Prefix,
    Llama,
}

/// [`attn_core::Prefix`] for the schema.
#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
#[allow(dead_code, reason = "read by the derive only")]
pub(super) enum PrefixName {
    Replicated,
    Copied,
    Shared,
}
