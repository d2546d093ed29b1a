//! Reorder: sequences of a cache change places where they lie, as the hypotheses of a beam do.
//!
//! Copying a cache row by row into a new one reads and writes all of it, and needs it twice. In place only what changes
//! moves: rows are written in an order in which nobody needs any more what is overwritten, and a cycle needs one spare
//! row, of a block of slots at a time.

use rayon::prelude::*;

use crate::error::{Mismatch, at_least, product};
use crate::places::Places;

/// Elements of a task: some of them stay in the second cache with their spare.
const BLOCK: usize = 1 << 14;

/// Where sequences and heads of a cache lie.
#[derive(Debug, Clone, Copy)]
pub struct Reorder<'a> {
    /// What each sequence is to be: sequence i becomes what sequence `from[i]` was.
    pub from: &'a [usize],
    /// Elements in use of a head of each sequence as it was.
    pub used: &'a [usize],
    /// KV heads.
    pub heads: usize,
    /// From one sequence to the next.
    pub batch_stride: usize,
    /// From one head to the next.
    pub head_stride: usize,
}

/// A row or the spare one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Row(usize),
    Spare,
}

/// One row written to another place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Move {
    from: Place,
    to: usize,
    /// A row to keep in the spare one first.
    keep: Option<usize>,
}

/// The moves that make row i what row `from[i]` was, in an order that loses nothing.
fn schedule(from: &[usize], rows: usize) -> Vec<Move> {
    // How many rows that were not written yet are to be what a row is.
    let mut readers = vec![0_usize; rows];
    let moving = |&(to, &source): &(usize, &usize)| to != source;
    for (_, &source) in from.iter().enumerate().filter(moving) {
        readers[source] += 1;
    }
    let mut moves = Vec::new();
    let mut done: Vec<bool> = from
        .iter()
        .enumerate()
        .map(|(to, &source)| to == source)
        .collect();
    let mut free: Vec<usize> = (0..from.len())
        .filter(|&to| !done[to] && readers[to] == 0)
        .collect();
    while let Some(to) = free.pop() {
        let source = from[to];
        moves.push(Move {
            from: Place::Row(source),
            to,
            keep: None,
        });
        done[to] = true;
        readers[source] -= 1;
        if readers[source] == 0 && source < from.len() && !done[source] {
            free.push(source);
        }
    }
    // What is left are cycles: each row is read by one other.
    for first in 0..from.len() {
        if done[first] {
            continue;
        }
        let (mut to, mut keep) = (first, Some(first));
        while !done[to] {
            let source = from[to];
            let is_last = source == first;
            moves.push(Move {
                from: if is_last { Place::Spare } else { Place::Row(source) },
                to,
                keep: keep.take(),
            });
            done[to] = true;
            to = source;
        }
    }
    moves
}

