//! Rotary position embedding, in both of its forms.
//!
//! ```
//! use attn_core::random_tensor;
//! use attn_core::rope::{Pairing, Rope};
//! use candle_core::{DType, Device};
//!
//! // What remains of two turns in a product is their difference.
//! let rope = Rope::new(8, 10_000.0, Pairing::Neighbours)?;
//! let random = |stream| random_tensor(&[1, 1, 1, 8], 7, stream, DType::F32, &Device::Cpu);
//! let (q, k) = (random(0)?, random(1)?);
//! let score = |i, j| -> attn_core::Result<f32> {
//!     Ok((rope.apply(&q, &[i])? * rope.apply(&k, &[j])?)?.sum_all()?.to_scalar()?)
//! };
//! assert!((score(5, 2)? - score(105, 102)?).abs() < 1e-3);
//! # Ok::<(), attn_core::Error>(())
//! ```

use std::sync::{Arc, OnceLock, RwLock};

use candle_core::{CpuStorage, CustomOp1, D, Device, Layout, Shape, Tensor, WithDType};
use half::{bf16, f16};
use rayon::prelude::*;

use crate::cache::accumulator_dtype;
use crate::error::{Error, Result};
use crate::habits::Habit;
use crate::route::{has_kernels, select};
use crate::settings::check_rope;
use crate::variant::Build;

/// Which elements form a pair that is turned together.
///
/// ```
/// use attn_core::rope::{Pairing, Rope};
/// use candle_core::{Device, Tensor};
///
/// // At position 1 the first pair of four columns is turned by one radian: elements 0 and 1, or 0 and 2.
/// let x = Tensor::new(&[[[[1_f32, 0.0, 0.0, 0.0]]]], &Device::Cpu)?;
/// let turned = |pairing| -> attn_core::Result<Vec<f32>> {
///     Ok(Rope::new(4, 10_000.0, pairing)?.apply(&x, &[1])?.flatten_all()?.to_vec1()?)
/// };
/// let (neighbours, halves) = (turned(Pairing::Neighbours)?, turned(Pairing::Halves)?);
/// assert!((neighbours[1] - 1_f32.sin()).abs() < 1e-6 && neighbours[2] == 0.0);
/// assert!((halves[2] - 1_f32.sin()).abs() < 1e-6 && halves[1] == 0.0);
/// # Ok::<(), attn_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pairing {
    /// Neighbours (2i, 2i + 1): RoFormer, and the seed's layers.
    #[default]
    Neighbours,
    /// Halves (i, i + D/2): the rotate-half form of the LLaMA ports.
    Halves,
}

/// Rotary position embedding of the last `dim` columns of each head.
///
/// Pair i of a token at position p is turned by the angle `p theta^(-2i / dim)`. Angles are computed in f32 for
/// every element type: the reference implementations do, and at long positions the rounding of the angle is
/// larger than that of the tensor.
///
/// # Source
/// RoFormer, arXiv 2104.09864, section 3.2.2
///
/// ```
/// use attn_core::random_tensor;
/// use attn_core::rope::{Pairing, Rope};
/// use candle_core::{DType, Device};
///
/// let rope = Rope::new(4, 10_000.0, Pairing::default())?;
/// let x = random_tensor(&[2, 3, 1, 6], 7, 0, DType::F32, &Device::Cpu)?;
/// let y = rope.apply(&x, &[0, 10])?; // sequences that begin at positions 0 and 10
/// // Columns before the last four pass through, and position 0 turns nothing.
/// let plain = |t: &candle_core::Tensor| t.narrow(3, 0, 2)?.flatten_all()?.to_vec1::<f32>();
/// assert_eq!(plain(&x)?, plain(&y)?);
/// assert!(Rope::new(5, 10_000.0, Pairing::default()).is_err()); // pairs need an even size
/// # Ok::<(), attn_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Rope {
    dim: usize,
    theta: f64,
    pairing: Pairing,
    is_anew: bool,
    table: Arc<RwLock<Arc<Table>>>,
}

/// Cosines and sines `[positions, dim / 2]`.
#[derive(Debug, Default)]
pub(crate) struct Table {
    positions: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
    /// Copies on the device of the layer, once it asked for them.
    on_device: OnceLock<[Tensor; 2]>,
}

