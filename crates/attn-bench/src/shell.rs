//! Words for a shell.

/// A word as a shell reads it back, quoted where it needs to be.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,%+@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_string()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The command as it was typed, the program by its name alone: a run tells no one where it was made.
pub fn command_line() -> String {
    let args = std::env::args().skip(1).map(|arg| quote(&arg));
    std::iter::once("attn-bench".to_string())
        .chain(args)
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn what_a_shell_would_change_is_quoted() {
        for (word, quoted) in [
            ("results/a-1", "results/a-1"),
            ("", "''"),
            ("my run", "'my run'"),
            ("it's $HOME", r"'it'\''s $HOME'"),
            ("a;b", "'a;b'"),
        ] {
            assert_eq!(quote(word), quoted);
        }
    }
}
