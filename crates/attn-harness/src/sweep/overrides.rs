//! `--set key=value`: a value of a sweep, given on the command line.

use serde_yaml::{Mapping, Value};

use crate::error::Error;
use crate::locate::{KeyPath, Step};

const GRAMMAR: &str = "write it as key=value with a dotted key, for example --set model.d_model=1024, \
                       --set variants.mtla.stride=[2,4] or --set workloads.0.decode.batch=8";

/// A value that replaces one of a sweep file before it is typed.
#[derive(Debug, Clone)]
pub struct Override {
    /// The option as it was typed, for messages.
    pub option: String,
    keys: Vec<String>,
    value: Value,
}

impl Override {
    /// Parses the argument of `--set`.
    ///
    /// # Errors
    /// [`Error::Option`] where it is no `key=value`, or the value no YAML.
    pub fn parse(argument: &str) -> Result<Self, Error> {
        let option = format!("--set {argument}");
        let Some((key, value)) = argument.split_once('=') else {
            return Err(Error::option(option, "there is no `=` in it", GRAMMAR));
        };
        let keys: Vec<String> = key.trim().split('.').map(str::to_string).collect();
        if keys.iter().any(String::is_empty) {
            return Err(Error::option(option, format!("`{key}` is no key"), GRAMMAR));
        }
        let parsed = serde_yaml::from_str(value)
            .map_err(|error| Error::option(&option, format!("`{value}` is no YAML value: {error}"), GRAMMAR));
        Ok(Self {
            value: parsed?,
            option,
            keys,
        })
    }

    /// The value of another option that stands for a key of the sweep (`--device cpu` for `device`).
    pub fn of_option(option: &str, key: &str, value: &str) -> Self {
        Self {
            option: format!("{option} {value}"),
            keys: vec![key.to_string()],
            value: Value::String(value.to_string()),
        }
    }

    /// Puts the value into `root`; returns where it went.
    pub(super) fn apply(&self, root: &mut Value) -> Result<KeyPath, Error> {
        let mut path = KeyPath::default();
        let mut node = root;
        for key in &self.keys {
            name_bare_word(node, key);
            if node.is_null() {
                *node = Value::Mapping(Mapping::new());
            }
            node = match node {
                Value::Mapping(map) => {
                    path = path.key(key);
                    map.entry(Value::String(key.clone())).or_insert(Value::Null)
                }
                Value::Sequence(items) => {
                    let (index, by_name) = self.position(items, key, &path)?;
                    path = path.index(index);
                    let item = &mut items[index];
                    if !by_name {
                        item
                    } else {
                        name_bare_word(item, key);
                        path = path.key(key);
                        item.get_mut(key.as_str())
                            .ok_or_else(|| self.nothing_below(&path))?
                    }
                }
                _ => return Err(self.nothing_below(&path)),
            };
        }
        *node = self.value.clone();
        Ok(path)
    }

    /// Where in a list a key leads: a number is a position, a word the item of that name.
    fn position(&self, items: &[Value], key: &str, path: &KeyPath) -> Result<(usize, bool), Error> {
        if let Ok(index) = key.parse::<usize>() {
            let message = || format!("`{path}` has {} items, there is no item {index}", items.len());
            let help = "items are counted from 0";
            let found = (index < items.len()).then_some((index, false));
            return found.ok_or_else(|| Error::option(&self.option, message(), help));
        }
        let named = |item: &Value| item.as_str() == Some(key) || item.get(key).is_some();
        let found: Vec<usize> = (0..items.len()).filter(|&i| named(&items[i])).collect();
        match found.as_slice() {
            [index] => Ok((*index, true)),
            [] => Err(Error::option(
                &self.option,
                format!("`{path}` has no item `{key}`"),
                "name an item that is there, or count from 0: variants.0.mha",
            )),
            several => Err(Error::option(
                &self.option,
                format!("`{path}` has {} items `{key}`", several.len()),
                format!(
                    "say which by its position, for example {path}.{}.{key}",
                    several[0]
                ),
            )),
        }
    }

    fn nothing_below(&self, path: &KeyPath) -> Error {
        let message = match path.0.last() {
            Some(Step::Key(_) | Step::Index(_)) => format!("`{path}` is a single value, it has no keys"),
            None => "the sweep is no mapping, it has no keys".to_string(),
        };
        Error::option(&self.option, message, GRAMMAR)
    }
}

/// `- mha` becomes `- mha: {}` where a setting is to go below it.
fn name_bare_word(node: &mut Value, key: &str) {
    if node.as_str() == Some(key) {
        let mut map = Mapping::new();
        map.insert(Value::String(key.to_string()), Value::Mapping(Mapping::new()));
        *node = Value::Mapping(map);
    }
}

#[cfg(test)]
mod tests {
    use super::Override;
    use serde_yaml::Value;

    fn set(yaml: &str, argument: &str) -> Result<(String, String), crate::Error> {
        let mut root: Value = serde_yaml::from_str(yaml).unwrap();
        let path = Override::parse(argument)?.apply(&mut root)?;
        Ok((path.to_string(), serde_json::to_string(&root).unwrap()))
    }

    #[test]
    fn replaces_a_value_by_name_or_by_position() {
        let yaml = "variants: [mha, {mtla: {stride: 2}}]";
        let (path, by_name) = set(yaml, "variants.mtla.stride=[2, 3]").unwrap();
        assert_eq!(path, "variants[1].mtla.stride");
        let (_, by_position) = set(yaml, "variants.1.mtla.stride=[2, 3]").unwrap();
        assert_eq!(by_name, by_position);
        assert_eq!(by_name, r#"{"variants":["mha",{"mtla":{"stride":[2,3]}}]}"#);
    }

    #[test]
    fn gives_a_bare_variant_its_first_setting() {
        let (_, json) = set("variants: [mla]", "variants.mla.kv_rank=64").unwrap();
        assert_eq!(json, r#"{"variants":[{"mla":{"kv_rank":64}}]}"#);
    }

    #[test]
    fn makes_the_mappings_that_are_missing() {
        let (_, json) = set("name: a", "measure.max_s=1").unwrap();
        assert_eq!(json, r#"{"name":"a","measure":{"max_s":1}}"#);
    }

    #[test]
    fn errors_name_the_option() {
        for (argument, part) in [
            ("model", "no `=`"),
            ("model..d=1", "is no key"),
            ("a=[1", "is no YAML value"),
            ("name.x=1", "`name` is a single value"),
            ("list.7=1", "there is no item 7"),
            ("list.mha.x=1", "has no item `mha`"),
            ("list.b.x=1", "has 2 items `b`"),
        ] {
            let error = set("{name: a, list: [{b: 1}, {b: 2}]}", argument)
                .unwrap_err()
                .to_string();
            assert!(
                error.starts_with(&format!("--set {argument}: ")) && error.contains(part),
                "{error}"
            );
        }
    }
}
