//! Operands of launches: addresses on a device with their sizes, held against what a plan says before a kernel sees
//! them. Sizes in elements where nothing else is said.

use super::cache_update::CacheUpdatePlan;
use super::grouped_update::GroupedUpdatePlan;
use super::streams::DecodePlan;
use crate::error::{Mismatch, at_least, product};

/// Memory of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Where it begins.
    pub address: u64,
    /// Bytes from there on.
    pub bytes: usize,
}

impl Memory {
    /// None, where an operand is not used.
    pub const NONE: Self = Self { address: 0, bytes: 0 };
}

/// Keys or values, `[B, Hkv, C, D]`, the elements of a row side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cache {
    /// The elements.
    pub memory: Memory,
    /// From one sequence to the next.
    pub batch_stride: usize,
    /// From one KV head to the next.
    pub head_stride: usize,
    /// From one entry to the next.
    pub row_stride: usize,
}

/// Operands of a decode kernel.
#[derive(Debug, Clone, Copy)]
pub struct DecodeOperands {
    /// `[B, H, Dk]`, without gaps.
    pub q: Memory,
    /// `[B, Hkv, C, Dk]`; of a latent cache `[B, 1, C, r + Dr]`.
    pub keys: Cache,
    /// `[B, Hkv, C, Dv]`; `None` for a latent cache.
    pub values: Option<Cache>,
    /// `[B, H, Dv]`, without gaps.
    pub out: Memory,
    /// `[B]` i32: the position of each sequence's newest token.
    pub positions: Memory,
    /// `[partial_floats]` f32 of the plan's workspace.
    pub partial: Memory,
    /// `[partial_sums, 2]` f32 of the plan's workspace.
    pub partial_sums: Memory,
    /// `[tickets]` u32 of the plan's workspace; zeros.
    pub tickets: Memory,
    /// Entries C that a sequence may have.
    pub capacity: usize,
    /// Factor of the scores, above 0.
    pub scale: f32,
}

/// Operands of the cache update.
#[derive(Debug, Clone, Copy)]
pub struct CacheUpdateOperands {
    /// `[B, r + Dr]`: latents before their norm, rope keys before they are turned.
    pub x: Memory,
    /// From one sequence's row of `x` to the next.
    pub x_stride: usize,
    /// `[r]`.
    pub weight: Memory,
    /// `[r]`; `None` for RMSNorm.
    pub bias: Option<Memory>,
    /// `[positions, Dr / 2]` f32.
    pub cos: Memory,
    /// `[positions, Dr / 2]` f32.
    pub sin: Memory,
    /// Positions of the tables; tokens beyond are not entered.
    pub n_positions: usize,
    /// With a gate: `[blocks, r]` f32, `[blocks]` f32, and the sums of open blocks, `[B, r]` f32.
    pub gate: Option<[Memory; 3]>,
    /// `[B, C, r + Dr]`, entries without gaps.
    pub cache: Memory,
    /// From one sequence's entries to the next.
    pub cache_stride: usize,
    /// `[B]` i32: the position of each sequence's token.
    pub positions: Memory,
    /// C.
    pub capacity: usize,
    /// What is added to the variance.
    pub eps: f32,
}

/// Operands of the grouped update.
#[derive(Debug, Clone, Copy)]
pub struct GroupedUpdateOperands {
    /// `[B, H, Dk]`, `[B, Hkv, Dk]` and `[B, Hkv, Dv]`: projections, before they are turned; heads without gaps.
    pub qkv: [Memory; 3],
    /// From one sequence's heads to the next, of each of them.
    pub qkv_strides: [usize; 3],
    /// `[B, H, Dk]`, without gaps: the queries, turned.
    pub turned: Memory,
    /// `[B, Hkv, C, Dk]`.
    pub keys: Cache,
    /// `[B, Hkv, C, Dv]`.
    pub values: Cache,
    /// `[positions, Dk / 2]` f32.
    pub cos: Memory,
    /// `[positions, Dk / 2]` f32.
    pub sin: Memory,
    /// Positions of the tables; tokens beyond are not entered.
    pub n_positions: usize,
    /// `[B]` i32: the position of each sequence's token.
    pub positions: Memory,
    /// C.
    pub capacity: usize,
}