/// Makes each sequence of `data` what another one was, in place.
///
/// # Errors
/// [`Mismatch`] where `data` is too short, or a sequence is to be what there is none of.
pub fn reorder<E: Copy + Default + Send + Sync>(input: &Reorder<'_>, data: &mut [E]) -> Result<(), Mismatch> {
    let op = "reorder";
    let rows = input.used.len();
    let most = input.used.iter().copied().max().unwrap_or(0);
    if let Some(&row) = input.from.iter().find(|&&row| row >= rows) {
        return Err(Mismatch {
            op,
            what: "a sequence",
            expected: rows.saturating_sub(1),
            got: row,
        });
    }
    if input.from.len() > rows {
        return Err(Mismatch {
            op,
            what: "the number of sequences",
            expected: rows,
            got: input.from.len(),
        });
    }
    if most > input.head_stride.min(input.batch_stride) {
        return Err(Mismatch {
            op,
            what: "the elements in use of a head",
            expected: input.head_stride.min(input.batch_stride),
            got: most,
        });
    }
    if rows == 0 || most == 0 || input.heads == 0 {
        return Ok(());
    }
    let end = product(&[rows - 1, input.batch_stride])
        .saturating_add(product(&[input.heads - 1, input.head_stride]))
        .saturating_add(most);
    at_least(op, "the length of the cache", data.len(), end)?;

    let moves = schedule(input.from, rows);
    if moves.is_empty() {
        return Ok(());
    }
    let places = Places::new(data);
    let blocks = most.div_ceil(BLOCK);
    (0..input.heads * blocks).into_par_iter().for_each(|task| {
        let (head, first) = (task / blocks, task % blocks * BLOCK);
        let part = |row: usize, used: usize| {
            let n = used.saturating_sub(first).min(BLOCK);
            let at = row * input.batch_stride + head * input.head_stride + first;
            // SAFETY: a task has one block of one head to itself, of every sequence; rows do not overlap, since a head
            // in use is no longer than the way to the next. Of the two parts that a move has, one is of another row.
            (n > 0).then(|| unsafe { places.part(at, n) })
        };
        let mut spare = Vec::new();
        for Move { from, to, keep } in &moves {
            if let Some(row) = *keep {
                spare.clear();
                spare.extend_from_slice(part(row, input.used[row]).unwrap_or_default());
            }
            let used = input.used[input.from[*to]];
            let Some(target) = part(*to, used) else { continue };
            match *from {
                Place::Row(row) => target.copy_from_slice(part(row, used).unwrap_or_default()),
                Place::Spare => target.copy_from_slice(&spare[..target.len()]),
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::seq::IndexedRandom;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn check(from: &[usize], rows: usize, used: &[usize], heads: usize, width: usize) {
        let gap = 3;
        let (head_stride, batch_stride) = (width + gap, heads * (width + gap) + gap);
        let mut data: Vec<f32> = (0..rows * batch_stride).map(|i| i as f32).collect();
        let before = data.clone();
        let input = Reorder {
            from,
            used,
            heads,
            batch_stride,
            head_stride,
        };
        reorder(&input, &mut data).unwrap();
        for (to, &source) in from.iter().enumerate() {
            for head in 0..heads {
                let at = |row: usize| row * batch_stride + head * head_stride;
                let n = used[source];
                assert_eq!(
                    data[at(to)..][..n],
                    before[at(source)..][..n],
                    "{from:?} row {to}"
                );
                // Nobody touches what lies between.
                assert_eq!(data[at(to) + width..][..gap], before[at(to) + width..][..gap]);
            }
        }
    }

    #[test]
    fn sequences_change_places_in_place() {
        for from in [
            vec![0, 1, 2, 3],
            vec![1, 2, 3, 0],
            vec![1, 0, 3, 2],
            vec![2, 2, 2, 2],
            vec![3, 0, 0, 1],
            vec![1, 2, 0, 0],
            vec![3, 3],
            vec![2, 3, 0],
        ] {
            check(&from, 4, &[5, 5, 5, 5], 2, 5);
        }
    }

    #[test]
    fn any_map_over_any_lengths_is_right() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let lengths = [0, 1, 7, 12];
        for _ in 0..200 {
            let rows = rng.random_range(1..12);
            let n = rng.random_range(1..=rows);
            let from: Vec<usize> = (0..n).map(|_| rng.random_range(0..rows)).collect();
            let used: Vec<usize> = (0..rows).map(|_| *lengths.choose(&mut rng).unwrap()).collect();
            check(&from, rows, &used, 3, 12);
        }
        check(&[1, 2, 0, 0], 4, &[3 * BLOCK / 2; 4], 2, 2 * BLOCK);
    }

    #[test]
    fn what_stays_is_not_moved_and_a_cycle_takes_one_move_more_than_none() {
        assert!(schedule(&[0, 1, 2], 3).is_empty());
        assert_eq!(schedule(&[1, 0, 2], 3).len(), 2);
        assert_eq!(schedule(&[2, 2, 2], 3).len(), 2);
    }

    #[test]
    fn a_sequence_there_is_none_of_is_refused() {
        let input = Reorder {
            from: &[2],
            used: &[1, 1],
            heads: 1,
            batch_stride: 1,
            head_stride: 1,
        };
        assert!(reorder(&input, &mut [0_f32; 2]).is_err());
    }
}
