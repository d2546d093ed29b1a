//! The values of a sweep file: an axis, a variant or workload with its settings, a scenario.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use attn_core::ParamValue;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};

/// One value, or a list of values that makes an axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis<T> {
    /// The values, as listed.
    pub values: Vec<T>,
    /// Whether they were written as a list.
    pub is_list: bool,
}

impl<T> Axis<T> {
    /// A single value.
    pub fn one(value: T) -> Self {
        Self {
            values: vec![value],
            is_list: false,
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Axis<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AxisVisitor(PhantomData))
    }
}

struct AxisVisitor<T>(PhantomData<T>);

/// Hands a scalar on to the type behind the axis, whose error then is the one to read.
macro_rules! pass_scalars_on {
    ($($method:ident: $type:ty),+) => {$(
        fn $method<E: de::Error>(self, value: $type) -> Result<Self::Value, E> {
            T::deserialize(value.into_deserializer()).map(Axis::one)
        }
    )+};
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for AxisVisitor<T> {
    type Value = Axis<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value or a list of values")
    }

    pass_scalars_on!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = items.next_element()? {
            values.push(value);
        }
        Ok(Axis {
            values,
            is_list: true,
        })
    }
}

impl<T: JsonSchema> JsonSchema for Axis<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Axis_of_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let item = generator.subschema_for::<T>();
        json_schema!({
            "anyOf": [item, {"type": "array", "items": item, "minItems": 1, "uniqueItems": true}]
        })
    }
}

/// A number, a word, or true or false.
#[derive(Debug, Clone, PartialEq)]
pub struct Scalar(pub ParamValue);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl Visitor<'_> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, a word, or true or false")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
        Ok(Scalar(ParamValue::Bool(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Scalar, E> {
        Ok(Scalar(ParamValue::Int(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Scalar, E> {
        // Only a negative number comes this way, and no setting takes one: the check names it as typed.
        Ok(Scalar(
            u64::try_from(value).map_or(ParamValue::Float(value as f64), ParamValue::Int),
        ))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Scalar, E> {
        Ok(Scalar(ParamValue::Float(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Scalar, E> {
        Ok(Scalar(ParamValue::Text(value.to_string())))
    }
}

impl JsonSchema for Scalar {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Scalar".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "integer", "minimum": 1})
    }
}

/// A variant or a workload: its name, and its settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Name of the variant or workload.
    pub name: String,
    /// Settings by name.
    pub settings: BTreeMap<String, Axis<Scalar>>,
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EntryVisitor)
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name with its settings, as in `- mtla: {stride: 2}`")
    }

    fn visit_str<E>(self, name: &str) -> Result<Entry, E> {
        Ok(Entry {
            name: name.to_string(),
            settings: BTreeMap::new(),
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry, A::Error> {
        let Some((name, settings)) = map.next_entry::<String, Option<BTreeMap<String, Axis<Scalar>>>>()?
        else {
            return Err(de::Error::custom(
                "invalid value: {}, expected a name with its settings",
            ));
        };
        if let Some(second) = map.next_key::<String>()? {
            return Err(de::Error::custom(format!(
                "`{name}` and `{second}` in one list item, expected one name with its settings: indent the \
                 settings below the name, or begin each name with a dash of its own"
            )));
        }
        Ok(Entry {
            name,
            settings: settings.unwrap_or_default(),
        })
    }
}

impl JsonSchema for Entry {
    fn schema_name() -> Cow<'static, str> {
        "Entry".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // Replaced in `crate::schema`, where the names are known.
        json_schema!({"type": ["object", "string"]})
    }
}

/// A chosen point: `workload` and its sizes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Scenario(pub BTreeMap<String, Scalar>);

impl JsonSchema for Scenario {
    fn schema_name() -> Cow<'static, str> {
        "Scenario".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // Replaced in `crate::schema`, where the names are known.
        json_schema!({"type": "object"})
    }
}
