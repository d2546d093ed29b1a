//! What a run's folder says in words and in JSON.

use serde_json::Value;

use super::COMMANDS;

pub(super) fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// The environment with one more command.
pub(super) fn with_command(environment: Value, command: &str) -> Value {
    with_entry(environment, COMMANDS, command.into())
}

/// The environment with one more entry in the list `name`.
pub(super) fn with_entry(mut environment: Value, name: &str, entry: Value) -> Value {
    if environment.is_null() {
        environment = Value::Object(serde_json::Map::new());
    }
    if let Some(object) = environment.as_object_mut() {
        let entries = object.entry(name).or_insert_with(|| Value::Array(Vec::new()));
        if let Some(entries) = entries.as_array_mut() {
            entries.push(entry);
        }
    }
    environment
}

pub(super) const UNFINISHED: &str = "The run has not ended: `log.jsonl` holds the cases measured so far.";

pub(super) fn readme(sweep_yaml: &str, commands: &[String], summary: &str) -> String {
    let sweep: serde_yaml::Value = serde_yaml::from_str(sweep_yaml).unwrap_or_default();
    let word = |key: &str| {
        sweep
            .get(key)
            .and_then(serde_yaml::Value::as_str)
            .unwrap_or_default()
    };
    let (name, question) = (word("name"), word("question"));
    let title = if name.is_empty() { "Run" } else { name };
    let mut text = format!("# {title}\n\n");
    if !question.is_empty() {
        text.push_str(&format!("**Question.** {question}\n\n"));
    }
    text.push_str(&format!("```sh\n{}\n```\n\n", commands.join("\n")));
    text.push_str(summary.trim_end());
    text.push('\n');
    text
}
