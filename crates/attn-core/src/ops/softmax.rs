//! Softmax over the visible part of each row, with an optional extra column for the query's own entry.
//!
//! One pass over the scores does scaling, masking, maximum, exponential and normalisation; what the mask hides
//! is neither read nor exponentiated, and no mask tensor exists. candle-nn's softmax has no gradient, and masks
//! by adding a tensor. On a GPU it is a composition of candle's operations, a pass for each.

use std::ops::Range;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, DType, Layout, Shape, Tensor, WithDType};
use rayon::prelude::*;

use crate::error::Result;
use crate::route::has_kernels;

/// Which columns a row of scores sees. Rows are `[.., T]`: row t of every group of T is token `start + t`.
///
/// ```
/// use attn_core::ops::{Visible, softmax};
/// use candle_core::{DType, Device, Tensor};
///
/// // Three tokens that see themselves and what was before them, all scores the same.
/// let scores = Tensor::zeros((1, 3, 3), DType::F64, &Device::Cpu)?;
/// let weights = softmax(&scores, None, Visible::Causal { tokens: 3, start: 0, window: usize::MAX }, 1.0)?;
/// let third = 1.0 / 3.0;
/// assert_eq!(weights.to_vec3::<f64>()?[0], [[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [third, third, third]]);
/// # Ok::<(), attn_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visible {
    /// Every column.
    All,
    /// Tokens up to the row's own, and no more than a window of them: columns `i - window < j <= i`.
    Causal {
        /// Rows T per group.
        tokens: usize,
        /// Position of row 0.
        start: usize,
        /// The most columns, `usize::MAX` where there is no limit.
        window: usize,
    },
    /// Blocks closed before the row's own: `floor(i / s)` columns.
    ClosedBlocks {
        /// Rows T per group.
        tokens: usize,
        /// Position of row 0.
        start: usize,
        /// Stride s.
        stride: usize,
    },
}

impl Visible {
    /// The columns that a row sees.
    fn columns(self, row: usize, width: usize) -> Range<usize> {
        let end = match self {
            Self::All => width,
            Self::Causal { tokens, start, .. } => start + row % tokens + 1,
            Self::ClosedBlocks {
                tokens,
                start,
                stride,
            } => (start + row % tokens) / stride,
        };
        let start = match self {
            Self::Causal { window, .. } => end.saturating_sub(window),
            Self::All | Self::ClosedBlocks { .. } => 0,
        };
        start.min(width)..end.min(width)
    }

    /// Which of the scores `[.., R, n]` or `[.., R, n + 1]` a row sees, `width` being n and the last beyond it always
    /// seen; of the scores' shape. `None` where all are.
    fn mask(self, scores: &Tensor, width: usize) -> Result<Option<Tensor>> {
        let tokens = match self {
            Self::All => return Ok(None),
            Self::Causal { tokens, .. } | Self::ClosedBlocks { tokens, .. } => tokens,
        };
        let (all, device) = (scores.dim(D::Minus1)?, scores.device());
        // Columns by number, their own entry counted as the first: the one that is seen whatever a row sees.
        let columns: Vec<u32> = (0..all)
            .map(|i| if i < width { i as u32 + 1 } else { 0 })
            .collect();
        let seen: Vec<Range<usize>> = (0..tokens).map(|row| self.columns(row, width)).collect();
        let bound = |of: fn(&Range<usize>) -> usize| -> candle_core::Result<Tensor> {
            let bounds: Vec<u32> = seen.iter().map(|seen| of(seen) as u32).collect();
            Tensor::new(bounds, device)?.unsqueeze(1)
        };
        let columns = Tensor::new(columns, device)?.unsqueeze(0)?;
        let mut mask = columns.broadcast_le(&bound(|seen| seen.end)?)?; // [T, n]
        if seen.iter().any(|seen| seen.start > 0) {
            // No entry of its own stands beside a window, and would be hidden by it.
            mask = (mask * columns.broadcast_gt(&bound(|seen| seen.start)?)?)?;
        }
        let groups = scores.elem_count() / (tokens * all);
        let mask = mask.unsqueeze(0)?.broadcast_as((groups, tokens, all))?;
        Ok(Some(mask.reshape(scores.shape())?))
    }
}