impl Table {
    /// Cosines and sines as tensors `[positions, dim / 2]` on a device.
    pub(crate) fn on(&self, device: &Device) -> Result<[Tensor; 2]> {
        if let Some(known) = self
            .on_device
            .get()
            .filter(|[cos, _]| cos.device().same_device(device))
        {
            return Ok(known.clone());
        }
        let shape = (self.positions, self.cos.len() / self.positions.max(1));
        let copies = [
            Tensor::from_slice(&self.cos, shape, device)?,
            Tensor::from_slice(&self.sin, shape, device)?,
        ];
        // Kept for the first device that asks: a layer has but one. What another thread kept meanwhile is the same.
        self.on_device.get_or_init(|| copies.clone());
        Ok(copies)
    }

    pub(crate) fn cos(&self) -> &[f32] {
        &self.cos
    }

    pub(crate) fn sin(&self) -> &[f32] {
        &self.sin
    }
}

impl Rope {
    /// An embedding of `dim` columns with base `theta`.
    ///
    /// # Errors
    /// [`Error::Geometry`] where `dim` is odd.
    pub fn new(dim: usize, theta: f64, pairing: Pairing) -> Result<Self> {
        check_rope("rope_dim", dim)?;
        Ok(Self {
            dim,
            theta,
            pairing,
            is_anew: false,
            table: Arc::default(),
        })
    }

    /// The same embedding; where it `is_anew`, every call computes its angles and turns pairs operation by operation, as
    /// the seed does.
    #[must_use]
    pub fn anew(self, is_anew: bool) -> Self {
        Self { is_anew, ..self }
    }

    /// The same embedding as a layer of this build has it: [`anew`](Self::anew) where it has the seed's dense attention.
    #[must_use]
    pub fn for_build(self, build: &Build) -> Self {
        self.anew(build.has(Habit::DenseMask))
    }

    /// Turns the last `dim` columns of every head; columns before them pass through.
    ///
    /// # Shapes
    /// - `x`: `[B, T, H, D]`, any strides with adjacent columns; row t of sequence b is at position `starts[b] + t`
    /// - returns `[B, T, H, D]`, contiguous
    ///
    /// # Errors
    /// [`Error::Shape`] where `starts` does not hold one position per sequence.
    pub fn apply(&self, x: &Tensor, starts: &[usize]) -> Result<Tensor> {
        let (b, t, _, d) = x.dims4()?;
        if starts.len() != b || d < self.dim {
            return Err(Error::Shape {
                op: "rope",
                expected: format!("{b} start positions and at least {} columns", self.dim),
                got: vec![starts.len(), d],
            });
        }
        let end = starts.iter().max().map_or(0, |start| start + t);
        let x = if x.stride()[3] == 1 {
            x.clone()
        } else {
            x.contiguous()?
        };
        if self.is_anew || !has_kernels(&x) {
            return self.composed(&x, starts);
        }
        Ok(x.apply_op1(Rotate {
            dim: self.dim,
            pairing: self.pairing,
            table: self.table(end),
            starts: starts.to_vec(),
            inverse: false,
        })?)
    }

    /// [`apply`](Self::apply) of candle's operations, in f32 or wider.
    fn composed(&self, x: &Tensor, starts: &[usize]) -> Result<Tensor> {
        let ((b, t, h, d), half) = (x.dims4()?, self.dim / 2);
        let (dtype, wide) = (x.dtype(), accumulator_dtype(x.dtype()));
        let [cos, sin] = match self.is_anew {
            true => self.turns(starts, t, x.device())?,
            false => self.known_turns(starts, t, x.device())?,
        };
        let sequences = cos.elem_count() / (t * half).max(1);
        let of_tokens = |turns: &Tensor| turns.to_dtype(wide)?.reshape((sequences, t, 1, half));
        let (cos, sin) = (of_tokens(&cos)?, of_tokens(&sin)?);

        let turned = x.narrow(3, d - self.dim, self.dim)?.to_dtype(wide)?;
        // [B, T, H, dim] -> both of each pair, [B, T, H, dim / 2]
        let (first, second) = match self.pairing {
            Pairing::Neighbours => {
                let pairs = turned.reshape((b, t, h, half, 2))?;
                (
                    pairs.narrow(4, 0, 1)?.squeeze(4)?,
                    pairs.narrow(4, 1, 1)?.squeeze(4)?,
                )
            }
            Pairing::Halves => (turned.narrow(3, 0, half)?, turned.narrow(3, half, half)?),
        };
        let turn = |x: &Tensor, by: &Tensor| x.broadcast_mul(by);
        let pair = [
            (turn(&first, &cos)? - turn(&second, &sin)?)?,
            (turn(&first, &sin)? + turn(&second, &cos)?)?,
        ];
        let turned = match self.pairing {
            Pairing::Neighbours => Tensor::stack(&pair, 4)?.reshape((b, t, h, self.dim))?,
            Pairing::Halves => Tensor::cat(&pair, D::Minus1)?,
        };
        let turned = turned.to_dtype(dtype)?;
        let whole = match d - self.dim {
            0 => turned,
            pass => Tensor::cat(&[&x.narrow(3, 0, pass)?, &turned], D::Minus1)?,
        };
        Ok(whole.contiguous()?)
    }

