//! Operands of trials: what a kernel for GPUs and the processor both compute before the kernel is used.

pub(super) mod attend;
pub(super) mod merge;

use attn_kernels::cuda::{AdvanceShape, CacheUpdateShape, DecodeSizes, GroupedUpdateShape};
use candle_core::{DType, Device, Tensor};

use super::candle_dtype;
use crate::cache::SlotRows;
use crate::error::Result;
use crate::geometry::{Entry, Values};
use crate::latent::GateTable;
use crate::norm::Norm;
use crate::ops::DecodeInput;
use crate::ops::native::LatentsInput;
use crate::rope::{Pairing, Rope};
use crate::weights::{random_tensor, random_unit};

/// Seed of a trial's operands.
const SEED: u64 = 42;

/// Lengths of a trial's sequences in entries: one, some tiles and a part of one, and enough for many splits.
pub(super) const TRIAL_SLOTS: [usize; 3] = [1, 131, 577];

/// Entries that a trial's cache has room for; what no sequence has written is NaN.
const TRIAL_CAPACITY: usize = 600;

/// Entries that a plan of a trial is made for: with few there is one split, with many there are as many as there may be.
pub(super) const TRIAL_HINTS: [usize; 2] = [1, 1 << 20];

/// Operands of a decode kernel's trial.
pub(super) struct DecodeTrial {
    pub(super) q: Tensor,
    pub(super) rows: SlotRows,
    pub(super) entry: Entry,
}

impl DecodeTrial {
    /// On the processor.
    pub(super) fn new(sizes: DecodeSizes, dtype: DType) -> Result<Self> {
        let cache = |dim: usize, stream: u64| -> Result<Tensor> {
            let shape = (sizes.batch, sizes.n_kv_heads, TRIAL_CAPACITY, dim);
            let mut values = random_unit(
                sizes.batch * sizes.n_kv_heads * TRIAL_CAPACITY * dim,
                SEED,
                stream,
            );
            // What lies beyond a sequence must not be read.
            for (row, values) in values.chunks_exact_mut(dim).enumerate() {
                let sequence = row / (sizes.n_kv_heads * TRIAL_CAPACITY);
                if row % TRIAL_CAPACITY >= TRIAL_SLOTS[sequence] {
                    values.fill(f32::NAN);
                }
            }
            Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?)
        };
        let q = [sizes.batch, sizes.n_heads, sizes.key_dim];
        Ok(Self {
            q: random_tensor(&q, SEED, 1, dtype, &Device::Cpu)?,
            rows: SlotRows {
                keys: cache(sizes.key_dim, 2)?,
                values: match sizes.apart {
                    true => Some(cache(sizes.value_dim, 3)?),
                    false => None,
                },
                tail: None,
            },
            entry: Entry::new(
                sizes.n_kv_heads,
                sizes.key_dim,
                match sizes.apart {
                    true => Values::Own(sizes.value_dim),
                    false => Values::KeyPrefix(sizes.value_dim),
                },
            ),
        })
    }

    pub(super) fn on(&self, device: &Device) -> Result<Self> {
        Ok(Self {
            q: self.q.to_device(device)?,
            rows: self.rows.map(|t| t.to_device(device))?,
            entry: self.entry,
        })
    }

    pub(super) fn input(&self) -> DecodeInput<'_> {
        DecodeInput {
            q: &self.q,
            rows: &self.rows,
            entry: &self.entry,
            slots: &TRIAL_SLOTS,
            // Scores of unit variance.
            scale: (self.q.dims()[2] as f64).powf(-0.5),
        }
    }
}

/// Operands of the cache update's trial.
pub(super) struct UpdateTrial {
    pub(super) x: Tensor,
    pub(super) norm: Norm,
    pub(super) rope: Rope,
    pub(super) gate: Option<GateTable>,
    pub(super) open: Option<Tensor>,
    pub(super) keys: Tensor,
    pub(super) starts: Vec<usize>,
}

