//! A crate for a new variant: the files of `xtask/skeleton` under another name, and its place in the workspace.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The skeleton's files, which compile as they are (`tests/skeleton.rs`).
const FILES: [(&str, &str); 7] = [
    ("Cargo.toml", include_str!("../skeleton/Cargo.toml.txt")),
    ("src/lib.rs", include_str!("../skeleton/src/lib.rs")),
    ("src/config.rs", include_str!("../skeleton/src/config.rs")),
    ("src/cache.rs", include_str!("../skeleton/src/cache.rs")),
    ("src/forward.rs", include_str!("../skeleton/src/forward.rs")),
    (
        "tests/conformance.rs",
        include_str!("../skeleton/tests/conformance.rs"),
    ),
    ("benches/layer.rs", include_str!("../skeleton/benches/layer.rs")),
];

/// Why there is no new crate. Nothing was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It cannot be the key of a variant.
    #[error(
        "`{0}` is no key for a variant, use lower case letters and digits, a letter first, for example toy"
    )]
    Name(String),
    /// There is one of that name.
    #[error("{} exists already, choose another name or remove it first", .0.display())]
    Exists(PathBuf),
    /// A file of the workspace is not as expected.
    #[error("{} has no line `{line}` to add to", file.display())]
    Anchor {
        /// The file.
        file: PathBuf,
        /// What a new line goes beside.
        line: String,
    },
    /// A file cannot be read or written.
    #[error("{}: {error}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

/// Makes `crates/attn-NAME` in the workspace at `root` and registers it. Returns what to do next.
pub fn create(root: &Path, name: &str) -> Result<String, Error> {
    let is_key = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    if !is_key {
        return Err(Error::Name(name.to_string()));
    }
    let folder = root.join("crates").join(format!("attn-{name}"));
    if folder.exists() {
        return Err(Error::Exists(folder));
    }
    // Everything that can be refused before anything is written.
    let edits = [
        beside(
            &root.join("Cargo.toml"),
            "attn-testkit = { path = \"crates/attn-testkit\" }",
            &format!("attn-{name} = {{ path = \"crates/attn-{name}\" }}"),
        )?,
        beside(
            &root.join("crates/attn-bench/Cargo.toml"),
            "attn-testkit.workspace = true",
            &format!("attn-{name}.workspace = true"),
        )?,
        beside(
            &root.join("crates/attn-bench/src/registry.rs"),
            "::VARIANT,",
            &format!("&attn_{name}::VARIANT,"),
        )?,
    ];
    for (file, text) in FILES {
        write(&folder.join(file), &renamed(text, name))?;
    }
    for (file, text) in edits {
        write(&file, &text)?;
    }
    Ok(format!(
        "crates/attn-{name} is there and in the registry. Next:\n\
         \x20 1. write the places marked `unwritten` in crates/attn-{name}/src, cache.rs first\n\
         \x20 2. cargo test --workspace --test conformance      passes when the layer agrees with itself\n\
         \x20 3. fixtures of an independent implementation: CONTRIBUTING.md, Fixtures"
    ))
}

/// The skeleton's text for another variant.
pub fn renamed(text: &str, name: &str) -> String {
    let mut title = name.to_string();
    if let Some(first) = title.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text.replace("SKELETON", &name.to_ascii_uppercase())
        .replace("Skeleton", &title)
        .replace("skeleton", name)
}

/// A file's text with a line after the last one that ends with `anchor`, indented alike.
fn beside(file: &Path, anchor: &str, line: &str) -> Result<(PathBuf, String), Error> {
    let text = fs::read_to_string(file).map_err(|error| Error::File {
        file: file.to_path_buf(),
        error,
    })?;
    let mut lines: Vec<&str> = text.lines().collect();
    let Some(at) = lines.iter().rposition(|existing| existing.ends_with(anchor)) else {
        return Err(Error::Anchor {
            file: file.to_path_buf(),
            line: anchor.to_string(),
        });
    };
    let indent = &lines[at][..lines[at].len() - lines[at].trim_start().len()];
    let line = format!("{indent}{line}");
    lines.insert(at + 1, &line);
    Ok((file.to_path_buf(), lines.join("\n") + "\n"))
}

fn write(file: &Path, text: &str) -> Result<(), Error> {
    let folder = file.parent().unwrap_or(file);
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(file, text))
        .map_err(|error| Error::File {
            file: file.to_path_buf(),
            error,
        })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// What `create` edits of a workspace.
    fn workspace() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let put = |file: &str, text: &str| write(&root.path().join(file), text).unwrap();
        put(
            "Cargo.toml",
            "[workspace.dependencies]\nattn-testkit = { path = \"crates/attn-testkit\" }\n",
        );
        put("crates/attn-bench/Cargo.toml", "attn-testkit.workspace = true\n");
        put(
            "crates/attn-bench/src/registry.rs",
            "    &attn_mla::VARIANT,\n    &attn_mtla::VARIANT,\n];\n",
        );
        root
    }

    fn read(root: &Path, file: &str) -> String {
        fs::read_to_string(root.join(file)).unwrap()
    }

    #[test]
    fn a_crate_is_made_and_registered() {
        let root = workspace();
        create(root.path(), "toy2").unwrap();
        assert!(read(root.path(), "crates/attn-toy2/Cargo.toml").contains("name = \"attn-toy2\""));
        let config = read(root.path(), "crates/attn-toy2/src/config.rs");
        assert!(
            config.contains("key: \"toy2\"") && config.contains("title: \"TOY2\""),
            "{config}"
        );
        assert!(read(root.path(), "crates/attn-toy2/src/forward.rs").contains("struct Toy2Config"));
        for (file, _) in FILES {
            let text = read(root.path(), &format!("crates/attn-toy2/{file}"));
            assert!(!text.to_lowercase().contains("skeleton"), "{file}");
        }
        assert_eq!(
            read(root.path(), "crates/attn-bench/src/registry.rs"),
            "    &attn_mla::VARIANT,\n    &attn_mtla::VARIANT,\n    &attn_toy2::VARIANT,\n];\n"
        );
        assert!(read(root.path(), "Cargo.toml").ends_with("attn-toy2 = { path = \"crates/attn-toy2\" }\n"));
        assert!(read(root.path(), "crates/attn-bench/Cargo.toml").ends_with("attn-toy2.workspace = true\n"));
    }

    #[test]
    fn what_cannot_be_made_leaves_everything_as_it_was() {
        let root = workspace();
        for name in ["", "Toy", "2toy", "my-toy", "../toy", "töy"] {
            assert!(matches!(create(root.path(), name), Err(Error::Name(_))), "{name}");
        }
        fs::create_dir_all(root.path().join("crates/attn-toy")).unwrap();
        assert!(matches!(create(root.path(), "toy"), Err(Error::Exists(_))));
        fs::write(root.path().join("crates/attn-bench/src/registry.rs"), "nothing").unwrap();
        let before = read(root.path(), "Cargo.toml");
        assert!(matches!(create(root.path(), "other"), Err(Error::Anchor { .. })));
        assert!(!root.path().join("crates/attn-other").exists());
        assert_eq!(read(root.path(), "Cargo.toml"), before);
    }

    #[test]
    fn the_workspace_of_this_project_has_the_places() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for (file, anchor) in [
            ("Cargo.toml", "attn-testkit = { path = \"crates/attn-testkit\" }"),
            ("crates/attn-bench/Cargo.toml", "attn-testkit.workspace = true"),
            ("crates/attn-bench/src/registry.rs", "::VARIANT,"),
        ] {
            beside(&root.join(file), anchor, "").unwrap();
        }
    }
}
