//! YAML values to a [`SweepFile`], with every type error in one pass.
//!
//! Typing ends at its first error. What was wrong is then taken out (an unknown key, a value of the wrong
//! type) and typing begins again, so that a reader sees all of it at once.

use serde_path_to_error::Segment;
use serde_yaml::{Mapping, Value};

use super::SweepFile;
use super::source::{Source, unknown};
use crate::error::Problem;
use crate::locate::{KeyPath, Step};

/// Enough for one screen; the rest shows on the next run.
const MAX_PROBLEMS: usize = 20;

/// Keys whose values decide what other values mean: without them planning would report what is not so.
const DECISIVE: [&str; 9] = [
    "name",
    "model",
    "variants",
    "fair",
    "paths",
    "scopes",
    "workloads",
    "grid",
    "scenarios",
];

/// The typed sweep, unless a decisive part of it was wrong, and what was wrong.
pub(super) fn type_sweep(mut value: Value, source: &Source) -> (Option<SweepFile>, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut decisive = false;
    while problems.len() < MAX_PROBLEMS {
        let error = match serde_path_to_error::deserialize::<_, SweepFile>(value.clone()) {
            Ok(file) => return ((!decisive).then_some(file), problems),
            Err(error) => error,
        };
        let path = key_path(error.path());
        let message = error.inner().to_string();
        let missing = backticked(&message).filter(|_| message.starts_with("missing field"));
        let problem = match &missing {
            Some(key) => missing_key(&path.key(key)),
            None => wrong_value(&path, &message),
        };
        problems.push(source.point(problem, &path, if missing.is_some() { "here" } else { "" }));
        decisive |= missing.is_some() || !message.starts_with("unknown field") && is_decisive(&path);
        let repaired = match missing {
            Some(key) => fill_in(&mut value, &path, &key),
            None => take_out(&mut value, &path),
        };
        if !repaired {
            break;
        }
    }
    (None, problems)
}

fn key_path(path: &serde_path_to_error::Path) -> KeyPath {
    let steps = path.iter().filter_map(|segment| match segment {
        Segment::Seq { index } => Some(Step::Index(*index)),
        Segment::Map { key } => Some(Step::Key(key.clone())),
        Segment::Enum { .. } | Segment::Unknown => None,
    });
    KeyPath(steps.collect())
}

fn is_decisive(path: &KeyPath) -> bool {
    matches!(path.0.first(), Some(Step::Key(key)) if DECISIVE.contains(&key.as_str())) || path.0.is_empty()
}

fn missing_key(path: &KeyPath) -> Problem {
    let example = match path.to_string().as_str() {
        "name" => "name: my-sweep",
        "model" => "model: {d_model: 512, n_heads: 8, head_dim: 64}",
        "model.d_model" => "d_model: 512",
        "model.n_heads" => "n_heads: 8",
        "variants" => "variants: [mha, gqa: {n_kv_heads: 2}]",
        _ => return Problem::new(format!("`{path}` is missing")),
    };
    Problem::new(format!("`{path}` is missing")).with_help(format!("add it, for example {example}"))
}

/// Says serde's sentence in the words of a sweep.
fn wrong_value(path: &KeyPath, message: &str) -> Problem {
    let mut words = message.split('`').skip(1).step_by(2);
    let first = words.next().unwrap_or_default().to_string();
    let known: Vec<&str> = words.collect();
    if message.starts_with("unknown field") {
        return unknown("key", &path_above(path).key(&first).to_string(), &known)
            .with_suggestion_for(&first, &known);
    }
    if message.starts_with("unknown variant") {
        return unknown(&format!("value of `{path}`:"), &first, &known);
    }
    let sentence = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "));
    match sentence.and_then(|rest| rest.rsplit_once(", expected ")) {
        Some((found, expected)) => Problem::new(format!(
            "`{path}` is {}, expected {}",
            found_words(found),
            expected_words(path, expected)
        )),
        None => Problem::new(format!("`{path}`: {message}")),
    }
}

