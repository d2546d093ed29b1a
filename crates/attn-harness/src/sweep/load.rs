//! From a file to a typed sweep: bytes, text, YAML, overrides, types. Each step reports what it alone can see.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde_yaml::Value;

use super::source::Source;
use super::{Override, Sweep, typing};
use crate::error::{BadSweep, Error, Problem};
use crate::locate::Locator;

/// Larger than any sweep: a larger file is something else, named by mistake.
const MAX_BYTES: u64 = 1 << 20;
/// Values after aliases are written out: an alias bomb is small as a file and has billions.
const MAX_VALUES: u64 = 200_000;

impl Sweep {
    /// Reads and types the sweep in `path` with `overrides` in place.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Option`] for an override, [`Error::Sweep`] with all that typing found.
    pub fn load(path: &Path, overrides: &[Override]) -> Result<Self, Error> {
        Self::parse(path, read_text(path)?, overrides)
    }

    /// [`load`](Self::load) for a text that is at hand; `path` is what messages call it.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(path: &Path, text: String, overrides: &[Override]) -> Result<Self, Error> {
        let bad = |text: &str, problem: Problem| {
            let (path, source_text) = (path.to_path_buf(), text.to_string());
            Error::Sweep(Box::new(BadSweep {
                path,
                source_text,
                problems: vec![problem],
            }))
        };
        let locator = match Locator::new(&text) {
            Ok(locator) => locator,
            Err(error) => {
                let problem = Problem::new(format!("this cannot be read as YAML: {}", error.message));
                return Err(bad(&text, problem.at(error.span, "here")));
            }
        };
        if locator.expanded_values() > MAX_VALUES {
            let message = format!("with its aliases written out the sweep has more than {MAX_VALUES} values");
            let help = "spell the values out, or use fewer aliases of aliases";
            return Err(bad(&text, Problem::new(message).with_help(help)));
        }
        let value = match read_value(&text) {
            Ok(value) => value,
            Err(_) if !locator.duplicates().is_empty() => Value::Null,
            Err(problem) => return Err(bad(&text, problem)),
        };
        let mut source = Source {
            path: path.to_path_buf(),
            yaml: text.clone(),
            text,
            locator,
            overridden: Vec::new(),
        };
        let duplicates = duplicate_keys(&source);
        if !duplicates.is_empty() {
            return Err(source.error(duplicates));
        }
        if !value.is_mapping() {
            return Err(source.error(vec![no_mapping(&value)]));
        }
        let value = override_values(value, overrides, &mut source)?;
        let (file, problems) = typing::type_sweep(value, &source);
        match file {
            Some(file) => Ok(Self {
                file,
                source,
                problems,
            }),
            None => Err(source.error(problems)),
        }
    }
}

fn read_text(path: &Path) -> Result<String, Error> {
    let error = |reason: &str, help: &str| Error::Read {
        path: path.to_path_buf(),
        reason: reason.to_string(),
        help: help.to_string(),
    };
    if path.is_dir() {
        return Err(error(
            "it is a folder",
            "name a sweep file in it, for example experiments/quick.yaml",
        ));
    }
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    if let Err(reason) = read {
        let help = "check the path; the sweeps that come with the project are in experiments/";
        return Err(error(&reason.to_string(), help));
    }
    if bytes.len() as u64 > MAX_BYTES {
        return Err(error(
            "it is larger than 1 MiB",
            "name a sweep file, a YAML text of a few lines",
        ));
    }
    let text = String::from_utf8(bytes).map_err(|bad| {
        let at = bad.utf8_error().valid_up_to();
        error(
            &format!("it is not UTF-8 at byte {at}"),
            "save the sweep as UTF-8 text",
        )
    })?;
    Ok(text
        .strip_prefix('\u{feff}')
        .map_or_else(|| text.clone(), str::to_string))
}

fn read_value(text: &str) -> Result<Value, Problem> {
    let problem = |error: serde_yaml::Error| {
        let at = error.location().map_or(0, |location| location.index());
        // The reader counts characters, labels count bytes.
        let byte = text.char_indices().nth(at).map_or(text.len(), |(byte, _)| byte);
        let problem = match too_wide(&error.to_string()) {
            Some(message) => Problem::new(message),
            None => Problem::new(format!("this cannot be read as YAML: {error}")),
        };
        if error.location().is_some() {
            problem.at(byte..byte, "here")
        } else {
            problem
        }
    };
    let mut value: Value = serde_yaml::from_str(text).map_err(problem)?;
    value.apply_merge().map_err(problem)?;
    Ok(value)
}

/// Of an integer beyond 64 bits the reader says only that it is no YAML value.
fn too_wide(message: &str) -> Option<String> {
    let (path, rest) = message.split_once("invalid type: integer `")?;
    let (number, rest) = rest.split_once('`')?;
    let path = path.trim_end_matches(": ");
    rest.starts_with(" as ")
        .then(|| format!("`{path}` is {number}, expected an integer that fits 64 bits"))
}

fn duplicate_keys(source: &Source) -> Vec<Problem> {
    let duplicates = source.locator.duplicates().iter();
    duplicates
        .map(|duplicate| {
            Problem::new(format!("the key `{}` stands twice", duplicate.path))
                .at(duplicate.first.clone(), "first here")
                .at(duplicate.second.clone(), "and again here")
                .with_help("keep one; several values of one key are a list: key: [1, 2]")
        })
        .collect()
}

fn no_mapping(value: &Value) -> Problem {
    let found = match value {
        Value::Null => "the file is empty",
        Value::Sequence(_) => "the file holds a list",
        _ => "the file holds a single value",
    };
    Problem::new(format!(
        "{found}, expected a mapping with at least name, model, variants and workloads"
    ))
    .with_help("experiments/quick.yaml is a complete example, `attn-bench schema` lists every key")
}

fn override_values(mut value: Value, overrides: &[Override], source: &mut Source) -> Result<Value, Error> {
    for change in overrides {
        let path = change.apply(&mut value)?;
        source.overridden.push((path, change.option.clone()));
    }
    if !overrides.is_empty() {
        let yaml = serde_yaml::to_string(&value);
        source.yaml = yaml.map_err(|error| Error::option("--set", error.to_string(), "check its value"))?;
    }
    Ok(value)
}
