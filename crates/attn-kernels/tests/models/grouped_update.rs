//! `cuda/grouped_update.cu` in Rust: a warp has a head of queries, keys or values; lane i has the pairs, or elements, i,
//! i + 32, ..

use attn_kernels::Element;
use attn_kernels::cuda::{GroupedUpdatePlan, GroupedUpdateShape};

/// A launch: the operands, and what the plan says.
pub struct GroupedUpdate<'a, E> {
    pub plan: &'a GroupedUpdatePlan,
    /// Queries, keys and values of a sequence side by side.
    pub qkv: &'a [E],
    pub cos: &'a [f32],
    pub sin: &'a [f32],
    /// Rows of the tables.
    pub n_positions: usize,
    pub positions: &'a [i32],
    /// C.
    pub capacity: usize,
}

impl<E: Element> GroupedUpdate<'_, E> {
    /// Writes `[B, H, Dk]` to `turned`, and one entry of every sequence to `[B, Hkv, C, Dk]` and `[B, Hkv, C, Dv]`.
    pub fn run(&self, turned: &mut [E], keys: &mut [E], values: &mut [E]) {
        let GroupedUpdateShape {
            n_heads: h,
            n_kv_heads: h_kv,
            key_dim,
            value_dim,
            ..
        } = self.plan.shape;
        let (all_heads, width) = (h + 2 * h_kv, (h + h_kv) * key_dim + h_kv * value_dim);
        let launch = &self.plan.planned.launch;
        for at in 0..launch.grid[0] * launch.threads / 32 {
            let (sequence, head) = (at / all_heads, at % all_heads);
            if sequence >= self.plan.batch {
                continue;
            }
            let position = match usize::try_from(self.positions[sequence]) {
                Ok(position) if position < self.n_positions && position < self.capacity => position,
                _ => continue,
            };
            let own = &self.qkv[sequence * width..][..width];
            let slot = |kv_head: usize| (sequence * h_kv + kv_head) * self.capacity + position;
            if head >= h + h_kv {
                let kv_head = head - h - h_kv;
                let from = &own[(h + h_kv) * key_dim + kv_head * value_dim..][..value_dim];
                let to = &mut values[slot(kv_head) * value_dim..][..value_dim];
                for d in of_lanes(value_dim) {
                    to[d] = from[d];
                }
                continue;
            }
            // Keys lie behind the queries as if they were more of them.
            let from = &own[head * key_dim..][..key_dim];
            let to = match head.checked_sub(h) {
                None => &mut turned[(sequence * h + head) * key_dim..][..key_dim],
                Some(kv_head) => &mut keys[slot(kv_head) * key_dim..][..key_dim],
            };
            self.turn(to, from, position);
        }
    }

    /// `turn_pair` of `common.cuh`, of every pair.
    fn turn(&self, to: &mut [E], from: &[E], position: usize) {
        let half = from.len() / 2;
        for i in of_lanes(half) {
            let (first, second) = match self.plan.shape.halves {
                true => (i, half + i),
                false => (2 * i, 2 * i + 1),
            };
            let (a, b) = (from[first].to_f32(), from[second].to_f32());
            let [cos, sin] = [self.cos, self.sin].map(|table| table[position * half + i]);
            to[first] = E::from_f32(a * cos - b * sin);
            to[second] = E::from_f32(a * sin + b * cos);
        }
    }
}

/// All of `n` elements, one lane's after another's.
fn of_lanes(n: usize) -> impl Iterator<Item = usize> {
    (0..32).flat_map(move |lane| (lane..n).step_by(32))
}
