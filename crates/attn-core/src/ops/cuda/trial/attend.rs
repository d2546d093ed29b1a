//! Operands of the trials of attend and its gradients.

use attn_kernels::cuda::{AttendBackwardPlan, AttendPlan, AttendShape};
use candle_core::{DType, Device, Tensor, Var};

use super::super::candle_dtype;
use super::SEED;
use crate::error::Result;
use crate::ops::{AttendInput, Entries, composite};
use crate::weights::{random_tensor, random_unit};

/// Sequences of a trial.
pub(in super::super) const TRIAL_BATCH: usize = 2;

/// How much farther than other results gradients may be from the other implementation: they are products of rounded
/// weights with differences that were rounded too, summed up over queries.
pub(in super::super) const GRADIENT_SLACK: f64 = 2.0;

/// Tokens s of a closed entry up to which a trial closes more entries than a block has.
const MOST_STRIDE: usize = 4;

/// What a kernel of `shape` is tried on: the same but for the heads, of which it knows nothing when it is compiled.
pub(in super::super) fn trial_shape(shape: &AttendShape) -> AttendShape {
    AttendShape {
        n_heads: 4,
        n_kv_heads: 2,
        ..*shape
    }
}

/// Tokens T of a trial and the position of the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Lengths {
    pub(in super::super) tokens: usize,
    pub(in super::super) start: usize,
}

impl Lengths {
    /// Closed entries N: those of the tokens themselves where the sequence begins with them, otherwise as many as the
    /// last one sees.
    pub(in super::super) fn n_keys(&self, shape: &AttendShape) -> usize {
        match shape.stride {
            None => self.start + self.tokens,
            Some(stride) if self.start == 0 => self.tokens / stride,
            Some(stride) => (self.start + self.tokens - 1) / stride,
        }
    }
}

/// Operands of a trial, of ragged lengths.
pub(in super::super) struct AttendTrial {
    q: Tensor,
    /// Closed entries or own ones, as [`Entries`] has them.
    closed: Option<[Tensor; 2]>,
    own: Option<[Tensor; 2]>,
    nope_dim: Option<usize>,
    start: usize,
    stride: usize,
    /// Gradient of the output.
    pub(in super::super) grad: Tensor,
}

impl AttendTrial {
    /// One token; a block of queries and a part of one; queries in the middle of a sequence, and of a block of tokens,
    /// behind more than two tiles of keys.
    pub(in super::super) fn lengths(plan: &AttendPlan) -> [Lengths; 3] {
        let (rows, keys) = (plan.tiles.rows(), plan.tiles.keys);
        let stride = plan.shape.stride.unwrap_or(1);
        [
            Lengths { tokens: 1, start: 0 },
            Lengths {
                tokens: rows + 3,
                start: 0,
            },
            Lengths {
                tokens: keys + 5,
                start: stride * (2 * keys + 1) + stride / 2,
            },
        ]
    }

    /// So few tokens that one entry is seen by another token than its own, since what sees itself alone has no gradient
    /// but for its value; a block of every pass and a part of one, of closed entries too; without own entries queries in
    /// the middle of a sequence.
    pub(in super::super) fn gradient_lengths(plan: &AttendBackwardPlan) -> Vec<Lengths> {
        let tiles = plan.passes.iter().filter_map(|pass| pass.tiles);
        let rows = tiles.map(|tiles| tiles.rows()).max().unwrap_or(1);
        let stride = plan.shape.stride.unwrap_or(1);
        let block = Lengths {
            tokens: (rows + 3) * stride.min(MOST_STRIDE) + stride / 2,
            start: 0,
        };
        let few = Lengths {
            tokens: stride + 1,
            start: 0,
        };
        let mut all = vec![few, block];
        if plan.shape.stride.is_none() {
            all.push(Lengths {
                tokens: rows / 2 + 5,
                start: rows / 2 + 1,
            });
        }
        all
    }

    /// On the processor.
    pub(in super::super) fn new(shape: &AttendShape, lengths: Lengths) -> Result<Self> {
        let AttendShape {
            n_heads: h,
            n_kv_heads: h_kv,
            key_dim,
            shared_dim,
            value_dim,
            ..
        } = *shape;
        let (dtype, b, t) = (candle_dtype(shape.dtype), TRIAL_BATCH, lengths.tokens);
        let random = |dims: &[usize], stream| random_tensor(dims, SEED, stream, dtype, &Device::Cpu);
        let of_head = key_dim - shared_dim;
        let widths = match shared_dim {
            0 => [vec![h_kv, key_dim], vec![h_kv, value_dim]],
            _ => [vec![h_kv, of_head + value_dim], vec![shared_dim]],
        };
        let entries = |n: usize, stream: u64| -> Result<[Tensor; 2]> {
            Ok([
                with_nan_behind(n, &widths[0], stream, dtype)?,
                with_nan_behind(n, &widths[1], stream + 1, dtype)?,
            ])
        };
        let has_own = shape.stride.is_some();
        let has_closed = !has_own || lengths.start > 0;
        Ok(Self {
            q: random(&[b, t, h, key_dim], 1)?,
            closed: match has_closed {
                true => Some(entries(lengths.n_keys(shape), 2)?),
                false => None,
            },
            own: match has_own {
                true => Some(entries(t, 4)?),
                false => None,
            },
            nope_dim: (shared_dim > 0).then_some(of_head),
            start: lengths.start,
            stride: shape.stride.unwrap_or(1),
            grad: random(&[b, t, h, value_dim], 6)?,
        })
    }

