//! What the tests of the book read of Markdown: fenced blocks, links and headings.
#![allow(dead_code, reason = "not every test file uses all of it")]
#![allow(clippy::unwrap_used, reason = "a helper of tests, outside of a test function")]

use std::path::{Path, PathBuf};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use super::root;

/// A text with what it shows and where it leads.
pub struct Document {
    /// From the root of the repository.
    pub path: PathBuf,
    pub blocks: Vec<Block>,
    /// Targets of links and images, as they are typed.
    pub links: Vec<String>,
    /// What `#` in a link may name.
    pub anchors: Vec<String>,
}

/// A fenced block: `sh,norun=minutes` has the language `sh` and the mark `norun=minutes`.
pub struct Block {
    pub place: String,
    pub language: String,
    pub mark: Option<String>,
    pub text: String,
}

impl Block {
    /// The value of the mark `name`.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.mark.as_deref()?.strip_prefix(name)?.strip_prefix('=')
    }

    pub fn is(&self, language: &str, mark: Option<&str>) -> bool {
        self.language == language && self.mark.as_deref() == mark
    }
}

impl Document {
    pub fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(root().join(path)).unwrap();
        let mut document = Self {
            path: path.to_path_buf(),
            blocks: Vec::new(),
            links: Vec::new(),
            anchors: Vec::new(),
        };
        let options = Options::ENABLE_TABLES | Options::ENABLE_FOOTNOTES | Options::ENABLE_STRIKETHROUGH;
        let (mut in_block, mut heading) = (false, None);
        for (event, range) in Parser::new_ext(&text, options).into_offset_iter() {
            match event {
                Event::Start(Tag::CodeBlock(kind)) => {
                    let info = match kind {
                        CodeBlockKind::Fenced(info) => info.to_string(),
                        CodeBlockKind::Indented => "indented".to_string(),
                    };
                    let (language, mark) = match info.split_once(',') {
                        Some((language, mark)) => (language.to_string(), Some(mark.to_string())),
                        None => (info, None),
                    };
                    let line = text[..range.start].lines().count() + 1;
                    in_block = true;
                    document.blocks.push(Block {
                        place: format!("{}:{line}", path.display()),
                        language,
                        mark,
                        text: String::new(),
                    });
                }
                Event::End(TagEnd::CodeBlock) => in_block = false,
                Event::Text(part) if in_block => document.blocks.last_mut().unwrap().text += &part,
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    document.links.push(dest_url.to_string());
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    document.anchors.extend(heading.take().as_deref().map(anchor));
                }
                Event::Text(part) | Event::Code(part) => {
                    if let Some(heading) = &mut heading {
                        *heading += &part;
                    }
                }
                _ => {}
            }
        }
        document
    }
}

/// The anchor of a heading, as mdbook and code hosts make it.
fn anchor(heading: &str) -> String {
    let words = heading.to_lowercase();
    let kept = words
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The chapters of the book.
pub fn chapters() -> Vec<Document> {
    let folder = root().join("docs");
    let mut names: Vec<_> = folder
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".md") && name != "SUMMARY.md")
        .collect();
    names.sort();
    names
        .iter()
        .map(|name| Document::read(&Path::new("docs").join(name)))
        .collect()
}

/// The book and the texts at the root.
pub fn documents() -> Vec<Document> {
    let mut documents = chapters();
    documents.extend(
        ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"].map(|name| Document::read(Path::new(name))),
    );
    documents
}
