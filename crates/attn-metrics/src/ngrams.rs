//! N-grams and how often they occur.

use std::collections::HashMap;
use std::hash::Hash;

/// How often each n-gram of `order` occurs.
pub(crate) fn ngrams<T: Eq + Hash>(items: &[T], order: usize) -> HashMap<&[T], u64> {
    let mut counts = HashMap::new();
    for ngram in items.windows(order) {
        *counts.entry(ngram).or_insert(0) += 1;
    }
    counts
}

/// N-grams that both have, each as often as it is in both.
pub(crate) fn in_both<T: Eq + Hash>(a: &HashMap<&[T], u64>, b: &HashMap<&[T], u64>) -> u64 {
    a.iter()
        .map(|(ngram, count)| b.get(ngram).map_or(0, |other| *count.min(other)))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_ngram_matches_as_often_as_it_is_in_both() {
        let (a, b) = (["x", "x", "x", "y"], ["x", "x", "y", "y"]);
        assert_eq!(in_both(&ngrams(&a, 1), &ngrams(&b, 1)), 3);
        assert_eq!(in_both(&ngrams(&a, 2), &ngrams(&b, 2)), 2);
        assert!(ngrams(&a, 5).is_empty());
    }
}
