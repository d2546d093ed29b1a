//! Amounts of memory as people write them.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

/// Bytes, read from a number or from text with a unit: `1073741824`, `1 GiB`, `1.5GB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ByteCount(pub u64);

/// Units in bytes; the longer name of two with one ending first.
const UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

impl FromStr for ByteCount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("`{text}` is no amount of memory, expected bytes or a number with a unit: 8 GiB, 512MB")
        };
        let trimmed = text.trim();
        let unit = UNITS.iter().find_map(|&(name, bytes)| {
            let number = trimmed.strip_suffix(name)?;
            Some((number.trim(), bytes))
        });
        let (number, unit) = unit.unwrap_or((trimmed, 1));
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(unit).map(Self).ok_or_else(wrong);
        }
        let bytes = number.parse::<f64>().map_err(|_| wrong())? * unit as f64;
        let is_bytes = bytes.is_finite() && bytes >= 0.0 && bytes < u64::MAX as f64;
        if is_bytes {
            Ok(Self(bytes as u64))
        } else {
            Err(wrong())
        }
    }
}

impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::units::format_bytes(self.0 as f64))
    }
}

impl<'de> Deserialize<'de> for ByteCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ByteCountVisitor)
    }
}

struct ByteCountVisitor;

impl Visitor<'_> for ByteCountVisitor {
    type Value = ByteCount;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes, or a number with a unit as in `8 GiB`")
    }

    fn visit_u64<E>(self, value: u64) -> Result<ByteCount, E> {
        Ok(ByteCount(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<ByteCount, E> {
        value.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for ByteCount {
    fn schema_name() -> Cow<'static, str> {
        "ByteCount".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9.]+ *(([KMGT]i?)?B)?$"}]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_units_or_are_bytes() {
        for (text, bytes) in [
            ("17", 17),
            ("8 GiB", 8 << 30),
            ("8GiB", 8 << 30),
            ("1.5 MB", 1_500_000),
            ("0.5KiB", 512),
            ("3 B", 3),
        ] {
            assert_eq!(text.parse(), Ok(ByteCount(bytes)), "{text}");
        }
        for text in ["", "GiB", "8 gigs", "-1 GiB", "99999999 TiB", "nan GB", "8 G"] {
            assert!(text.parse::<ByteCount>().is_err(), "{text}");
        }
    }
}
