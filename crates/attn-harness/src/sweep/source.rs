//! Where a sweep came from, so that every error can point there.

use std::path::PathBuf;

use crate::error::{BadSweep, Error, Problem};
use crate::locate::{KeyPath, Locator};

/// The text of a sweep, and what options put in place of parts of it.
#[derive(Debug)]
pub struct Source {
    /// The file as it was named.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
    /// The sweep as it runs: the text itself, or written anew where options changed it.
    pub yaml: String,
    pub(super) locator: Locator,
    /// Places an option changed, and the option as typed.
    pub(super) overridden: Vec<(KeyPath, String)>,
}

impl Source {
    /// Adds the place of `key` to a problem: a label in the text, or the option that put the value there.
    pub fn point(&self, mut problem: Problem, key: &KeyPath, label: &str) -> Problem {
        let by_option = self.overridden.iter().rev().find(|(at, _)| key.starts_with(at));
        match by_option {
            Some((_, option)) if problem.options.contains(option) => problem,
            Some((_, option)) => {
                problem.options.push(option.clone());
                problem
            }
            None => {
                let span = self.locator.nearest(key);
                let text = if label.is_empty() {
                    key.to_string()
                } else {
                    label.to_string()
                };
                // Two keys that are both missing lie at the same place above.
                match problem.labels.iter_mut().find(|known| known.span == span) {
                    Some(known) if known.text == text => problem,
                    Some(known) => {
                        known.text = format!("{}, {text}", known.text);
                        problem
                    }
                    None => problem.at(span, text),
                }
            }
        }
    }

    /// Whether `key` is not given, so that only a place above it can be shown.
    pub(crate) fn stands_above(&self, key: &KeyPath) -> bool {
        self.locator.find(key).is_none() && !self.overridden.iter().any(|(at, _)| key.starts_with(at))
    }

    /// The error over what was found.
    pub fn error(&self, problems: Vec<Problem>) -> Error {
        Error::Sweep(Box::new(BadSweep {
            path: self.path.clone(),
            source_text: self.text.clone(),
            problems,
        }))
    }
}

/// The known word nearest to a misspelt one.
pub(crate) fn nearest_word<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |other: &str| strsim::osa_distance(&word.to_lowercase(), other);
    // Of two at the same distance the one of the same length: swapped letters are the likelier slip.
    let rank = |other: &&str| (distance(other), other.len().abs_diff(word.len()));
    let best = known.into_iter().min_by_key(rank)?;
    (distance(best) <= (best.len() / 3).max(1)).then_some(best)
}

/// What is said of a word that is not among the known ones: `unknown variant `mlta``, and the way out.
pub(crate) fn unknown(what: &str, word: &str, known: &[&str]) -> Problem {
    let list = if known.is_empty() {
        "there is none".to_string()
    } else {
        known.join(", ")
    };
    let problem = Problem::new(format!("unknown {what} `{word}`, expected one of: {list}"));
    match nearest_word(word, known.iter().copied()) {
        Some(near) => problem.with_help(format!("did you mean `{near}`?")),
        None => problem,
    }
}