/// `softmax(scale [scores, own])` over the visible columns.
///
/// # Shapes
/// - `scores`: `[N, R, n]`, f32 or f64
/// - `own`: `[N, R, 1]`, the score of the row's own entry, always visible
/// - returns `[N, R, n]`, or `[N, R, n + 1]` with the own entry's weight in the last column; hidden columns are 0
///
/// A row that sees nothing is all zeros. A NaN among what a row sees makes the whole row NaN.
///
/// # Errors
/// A dtype other than f32 and f64.
///
/// ```
/// use attn_core::ops::{Visible, softmax};
/// use candle_core::{DType, Device, Tensor};
///
/// // Blocks of two: token 2 sees the closed block 0, and its own entry in the last column.
/// let scores = Tensor::zeros((1, 3, 1), DType::F64, &Device::Cpu)?;
/// let own = Tensor::zeros((1, 3, 1), DType::F64, &Device::Cpu)?;
/// let visible = Visible::ClosedBlocks { tokens: 3, start: 0, stride: 2 };
/// let weights = softmax(&scores, Some(&own), visible, 1.0)?;
/// assert_eq!(weights.to_vec3::<f64>()?[0], [[0.0, 1.0], [0.0, 1.0], [0.5, 0.5]]);
/// # Ok::<(), attn_core::Error>(())
/// ```
pub fn softmax(scores: &Tensor, own: Option<&Tensor>, visible: Visible, scale: f64) -> Result<Tensor> {
    if !has_kernels(scores) {
        return composed(scores, own, visible, scale);
    }
    let op = VisibleSoftmax { visible, scale };
    let scores = scores.contiguous()?;
    Ok(match own {
        None => scores.apply_op1(op)?,
        Some(own) => scores.apply_op2(&own.contiguous()?, op)?,
    })
}

/// [`softmax`] of candle's operations. Hidden scores take part as the lowest number there is, so that neither they nor
/// their gradients are ever NaN.
fn composed(scores: &Tensor, own: Option<&Tensor>, visible: Visible, scale: f64) -> Result<Tensor> {
    let width = scores.dim(D::Minus1)?;
    let scores = match own {
        Some(own) => Tensor::cat(&[scores, own], D::Minus1)?,
        None => scores.clone(),
    };
    let scores = (scores * scale)?;
    let Some(mask) = visible.mask(&scores, width)? else {
        let shifted = scores.broadcast_sub(&scores.detach().max_keepdim(D::Minus1)?)?;
        let weights = shifted.exp()?;
        return Ok(weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?);
    };
    let lowest = match scores.dtype() {
        DType::F64 => Tensor::new(f64::MIN, scores.device())?,
        _ => Tensor::new(f32::MIN, scores.device())?,
    };
    let scores = mask.where_cond(&scores, &lowest.broadcast_as(scores.shape())?)?;
    let shifted = scores.broadcast_sub(&scores.detach().max_keepdim(D::Minus1)?)?;
    let weights = shifted.exp()?;
    let weights = mask.where_cond(&weights, &weights.zeros_like()?)?;
    let total = weights.sum_keepdim(D::Minus1)?;
    // A row that sees nothing is divided by one. Compared and not raised to a least number, which would lose NaN.
    let total = total.eq(0.0)?.where_cond(&total.ones_like()?, &total)?;
    Ok(weights.broadcast_div(&total)?)
}

#[derive(Debug, Clone, Copy)]
struct VisibleSoftmax {
    visible: Visible,
    scale: f64,
}

impl VisibleSoftmax {
    fn forward<T: Real>(&self, scores: &[T], own: Option<&[T]>, width: usize) -> Vec<T> {
        let out_width = width + usize::from(own.is_some());
        let rows = scores
            .len()
            .checked_div(width)
            .unwrap_or_else(|| own.map_or(0, <[T]>::len));
        let mut out = vec![T::ZERO; rows * out_width];
        if out_width == 0 {
            return out;
        }
        let scale = T::from_f64(self.scale);
        // A few rows to a task: one row of a decode step is too little to send to another thread.
        let rows_per_task = (1usize << 14).div_ceil(out_width);
        out.par_chunks_mut(out_width * rows_per_task)
            .enumerate()
            .for_each(|(task, chunk)| {
                for (i, out) in chunk.chunks_exact_mut(out_width).enumerate() {
                    let row = task * rows_per_task + i;
                    let seen = self.visible.columns(row, width);
                    let scores = &scores[row * width..][seen.clone()];
                    let own = own.map(|own| own[row] * scale);
                    T::softmax_row(scores, scale, own, &mut out[seen.start..], seen.len());
                }
            });
        out
    }

