//! Keeps labels at the ends of lines from covering each other.

/// Moves labels of one height to where none overlaps, as little as possible, inside `low..=high`.
///
/// Returns the new positions in the order given. Labels that would collide form a block around the mean of
/// the positions they want (pool adjacent violators), so the result is the least-squares one. Where they
/// cannot fit they are spread evenly, and then overlap as little as they can.
pub(crate) fn spread(wanted: &[f64], height: f64, low: f64, high: f64) -> Vec<f64> {
    let n = wanted.len();
    if n == 0 {
        return Vec::new();
    }
    let room = high - low;
    let step = if n > 1 {
        height.min(room / (n - 1) as f64)
    } else {
        height
    };
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|a, b| wanted[*a].total_cmp(&wanted[*b]).then(a.cmp(b)));

    // A block is the position its first label takes and the labels in it.
    let mut blocks: Vec<(f64, usize)> = Vec::new();
    let place =
        |first_wanted: f64, len: usize| first_wanted.clamp(low, (high - (len - 1) as f64 * step).max(low));
    for (rank, label) in order.iter().enumerate() {
        blocks.push((place(wanted[*label], 1), 1));
        while let [.., (above, above_len), (here, _)] = blocks[..] {
            if above + above_len as f64 * step <= here + 1e-9 {
                break;
            }
            let len = above_len + blocks[blocks.len() - 1].1;
            let first = rank + 1 - len;
            let mean: f64 = (0..len)
                .map(|i| wanted[order[first + i]] - i as f64 * step)
                .sum::<f64>()
                / len as f64;
            blocks.truncate(blocks.len() - 2);
            blocks.push((place(mean, len), len));
        }
    }

    let mut moved = vec![0.0; n];
    let places = blocks
        .iter()
        .flat_map(|(first, len)| (0..*len).map(move |i| first + i as f64 * step));
    for (label, y) in order.iter().zip(places) {
        moved[*label] = y;
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(wanted: &[f64], expected: &[f64]) {
        let moved = spread(wanted, 10.0, 0.0, 100.0);
        for (got, want) in moved.iter().zip(expected) {
            assert!(
                (got - want).abs() < 1e-6,
                "{wanted:?} -> {moved:?}, expected {expected:?}"
            );
        }
    }

    #[test]
    fn labels_that_do_not_collide_stay() {
        check(&[80.0, 20.0, 50.0], &[80.0, 20.0, 50.0]);
    }

    #[test]
    fn a_collision_moves_both_by_the_same() {
        check(&[50.0, 52.0], &[46.0, 56.0]);
    }

    #[test]
    fn blocks_merge_and_stay_inside() {
        check(&[99.0, 98.0, 97.0], &[100.0, 90.0, 80.0]);
        check(&[0.0, 1.0, 12.0], &[0.0, 10.0, 20.0]);
    }

    #[test]
    fn no_two_overlap_whatever_they_want() {
        let wanted: Vec<f64> = (0..10).map(|i| f64::from((i * 37) % 11)).collect();
        let mut moved = spread(&wanted, 10.0, 0.0, 100.0);
        moved.sort_by(f64::total_cmp);
        assert!(
            moved.windows(2).all(|pair| pair[1] - pair[0] > 10.0 - 1e-6),
            "{moved:?}"
        );
        assert!(moved[0] >= 0.0 && moved[9] <= 100.0);
    }

    #[test]
    fn too_many_labels_share_the_room_evenly() {
        let moved = spread(&[50.0; 21], 10.0, 0.0, 100.0);
        assert!((moved[0] - 0.0).abs() < 1e-6 && (moved[20] - 100.0).abs() < 1e-6);
        assert!((moved[1] - moved[0] - 5.0).abs() < 1e-6);
    }

    #[test]
    fn nothing_gives_nothing() {
        assert!(spread(&[], 10.0, 0.0, 100.0).is_empty());
    }
}
