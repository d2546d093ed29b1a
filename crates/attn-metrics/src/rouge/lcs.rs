//! Longest common subsequences of words.

use std::collections::{BTreeSet, HashMap};

/// Which words of `reference` are one of its longest common subsequences with `other`, the one rouge-score takes.
pub(super) fn common(reference: &[String], other: &[String]) -> Vec<usize> {
    let (n, m) = (reference.len(), other.len());
    // Lengths of the first i and j words.
    let mut lengths = vec![vec![0u32; m + 1]; n + 1];
    for i in 1..=n {
        for j in 1..=m {
            lengths[i][j] = if reference[i - 1] == other[j - 1] {
                lengths[i - 1][j - 1] + 1
            } else {
                lengths[i - 1][j].max(lengths[i][j - 1])
            };
        }
    }
    let (mut i, mut j) = (n, m);
    let mut found = Vec::new();
    while i > 0 && j > 0 {
        if reference[i - 1] == other[j - 1] {
            found.push(i - 1);
            (i, j) = (i - 1, j - 1);
        } else if lengths[i][j - 1] > lengths[i - 1][j] {
            j -= 1;
        } else {
            i -= 1;
        }
    }
    found.reverse();
    found
}

/// Words of reference sentences that are in a longest common subsequence with any sentence of the hypothesis; a word
/// counts as often as both sides have it (Lin, 2004, section 3.2, and ROUGE 1.5.5).
pub(super) fn union_hits(reference: &[Vec<String>], hypothesis: &[Vec<String>]) -> u64 {
    let (mut left_reference, mut left_hypothesis) = (counts(reference), counts(hypothesis));
    let mut hits = 0;
    for sentence in reference {
        let union: BTreeSet<usize> = hypothesis
            .iter()
            .flat_map(|other| common(sentence, other))
            .collect();
        for word in union.into_iter().map(|i| sentence[i].as_str()) {
            if let (Some(a @ 1..), Some(b @ 1..)) =
                (left_reference.get_mut(word), left_hypothesis.get_mut(word))
            {
                *a -= 1;
                *b -= 1;
                hits += 1;
            }
        }
    }
    hits
}

fn counts(sentences: &[Vec<String>]) -> HashMap<&str, u32> {
    let mut counts = HashMap::new();
    for word in sentences.iter().flatten() {
        *counts.entry(word.as_str()).or_insert(0) += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentence(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn the_union_is_that_of_the_paper() {
        // Section 3.2: w1 w2 w3 w4 w5 against two sentences share w1 w2 and w1 w3 w5.
        let reference = [sentence("w1 w2 w3 w4 w5")];
        let hypothesis = [sentence("w1 w2 w6 w7 w8"), sentence("w1 w3 w8 w9 w5")];
        assert_eq!(union_hits(&reference, &hypothesis), 4);
    }

    #[test]
    fn a_word_counts_as_often_as_both_sides_have_it() {
        let (reference, hypothesis) = ([sentence("a b"), sentence("a c")], [sentence("a")]);
        assert_eq!(union_hits(&reference, &hypothesis), 1);
    }
}