impl UpdateTrial {
    /// On the processor.
    pub(super) fn new(shape: CacheUpdateShape) -> Result<Self> {
        let (dtype, device) = (candle_dtype(shape.dtype), &Device::Cpu);
        let random = |dims: &[usize], stream: u64, dtype| random_tensor(dims, SEED, stream, dtype, device);
        let stride = shape.stride.unwrap_or(1);
        // More than a block of the launch has sequences.
        let starts = vec![0, 1, 2 * stride - 1, 2 * stride, 5 * stride + stride / 2, 3];
        let (b, r, width) = (starts.len(), shape.rank, shape.rank + shape.rope_dim);
        let slots = starts.iter().max().map_or(0, |start| start / stride + 1);
        let weight = (random(&[r], 1, DType::F32)? * 0.1)?
            .affine(1.0, 1.0)?
            .to_dtype(dtype)?;
        let bias = match shape.layer_norm {
            true => Some(random(&[r], 2, dtype)?),
            false => None,
        };
        let (gate, open) = match shape.stride {
            None => (None, None),
            Some(stride) => {
                let gate = GateTable {
                    u: (random(&[slots, r], 3, DType::F32)? * (r as f64).powf(-0.5))?,
                    b: random(&[slots], 4, DType::F32)?,
                    stride,
                };
                (Some(gate), Some(random(&[b, r], 5, DType::F32)?))
            }
        };
        Ok(Self {
            x: random(&[b, 1, width], 6, dtype)?,
            norm: Norm::new(weight, bias, 1e-5),
            rope: Rope::new(shape.rope_dim, 10_000.0, pairing(shape.halves))?,
            gate,
            open,
            keys: random(&[b, 1, slots + 1, width], 7, dtype)?,
            starts,
        })
    }

    pub(super) fn on(&self, device: &Device) -> Result<Self> {
        let moved = |x: &Tensor| -> Result<Tensor> { Ok(x.to_device(device)?) };
        Ok(Self {
            x: moved(&self.x)?,
            norm: Norm::new(
                moved(self.norm.weight())?,
                self.norm.bias().map(moved).transpose()?,
                self.norm.eps(),
            ),
            rope: self.rope.clone(),
            gate: match &self.gate {
                None => None,
                Some(gate) => Some(GateTable {
                    u: moved(&gate.u)?,
                    b: moved(&gate.b)?,
                    stride: gate.stride,
                }),
            },
            open: self.open.as_ref().map(moved).transpose()?,
            keys: moved(&self.keys)?,
            starts: self.starts.clone(),
        })
    }

    pub(super) fn input(&self) -> LatentsInput<'_> {
        LatentsInput {
            x: &self.x,
            norm: &self.norm,
            rope: &self.rope,
            gate: self.gate.as_ref(),
            open: self.open.as_ref(),
            starts: &self.starts,
        }
    }

    /// Slots that the tokens go to.
    pub(super) fn slots(&self) -> Vec<usize> {
        let stride = self.gate.as_ref().map_or(1, |gate| gate.stride);
        self.starts.iter().map(|start| start / stride).collect()
    }
}

/// Operands of the trial of what a step begins with.
pub(super) struct TurnTrial {
    /// `[B, H, Dr]`; of one head where none are turned.
    pub(super) q: Tensor,
    pub(super) rope: Rope,
    /// Tokens that sequences have: the position of the next one.
    pub(super) lens: Vec<usize>,
}

impl TurnTrial {
    /// On the processor.
    pub(super) fn new(shape: AdvanceShape) -> Result<Self> {
        let lens = vec![0, 1, 131, 7];
        let dims = [lens.len(), shape.n_heads.max(1), shape.rope_dim];
        Ok(Self {
            q: random_tensor(&dims, SEED, 1, candle_dtype(shape.dtype), &Device::Cpu)?,
            rope: Rope::new(shape.rope_dim, 10_000.0, pairing(shape.halves))?,
            lens,
        })
    }