    fn run(
        &self,
        scores: &CpuStorage,
        layout: &Layout,
        own: Option<(&CpuStorage, &Layout)>,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let mut dims = layout.dims().to_vec();
        let width = dims.last().copied().unwrap_or(0);
        if let (Some(last), true) = (dims.last_mut(), own.is_some()) {
            *last += 1;
        }
        let storage = match scores {
            CpuStorage::F32(_) => CpuStorage::F32(self.typed::<f32>(scores, layout, own, width)?),
            CpuStorage::F64(_) => CpuStorage::F64(self.typed::<f64>(scores, layout, own, width)?),
            _ => candle_core::bail!("softmax takes f32 or f64 scores"),
        };
        Ok((storage, dims.into()))
    }

    fn typed<T: Real + WithDType>(
        &self,
        scores: &CpuStorage,
        layout: &Layout,
        own: Option<(&CpuStorage, &Layout)>,
        width: usize,
    ) -> candle_core::Result<Vec<T>> {
        let scores = contiguous::<T>(scores, layout)?;
        let own = own
            .map(|(storage, layout)| contiguous::<T>(storage, layout))
            .transpose()?;
        Ok(self.forward(scores, own, width))
    }

    /// `scale P (dP - sum(P dP))`; hidden columns have P = 0.
    fn backward(&self, weights: &Tensor, grad: &Tensor) -> candle_core::Result<Tensor> {
        let product = (weights * grad)?;
        let total = product.sum_keepdim(candle_core::D::Minus1)?;
        (product - weights.broadcast_mul(&total)?)? * self.scale
    }
}

fn contiguous<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<T>()?[start..end]),
        None => candle_core::bail!("softmax takes contiguous scores"),
    }
}

impl CustomOp1 for VisibleSoftmax {
    fn name(&self) -> &'static str {
        "visible-softmax"
    }

    fn cpu_fwd(&self, scores: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        self.run(scores, layout, None)
    }

    fn bwd(&self, _: &Tensor, weights: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(Some(self.backward(weights, grad)?))
    }
}

impl CustomOp2 for VisibleSoftmax {
    fn name(&self) -> &'static str {
        "visible-softmax-own"
    }

    fn cpu_fwd(
        &self,
        scores: &CpuStorage,
        layout: &Layout,
        own: &CpuStorage,
        own_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        self.run(scores, layout, Some((own, own_layout)))
    }

    fn bwd(
        &self,
        scores: &Tensor,
        _own: &Tensor,
        weights: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = self.backward(weights, grad)?;
        let (last, width) = (grad.rank() - 1, scores.dim(candle_core::D::Minus1)?);
        Ok((
            Some(grad.narrow(last, 0, width)?),
            Some(grad.narrow(last, width, 1)?),
        ))
    }
}

/// The two element types attention is computed in.
trait Real: Copy + Send + Sync + PartialOrd + std::ops::Mul<Output = Self> {
    const ZERO: Self;
    fn from_f64(value: f64) -> Self;
    /// Writes the softmax of one row into `out[..seen]`, and into the last element where there is an own score.
    fn softmax_row(scores: &[Self], scale: Self, own: Option<Self>, out: &mut [Self], seen: usize);
}