impl Problem {
    /// The nearest known key is found by its own name, not by its whole path.
    fn with_suggestion_for(mut self, key: &str, known: &[&str]) -> Self {
        let near = super::source::nearest_word(key, known.iter().copied());
        self.help = near.map(|near| format!("did you mean `{near}`?"));
        self
    }
}

fn path_above(path: &KeyPath) -> KeyPath {
    KeyPath(path.0[..path.0.len().saturating_sub(1)].to_vec())
}

fn found_words(found: &str) -> String {
    let (kind, value) = found.split_once(' ').unwrap_or((found, ""));
    match kind {
        "unit" | "null" | "Option" => "empty".to_string(),
        "map" => "a mapping".to_string(),
        "sequence" => "a list".to_string(),
        "string" => format!("the word {value}"),
        "boolean" | "integer" => value.replace('`', ""),
        "floating" => value.trim_start_matches("point ").replace('`', ""),
        _ => found.to_string(),
    }
}

fn expected_words(path: &KeyPath, expected: &str) -> String {
    let key = path.0.iter().rev().find_map(|step| match step {
        Step::Key(key) => Some(key.as_str()),
        Step::Index(_) => None,
    });
    let size = matches!(
        key,
        Some(
            "d_model"
                | "n_heads"
                | "head_dim"
                | "n_layers"
                | "d_ff"
                | "vocab"
                | "encoder_layers"
                | "encoder_kernel"
                | "seeds"
                | "threads"
                | "eval_every"
                | "eval_examples"
                | "test_examples"
                | "min_samples"
                | "max_samples"
                | "replicas"
        )
    );
    match expected {
        "u64" | "usize" if size => "an integer of at least 1",
        "u64" | "usize" => "an integer of at least 0",
        "f64" => "a number",
        "a string" | "string" => "a word",
        "a sequence" => "a list",
        "a map" => "a mapping",
        other if other.starts_with("struct ") => "a mapping of settings",
        other => other,
    }
    .to_string()
}

fn backticked(message: &str) -> Option<String> {
    message.split('`').nth(1).map(str::to_string)
}

/// Puts something of the right type where a key is missing, so that typing goes on.
fn fill_in(root: &mut Value, path: &KeyPath, key: &str) -> bool {
    let filler = match key {
        "name" => Value::String("unnamed".to_string()),
        "d_model" | "n_heads" => Value::Number(1.into()),
        "variants" => Value::Sequence(Vec::new()),
        "model" => Value::Mapping(
            ["d_model", "n_heads"]
                .map(|k| (Value::String(k.to_string()), Value::Number(1.into())))
                .into_iter()
                .collect(),
        ),
        _ => return false,
    };
    match at(root, &path.0) {
        Some(Value::Mapping(map)) => map.insert(Value::String(key.to_string()), filler).is_none(),
        _ => false,
    }
}

/// Removes what cannot be typed. An item of a list is replaced where that can be done, since removing it
/// would move the ones behind it; else the whole list goes.
fn take_out(root: &mut Value, path: &KeyPath) -> bool {
    if let [Step::Key(list), Step::Index(_)] = path.0.as_slice()
        && let Some(item) = at(root, &path.0)
    {
        match list.as_str() {
            "variants" | "workloads" => {
                *item = Value::String("unnamed".to_string());
                return true;
            }
            "scenarios" => {
                *item = Value::Mapping(Mapping::new());
                return true;
            }
            _ => {}
        }
    }
    for n in (1..=path.0.len()).rev() {
        if let Step::Key(key) = &path.0[n - 1]
            && let Some(Value::Mapping(map)) = at(root, &path.0[..n - 1])
            && map.shift_remove(key.as_str()).is_some()
        {
            // What has no default is filled in again: the problem is known already.
            let above = KeyPath(path.0[..n - 1].to_vec());
            fill_in(root, &above, key);
            return true;
        }
    }
    false
}

fn at<'a>(root: &'a mut Value, steps: &[Step]) -> Option<&'a mut Value> {
    steps.iter().try_fold(root, |node, step| match (node, step) {
        (Value::Mapping(map), Step::Key(key)) => map.get_mut(key.as_str()),
        (Value::Sequence(items), Step::Index(index)) => items.get_mut(*index),
        _ => None,
    })
}
