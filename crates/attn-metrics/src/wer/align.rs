//! The alignment with the fewest errors, and of those the one that rapidfuzz takes: which errors they are depends on it.

use super::ErrorCounts;

/// Pairs from which a text is split first: a byte is kept for each, and rapidfuzz splits there too.
const MAX_PAIRS: usize = 4 << 20;

/// Counts the errors of `hypothesis`.
pub(super) fn align(reference: &[u32], hypothesis: &[u32]) -> ErrorCounts {
    let mut counts = ErrorCounts::default();
    split(reference, hypothesis, usize::MAX, &mut counts);
    counts
}

/// Takes what is equal off both ends, then aligns the rest, in two halves where it is long (Hirschberg, 1975). There
/// are `errors` at most.
fn split(reference: &[u32], hypothesis: &[u32], errors: usize, counts: &mut ErrorCounts) {
    let prefix = equal(reference.iter(), hypothesis.iter());
    let (reference, hypothesis) = (&reference[prefix..], &hypothesis[prefix..]);
    let suffix = equal(reference.iter().rev(), hypothesis.iter().rev());
    let reference = &reference[..reference.len() - suffix];
    let hypothesis = &hypothesis[..hypothesis.len() - suffix];
    counts.hits += (prefix + suffix) as u64;

    let (n, m) = (reference.len(), hypothesis.len());
    let errors = errors.min(n.max(m));
    let band = n.min(2 * errors + 1);
    if band * m < MAX_PAIRS || n < 65 || m < 10 {
        return trace(reference, hypothesis, counts);
    }
    let half = m / 2;
    let left = distances(reference.iter(), hypothesis[..half].iter());
    let right = distances(reference.iter().rev(), hypothesis[half..].iter().rev());
    let (mut at, mut fewest) = (0, usize::MAX);
    for i in 0..=n {
        if left[i] + right[n - i] < fewest {
            (at, fewest) = (i, left[i] + right[n - i]);
        }
    }
    split(&reference[..at], &hypothesis[..half], left[at], counts);
    split(&reference[at..], &hypothesis[half..], right[n - at], counts);
}

fn equal<'a>(a: impl Iterator<Item = &'a u32>, b: impl Iterator<Item = &'a u32>) -> usize {
    a.zip(b).take_while(|(a, b)| a == b).count()
}

/// Errors of the whole hypothesis against the first i of the reference, for each i.
fn distances<'a>(
    reference: impl ExactSizeIterator<Item = &'a u32> + Clone,
    hypothesis: impl Iterator<Item = &'a u32>,
) -> Vec<usize> {
    let mut row: Vec<usize> = (0..=reference.len()).collect();
    for word in hypothesis {
        next_row(&mut row, reference.clone().map(|other| other == word));
    }
    row
}

/// One word more of the hypothesis.
fn next_row(row: &mut [usize], is_equal: impl Iterator<Item = bool>) {
    let mut diagonal = row[0];
    row[0] += 1;
    for (i, is_equal) in is_equal.enumerate() {
        let replaced = diagonal + usize::from(!is_equal);
        diagonal = row[i + 1];
        row[i + 1] = replaced.min(row[i] + 1).min(diagonal + 1);
    }
}

/// Counts from the end: a deletion wherever one is in an alignment with the fewest errors, else an insertion where the
/// diagonal is one worse, else the diagonal.
fn trace(reference: &[u32], hypothesis: &[u32], counts: &mut ErrorCounts) {
    let (n, m) = (reference.len(), hypothesis.len());
    // By how much the distance grows from one word of the reference to the next: -1, 0 or 1.
    let mut steps = vec![0i8; n * m];
    let mut row: Vec<usize> = (0..=n).collect();
    for (j, word) in hypothesis.iter().enumerate() {
        next_row(&mut row, reference.iter().map(|other| other == word));
        for i in 0..n {
            steps[j * n + i] = if row[i + 1] > row[i] {
                1
            } else {
                -i8::from(row[i + 1] < row[i])
            };
        }
    }
    let (mut i, mut j) = (n, m);
    while i > 0 && j > 0 {
        if steps[(j - 1) * n + i - 1] == 1 {
            i -= 1;
            counts.deletions += 1;
            continue;
        }
        j -= 1;
        if j > 0 && steps[(j - 1) * n + i - 1] == -1 {
            counts.insertions += 1;
        } else {
            i -= 1;
            if reference[i] == hypothesis[j] {
                counts.hits += 1;
            } else {
                counts.substitutions += 1;
            }
        }
    }
    counts.deletions += i as u64;
    counts.insertions += j as u64;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(counts: ErrorCounts) -> u64 {
        counts.substitutions + counts.deletions + counts.insertions
    }

    #[test]
    fn an_alignment_accounts_for_every_word() {
        let (reference, hypothesis) = ([1, 2, 3, 4, 5], [2, 9, 4, 5, 5, 6]);
        let counts = align(&reference, &hypothesis);
        assert_eq!(counts.reference_len(), 5);
        assert_eq!(counts.hits + counts.substitutions + counts.insertions, 6);
        assert_eq!(
            errors(counts),
            *distances(reference.iter(), hypothesis.iter()).last().unwrap() as u64
        );
    }

    #[test]
    fn a_long_text_in_halves_has_as_few_errors() {
        // Two sequences of period 7 and 5, without a beginning or end in common.
        let reference: Vec<u32> = (0..2_500).map(|i| i * i % 7).collect();
        let hypothesis: Vec<u32> = (1..2_500).map(|i| i * i % 5).collect();
        assert!(reference.len() * hypothesis.len() > MAX_PAIRS);
        let counts = align(&reference, &hypothesis);
        assert_eq!(counts.reference_len(), 2_500);
        assert_eq!(
            errors(counts),
            *distances(reference.iter(), hypothesis.iter()).last().unwrap() as u64
        );
    }
}
