//! Strings as Python takes them apart, and checks of corpora.

use crate::{Error, Result};

/// What `str.isspace`, and `\s` of `re`, hold for a space: Unicode's white space, and four separators of ASCII.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// `str.split()`.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// A list of one reference for each example, for metrics that take several.
pub fn single<S: AsRef<str>>(references: &[S]) -> Vec<[&str; 1]> {
    references.iter().map(|reference| [reference.as_ref()]).collect()
}

/// As many hypotheses as references, and some.
pub(crate) fn check_pairs(hypotheses: usize, references: usize) -> Result<()> {
    if hypotheses != references {
        return Err(Error::Lengths {
            left_name: "hypotheses",
            left: hypotheses,
            right_name: "references",
            right: references,
        });
    }
    if hypotheses == 0 {
        return Err(Error::Empty);
    }
    Ok(())
}

/// As many hypotheses as lists of references, and none of the lists empty.
pub(crate) fn check_lists<R: AsRef<[S]>, S: AsRef<str>>(hypotheses: usize, references: &[R]) -> Result<()> {
    check_pairs(hypotheses, references.len())?;
    match references.iter().position(|list| list.as_ref().is_empty()) {
        Some(example) => Err(Error::NoReference { example }),
        None => Ok(()),
    }
}

/// References of each example as a signature of sacrebleu has them: their number, or `var` where it differs.
pub(crate) fn n_references<R: AsRef<[S]>, S: AsRef<str>>(references: &[R]) -> String {
    let mut numbers = references.iter().map(|list| list.as_ref().len());
    match numbers.next() {
        Some(first) if numbers.all(|number| number == first) => first.to_string(),
        _ => "var".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_of_ascii_are_spaces_and_zero_width_ones_are_not() {
        assert_eq!(
            words("a\u{1c}b\u{a0}c\u{3000}\u{85}d\u{200b}e ").collect::<Vec<_>>(),
            ["a", "b", "c", "d\u{200b}e"]
        );
        assert_eq!(words(" \t\n").count(), 0);
    }

    #[test]
    fn a_corpus_must_have_as_many_references_and_none_missing() {
        let error = check_pairs(2, 3).unwrap_err();
        assert_eq!(
            error.to_string(),
            "2 hypotheses for 3 references, expected as many"
        );
        assert_eq!(check_pairs(0, 0), Err(Error::Empty));
        let references = [vec!["a"], vec![]];
        assert_eq!(
            check_lists(2, &references),
            Err(Error::NoReference { example: 1 })
        );
    }

    #[test]
    fn the_number_of_references_may_vary() {
        assert_eq!(n_references(&[vec!["a"], vec!["b", "c"]]), "var");
        assert_eq!(n_references(&single(&["a", "b"])), "1");
    }
}
