//! Where two sweeps differ, by the names of their keys.

use serde_yaml::{Mapping, Value};

/// The keys at which two sweeps differ, `measure.max_s` for one; none where they mean the same.
pub(super) fn differences(a: &str, b: &str) -> Vec<String> {
    let read =
        |text: &str| serde_yaml::from_str::<Value>(text).unwrap_or_else(|_| Value::String(text.to_string()));
    let mut keys = Vec::new();
    differ(&read(a), &read(b), "", &mut keys);
    keys
}

fn differ(a: &Value, b: &Value, at: &str, keys: &mut Vec<String>) {
    match (a, b) {
        (Value::Mapping(a), Value::Mapping(b)) => {
            for key in names(a).chain(names(b).filter(|name| !a.contains_key(name.as_str()))) {
                let below = if at.is_empty() {
                    key.clone()
                } else {
                    format!("{at}.{key}")
                };
                let null = &Value::Null;
                let cell = |map: &Mapping| map.get(key.as_str()).unwrap_or(null).clone();
                differ(&cell(a), &cell(b), &below, keys);
            }
        }
        (Value::Sequence(a), Value::Sequence(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                let below = match (a, b) {
                    // Variants and workloads are lists of things with a name.
                    (Value::Mapping(a), Value::Mapping(b)) if a.len() == 1 && names(a).eq(names(b)) => {
                        at.to_string()
                    }
                    _ => format!("{at}[{i}]"),
                };
                differ(a, b, &below, keys);
            }
        }
        _ if a != b => keys.push(if at.is_empty() {
            "all of it".to_string()
        } else {
            at.to_string()
        }),
        _ => {}
    }
}

fn names(map: &Mapping) -> impl Iterator<Item = String> + '_ {
    map.keys().map(|key| match key {
        Value::String(key) => key.clone(),
        other => format!("{other:?}"),
    })
}

#[cfg(test)]
mod tests {
    use super::differences;

    #[test]
    fn differences_are_named_by_their_keys() {
        let sweep = "name: a\nmeasure: {max_s: 1, seed: 2}\nvariants: [mha, {gqa: {n_kv_heads: 2}}]\n";
        let same = "measure: {seed: 2, max_s: 1}\nname: a\nvariants:\n  - mha\n  - gqa: {n_kv_heads: 2}\n";
        assert!(differences(sweep, same).is_empty());
        let keys = |from: &str, to: &str| differences(sweep, &sweep.replace(from, to)).join(", ");
        assert_eq!(keys("max_s: 1", "max_s: 2"), "measure.max_s");
        assert_eq!(keys("name: a", "name: b\nseed: 1"), "name, seed");
        assert_eq!(keys("n_kv_heads: 2", "n_kv_heads: 4"), "variants.gqa.n_kv_heads");
        assert_eq!(keys("[mha, ", "[mqa, "), "variants[0]");
        assert_eq!(keys("[mha, ", "["), "variants");
    }
}
