//! `cuda/combine.cuh` in Rust: parts of a block to one result, results of blocks to the output.

use attn_kernels::Element;

use super::warp::{butterfly, fmax, shrink};

/// What a block leaves: maximum and sum of each of its rows, and their values.
pub struct Partial {
    pub sums: Vec<[f32; 2]>,
    pub values: Vec<Vec<f32>>,
}

/// `total_of`: the maximum and the sum over parts, `sums` being `[parts, rows]`.
pub fn total_of(sums: &[Vec<[f32; 2]>], row: usize, factor: f32) -> [f32; 2] {
    let max = sums
        .iter()
        .fold(f32::NEG_INFINITY, |max, part| fmax(max, part[row][0]));
    let mut total = 0.0;
    for part in sums {
        let [own, sum] = part[row];
        total += sum * shrink(own, max, factor);
    }
    [max, total]
}

/// `write_out`.
fn write_out<E: Element>(values: &[f32], sum: f32) -> Vec<E> {
    let inverse = if sum == 0.0 { 0.0 } else { 1.0 / sum };
    values.iter().map(|value| E::from_f32(value * inverse)).collect()
}

/// Rows of the output from the results of a sequence's blocks, in the order of their numbers.
pub fn combine<E: Element>(blocks: &[Partial], columns: usize, factor: f32) -> Vec<E> {
    let rows = blocks[0].sums.len();
    let mut out = Vec::new();
    for row in 0..rows {
        if let [block] = blocks {
            out.extend(write_out::<E>(&block.values[row][..columns], block.sums[row][1]));
            continue;
        }
        let max = blocks
            .iter()
            .fold(f32::NEG_INFINITY, |max, block| fmax(max, block.sums[row][0]));
        let weights: Vec<f32> = blocks
            .iter()
            .map(|block| shrink(block.sums[row][0], max, factor))
            .collect();
        let mut lanes = [0.0; 32];
        for (split, block) in blocks.iter().enumerate() {
            lanes[split % 32] += weights[split] * block.sums[row][1];
        }
        butterfly(&mut lanes, 32, |a, b| a + b);
        let mut sum = vec![0.0; columns];
        for (block, weight) in blocks.iter().zip(&weights) {
            for (sum, value) in sum.iter_mut().zip(&block.values[row]) {
                *sum = weight.mul_add(*value, *sum);
            }
        }
        out.extend(write_out::<E>(&sum, lanes[0]));
    }
    out
}