    /// Positions that tables have to have.
    pub(super) fn end(&self) -> usize {
        end_of(&self.lens)
    }

    /// The queries, turned by the processor.
    pub(super) fn turned(&self) -> Result<Tensor> {
        Ok(self.rope.apply(&self.q.unsqueeze(1)?, &self.lens)?.squeeze(1)?)
    }
}

/// Operands of the grouped update's trial.
pub(super) struct GroupedUpdateTrial {
    shape: GroupedUpdateShape,
    /// `[B, 1, H Dk]`, `[B, 1, Hkv Dk]` and `[B, 1, Hkv Dv]`.
    pub(super) qkv: [Tensor; 3],
    pub(super) keys: Tensor,
    pub(super) values: Tensor,
    pub(super) rope: Rope,
    pub(super) lens: Vec<usize>,
}

impl GroupedUpdateTrial {
    /// On the processor.
    pub(super) fn new(shape: GroupedUpdateShape) -> Result<Self> {
        let lens = vec![0, 17, 3];
        let (b, slots, heads) = (lens.len(), 20, shape.n_kv_heads);
        let random = |dims: &[usize], stream: u64| {
            random_tensor(dims, SEED, stream, candle_dtype(shape.dtype), &Device::Cpu)
        };
        Ok(Self {
            qkv: [
                random(&[b, 1, shape.n_heads * shape.key_dim], 1)?,
                random(&[b, 1, heads * shape.key_dim], 2)?,
                random(&[b, 1, heads * shape.value_dim], 3)?,
            ],
            keys: random(&[b, heads, slots, shape.key_dim], 4)?,
            values: random(&[b, heads, slots, shape.value_dim], 5)?,
            rope: Rope::new(shape.key_dim, 10_000.0, pairing(shape.halves))?,
            lens,
            shape,
        })
    }

    pub(super) fn on(&self, device: &Device) -> Result<Self> {
        let [q, k, v] = &self.qkv;
        Ok(Self {
            shape: self.shape,
            qkv: [q.to_device(device)?, k.to_device(device)?, v.to_device(device)?],
            keys: self.keys.to_device(device)?,
            values: self.values.to_device(device)?,
            rope: self.rope.clone(),
            lens: self.lens.clone(),
        })
    }

    pub(super) fn end(&self) -> usize {
        end_of(&self.lens)
    }

    /// Of the turned queries.
    pub(super) fn turned_dims(&self) -> [usize; 3] {
        [self.lens.len(), self.shape.n_heads, self.shape.key_dim]
    }

    /// Turned queries, keys and values as the processor makes them.
    pub(super) fn expected(&self) -> Result<[Tensor; 3]> {
        let GroupedUpdateShape {
            n_heads,
            n_kv_heads,
            key_dim,
            value_dim,
            ..
        } = self.shape;
        let ([q, k, v], b) = (&self.qkv, self.lens.len());
        let turned =
            |x: &Tensor, heads: usize| self.rope.apply(&x.reshape((b, 1, heads, key_dim))?, &self.lens);
        let keys = turned(k, n_kv_heads)?.transpose(1, 2)?.contiguous()?;
        let values = v.reshape((b, n_kv_heads, 1, value_dim))?;
        for (i, &len) in self.lens.iter().enumerate() {
            self.keys
                .narrow(0, i, 1)?
                .slice_set(&keys.narrow(0, i, 1)?, 2, len)?;
            self.values
                .narrow(0, i, 1)?
                .slice_set(&values.narrow(0, i, 1)?, 2, len)?;
        }
        Ok([
            turned(q, n_heads)?.squeeze(1)?,
            self.keys.clone(),
            self.values.clone(),
        ])
    }
}

fn pairing(halves: bool) -> Pairing {
    match halves {
        true => Pairing::Halves,
        false => Pairing::Neighbours,
    }
}

