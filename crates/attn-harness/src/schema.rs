//! The JSON schema of sweep files: the typed fields, and what the registry knows of variants and workloads.

use attn_core::{ParamKind, Variant, Workload};
use serde_json::{Map, Value, json};

use crate::plan::{QUALITY, QUALITY_SETTINGS, QUALITY_SUMMARY, SizeSpec, WORKLOADS, WorkloadSpec};
use crate::sweep::SweepFile;

/// The schema, for editors and checks.
pub fn sweep_schema(variants: &[&Variant], figures: &[&str]) -> Value {
    let mut schema = schemars::schema_for!(SweepFile).to_value();
    if let Some(root) = schema.as_object_mut() {
        root.insert("title".to_string(), json!("attn-bench sweep"));
    }
    set(
        &mut schema,
        "/$defs/Scenario",
        json!({"oneOf": WORKLOADS.iter().map(scenario).collect::<Vec<_>>()}),
    );
    // Variants and workloads are both a name with settings, but the names differ.
    if let Some(definitions) = schema.pointer_mut("/$defs").and_then(Value::as_object_mut) {
        definitions.remove("Entry");
        definitions.insert("Variant".to_string(), variant_entry(variants, |_, _| false));
        definitions.insert("MatchedVariant".to_string(), variant_entry(variants, is_free));
        definitions.insert("Workload".to_string(), workload_entry());
    }
    // Where something is held equal, what is solved for is not given.
    let items =
        |name: &str| json!({"properties": {"variants": {"items": {"$ref": format!("#/$defs/{name}")}}}});
    if let Some(root) = schema.as_object_mut() {
        root.insert("if".to_string(), json!({"required": ["fair"]}));
        root.insert("then".to_string(), items("MatchedVariant"));
        root.insert("else".to_string(), items("Variant"));
    }
    set(&mut schema, "/properties/variants/items", json!(true));
    set(
        &mut schema,
        "/properties/workloads/items",
        json!({"$ref": "#/$defs/Workload"}),
    );
    set(&mut schema, "/properties/figures/items", json!({"enum": figures}));
    schema
}

fn set(schema: &mut Value, pointer: &str, value: Value) {
    if let Some(place) = schema.pointer_mut(pointer) {
        *place = value;
    }
}

/// One value or a list of values.
fn axis(value: &Value) -> Value {
    json!({"anyOf": [value, {"type": "array", "items": value, "minItems": 1, "uniqueItems": true}]})
}

fn described(mut value: Value, description: &str) -> Value {
    if let Some(object) = value.as_object_mut() {
        object.insert("description".to_string(), json!(description));
    }
    value
}

/// A mapping of one name to its settings.
fn one_key(name: &str, description: &str, settings: Map<String, Value>, required: &[&str]) -> Value {
    let kind = if required.is_empty() {
        json!(["object", "null"])
    } else {
        json!("object")
    };
    json!({
        "type": "object",
        "description": description,
        "properties": {name: {
            "type": kind,
            "properties": settings,
            "required": required,
            "additionalProperties": false,
        }},
        "required": [name],
        "additionalProperties": false,
    })
}

/// Whether some fairness mode solves for a setting.
fn is_free(variant: &Variant, setting: &str) -> bool {
    let free = variant.free;
    [free.params, free.kv_bytes, free.flops].contains(&setting)
}

/// Any of `variants`; settings that are `optional` need not be given.
fn variant_entry(variants: &[&Variant], optional: fn(&Variant, &str) -> bool) -> Value {
    let mut choices = Vec::new();
    for variant in variants {
        let settings = variant.params.iter().map(|spec| {
            let value = match spec.kind {
                ParamKind::Int { min } => json!({"type": "integer", "minimum": min}),
                ParamKind::Float => json!({"type": "number", "exclusiveMinimum": 0}),
                ParamKind::Bool => json!({"type": "boolean"}),
                ParamKind::Choice(words) => json!({"enum": words}),
            };
            let help = format!("{} Default: {}.", spec.help, spec.default);
            (spec.name.to_string(), described(axis(&value), &help))
        });
        let required: Vec<&str> = variant
            .params
            .iter()
            .filter(|s| s.is_required() && !optional(variant, s.name))
            .map(|s| s.name)
            .collect();
        let about = format!(
            "{} arXiv {}. Cache: {}.",
            variant.summary, variant.paper, variant.cache_formula
        );
        choices.push(one_key(variant.key, &about, settings.collect(), &required));
        if required.is_empty() {
            choices.push(json!({"const": variant.key, "description": about}));
        }
    }
    json!({"description": "A variant with its settings; a list is an axis.", "oneOf": choices})
}

fn size(spec: &SizeSpec) -> Value {
    json!({"type": "integer", "minimum": 1, "maximum": spec.max})
}

fn about(spec: &WorkloadSpec) -> &'static str {
    Workload::ALL
        .iter()
        .find(|(name, _)| *name == spec.name)
        .map_or("", |(_, sentence)| sentence)
}

fn workload_entry() -> Value {
    let mut choices = Vec::new();
    for spec in &WORKLOADS {
        let sizes = spec
            .sizes
            .iter()
            .map(|s| (s.name.to_string(), described(axis(&size(s)), s.help)));
        // No size is required here: `grid` may give any of them.
        choices.push(one_key(spec.name, about(spec), sizes.collect(), &[]));
        choices.push(json!({"const": spec.name, "description": about(spec)}));
    }
    choices.push(quality_entry());
    json!({"description": "A workload with its sizes; a list is an axis.", "oneOf": choices})
}

fn quality_entry() -> Value {
    let settings = QUALITY_SETTINGS.iter().map(|setting| {
        let value = match setting.name {
            "task" => json!({"type": "string"}),
            _ => size(setting),
        };
        (setting.name.to_string(), described(axis(&value), setting.help))
    });
    one_key(QUALITY, QUALITY_SUMMARY, settings.collect(), &["task"])
}

fn scenario(spec: &WorkloadSpec) -> Value {
    let mut properties: Map<String, Value> = spec
        .sizes
        .iter()
        .map(|s| (s.name.to_string(), described(size(s), s.help)))
        .collect();
    properties.insert("workload".to_string(), json!({"const": spec.name}));
    let needed = spec
        .sizes
        .iter()
        .filter(|size| size.default.is_none())
        .map(|size| size.name);
    let required: Vec<&str> = ["workload"].into_iter().chain(needed).collect();
    json!({
        "type": "object",
        "description": about(spec),
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}
