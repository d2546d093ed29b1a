//! Where a key of a YAML text stands.
//!
//! The YAML reader reports a place only where typing stopped. Errors of meaning (heads that do not divide a
//! width, the same point listed twice) involve keys that were typed long before, so the text is walked once
//! more, event by event, and every key and value keeps its bytes.

mod build;
mod key_path;

use std::ops::Range;

pub use key_path::{KeyPath, Step};

/// A text that is no YAML.
#[derive(Debug)]
pub struct SyntaxError {
    /// What the parser said.
    pub message: String,
    /// Where.
    pub span: Range<usize>,
}

/// A key that a mapping has twice.
#[derive(Debug)]
pub struct DuplicateKey {
    /// The key.
    pub path: KeyPath,
    /// Where it stands first.
    pub first: Range<usize>,
    /// Where it stands again.
    pub second: Range<usize>,
}

/// Bytes of every key and value of a YAML text.
#[derive(Debug)]
pub struct Locator {
    nodes: Vec<Node>,
    duplicates: Vec<DuplicateKey>,
}

#[derive(Debug)]
struct Node {
    span: Range<usize>,
    kind: Kind,
    /// Values this one stands for once aliases are written out; 0 while its end is not reached.
    expanded: u64,
}

#[derive(Debug)]
enum Kind {
    Scalar(String),
    List(Vec<usize>),
    Mapping(Vec<(String, Range<usize>, usize)>),
    Alias(Option<usize>),
}

impl Locator {
    /// Walks `text`.
    ///
    /// # Errors
    /// [`SyntaxError`] where it is no YAML, or where an alias stands inside what it names.
    pub fn new(text: &str) -> Result<Self, SyntaxError> {
        build::Builder::new(text).build(text)
    }

    /// Values the text stands for once aliases are written out (a bomb has billions).
    pub fn expanded_values(&self) -> u64 {
        self.nodes.first().map_or(0, |root| root.expanded)
    }

    /// Keys that stand twice in one mapping.
    pub fn duplicates(&self) -> &[DuplicateKey] {
        &self.duplicates
    }

    /// Bytes of the key at the end of `path` (of the value, for an item of a list).
    pub fn find(&self, path: &KeyPath) -> Option<Range<usize>> {
        let mut node = 0;
        let mut span = self.nodes.first()?.span.clone();
        for step in &path.0 {
            (span, node) = self.step(node, step)?;
        }
        Some(span)
    }

    /// [`find`](Self::find), or the nearest place above that exists.
    pub fn nearest(&self, path: &KeyPath) -> Range<usize> {
        (0..=path.0.len())
            .rev()
            .find_map(|n| self.find(&KeyPath(path.0[..n].to_vec())))
            .unwrap_or(0..0)
    }

    fn step(&self, node: usize, step: &Step) -> Option<(Range<usize>, usize)> {
        let current = self.nodes.get(node)?;
        match (&current.kind, step) {
            (Kind::Alias(target), _) => self.step((*target)?, step),
            (Kind::List(items), Step::Index(index)) => {
                let item = *items.get(*index)?;
                Some((self.nodes[item].span.clone(), item))
            }
            (Kind::Mapping(entries), Step::Key(key)) => {
                let own = entries.iter().find(|(name, ..)| name == key);
                own.map(|(_, span, value)| (span.clone(), *value)).or_else(|| {
                    let (_, _, merged) = entries.iter().find(|(name, ..)| name == "<<")?;
                    self.step_into_merged(*merged, step)
                })
            }
            // A variant without settings may be a bare word, which is then both the key and the value.
            (Kind::Scalar(word), Step::Key(key)) if word == key => Some((current.span.clone(), node)),
            _ => None,
        }
    }

    fn step_into_merged(&self, merged: usize, step: &Step) -> Option<(Range<usize>, usize)> {
        match &self.nodes.get(merged)?.kind {
            Kind::List(items) => items.iter().find_map(|&item| self.step(item, step)),
            _ => self.step(merged, step),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{KeyPath, Locator};

    const TEXT: &str = "name: \u{e9}t\u{e9}\nvariants:\n  - mha\n  - mtla: {stride: [2, 3]}\n";

    fn found(text: &str, path: &KeyPath) -> Option<String> {
        Some(text[Locator::new(text).unwrap().find(path)?].to_string())
    }

    #[test]
    fn finds_keys_and_items_behind_letters_of_two_bytes() {
        let variants = KeyPath::of("variants");
        assert_eq!(found(TEXT, &KeyPath::of("name")).unwrap(), "name");
        assert_eq!(found(TEXT, &variants.index(0).key("mha")).unwrap(), "mha");
        let stride = variants.index(1).key("mtla").key("stride");
        assert_eq!(stride.to_string(), "variants[1].mtla.stride");
        assert_eq!(found(TEXT, &stride).unwrap(), "stride");
        assert_eq!(found(TEXT, &stride.index(1)).unwrap(), "3");
        assert_eq!(found(TEXT, &stride.index(2)), None);
    }

    #[test]
    fn a_missing_key_is_looked_for_at_the_nearest_place_above() {
        let text = "model: {d_model: 8}";
        let locator = Locator::new(text).unwrap();
        assert_eq!(
            &text[locator.nearest(&KeyPath::of("model").key("n_heads"))],
            "model"
        );
    }

    #[test]
    fn follows_aliases_and_merges() {
        let text = "a: &a {x: 1}\nb: *a\nc:\n  <<: *a\n  y: 2\n";
        assert_eq!(found(text, &KeyPath::of("b").key("x")).unwrap(), "x");
        assert_eq!(found(text, &KeyPath::of("c").key("x")).unwrap(), "x");
        assert_eq!(found(text, &KeyPath::of("c").key("y")).unwrap(), "y");
    }

    #[test]
    fn counts_what_aliases_stand_for() {
        let mut text = "a0: &a0 [1, 1]\n".to_string();
        for i in 1..60 {
            text += &format!("a{i}: &a{i} [*a{}, *a{}]\n", i - 1, i - 1);
        }
        assert!(Locator::new(&text).unwrap().expanded_values() > 1 << 60);
    }

    #[test]
    fn an_alias_inside_its_anchor_is_an_error() {
        assert!(Locator::new("a: &a [*a]").unwrap_err().message.contains("inside"));
    }

    #[test]
    fn reports_both_places_of_a_duplicate_key() {
        let text = "model: {d_model: 1, d_model: 2}";
        let locator = Locator::new(text).unwrap();
        let [duplicate] = locator.duplicates() else {
            panic!("one duplicate")
        };
        assert_eq!(duplicate.path.to_string(), "model.d_model");
        assert!(duplicate.first.start < duplicate.second.start);
    }
}
