//! Attend with gradients by native kernels: on the CPU, in f32, bf16 and f16.

use std::sync::OnceLock;

use attn_kernels::{Attend, Backward, Element, EntryGradients, Gradients, Rows};
use candle_core::{CpuStorage, CustomOp3, DType, Layout, Shape, Tensor, WithDType};
use half::{bf16, f16};

use crate::error::Result;
use crate::ops::native::{guard, level, side_by_side};
use crate::ops::{AttendInput, Entries};
use crate::route::has_kernels;

/// `None` where there is no kernel for these operands: entries of two kinds, whose gradients would go to more tensors
/// than an operation has, or another device or dtype.
pub(super) fn attend(input: &AttendInput) -> Result<Option<Tensor>> {
    let (entries, has_own) = match (&input.closed, &input.own) {
        (Some(closed), None) => (closed, false),
        (None, Some(own)) => (own, true),
        _ => return Ok(None),
    };
    let [first, second] = entries.operands();
    let dtype = input.q.dtype();
    let is_ours = |x: &Tensor| has_kernels(x) && x.dtype() == dtype;
    let has_kernel = matches!(dtype, DType::F32 | DType::BF16 | DType::F16);
    if !has_kernel || ![input.q, first, second].into_iter().all(is_ours) {
        return Ok(None);
    }
    let op = AttendOp {
        has_own,
        nope_dim: match *entries {
            Entries::Apart { .. } => None,
            Entries::Joint { nope_dim, .. } => Some(nope_dim),
        },
        start: input.start,
        stride: input.stride,
        window: input.window.unwrap_or(usize::MAX),
        scale: input.scale as f32,
        lse: OnceLock::new(),
    };
    let (q, first, second) = (
        side_by_side(input.q)?,
        side_by_side(first)?,
        side_by_side(second)?,
    );
    Ok(Some(q.apply_op3(&first, &second, op)?))
}

/// Attention of queries `[B, T, H, Dk]` over entries `[B, M, Hkv, Dk]` and `[B, M, Hkv, Dv]`, or `[B, M, Hkv, Dn + Dv]`
/// and `[B, M, Dr]`; `[B, T, H, Dv]`.
struct AttendOp {
    /// Whether the entries are the queries' own, those that close a block being seen by others too.
    has_own: bool,
    /// Columns of keys that heads do not share, where keys and values are side by side.
    nope_dim: Option<usize>,
    start: usize,
    stride: usize,
    window: usize,
    scale: f32,
    /// Logarithms of the sums of weights, `[B, H, T]`, from the forward pass.
    lse: OnceLock<Vec<f32>>,
}

