//! Where a key of a YAML text stands.
//!
//! The YAML reader reports a place only where typing stopped. Errors of meaning (heads that do not divide a
//! width, the same point listed twice) involve keys that were typed long before, so the text is walked once
//! more, event by event, and every key and value keeps its bytes.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use saphyr_parser::{Event, Parser, Span};

/// One step from a value to a value inside it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// Into a mapping.
    Key(String),
    /// Into a list, from 0.
    Index(usize),
}

/// The way from the root of a file to a value, printed as `variants[4].mtla.stride`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct KeyPath(pub Vec<Step>);

impl KeyPath {
    /// The path of a key at the root.
    pub fn of(key: &str) -> Self {
        Self::default().key(key)
    }

    /// One step further, into a mapping.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Key(key.to_string()));
        Self(steps)
    }

    /// One step further, into a list.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Index(index));
        Self(steps)
    }

    /// Whether `other` lies at or above this path.
    pub fn starts_with(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if i == 0 => write!(f, "{key}")?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

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
        Builder::new(text).build(text)
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

/// A list or mapping whose end is not reached.
struct Open {
    node: usize,
    /// It is itself a key: nothing refers to it.
    is_key: bool,
    path: KeyPath,
    /// The key that waits for its value, in a mapping.
    key: Option<(String, Range<usize>)>,
    seen: HashMap<String, Range<usize>>,
}

struct Builder {
    /// Byte of every character: the parser counts characters, labels count bytes.
    bytes: Vec<usize>,
    nodes: Vec<Node>,
    duplicates: Vec<DuplicateKey>,
    anchors: HashMap<usize, usize>,
    open: Vec<Open>,
}

impl Builder {
    fn new(text: &str) -> Self {
        let bytes = text
            .char_indices()
            .map(|(byte, _)| byte)
            .chain([text.len()])
            .collect();
        Self {
            bytes,
            nodes: Vec::new(),
            duplicates: Vec::new(),
            anchors: HashMap::new(),
            open: Vec::new(),
        }
    }

    fn build(mut self, text: &str) -> Result<Locator, SyntaxError> {
        let mut documents = 0;
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| {
                let at = self.byte(error.marker().index());
                SyntaxError {
                    message: error.info().to_string(),
                    span: at..at,
                }
            })?;
            let bytes = self.range(span);
            match event {
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents > 1 {
                        let message = "a second document starts here, expected one".to_string();
                        return Err(SyntaxError { message, span: bytes });
                    }
                }
                Event::Scalar(word, _, anchor, _) => {
                    self.leaf(Kind::Scalar(word.into_owned()), bytes, anchor, 1);
                }
                Event::Alias(anchor) => {
                    let target = self.anchors.get(&anchor).copied();
                    let expanded = target.map_or(1, |target| self.nodes[target].expanded);
                    if target.is_some_and(|target| self.open.iter().any(|open| open.node == target)) {
                        let message = "this alias stands inside the value it names".to_string();
                        return Err(SyntaxError { message, span: bytes });
                    }
                    self.leaf(Kind::Alias(target), bytes, 0, expanded);
                }
                Event::SequenceStart(anchor, _) => self.enter(Kind::List(Vec::new()), bytes, anchor),
                Event::MappingStart(anchor, _) => self.enter(Kind::Mapping(Vec::new()), bytes, anchor),
                Event::SequenceEnd | Event::MappingEnd => self.leave(),
                _ => {}
            }
        }
        Ok(Locator {
            nodes: self.nodes,
            duplicates: self.duplicates,
        })
    }

    fn byte(&self, character: usize) -> usize {
        let last = self.bytes.len() - 1;
        self.bytes[character.min(last)]
    }

    fn range(&self, span: Span) -> Range<usize> {
        let start = self.byte(span.start.index());
        start..self.byte(span.end.index()).max(start)
    }

    /// Whether the next value is a key of the innermost mapping.
    fn expects_key(&self) -> bool {
        let open = self.open.last();
        open.is_some_and(|open| matches!(self.nodes[open.node].kind, Kind::Mapping(_)) && open.key.is_none())
    }

    fn push(&mut self, kind: Kind, span: Range<usize>, anchor: usize, expanded: u64) -> usize {
        let node = self.nodes.len();
        self.nodes.push(Node { span, kind, expanded });
        if anchor != 0 {
            self.anchors.insert(anchor, node);
        }
        node
    }

    fn leaf(&mut self, kind: Kind, span: Range<usize>, anchor: usize, expanded: u64) {
        if self.expects_key() {
            let word = match &kind {
                Kind::Scalar(word) => word.clone(),
                _ => "*".to_string(),
            };
            self.push(kind, span.clone(), anchor, expanded);
            self.set_key(word, span);
            return;
        }
        let node = self.push(kind, span, anchor, expanded);
        self.attach(node);
    }

    fn enter(&mut self, kind: Kind, span: Range<usize>, anchor: usize) {
        let is_key = self.expects_key();
        let path = match self.open.last() {
            None => KeyPath::default(),
            Some(open) => match (&open.key, &self.nodes[open.node].kind) {
                (Some((key, _)), _) => open.path.key(key),
                (None, Kind::List(items)) => open.path.index(items.len()),
                (None, _) => open.path.clone(),
            },
        };
        let node = self.push(kind, span, anchor, 1);
        self.open.push(Open {
            node,
            is_key,
            path,
            key: None,
            seen: HashMap::new(),
        });
    }

    fn leave(&mut self) {
        let Some(closed) = self.open.pop() else { return };
        // A list or a mapping as a key: no sweep has one, and typing says so.
        let span = self.nodes[closed.node].span.clone();
        if closed.is_key {
            self.set_key("?".to_string(), span)
        } else {
            self.attach(closed.node)
        }
    }

    fn set_key(&mut self, word: String, span: Range<usize>) {
        let Some(open) = self.open.last_mut() else { return };
        match open.seen.get(&word) {
            Some(first) => self.duplicates.push(DuplicateKey {
                path: open.path.key(&word),
                first: first.clone(),
                second: span.clone(),
            }),
            None => {
                open.seen.insert(word.clone(), span.clone());
            }
        }
        open.key = Some((word, span));
    }

    fn attach(&mut self, node: usize) {
        let expanded = self.nodes[node].expanded;
        let Some(open) = self.open.last_mut() else { return };
        let parent = &mut self.nodes[open.node];
        parent.expanded = parent.expanded.saturating_add(expanded);
        match &mut parent.kind {
            Kind::List(items) => items.push(node),
            Kind::Mapping(entries) => {
                if let Some((key, span)) = open.key.take() {
                    entries.push((key, span, node));
                }
            }
            Kind::Scalar(_) | Kind::Alias(_) => {}
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