    /// Cosines and sines of T tokens `[T, dim / 2]`, or of those of every sequence `[B T, dim / 2]` where they differ.
    fn known_turns(&self, starts: &[usize], t: usize, device: &Device) -> Result<[Tensor; 2]> {
        let table = self.table(starts.iter().max().map_or(0, |start| start + t));
        let [cos, sin] = table.on(device)?;
        Ok(match same(starts) {
            Some(first) => [cos.narrow(0, first, t)?, sin.narrow(0, first, t)?],
            None => {
                let positions = positions(starts, t);
                [select(&cos, &positions, 0)?, select(&sin, &positions, 0)?]
            }
        })
    }

    /// The same, computed.
    fn turns(&self, starts: &[usize], t: usize, device: &Device) -> Result<[Tensor; 2]> {
        let starts = match same(starts) {
            Some(_) => &starts[..1],
            None => starts,
        };
        let positions: Vec<f32> = positions(starts, t).iter().map(|&p| p as f32).collect();
        let positions = Tensor::new(positions, device)?.unsqueeze(1)?;
        let frequencies = Tensor::new(self.frequencies(), device)?.unsqueeze(0)?;
        let angles = positions.broadcast_mul(&frequencies)?;
        Ok([angles.cos()?, angles.sin()?])
    }

    fn frequencies(&self) -> Vec<f32> {
        (0..self.dim / 2)
            .map(|i| 1.0 / (self.theta as f32).powf((2 * i) as f32 / self.dim as f32))
            .collect()
    }

    pub(crate) fn pairing(&self) -> Pairing {
        self.pairing
    }

    /// Cosines and sines of at least so many positions.
    pub(crate) fn table(&self, positions: usize) -> Arc<Table> {
        // A poisoned lock holds a whole table all the same: it is replaced in one assignment.
        let known = self.table.read().unwrap_or_else(|err| err.into_inner()).clone();
        if known.positions >= positions {
            return known;
        }
        let positions = positions.next_power_of_two();
        let frequencies = self.frequencies();
        let angles: Vec<f32> = (0..positions)
            .flat_map(|p| frequencies.iter().map(move |f| p as f32 * f))
            .collect();
        let table = Arc::new(Table {
            positions,
            cos: angles.iter().map(|a| a.cos()).collect(),
            sin: angles.iter().map(|a| a.sin()).collect(),
            on_device: OnceLock::new(),
        });
        *self.table.write().unwrap_or_else(|err| err.into_inner()) = table.clone();
        table
    }
}

/// The position that all sequences start at; `None` where they differ, or there are none.
fn same(starts: &[usize]) -> Option<usize> {
    let &first = starts.first()?;
    starts.iter().all(|&start| start == first).then_some(first)
}

/// Positions of T tokens of every sequence, `[B T]`.
fn positions(starts: &[usize], t: usize) -> Vec<u32> {
    let of = |&start: &usize| (start..start + t).map(|i| i as u32);
    starts.iter().flat_map(of).collect()
}

/// The rotation as one pass, with its inverse as gradient.
#[derive(Debug, Clone)]
struct Rotate {
    dim: usize,
    pairing: Pairing,
    table: Arc<Table>,
    starts: Vec<usize>,
    inverse: bool,
}