/// Positions that a token after each of these lengths needs.
fn end_of(lens: &[usize]) -> usize {
    lens.iter().max().map_or(0, |len| len + 1)
}

#[cfg(test)]
mod tests {
    use attn_kernels::cuda::Dtype;

    use super::super::decode::DecodeShape;
    use super::*;
    use crate::ops::trials::{agree, bound};
    use crate::ops::{composite, native};

    /// The processor's side of every trial: operands are what the kernels take, and results are numbers.
    #[test]
    fn trials_have_something_to_compare_with() {
        for (n_heads, n_kv_heads, apart) in [(4, 1, false), (4, 2, true)] {
            for dtype in Dtype::ALL {
                let sizes = DecodeSizes {
                    batch: TRIAL_SLOTS.len(),
                    n_heads,
                    n_kv_heads,
                    key_dim: 24,
                    value_dim: 16,
                    apart,
                };
                let trial = DecodeTrial::new(sizes, candle_dtype(dtype)).unwrap();
                let shape = DecodeShape::of(&trial.input(), dtype).ok().unwrap();
                assert_eq!(matches!(shape, DecodeShape::Latent(_)), !apart);
                // The processor's kernel and the composition agree as closely as a GPU's has to.
                let expected = composite::decode(&trial.input()).unwrap();
                let got = native::decode(&trial.input()).unwrap().unwrap();
                agree(&got, &expected, bound(candle_dtype(dtype))).unwrap();
            }
        }
        for stride in [None, Some(1), Some(3)] {
            for (layer_norm, halves) in [(true, false), (false, true)] {
                let shape = CacheUpdateShape {
                    dtype: Dtype::Bf16,
                    rank: 24,
                    rope_dim: 6,
                    stride,
                    layer_norm,
                    halves,
                };
                let trial = UpdateTrial::new(shape).unwrap();
                let before = trial.keys.copy().unwrap();
                let sums = native::append(&trial.input(), &trial.keys, &trial.slots())
                    .unwrap()
                    .unwrap();
                assert_eq!(sums.is_some(), stride.is_some());
                assert!(
                    agree(&trial.keys, &before, bound(DType::BF16)).is_err(),
                    "nothing was written"
                );
                agree(&trial.keys, &trial.keys, 0.0).unwrap();
            }
        }
        for halves in [false, true] {
            let shape = AdvanceShape {
                dtype: Dtype::F16,
                n_heads: 3,
                rope_dim: 6,
                halves,
            };
            let trial = TurnTrial::new(shape).unwrap();
            let turned = trial.turned().unwrap();
            // At position 0 nothing turns, at others it does.
            let of = |x: &Tensor, i: usize| x.narrow(0, i, 1).unwrap();
            agree(&of(&turned, 0), &of(&trial.q, 0), 0.0).unwrap();
            assert!(agree(&of(&turned, 2), &of(&trial.q, 2), bound(DType::F16)).is_err());
            let shape = GroupedUpdateShape {
                dtype: Dtype::F32,
                n_heads: 4,
                n_kv_heads: 2,
                key_dim: 6,
                value_dim: 5,
                halves,
            };
            let trial = GroupedUpdateTrial::new(shape).unwrap();
            let before = trial.on(&Device::Cpu).unwrap().values.copy().unwrap();
            let [turned, _, values] = trial.expected().unwrap();
            assert_eq!(turned.dims(), trial.turned_dims());
            let changed = (values - before).unwrap().abs().unwrap();
            let rows = changed.sum(3).unwrap().sum(1).unwrap().to_vec2::<f32>().unwrap();
            for (row, len) in rows.iter().zip(&trial.lens) {
                let written: Vec<usize> = (0..row.len()).filter(|&i| row[i] > 0.0).collect();
                assert_eq!(written, [*len]);
            }
        }
    }
}