/// `Decode` of `combine.cuh`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct DecodeParams {
    q: u64,
    keys: u64,
    values: u64,
    out: u64,
    partial: u64,
    partial_sums: u64,
    tickets: u64,
    positions: u64,
    key_batch_stride: i64,
    key_head_stride: i64,
    value_batch_stride: i64,
    value_head_stride: i64,
    key_row_stride: i32,
    value_row_stride: i32,
    n_kv_heads: i32,
    capacity: i32,
    factor: f32,
}

/// `CacheUpdate` of `cache_update.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct CacheUpdateParams {
    x: u64,
    weight: u64,
    bias: u64,
    cos: u64,
    sin: u64,
    u: u64,
    b: u64,
    open: u64,
    cache: u64,
    positions: u64,
    x_stride: i64,
    cache_stride: i64,
    batch: i32,
    capacity: i32,
    n_positions: i32,
    eps: f32,
}

/// `GroupedUpdate` of `grouped_update.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct GroupedUpdateParams {
    qkv: [u64; 3],
    turned: u64,
    keys: u64,
    values: u64,
    cos: u64,
    sin: u64,
    positions: u64,
    qkv_strides: [i64; 3],
    key_batch_stride: i64,
    key_head_stride: i64,
    value_batch_stride: i64,
    value_head_stride: i64,
    key_row_stride: i32,
    value_row_stride: i32,
    batch: i32,
    capacity: i32,
    n_positions: i32,
}

// The sources assert the same sizes.
const _: () = assert!(size_of::<DecodeParams>() == 120);
const _: () = assert!(size_of::<CacheUpdateParams>() == 112);
const _: () = assert!(size_of::<GroupedUpdateParams>() == 152);

/// Refuses memory that is too short, or begins where vectors of `align` bytes do not.
pub(super) fn memory(
    op: &'static str,
    what: &'static str,
    memory: Memory,
    bytes: usize,
    align: usize,
) -> Result<u64, Mismatch> {
    at_least(op, what, memory.bytes, bytes)?;
    aligned(op, what, memory.address as usize, align)?;
    Ok(memory.address)
}