impl Rotate {
    fn run<T: Widen>(&self, data: &[T], layout: &Layout) -> candle_core::Result<(Vec<T>, Shape)> {
        let (b, t, h, d) = layout.shape().dims4()?;
        let [s_b, s_t, s_h, _] = *layout.stride() else {
            candle_core::bail!("rope takes [B, T, H, D]")
        };
        let data = &data[layout.start_offset()..];
        let (pass, half) = (d - self.dim, self.dim / 2);
        let sign = if self.inverse { -1.0 } else { 1.0 };
        let mut out = vec![T::default(); b * t * h * d];
        let row = |token: usize, head: usize, out: &mut [T]| {
            let (seq, token) = (token / t, token % t);
            let from = seq * s_b + token * s_t + head * s_h;
            let x = &data[from..from + d];
            out[..pass].copy_from_slice(&x[..pass]);
            let at = (self.starts[seq] + token) * half;
            let (cos, sin) = (&self.table.cos[at..at + half], &self.table.sin[at..at + half]);
            for i in 0..half {
                let (a, b) = match self.pairing {
                    Pairing::Neighbours => (pass + 2 * i, pass + 2 * i + 1),
                    Pairing::Halves => (pass + i, pass + half + i),
                };
                (out[a], out[b]) = T::turn(x[a], x[b], cos[i], sign * sin[i]);
            }
        };
        out.par_chunks_mut(h * d)
            .with_min_len((1usize << 14).div_ceil(h * d))
            .enumerate()
            .for_each(|(token, rows)| {
                rows.chunks_exact_mut(d)
                    .enumerate()
                    .for_each(|(head, out)| row(token, head, out))
            });
        Ok((out, (b, t, h, d).into()))
    }
}

impl CustomOp1 for Rotate {
    fn name(&self) -> &'static str {
        "rope"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok(match x {
            CpuStorage::F32(x) => self.run(x, layout).map(|(x, s)| (CpuStorage::F32(x), s))?,
            CpuStorage::F64(x) => self.run(x, layout).map(|(x, s)| (CpuStorage::F64(x), s))?,
            CpuStorage::BF16(x) => self.run(x, layout).map(|(x, s)| (CpuStorage::BF16(x), s))?,
            CpuStorage::F16(x) => self.run(x, layout).map(|(x, s)| (CpuStorage::F16(x), s))?,
            _ => candle_core::bail!("rope takes floating-point tensors"),
        })
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let back = Self {
            inverse: !self.inverse,
            ..self.clone()
        };
        let grad = grad.contiguous()?;
        Ok(Some(grad.apply_op1_no_bwd(&back)?))
    }
}

/// Element types that are turned in f32, or in f64 where they are f64.
trait Widen: WithDType + Default {
    fn turn(a: Self, b: Self, cos: f32, sin: f32) -> (Self, Self);
}

macro_rules! widen {
    ($t:ty, $wide:ty, $from:expr, $to:expr) => {
        impl Widen for $t {
            #[inline(always)]
            fn turn(a: Self, b: Self, cos: f32, sin: f32) -> (Self, Self) {
                let (a, b, cos, sin): ($wide, $wide, $wide, $wide) =
                    ($from(a), $from(b), cos.into(), sin.into());
                ($to(a * cos - b * sin), $to(a * sin + b * cos))
            }
        }
    };
}