macro_rules! real {
    ($t:ty, $exp:path) => {
        impl Real for $t {
            const ZERO: Self = 0.0;

            fn from_f64(value: f64) -> Self {
                value as $t
            }

            fn softmax_row(scores: &[$t], scale: $t, own: Option<$t>, out: &mut [$t], seen: usize) {
                // Sixteen lanes: enough independent chains for the compiler to vectorise.
                const LANES: usize = 16;
                let mut lanes = [<$t>::NEG_INFINITY; LANES];
                for chunk in scores.chunks(LANES) {
                    for (lane, &score) in lanes.iter_mut().zip(chunk) {
                        let score = score * scale;
                        *lane = if score > *lane { score } else { *lane };
                    }
                }
                let start = own.unwrap_or(<$t>::NEG_INFINITY);
                let max = lanes
                    .iter()
                    .fold(start, |max, &lane| if lane > max { lane } else { max });
                let mut sums = [0.0 as $t; LANES];
                for (out, chunk) in out[..seen].chunks_mut(LANES).zip(scores.chunks(LANES)) {
                    for ((sum, out), &score) in sums.iter_mut().zip(out).zip(chunk) {
                        *out = $exp(score * scale - max);
                        *sum += *out;
                    }
                }
                let mut total: $t = sums.iter().sum();
                if let (Some(own), Some(last)) = (own, out.last_mut()) {
                    *last = $exp(own - max);
                    total += *last;
                }
                let inverse = 1.0 / total;
                if seen > 0 || own.is_some() {
                    out[..seen].iter_mut().for_each(|weight| *weight *= inverse);
                }
                if let (true, Some(last)) = (own.is_some(), out.last_mut()) {
                    *last *= inverse;
                }
            }
        }
    };
}

real!(f32, exp_f32);
real!(f64, f64::exp);