/// Refuses an output that shares bytes with another output, or with an input: blocks run in no order, and inputs are read
/// by way of caches that see no writes. Expected, where an output is refused, is the first address behind the other.
pub(super) fn apart(
    op: &'static str,
    outputs: &[(&'static str, Memory)],
    inputs: &[(&'static str, Memory)],
) -> Result<(), Mismatch> {
    let end = |of: &Memory| of.address.saturating_add(of.bytes as u64);
    for (at, (what, output)) in outputs.iter().enumerate() {
        let others = outputs[at + 1..].iter().chain(inputs);
        for (_, other) in others.filter(|(_, other)| output.bytes > 0 && other.bytes > 0) {
            if output.address < end(other) && other.address < end(output) {
                return Err(Mismatch {
                    op,
                    what,
                    expected: end(other) as usize,
                    got: output.address as usize,
                });
            }
        }
    }
    Ok(())
}

/// Refuses what is no multiple of `align`, naming the multiple below as expected.
pub(super) fn aligned(
    op: &'static str,
    what: &'static str,
    got: usize,
    align: usize,
) -> Result<(), Mismatch> {
    match got % align {
        0 => Ok(()),
        rest => Err(Mismatch {
            op,
            what,
            expected: got - rest,
            got,
        }),
    }
}

/// As a kernel's integer.
pub(super) fn int(op: &'static str, what: &'static str, size: usize) -> Result<i32, Mismatch> {
    i32::try_from(size).map_err(|_| Mismatch {
        op,
        what,
        expected: i32::MAX as usize,
        got: size,
    })
}

impl Cache {
    /// The address of `[b, heads, n, dim]` elements of `bytes`, all of whose rows begin at multiples of `align`.
    pub(super) fn check(
        &self,
        op: &'static str,
        what: &'static str,
        [b, heads, n, dim]: [usize; 4],
        bytes: usize,
        align: usize,
    ) -> Result<u64, Mismatch> {
        let strides = [self.batch_stride, self.head_stride, self.row_stride];
        let mut end = dim;
        for (count, stride) in [b, heads, n].into_iter().zip(strides) {
            aligned(op, what, product(&[stride, bytes]), align)?;
            end = end.saturating_add(product(&[count.saturating_sub(1), stride]));
        }
        let is_empty = [b, heads, n].contains(&0);
        let end = if is_empty { 0 } else { end };
        memory(op, what, self.memory, product(&[end, bytes]), align)
    }
}

impl DecodePlan {
    /// What the kernel is given.
    ///
    /// # Errors
    /// [`Mismatch`] where memory is shorter than the plan's sizes say, or addresses and strides are not multiples of
    /// [`DecodePlan::align_bytes`]. Whether addresses are of a device is not seen here.
    pub fn params(&self, operands: &DecodeOperands) -> Result<DecodeParams, Mismatch> {
        let op = self.planned.specialisation.kernel.name;
        let sizes = &self.sizes;
        let bytes = self.planned.specialisation.dtype.bytes();
        let heads = product(&[sizes.batch, sizes.n_heads]);
        let cache = |what, cache: &Cache, dim: usize| {
            let counts = [sizes.batch, sizes.n_kv_heads, operands.capacity, dim];
            cache.check(op, what, counts, bytes, self.align_bytes)
        };
        let row = |dim: usize| product(&[heads, dim, bytes]);
        let keys = cache("the cache of keys", &operands.keys, sizes.key_dim)?;
        // Kernels of latents do not read it.
        let values_of = operands.values.unwrap_or(operands.keys);
        let values = match (sizes.apart, &operands.values) {
            (true, None) => at_least(op, "the number of caches", 1, 2).map(|()| 0)?,
            (true, Some(values)) => cache("the cache of values", values, sizes.value_dim)?,
            (false, _) => keys,
        };
        at_least(op, "the capacity", operands.capacity, 1)?;
        let workspace = &self.workspace;
        Ok(DecodeParams {
            q: memory(op, "q", operands.q, row(sizes.key_dim), self.align_bytes)?,
            keys,
            values,
            out: memory(op, "the output", operands.out, row(sizes.value_dim), bytes)?,
            partial: memory(op, "partial", operands.partial, 4 * workspace.partial_floats, 16)?,
            partial_sums: memory(
                op,
                "partial sums",
                operands.partial_sums,
                8 * workspace.partial_sums,
                8,
            )?,
            tickets: memory(op, "tickets", operands.tickets, 4 * workspace.tickets, 4)?,
            positions: memory(op, "positions", operands.positions, 4 * sizes.batch, 4)?,
            key_batch_stride: operands.keys.batch_stride as i64,
            key_head_stride: operands.keys.head_stride as i64,
            value_batch_stride: values_of.batch_stride as i64,
            value_head_stride: values_of.head_stride as i64,
            key_row_stride: int(op, "the distance of keys", operands.keys.row_stride)?,
            value_row_stride: int(op, "the distance of values", values_of.row_stride)?,
            n_kv_heads: int(op, "the number of heads", sizes.n_kv_heads)?,
            capacity: int(op, "the capacity", operands.capacity)?,
            factor: operands.scale * std::f32::consts::LOG2_E,
        })
    }
}

impl CacheUpdatePlan {
    /// What the kernel is given.
    ///
    /// # Errors
    /// [`Mismatch`] where memory is shorter than the plan's sizes say, or an operand is missing. Whether addresses are
    /// of a device is not seen here.
    pub fn params(&self, operands: &CacheUpdateOperands) -> Result<CacheUpdateParams, Mismatch> {
        let op = self.planned.specialisation.kernel.name;
        let (shape, batch) = (&self.shape, self.batch);
        let bytes = shape.dtype.bytes();
        let width = shape.rank + shape.rope_dim;
        let rows = |n: usize, stride: usize, width: usize| {
            product(&[n.saturating_sub(1), stride])
                .saturating_add(width)
                .saturating_mul(bytes)
        };
        let elements = |what, from: Memory, n: usize| memory(op, what, from, product(&[n, bytes]), bytes);
        let floats =
            |what, from: Memory, sizes: &[usize]| memory(op, what, from, product(sizes).saturating_mul(4), 4);
        let bias = match (shape.layer_norm, operands.bias) {
            (true, None) => at_least(op, "the norm's bias", 0, shape.rank).map(|()| 0)?,
            (true, Some(bias)) => elements("the norm's bias", bias, shape.rank)?,
            (false, _) => 0,
        };
        let [u, b, open] = match (shape.stride, operands.gate) {
            (None, _) => [0; 3],
            (Some(_), None) => at_least(op, "the number of the gate's tables", 0, 3).map(|()| [0; 3])?,
            (Some(stride), Some([u, b, open])) => {
                let blocks = operands.n_positions.div_ceil(stride);
                [
                    floats("the gate's table", u, &[blocks, shape.rank])?,
                    floats("the gate's biases", b, &[blocks])?,
                    floats("the sums of open blocks", open, &[batch, shape.rank])?,
                ]
            }
        };
        let table = [operands.n_positions, shape.rope_dim / 2];
        let entries = product(&[operands.capacity, width]);
        if batch > 1 {
            at_least(op, "the distance of sequences", operands.cache_stride, entries)?;
        }
        Ok(CacheUpdateParams {
            x: memory(op, "x", operands.x, rows(batch, operands.x_stride, width), bytes)?,
            weight: elements("the norm's weight", operands.weight, shape.rank)?,
            bias,
            cos: floats("the table of cosines", operands.cos, &table)?,
            sin: floats("the table of sines", operands.sin, &table)?,
            u,
            b,
            open,
            cache: memory(
                op,
                "the cache",
                operands.cache,
                rows(batch, operands.cache_stride, entries),
                bytes,
            )?,
            positions: memory(op, "positions", operands.positions, 4 * batch, 4)?,
            x_stride: operands.x_stride as i64,
            cache_stride: operands.cache_stride as i64,
            batch: int(op, "the batch", batch)?,
            capacity: int(op, "the capacity", operands.capacity)?,
            n_positions: int(op, "the number of positions", operands.n_positions)?,
            eps: operands.eps,
        })
    }
}

impl GroupedUpdatePlan {
    /// What the kernel is given.
    ///
    /// # Errors
    /// [`Mismatch`] where memory is shorter than the plan's sizes say. Whether addresses are of a device is not seen
    /// here.
    pub fn params(&self, operands: &GroupedUpdateOperands) -> Result<GroupedUpdateParams, Mismatch> {
        let op = self.planned.specialisation.kernel.name;
        let (shape, batch) = (&self.shape, self.batch);
        let bytes = shape.dtype.bytes();
        let (h, h_kv) = (shape.n_heads, shape.n_kv_heads);
        let widths = [h * shape.key_dim, h_kv * shape.key_dim, h_kv * shape.value_dim];
        let mut qkv = [0; 3];
        for i in 0..3 {
            let what = ["the queries", "the keys", "the values"][i];
            let end = product(&[batch.saturating_sub(1), operands.qkv_strides[i]]).saturating_add(widths[i]);
            qkv[i] = memory(op, what, operands.qkv[i], product(&[end, bytes]), bytes)?;
        }
        let cache = |what, cache: &Cache, dim: usize| {
            cache.check(op, what, [batch, h_kv, operands.capacity, dim], bytes, bytes)
        };
        let table = product(&[operands.n_positions, shape.key_dim / 2, 4]);
        let turned = product(&[batch, widths[0], bytes]);
        Ok(GroupedUpdateParams {
            qkv,
            turned: memory(op, "the turned queries", operands.turned, turned, bytes)?,
            keys: cache("the cache of keys", &operands.keys, shape.key_dim)?,
            values: cache("the cache of values", &operands.values, shape.value_dim)?,
            cos: memory(op, "the table of cosines", operands.cos, table, 4)?,
            sin: memory(op, "the table of sines", operands.sin, table, 4)?,
            positions: memory(op, "positions", operands.positions, 4 * batch, 4)?,
            qkv_strides: operands.qkv_strides.map(|stride| stride as i64),
            key_batch_stride: operands.keys.batch_stride as i64,
            key_head_stride: operands.keys.head_stride as i64,
            value_batch_stride: operands.values.batch_stride as i64,
            value_head_stride: operands.values.head_stride as i64,
            key_row_stride: int(op, "the distance of keys", operands.keys.row_stride)?,
            value_row_stride: int(op, "the distance of values", operands.values.row_stride)?,
            batch: int(op, "the batch", batch)?,
            capacity: int(op, "the capacity", operands.capacity)?,
            n_positions: int(op, "the number of positions", operands.n_positions)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Arch, CacheUpdateShape, Dtype, LatentDecodeShape, Machine};
    use super::*;

    fn at(address: u64, bytes: usize) -> Memory {
        Memory { address, bytes }
    }

    #[test]
    fn operands_of_decode_are_held_against_the_plan() {
        let shape = LatentDecodeShape {
            dtype: Dtype::Bf16,
            n_heads: 8,
            rank: 256,
            rope_dim: 32,
            stride: 2,
        };
        let plan = shape.plan(Machine::usual(Arch::Sm90a), 2, 4096).unwrap();
        let workspace = plan.workspace;
        assert!(workspace.tickets == 2 && workspace.partial_floats > 0);
        let good = DecodeOperands {
            q: at(16, 2 * 8 * 288 * 2),
            keys: Cache {
                memory: at(32, 2 * 100 * 288 * 2),
                batch_stride: 100 * 288,
                head_stride: 100 * 288,
                row_stride: 288,
            },
            values: None,
            out: at(2, 2 * 8 * 256 * 2),
            positions: at(4, 8),
            partial: at(16, 4 * workspace.partial_floats),
            partial_sums: at(8, 8 * workspace.partial_sums),
            tickets: at(4, 8),
            capacity: 100,
            scale: 1.0,
        };
        let params = plan.params(&good).unwrap();
        assert_eq!((params.keys, params.values, params.capacity), (32, 32, 100));
        assert_eq!(params.factor, std::f32::consts::LOG2_E);
        let refused = |operands: DecodeOperands| plan.params(&operands).unwrap_err().to_string();
        assert_eq!(
            refused(DecodeOperands {
                capacity: 101,
                ..good
            }),
            "latent_decode: the cache of keys is 115200, expected 115776"
        );
        assert_eq!(
            refused(DecodeOperands {
                q: at(18, 1 << 20),
                ..good
            }),
            "latent_decode: q is 18, expected 16"
        );
        assert!(
            refused(DecodeOperands {
                tickets: Memory::NONE,
                ..good
            })
            .contains("tickets")
        );
        let row_stride = 289;
        let keys = Cache {
            row_stride,
            ..good.keys
        };
        assert!(refused(DecodeOperands { keys, ..good }).contains("the cache of keys is 578"));
    }

    #[test]
    fn operands_of_the_cache_update_are_held_against_the_plan() {
        let shape = CacheUpdateShape {
            dtype: Dtype::F32,
            rank: 64,
            rope_dim: 16,
            stride: Some(2),
            layer_norm: false,
            halves: true,
        };
        let plan = shape.plan(Machine::usual(Arch::Sm80), 3).unwrap();
        let good = CacheUpdateOperands {
            x: at(4, 3 * 80 * 4),
            x_stride: 80,
            weight: at(4, 64 * 4),
            bias: None,
            cos: at(4, 20 * 8 * 4),
            sin: at(4, 20 * 8 * 4),
            n_positions: 20,
            gate: Some([at(4, 10 * 64 * 4), at(4, 40), at(4, 3 * 64 * 4)]),
            cache: at(4, 3 * 10 * 80 * 4),
            cache_stride: 800,
            positions: at(4, 12),
            capacity: 10,
            eps: 1e-5,
        };
        assert!(plan.params(&good).is_ok());
        let refused = |operands: CacheUpdateOperands| plan.params(&operands).unwrap_err().to_string();
        assert!(refused(CacheUpdateOperands { gate: None, ..good }).contains("gate's tables"));
        let more = CacheUpdateOperands {
            n_positions: 21,
            ..good
        };
        assert_eq!(
            refused(more),
            "cache_update: the gate's table is 2560, expected 2816"
        );
        let close = CacheUpdateOperands {
            cache_stride: 799,
            ..good
        };
        assert!(refused(close).contains("distance of sequences"));
    }
}