widen!(f32, f32, std::convert::identity, std::convert::identity);
widen!(f64, f64, std::convert::identity, std::convert::identity);
widen!(bf16, f32, bf16::to_f32, bf16::from_f32);
widen!(f16, f32, f16::to_f32, f16::from_f32);

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    fn input(dtype: DType) -> Tensor {
        crate::weights::random_tensor(&[2, 5, 3, 10], 1, 1, dtype, &Device::Cpu).unwrap()
    }

    fn values(t: &Tensor) -> Vec<f64> {
        t.to_dtype(DType::F64)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1()
            .unwrap()
    }

    /// The last six of ten columns turned as the formula says, token by token.
    fn formula(x: &Tensor, starts: &[usize], pair: impl Fn(usize) -> (usize, usize)) -> Vec<f64> {
        let (b, t, h, d) = x.dims4().unwrap();
        let mut out = values(x);
        for (row, chunk) in out.chunks_exact_mut(d).enumerate() {
            let (seq, token) = (row / (t * h), row / h % t);
            assert!(seq < b);
            for i in 0..3 {
                let frequency = 100f64.powf(-2.0 * i as f64 / 6.0);
                let (sin, cos) = ((starts[seq] + token) as f64 * frequency).sin_cos();
                let (p, q) = pair(i);
                let (x, y) = (chunk[p], chunk[q]);
                (chunk[p], chunk[q]) = (x * cos - y * sin, x * sin + y * cos);
            }
        }
        out
    }

    fn assert_close(a: &[f64], b: &[f64], tolerance: f64) {
        assert_eq!(a.len(), b.len());
        assert!(
            a.iter().zip(b).all(|(a, b)| (a - b).abs() < tolerance),
            "{a:?} differs from {b:?}"
        );
    }

    #[test]
    fn both_pairings_turn_as_the_formula_says() {
        let starts = [0, 7];
        for (pairing, pair) in [
            (
                Pairing::Neighbours,
                (|i| (4 + 2 * i, 5 + 2 * i)) as fn(usize) -> (usize, usize),
            ),
            (Pairing::Halves, |i| (4 + i, 7 + i)),
        ] {
            let rope = Rope::new(6, 100.0, pairing).unwrap();
            for (dtype, tolerance) in [
                (DType::F32, 1e-5),
                (DType::F64, 1e-5),
                (DType::BF16, 2e-2),
                (DType::F16, 2e-3),
            ] {
                let x = input(dtype);
                let turned = rope.apply(&x, &starts).unwrap();
                assert_close(&values(&turned), &formula(&x, &starts, pair), tolerance);
            }
        }
    }

    #[test]
    fn composed_is_the_same_with_the_same_gradient() {
        for pairing in [Pairing::Neighbours, Pairing::Halves] {
            let rope = Rope::new(6, 100.0, pairing).unwrap();
            for (starts, is_anew) in [([2, 2], false), ([0, 7], false), ([2, 2], true), ([0, 7], true)] {
                let rope = rope.clone().anew(is_anew);
                for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 1e-6), (DType::BF16, 0.0)] {
                    let x = candle_core::Var::from_tensor(&input(dtype)).unwrap();
                    let (a, b) = (
                        rope.clone().anew(false).apply(&x, &starts).unwrap(),
                        rope.composed(&x, &starts).unwrap(),
                    );
                    assert!(b.is_contiguous());
                    let close =
                        |a: &Tensor, b: &Tensor| assert_close(&values(a), &values(b), tolerance + 1e-30);
                    close(&a, &b);
                    let weight = input(dtype).affine(0.5, 0.1).unwrap();
                    let grad = |y: Tensor| {
                        let grads = (y * &weight).unwrap().sum_all().unwrap().backward().unwrap();
                        grads.get(&x).unwrap().clone()
                    };
                    if dtype != DType::BF16 {
                        close(&grad(a), &grad(b)); // candle sums halves where an operation was one
                    }
                }
            }
            let tail = input(DType::F32).narrow(3, 4, 6).unwrap();
            let (a, b) = (
                rope.apply(&tail, &[3, 3]).unwrap(),
                rope.composed(&tail, &[3, 3]).unwrap(),
            );
            assert_close(&values(&a), &values(&b), 1e-6);
        }
    }

    #[test]
    fn views_need_no_copy() {
        let rope = Rope::new(6, 100.0, Pairing::Neighbours).unwrap();
        let x = input(DType::F32);
        let whole = rope.apply(&x, &[3, 3]).unwrap();
        let tail = rope.apply(&x.narrow(3, 4, 6).unwrap(), &[3, 3]).unwrap();
        assert_eq!(
            values(&whole.narrow(3, 4, 6).unwrap().contiguous().unwrap()),
            values(&tail)
        );
    }

    #[test]
    fn what_cannot_be_turned_is_refused() {
        assert!(matches!(
            Rope::new(5, 100.0, Pairing::Halves),
            Err(Error::Geometry { .. })
        ));
        let rope = Rope::new(12, 100.0, Pairing::Halves).unwrap();
        assert!(matches!(
            rope.apply(&input(DType::F32), &[0, 0]),
            Err(Error::Shape { .. })
        ));
    }
}