/// `exp(x)` for x at most 0, within 2 units in the last place, in operations that vectorise (the C library's
/// does not). NaN stays NaN; below -87 the result is 0: what a dense mask hides must be 0 and not 1e-38, which a row's
/// sum makes subnormal, and a product with subnormal numbers takes twenty times as long.
#[inline(always)]
fn exp_f32(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    // ln 2 in two parts, so that x - n ln 2 keeps its bits (Cody and Waite).
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding 1.5 * 2^23 rounds to an integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let is_nothing = x < -87.0;
    let x = if is_nothing { 0.0 } else { x };
    let shifted = x * LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    // Minimax polynomial of exp on [-ln 2 / 2, ln 2 / 2] (Cephes, expf).
    let mut p = 1.987_569_2e-4;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    p = p * r * r + r + 1.0;
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    if is_nothing { 0.0 } else { p * power }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn exp_agrees_with_the_standard_library() {
        for i in 0..200_000 {
            let x = -86.9 * (i as f32) / 200_000.0;
            let (got, want) = (exp_f32(x), (x as f64).exp());
            assert!(
                ((got as f64 - want) / want).abs() < 2.5e-7,
                "exp({x}) = {got}, expected {want}"
            );
        }
        assert_eq!(exp_f32(0.0), 1.0);
        assert!(exp_f32(f32::NAN).is_nan());
        for hidden in [-87.1, -1e9, f32::NEG_INFINITY] {
            assert_eq!(exp_f32(hidden), 0.0);
        }
    }

    #[test]
    fn what_a_dense_mask_hides_is_nothing() -> Result<()> {
        let scores = Tensor::new(&[[[0.5f32, -1e9, 0.3, -1e9, 0.1]]], &Device::Cpu)?;
        let weights = softmax(&scores, None, Visible::All, 1.0)?
            .flatten_all()?
            .to_vec1::<f32>()?;
        assert_eq!([weights[1], weights[3]], [0.0, 0.0]);
        Ok(())
    }

    #[test]
    fn rows_see_only_what_is_visible_and_sum_to_one() -> Result<()> {
        let visible = Visible::ClosedBlocks {
            tokens: 5,
            start: 1,
            stride: 2,
        };
        let scores = Tensor::rand(-3f32, 3f32, (2, 10, 3), &Device::Cpu)?;
        let own = Tensor::rand(-3f32, 3f32, (2, 10, 1), &Device::Cpu)?;
        let p = softmax(&scores, Some(&own), visible, 0.7)?.to_vec3::<f32>()?;
        for (row, p) in p.iter().flatten().enumerate() {
            let seen = (row % 5).div_ceil(2); // floor((1 + t) / 2)
            assert!((p.iter().sum::<f32>() - 1.0).abs() < 1e-6);
            assert!(p[seen..3].iter().all(|&w| w == 0.0), "row {row} sees {p:?}");
            assert!(p[..seen].iter().all(|&w| w > 0.0));
        }
        Ok(())
    }

    const FOUR: Visible = Visible::Causal {
        tokens: 4,
        start: 0,
        window: usize::MAX,
    };

    /// Every kind of row: all visible, a prefix, nothing but the own entry, nothing at all.
    fn cases() -> [(Visible, bool); 8] {
        let causal = |tokens, start, window| Visible::Causal {
            tokens,
            start,
            window,
        };
        let closed = Visible::ClosedBlocks {
            tokens: 5,
            start: 0,
            stride: 3,
        };
        [
            (Visible::All, false),
            (Visible::All, true),
            (causal(5, 1, usize::MAX), false),
            (causal(10, 0, usize::MAX), true),
            (causal(5, 1, 3), false),
            (causal(10, 20, 1), false),
            (closed, true),
            (closed, false),
        ]
    }

    #[test]
    fn composed_is_the_same_with_the_same_gradients() -> Result<()> {
        for (visible, has_own) in cases() {
            let scores = candle_core::Var::rand(-2f64, 2f64, (2, 10, 7), &Device::Cpu)?;
            let own = candle_core::Var::rand(-2f64, 2f64, (2, 10, 1), &Device::Cpu)?;
            let own_of = has_own.then_some(own.as_tensor());
            let weight = Tensor::rand(-1f64, 1f64, (2, 10, 7 + usize::from(has_own)), &Device::Cpu)?;
            let a = softmax(&scores, own_of, visible, 0.7)?;
            let b = composed(&scores, own_of, visible, 0.7)?;
            let mut pairs = vec![(a.clone(), b.clone())];
            let (a, b) = (
                (a * &weight)?.sum_all()?.backward()?,
                (b * &weight)?.sum_all()?.backward()?,
            );
            for var in [Some(scores.as_tensor()), own_of].into_iter().flatten() {
                pairs.push((a.get(var).unwrap().clone(), b.get(var).unwrap().clone()));
            }
            for (a, b) in pairs {
                let diff = (a - b)?.abs()?.max_all()?.to_scalar::<f64>()?;
                assert!(diff < 1e-12, "{visible:?} differs by {diff}");
            }
        }
        Ok(())
    }

    #[test]
    fn composed_sees_nan_only_where_visible() -> Result<()> {
        let mut scores = vec![0.5f32; 12];
        scores[3 * 2 + 2] = f32::NAN;
        let scores = Tensor::from_vec(scores, (1, 4, 3), &Device::Cpu)?;
        let p = composed(&scores, None, FOUR, 1.0)?.to_vec3::<f32>()?;
        for (row, p) in p[0].iter().enumerate() {
            assert!(if row == 2 {
                p.iter().all(|w| w.is_nan())
            } else {
                p.iter().all(|w| w.is_finite())
            });
        }
        Ok(())
    }

    #[test]
    fn nan_is_seen_only_where_visible() -> Result<()> {
        let mut scores = vec![0.5f32; 12];
        scores[3 * 2 + 2] = f32::NAN;
        let scores = Tensor::from_vec(scores, (1, 4, 3), &Device::Cpu)?;
        let p = softmax(&scores, None, FOUR, 1.0)?.to_vec3::<f32>()?;
        assert!(p[0][0].iter().chain(&p[0][1]).all(|w| w.is_finite()));
        assert!(p[0][2].iter().all(|w| w.is_nan()));
        assert!(p[0][3].iter().all(|w| w.is_finite()));
        Ok(())
    }

    #[test]
    fn gradient_agrees_with_primitive_operations() -> Result<()> {
        let scores = candle_core::Var::rand(-2f64, 2f64, (1, 4, 3), &Device::Cpu)?;
        let own = candle_core::Var::rand(-2f64, 2f64, (1, 4, 1), &Device::Cpu)?;
        let weight = Tensor::rand(-1f64, 1f64, (1, 4, 4), &Device::Cpu)?;
        let ours = softmax(&scores, Some(&own), Visible::All, 0.3)?;
        let all = (Tensor::cat(&[scores.as_tensor(), own.as_tensor()], 2)? * 0.3)?;
        let exp = all.exp()?;
        let plain = exp.broadcast_div(&exp.sum_keepdim(2)?)?;
        let (a, b) = (
            (ours * &weight)?.sum_all()?.backward()?,
            (plain * &weight)?.sum_all()?.backward()?,
        );
        for var in [&scores, &own] {
            let (a, b) = (a.get(var).unwrap(), b.get(var).unwrap());
            let diff = (a - b)?
                .abs()?
                .max_all()?
                .to_dtype(DType::F64)?
                .to_scalar::<f64>()?;
            assert!(diff < 1e-12, "gradients differ by {diff}");
        }
        Ok(())
    }
}