    fn map(&self, with: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        let both = |of: &Option<[Tensor; 2]>| -> Result<Option<[Tensor; 2]>> {
            let Some([first, second]) = of else {
                return Ok(None);
            };
            Ok(Some([with(first)?, with(second)?]))
        };
        Ok(Self {
            q: with(&self.q)?,
            closed: both(&self.closed)?,
            own: both(&self.own)?,
            grad: with(&self.grad)?,
            ..*self
        })
    }

    pub(in super::super) fn on(&self, device: &Device) -> Result<Self> {
        self.map(|x| Ok(x.to_device(device)?))
    }

    pub(in super::super) fn input<'a>(&'a self) -> AttendInput<'a> {
        let entries = |[first, second]: &'a [Tensor; 2]| match self.nope_dim {
            None => Entries::Apart { k: first, v: second },
            Some(nope_dim) => Entries::Joint {
                kv: first,
                k_r: second,
                nope_dim,
            },
        };
        AttendInput {
            q: &self.q,
            closed: self.closed.as_ref().map(entries),
            own: self.own.as_ref().map(entries),
            start: self.start,
            stride: self.stride,
            // Scores of unit variance.
            window: None,
            scale: (self.q.dims()[3] as f64).powf(-0.5),
        }
    }

    /// Gradients of the queries and of both tensors of entries, by the composition in f32.
    pub(in super::super) fn gradients(&self) -> Result<[Tensor; 3]> {
        let vars = self.map(|x| Ok(Var::from_tensor(&x.to_dtype(DType::F32)?)?.into_inner()))?;
        let out = composite::attend(&vars.input())?;
        let gradients = (out * vars.grad.detach())?.sum_all()?.backward()?;
        let of = |x: &Tensor| match gradients.get(x) {
            Some(gradient) => Ok(gradient.clone()),
            None => x.zeros_like(), // nobody sees it
        };
        // A trial of gradients has one kind of entries.
        let entries = vars.closed.iter().chain(&vars.own).flatten();
        let [first, second] = entries.collect::<Vec<_>>()[..] else {
            return Err(crate::Error::Shape {
                op: "a trial of attend",
                expected: "entries of one kind".to_string(),
                got: vars.q.dims().to_vec(),
            });
        };
        Ok([of(&vars.q)?, of(first)?, of(second)?])
    }
}

/// `n` entries of every sequence, with one behind them that must not be read into a result.
fn with_nan_behind(n: usize, width: &[usize], stream: u64, dtype: DType) -> Result<Tensor> {
    let elements: usize = width.iter().product();
    let mut values = random_unit(TRIAL_BATCH * (n + 1) * elements, SEED, stream);
    for sequence in values.chunks_exact_mut((n + 1) * elements) {
        sequence[n * elements..].fill(f32::NAN);
    }
    let shape = [&[TRIAL_BATCH, n + 1], width].concat();
    let all = Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?;
    Ok(all.narrow(1, 0, n)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::trials::{agree, bound};
    use crate::ops::{gradient, native};
    use attn_kernels::cuda::{Arch, Dtype, Machine};

    fn shapes() -> impl Iterator<Item = AttendShape> {
        Dtype::ALL.into_iter().flat_map(|dtype| {
            let all = [(0, None), (8, None), (0, Some(1)), (8, Some(2)), (8, Some(7))];
            all.into_iter().map(move |(shared_dim, stride)| AttendShape {
                dtype,
                n_heads: 8,
                n_kv_heads: 2,
                key_dim: 24,
                shared_dim,
                value_dim: 16,
                stride,
            })
        })
    }

    /// The processor's side of every trial: the kernel and the composition agree as closely as a GPU's has to.
    #[test]
    fn trials_of_attend_have_something_to_compare_with() {
        for shape in shapes() {
            let plan = shape.plan(Machine::usual(Arch::Sm90a), 1, 1).unwrap();
            let small = trial_shape(&shape);
            for lengths in AttendTrial::lengths(&plan) {
                let trial = AttendTrial::new(&small, lengths).unwrap();
                assert_eq!(trial.input().n_closed().unwrap(), lengths.n_keys(&small));
                let expected = composite::attend(&trial.input()).unwrap();
                let got = native::attend(&trial.input()).unwrap().unwrap();
                agree(&got, &expected, bound(candle_dtype(shape.dtype))).unwrap();
            }
        }
    }

    #[test]
    fn trials_of_gradients_have_something_to_compare_with() {
        for shape in shapes() {
            let plan = shape
                .plan_backward(Machine::usual(Arch::Sm90a), 1, 512, 256)
                .unwrap();
            let small = trial_shape(&shape);
            for lengths in AttendTrial::gradient_lengths(&plan) {
                let trial = AttendTrial::new(&small, lengths).unwrap();
                let expected = trial.gradients().unwrap();
                let vars = trial.map(|x| Ok(Var::from_tensor(x)?.into_inner())).unwrap();
                let out = gradient::attend(&vars.input()).unwrap().unwrap();
                let gradients = (out * &trial.grad)
                    .unwrap()
                    .sum_all()
                    .unwrap()
                    .backward()
                    .unwrap();
                let entries = vars.closed.as_ref().or(vars.own.as_ref()).unwrap();
                for (x, expected) in [&vars.q, &entries[0], &entries[1]].into_iter().zip(&expected) {
                    let bound = GRADIENT_SLACK * bound(candle_dtype(shape.dtype));
                    agree(gradients.get(x).unwrap(), expected, bound).unwrap();
                }
            }
        }
    }
}