impl AttendOp {
    /// The kernel's operands.
    fn input<'a, T: Copy>(
        &self,
        rows: [Rows<'a, T>; 3],
        shapes: [&Shape; 3],
    ) -> candle_core::Result<Attend<'a, T>> {
        let [q, first, second] = rows;
        let (batch, tokens, n_heads, key_dim) = shapes[0].dims4()?;
        let (_, given, n_kv_heads, width) = shapes[1].dims4()?;
        let (k, shared, v, value_dim) = match self.nope_dim {
            None => (first, None, second, shapes[2].dims4()?.3),
            Some(nope_dim) => {
                let v = Rows {
                    data: first.data.get(nope_dim..).unwrap_or_default(),
                    ..first
                };
                (first, Some(second), v, width - nope_dim)
            }
        };
        let entries = attn_kernels::Entries { k, shared, v };
        Ok(Attend {
            q,
            closed: (!self.has_own).then_some(entries),
            own: self.has_own.then_some(entries),
            shared_dim: self.nope_dim.map_or(0, |nope_dim| key_dim - nope_dim),
            batch,
            n_heads,
            n_kv_heads,
            tokens,
            n_keys: if self.has_own { given / self.stride } else { given },
            key_dim,
            value_dim,
            start: self.start,
            stride: self.stride,
            window: self.window,
            scale: self.scale,
        })
    }

    fn forward<T: WithDType + Element>(
        &self,
        operands: [(&CpuStorage, &Layout); 3],
    ) -> candle_core::Result<(Vec<T>, Shape)> {
        let [q, first, second] = operands;
        let rows = [rows_of(q)?, rows_of(first)?, rows_of(second)?];
        let input = self.input::<T>(rows, [q.1.shape(), first.1.shape(), second.1.shape()])?;
        let lines = input.batch * input.n_heads * input.tokens;
        let (mut out, mut lse) = (vec![T::default(); lines * input.value_dim], vec![0.0; lines]);
        let level = level().map_err(candle_core::Error::wrap)?;
        attn_kernels::attend(&input, level, &mut out, Some(&mut lse)).map_err(candle_core::Error::wrap)?;
        let shape = (input.batch, input.tokens, input.n_heads, input.value_dim);
        self.lse.get_or_init(|| lse);
        Ok((out, shape.into()))
    }

    fn backward<T: WithDType + Element>(
        &self,
        operands: [&Tensor; 3],
        out: &Tensor,
        grad: &Tensor,
    ) -> Result<[Tensor; 3]> {
        let [q, first, second] = operands;
        let (out, grad) = (out.contiguous()?, side_by_side(grad)?);
        let (q_of, first_of, second_of) = (guard(q), guard(first), guard(second));
        let (out_of, grad_of) = (guard(&out), guard(&grad));
        let rows = [
            q_of.token_rows::<T>()?,
            first_of.token_rows()?,
            second_of.token_rows()?,
        ];
        let mut gradients = operands.map(|x| vec![T::default(); x.elem_count()]);
        let [dq, d_first, d_second] = &mut gradients;
        let entries = match self.nope_dim {
            None => EntryGradients::Apart {
                k: d_first,
                v: d_second,
            },
            Some(_) => EntryGradients::Joint {
                kv: d_first,
                shared: d_second,
            },
        };
        attn_kernels::attend_backward(
            &Backward {
                input: self.input(rows, operands.map(Tensor::shape))?,
                out: out_of.elements()?,
                lse: self.lse.get().map_or(&[], Vec::as_slice),
                grad: grad_of.token_rows()?,
            },
            level()?,
            &mut Gradients { q: dq, entries },
        )?;
        let [dq, d_first, d_second] = gradients;
        Ok([
            Tensor::from_vec(dq, q.shape(), q.device())?,
            Tensor::from_vec(d_first, first.shape(), first.device())?,
            Tensor::from_vec(d_second, second.shape(), second.device())?,
        ])
    }
}

impl CustomOp3 for AttendOp {
    fn name(&self) -> &'static str {
        "attend"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        first: &CpuStorage,
        first_layout: &Layout,
        second: &CpuStorage,
        second_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let operands = [(q, q_layout), (first, first_layout), (second, second_layout)];
        Ok(match q {
            CpuStorage::F32(_) => self.forward(operands).map(|(x, s)| (CpuStorage::F32(x), s))?,
            CpuStorage::BF16(_) => self.forward(operands).map(|(x, s)| (CpuStorage::BF16(x), s))?,
            CpuStorage::F16(_) => self.forward(operands).map(|(x, s)| (CpuStorage::F16(x), s))?,
            _ => candle_core::bail!("attend takes f32, bf16 and f16"),
        })
    }

    fn bwd(
        &self,
        q: &Tensor,
        first: &Tensor,
        second: &Tensor,
        out: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let operands = [q, first, second];
        let gradients = match q.dtype() {
            DType::F32 => self.backward::<f32>(operands, out, grad),
            DType::BF16 => self.backward::<bf16>(operands, out, grad),
            DType::F16 => self.backward::<f16>(operands, out, grad),
            dtype => candle_core::bail!("attend has no gradient in {dtype:?}"),
        };
        let [dq, d_first, d_second] = gradients.map_err(candle_core::Error::wrap)?;
        Ok((Some(dq), Some(d_first), Some(d_second)))
    }
}

/// `[B, N, heads, D]`, or `[B, N, D]` that all heads share; the last axis has no gaps.
fn rows_of<'a, T: WithDType>(
    (storage, layout): (&'a CpuStorage, &Layout),
) -> candle_core::Result<Rows<'a, T>> {
    let (batch_stride, row_stride, head_stride) = match *layout.stride() {
        [batch, row, head, 1] => (batch, row, head),
        [batch, row, 1] => (batch, row, 0),
        _ => candle_core::bail!("attend takes rows whose elements lie side by side"),
    };
    let data = storage.as_slice::<T>()?;
    Ok(Rows {
        data: data.get(layout.start_offset()..).unwrap_or_default(),
        batch_stride,
        head_stride,
        row_stride,
    })
}
