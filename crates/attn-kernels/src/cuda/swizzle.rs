//! Where rows lie in shared memory.

/// Place of chunk `chunk` (16 bytes) of row `row` in a tile of rows of `chunks` chunks: `swizzled` of `common.cuh`.
///
/// Eight rows of one column of chunks lie in eight different groups of banks, whatever the length of a row: an odd one
/// does that by itself, an even one has as many low bits of the column exchanged as it has trailing zeros.
pub fn swizzled(chunks: usize, row: usize, chunk: usize) -> usize {
    let bits = chunks.trailing_zeros().min(3);
    row * chunks + (chunk ^ ((row >> (3 - bits)) & ((1 << bits) - 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_chunks_lie_in_one_place_and_no_column_of_eight_in_one_bank() {
        for chunks in 1..=144 {
            let places: std::collections::BTreeSet<_> = (0..16)
                .flat_map(|row| (0..chunks).map(move |chunk| swizzled(chunks, row, chunk)))
                .collect();
            assert_eq!(places.len(), 16 * chunks);
            assert_eq!(places.last(), Some(&(16 * chunks - 1)));
            for chunk in 0..chunks {
                for first in [0, 8] {
                    let banks: std::collections::BTreeSet<_> = (first..first + 8)
                        .map(|row| swizzled(chunks, row, chunk) % 8)
                        .collect();
                    assert_eq!(banks.len(), 8, "{chunks} {chunk}");
                }
            }
        }
    }
}
