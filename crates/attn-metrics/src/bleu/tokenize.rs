//! How a text becomes tokens before n-grams are counted.

use serde::{Deserialize, Serialize};

use crate::text::{is_space, words};

/// A tokenizer of sacrebleu.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tokenizer {
    /// That of `mteval-v13a.pl`, which WMT uses: punctuation becomes tokens, entities become characters.
    #[default]
    #[serde(rename = "13a")]
    V13a,
    /// Spaces alone, for texts that are tokens already.
    None,
}

impl Tokenizer {
    /// Its name in a signature.
    pub fn name(self) -> &'static str {
        match self {
            Self::V13a => "13a",
            Self::None => "none",
        }
    }

    /// The text with spaces between tokens.
    pub fn tokenize(self, text: &str) -> String {
        let text = text.trim_end_matches(is_space);
        match self {
            Self::V13a => v13a(text),
            Self::None => text.to_owned(),
        }
    }
}

fn v13a(text: &str) -> String {
    let mut text = text
        .replace("<skipped>", "")
        .replace("-\n", "")
        .replace('\n', " ");
    if text.contains('&') {
        // In this order: `&amp;lt;` becomes `<`.
        for (entity, character) in [("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")] {
            text = text.replace(entity, character);
        }
    }
    let mut spaced = vec![' '];
    for c in text.chars() {
        match c {
            '{'..='~' | '['..='`' | ' '..='&' | '('..='+' | ':'..='@' | '/' => spaced.extend([' ', c, ' ']),
            _ => spaced.push(c),
        }
    }
    spaced.push(' ');

    let is_digit = |c: char| c.is_ascii_digit();
    let is_point = |c| c == '.' || c == ',';
    // A period or comma stays only where it is between digits; a dash goes from the digit before it.
    let spaced = at_pairs(
        &spaced,
        |a, b| !is_digit(a) && is_point(b),
        |a, b| [a, ' ', b, ' '],
    );
    let spaced = at_pairs(
        &spaced,
        |a, b| is_point(a) && !is_digit(b),
        |a, b| [' ', a, ' ', b],
    );
    let spaced = at_pairs(&spaced, |a, b| is_digit(a) && b == '-', |a, b| [a, ' ', b, ' ']);
    let spaced: String = spaced.into_iter().collect();
    words(&spaced).collect::<Vec<_>>().join(" ")
}

/// Replaces neighbours of which `is_meant` holds, from the left and without overlaps, as `re.sub` does.
fn at_pairs(
    text: &[char],
    is_meant: impl Fn(char, char) -> bool,
    put: impl Fn(char, char) -> [char; 4],
) -> Vec<char> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 4);
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        match tail {
            [second, after @ ..] if is_meant(*first, *second) => {
                out.extend(put(*first, *second));
                rest = after;
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_between_digits_stay() {
        assert_eq!(
            Tokenizer::V13a.tokenize("It's 3.14, or 1,000.5."),
            "It's 3.14 , or 1,000.5 ."
        );
        assert_eq!(Tokenizer::V13a.tokenize("1990-95 re-use"), "1990 - 95 re-use");
    }

    #[test]
    fn entities_become_characters_one_after_the_other() {
        assert_eq!(Tokenizer::V13a.tokenize("&amp;lt;b&gt;&quot;"), "< b > \"");
        assert_eq!(Tokenizer::V13a.tokenize("a <skipped>b-\nc\nd"), "a bc d");
    }

    #[test]
    fn no_tokenizer_takes_only_the_end_off() {
        assert_eq!(Tokenizer::None.tokenize(" a, b.\n"), " a, b.");
    }
}
