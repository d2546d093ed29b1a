//! `cuda/cache_update.cu` in Rust: lane i has the elements i, i + 32, ..; sums are a lane's own, then the butterfly.

use attn_kernels::cuda::CacheUpdateShape;
use attn_kernels::{Element, Latents};

use super::warp::{butterfly, rounded};

/// The sum over all lanes of what each makes of its elements in order, `add(element, sum)`.
fn sum(n: usize, add: impl Fn(usize, f32) -> f32) -> f32 {
    let mut lanes = std::array::from_fn(|lane| (lane..n).step_by(32).fold(0.0, |sum, d| add(d, sum)));
    butterfly(&mut lanes, 32, |a, b| a + b);
    lanes[0]
}

/// Writes the entries of one token of every sequence to `cache`, `[B, C, r + Dr]`, and the sums to `open`, `[B, r]`.
pub fn cache_update<E: Element>(
    shape: CacheUpdateShape,
    input: &Latents<'_, E>,
    cache: &mut [E],
    capacity: usize,
    open: &mut [f32],
) {
    let CacheUpdateShape {
        rank,
        rope_dim,
        stride,
        layer_norm,
        halves,
        ..
    } = shape;
    let width = rank + rope_dim;
    for (sequence, &position) in input.starts.iter().enumerate() {
        let slot = position / stride.unwrap_or(1);
        if slot >= capacity {
            continue;
        }
        let x = &input.x.data[sequence * input.x.group_stride..][..width];
        let mut c: Vec<f32> = x[..rank].iter().map(|x| x.to_f32()).collect();
        if layer_norm {
            let mean = sum(rank, |d, sum| sum + c[d]) / rank as f32;
            c.iter_mut().for_each(|c| *c -= mean);
        }
        let squares = sum(rank, |d, sum| c[d].mul_add(c[d], sum));
        let scale = 1.0 / (squares / rank as f32 + input.norm.eps).sqrt();
        for (d, c) in c.iter_mut().enumerate() {
            let bias = input.norm.bias.map_or(0.0, |bias| bias[d].to_f32());
            *c = rounded::<E>((*c * scale).mul_add(input.norm.weight[d].to_f32(), bias));
        }
        let entry = &mut cache[(sequence * capacity + slot) * width..][..width];
        if let (Some(stride), Some(gate)) = (stride, &input.gate) {
            let u = &gate.u[slot * rank..][..rank];
            let logit = sum(rank, |d, sum| c[d].mul_add(u[d], sum)) + gate.b[slot];
            let gate = 1.0 / (1.0 + (-logit).exp());
            let open = &mut open[sequence * rank..][..rank];
            for (c, open) in c.iter_mut().zip(open) {
                let before = if position % stride == 0 { 0.0 } else { *open };
                *c = gate.mul_add(*c, before);
                *open = *c;
            }
        }
        for (to, c) in entry.iter_mut().zip(&c) {
            *to = E::from_f32(*c);
        }
        let half = rope_dim / 2;
        for i in 0..half {
            let (first, second) = if halves { (i, half + i) } else { (2 * i, 2 * i + 1) };
            let (a, b) = (x[rank + first].to_f32(), x[rank + second].to_f32());
            let (cos, sin) = (
                input.turn.cos[position * half + i],
                input.turn.sin[position * half + i],
            );
            entry[rank + first] = E::from_f32(a * cos - b * sin);
            entry[rank + second] = E::from_f32(a * sin + b * cos);
        }
    }
}
