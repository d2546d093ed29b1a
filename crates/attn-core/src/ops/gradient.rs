//! Attend with gradients by native kernels: on the CPU, in f32, bf16 and f16.

use std::sync::OnceLock;

use attn_kernels::{Attend, Backward, Element, Gradients, Rows};
use candle_core::{CpuStorage, CustomOp3, DType, Layout, Shape, Tensor, WithDType};
use half::{bf16, f16};

use crate::error::Result;
use crate::ops::AttendInput;
use crate::ops::native::{guard, level, side_by_side};

/// `None` where there is no kernel for these operands: entries of two kinds, whose gradients would go to more tensors
/// than an operation has, or another device or dtype.
pub(super) fn attend(input: &AttendInput) -> Result<Option<Tensor>> {
    let (entries, has_own) = match (&input.closed, &input.own) {
        (Some(closed), None) => (closed, false),
        (None, Some(own)) => (own, true),
        _ => return Ok(None),
    };
    let (k, v) = entries.joined()?;
    let dtype = input.q.dtype();
    let is_ours = |x: &Tensor| x.device().is_cpu() && x.dtype() == dtype;
    let has_kernel = matches!(dtype, DType::F32 | DType::BF16 | DType::F16);
    if !has_kernel || ![input.q, &k, &v].into_iter().all(is_ours) {
        return Ok(None);
    }
    let op = AttendOp {
        has_own,
        start: input.start,
        stride: input.stride,
        scale: input.scale as f32,
        lse: OnceLock::new(),
    };
    let (q, k, v) = (side_by_side(input.q)?, side_by_side(&k)?, side_by_side(&v)?);
    Ok(Some(q.apply_op3(&k, &v, op)?.transpose(1, 2)?))
}

/// Attention of queries `[B, H, T, Dk]` over entries `[B, Hkv, M, Dk]` and `[B, Hkv, M, Dv]`; `[B, T, H, Dv]`.
struct AttendOp {
    /// Whether the entries are the queries' own, those that close a block being seen by others too.
    has_own: bool,
    start: usize,
    stride: usize,
    scale: f32,
    /// Logarithms of the sums of weights, `[B, H, T]`, from the forward pass.
    lse: OnceLock<Vec<f32>>,
}

impl AttendOp {
    /// The kernel's operands, of `[B, H, T, Dk]`, `[B, Hkv, M, Dk]` and `[B, Hkv, M, Dv]`.
    fn input<'a, T: Copy>(
        &self,
        rows: [Rows<'a, T>; 3],
        shapes: [&Shape; 3],
    ) -> candle_core::Result<Attend<'a, T>> {
        let [q, k, v] = rows;
        let (batch, n_heads, tokens, key_dim) = shapes[0].dims4()?;
        let (_, n_kv_heads, given, value_dim) = shapes[2].dims4()?;
        let entries = attn_kernels::Entries { k, shared: None, v };
        Ok(Attend {
            q,
            closed: (!self.has_own).then_some(entries),
            own: self.has_own.then_some(entries),
            shared_dim: 0,
            batch,
            n_heads,
            n_kv_heads,
            tokens,
            n_keys: if self.has_own { given / self.stride } else { given },
            key_dim,
            value_dim,
            start: self.start,
            stride: self.stride,
            scale: self.scale,
        })
    }

    fn forward<T: WithDType + Element>(
        &self,
        operands: [(&CpuStorage, &Layout); 3],
    ) -> candle_core::Result<(Vec<T>, Shape)> {
        let [q, k, v] = operands;
        let rows = [rows_of(q)?, rows_of(k)?, rows_of(v)?];
        let input = self.input::<T>(rows, [q.1.shape(), k.1.shape(), v.1.shape()])?;
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
        [q, k, v]: [&Tensor; 3],
        out: &Tensor,
        grad: &Tensor,
    ) -> Result<[Tensor; 3]> {
        let (out, grad) = (out.contiguous()?, side_by_side(&grad.transpose(1, 2)?)?);
        let (q_of, k_of, v_of) = (guard(q), guard(k), guard(v));
        let (out_of, grad_of) = (guard(&out), guard(&grad));
        let rows = [q_of.rows::<T>()?, k_of.rows()?, v_of.rows()?];
        let mut gradients = [q, k, v].map(|x| vec![T::default(); x.elem_count()]);
        let [dq, dk, dv] = &mut gradients;
        attn_kernels::attend_backward(
            &Backward {
                input: self.input(rows, [q.shape(), k.shape(), v.shape()])?,
                out: out_of.elements()?,
                lse: self.lse.get().map_or(&[], Vec::as_slice),
                grad: grad_of.rows()?,
            },
            level()?,
            &mut Gradients { q: dq, k: dk, v: dv },
        )?;
        let [dq, dk, dv] = gradients;
        let (b, h, t, d) = q.dims4()?;
        Ok([
            Tensor::from_vec(dq, (b, t, h, d), q.device())?.transpose(1, 2)?,
            Tensor::from_vec(dk, k.shape(), k.device())?,
            Tensor::from_vec(dv, v.shape(), v.device())?,
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
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let operands = [(q, q_layout), (k, k_layout), (v, v_layout)];
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
        k: &Tensor,
        v: &Tensor,
        out: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let operands = [q, k, v];
        let gradients = match q.dtype() {
            DType::F32 => self.backward::<f32>(operands, out, grad),
            DType::BF16 => self.backward::<bf16>(operands, out, grad),
            DType::F16 => self.backward::<f16>(operands, out, grad),
            dtype => candle_core::bail!("attend has no gradient in {dtype:?}"),
        };
        let [dq, dk, dv] = gradients.map_err(candle_core::Error::wrap)?;
        Ok((Some(dq), Some(dk), Some(dv)))
    }
}

/// `[B, heads, N, D]` whose last axis has no gaps.
fn rows_of<'a, T: WithDType>(
    (storage, layout): (&'a CpuStorage, &Layout),
) -> candle_core::Result<Rows<'a, T>> {
    let &[batch_stride, head_stride, row_stride, 1] = layout.stride() else {
        candle_core::bail!("attend takes rows whose elements lie side by side")
    };
    let data = storage.as_slice::<T>()?;
    Ok(Rows {
        data: data.get(layout.start_offset()..).unwrap_or_default(),
        batch_stride,
        head_stride,
        row_stride,
    })
}
