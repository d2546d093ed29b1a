//! From the events of a YAML text to a [`Locator`].

use std::collections::HashMap;
use std::ops::Range;

use saphyr_parser::{Event, Parser, Span};

use super::{DuplicateKey, KeyPath, Kind, Locator, Node, SyntaxError};

/// Deeper than any sweep, and than the reader goes: every open level keeps its path.
const MAX_DEPTH: usize = 128;

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

pub(super) struct Builder {
    /// Byte of every character: the parser counts characters, labels count bytes.
    bytes: Vec<usize>,
    nodes: Vec<Node>,
    duplicates: Vec<DuplicateKey>,
    anchors: HashMap<usize, usize>,
    open: Vec<Open>,
}

impl Builder {
    pub(super) fn new(text: &str) -> Self {
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

    pub(super) fn build(mut self, text: &str) -> Result<Locator, SyntaxError> {
        let mut documents = 0;
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| {
                let at = self.byte(error.marker().index());
                SyntaxError {
                    message: error.info().to_string(),
                    span: visible(text, at),
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
                Event::SequenceStart(..) | Event::MappingStart(..) if self.open.len() >= MAX_DEPTH => {
                    let message = format!("this is nested deeper than {MAX_DEPTH} levels");
                    return Err(SyntaxError { message, span: bytes });
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

/// The character at `at` or, where the text ends there, its last one that can be seen.
fn visible(text: &str, at: usize) -> Range<usize> {
    if !text[at..].trim().is_empty() {
        return at..at;
    }
    let last = text.char_indices().rfind(|(_, c)| !c.is_whitespace());
    last.map_or(0..0, |(start, c)| start..start + c.len_utf8())
}
