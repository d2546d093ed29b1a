//! A decode step of a layer on a GPU: three launches beside the products, and nothing that comes from the host.
//!
//! Lengths are on the device ([`Ends`](super::Ends)): the first launch counts the token, and those after it read where
//! it is. Whatever was launched for one length so does for all that fit the cache, and a graph of a step is one of every
//! step.

use std::sync::Arc;

use attn_kernels::cuda::{
    AdvancePlan, AdvanceShape, CacheUpdatePlan, CacheUpdateShape, DecodePlan, Dtype, GroupedDecodeShape,
    GroupedUpdatePlan, GroupedUpdateShape, LatentDecodeShape,
};
use candle_core::cuda::CudaDType;
use candle_core::cuda::cudarc::driver::DeviceRepr;
use candle_core::{CudaDevice, Device, Tensor};

use super::decode::{DecodeShape, Sources};
use super::gpu::{Gpu, Ready, State};
use super::products::{Matrices, Sizes};
use super::update::{Angles, NewHeads, NewLatents, is_f32};
use super::{Asked, Refusal, by_dtype, kernel_dtype, noted};
use crate::cache::{Cache, OnDevice};
use crate::error::Result;
use crate::latent::GateTable;
use crate::norm::Norm;
use crate::rope::{Pairing, Rope};

const OP: &str = "decode step";

/// What a step of latent attention is given, weights of the layer and the token's projections.
pub(crate) struct LatentToken<'a> {
    /// `[B, 1, H, Dn + Dr]`, not turned.
    pub(crate) q: &'a Tensor,
    /// `[B, 1, r + Dr]`, before the norm and the turn.
    pub(crate) x: &'a Tensor,
    pub(crate) norm: &'a Norm,
    pub(crate) rope: &'a Rope,
    pub(crate) gate: Option<&'a GateTable>,
    /// `W_UK` `[H, Dn, r]` and `W_UV` `[H, Dv, r]`.
    pub(crate) up: [&'a Tensor; 2],
    /// Factor of the scores.
    pub(crate) scale: f64,
}

/// Kernels of a step of latent attention.
pub(crate) struct LatentStep {
    gpu: Arc<Gpu>,
    advance: Arc<Ready<AdvancePlan>>,
    update: Arc<Ready<CacheUpdatePlan>>,
    decode: Arc<Ready<DecodePlan>>,
}

impl LatentStep {
    /// Those for a cache, H heads and tokens `x` `[B, 1, M]`; `None` off GPUs, and where the step is to be composed,
    /// which is noted.
    pub(crate) fn of(
        x: &Tensor,
        n_heads: usize,
        norm: &Norm,
        rope: &Rope,
        gate: Option<&GateTable>,
        cache: &mut Cache,
    ) -> Option<Self> {
        let Device::Cuda(device) = x.device() else {
            return None;
        };
        noted(OP, Self::find(device, x, n_heads, norm, rope, gate, cache))
    }

    fn find(
        device: &CudaDevice,
        x: &Tensor,
        n_heads: usize,
        norm: &Norm,
        rope: &Rope,
        gate: Option<&GateTable>,
        cache: &mut Cache,
    ) -> Asked<Self> {
        let OnDevice {
            keys, open, stride, ..
        } = cache.on_device();
        let mut operands = vec![x, norm.weight(), keys];
        operands.extend(norm.bias());
        let dtype = kernel_dtype(&operands)?;
        if !is_f32(open) || !is_f32(gate.map(|gate| &gate.u)) {
            return Err("its sums of blocks are not f32".into());
        }
        let (batch, _, slots, width) = keys.dims4()?;
        let rank = norm.weight().dim(0)?;
        let rope_dim = width.saturating_sub(rank);
        let halves = rope.pairing() == Pairing::Halves;
        let gpu = Gpu::of(device)?;
        let mut state = gpu.state();
        let advance = AdvanceShape {
            dtype,
            n_heads,
            rope_dim,
            halves,
        };
        let advances = &mut state.advances;
        let advance = advances
            .entry((advance, batch))
            .or_insert_with(|| gpu.advance_kernel(advance, batch))
            .clone()?;
        let update = CacheUpdateShape {
            dtype,
            rank,
            rope_dim,
            stride: gate.map(|gate| gate.stride),
            layer_norm: norm.bias().is_some(),
            halves,
        };
        let update = state
            .updates
            .entry((update, batch))
            .or_insert_with(|| gpu.update_kernel(update, batch))
            .clone()?;
        let decode = DecodeShape::Latent(LatentDecodeShape {
            dtype,
            n_heads,
            rank,
            rope_dim,
            stride,
        });
        let decode = gpu.decode_kernel_for(&mut state, decode, batch, slots)?;
        drop(state);
        Ok(Self {
            gpu,
            advance,
            update,
            decode,
        })
    }

    /// Adds the token to the cache, and attends from it: `[B, 1, H, Dv]`. `None`, and nothing counted, where it is to be
    /// composed after all, which is noted.
    ///
    /// # Errors
    /// [`crate::Error::CacheFull`].
    pub(crate) fn run(&self, token: &LatentToken, cache: &mut Cache) -> Result<Option<Tensor>> {
        let end = cache.lens().iter().max().map_or(0, |len| len + 1);
        cache.reserve(end)?;
        let mut state = self.gpu.state();
        let done = by_dtype!(self.update.dtype(), self.run_as(&mut state, token, cache));
        Ok(noted(OP, state.settled(done)).inspect(|_| cache.advance(1)))
    }

    fn run_as<T: CudaDType + DeviceRepr>(
        &self,
        state: &mut State,
        token: &LatentToken,
        cache: &mut Cache,
    ) -> Asked<Tensor> {
        let Self {
            gpu,
            advance,
            update,
            decode,
        } = self;
        let dtype = update.dtype();
        let OnDevice {
            keys,
            open,
            stride,
            lens,
            ends,
            ..
        } = cache.on_device();
        let (b, _, h, score_dim) = token.q.dims4()?;
        let (_, _, slots, width) = keys.dims4()?;
        let rope_dim = advance.plan.shape.rope_dim;
        let (nope_dim, rank) = (score_dim - rope_dim, width - rope_dim);
        let [w_uk, w_uv] = token.up;
        let v_dim = w_uv.dim(1)?;

        let angles = Angles::of(token.rope, slots * stride, token.q.device())?;
        state.keep(angles.tensors());
        state.keep(
            token
                .gate
                .iter()
                .flat_map(|gate| [gate.u.clone(), gate.b.clone()]),
        );
        let q = token.q.contiguous()?.reshape((b, h, score_dim))?;
        let absorbed = gpu.unwritten::<T>((b, h, width))?;
        let positions = ends.at(&gpu.stream, lens)?;
        let turned = (
            gpu.columns::<T>(&q, nope_dim)?,
            gpu.columns::<T>(&absorbed, rank)?,
        );
        gpu.advance(advance, positions, Some(turned), &angles)?;
        ends.count();

        let matrices = |x: &Tensor, rows: usize, heads: usize| -> Asked<Matrices> {
            Ok(Matrices {
                memory: gpu.memory::<T>(x)?,
                row_stride: x.stride()[rows],
                head_stride: x.stride()[heads],
            })
        };
        // W_UK is absorbed into the query, and scores are products with latents.
        gpu.products(
            dtype,
            Sizes {
                heads: h,
                rows: b,
                inner: nope_dim,
                columns: rank,
            },
            matrices(&q, 0, 1)?,
            (matrices(w_uk, 1, 0)?, false),
            matrices(&absorbed, 0, 1)?,
        )?;
        // With a stride of 1 every token opens a block: its sum is written, and nobody reads it.
        let own = match (token.gate, open) {
            (Some(_), None) => Some(gpu.unwritten::<f32>((b, rank))?),
            _ => None,
        };
        let new = NewLatents {
            x: token.x,
            norm: token.norm,
            gate: token.gate,
            open: open.or(own.as_ref()),
            keys,
        };
        gpu.update::<T>(update, &new, positions, &angles)?;
        let sources = Sources {
            q: &absorbed,
            keys,
            values: None,
            scale: token.scale,
        };
        let latents = gpu.decode::<T>(&mut state.scratch, decode, &sources, positions)?;
        let heads = gpu.unwritten::<T>((b, h, v_dim))?;
        gpu.products(
            dtype,
            Sizes {
                heads: h,
                rows: b,
                inner: rank,
                columns: v_dim,
            },
            matrices(&latents, 0, 1)?,
            (matrices(w_uv, 1, 0)?, true),
            matrices(&heads, 0, 1)?,
        )?;
        Ok(heads.unsqueeze(1)?)
    }
}

/// What a step of MHA, GQA or MQA is given.
pub(crate) struct GroupedToken<'a> {
    /// `[B, 1, H Dk]`, `[B, 1, Hkv Dk]` and `[B, 1, Hkv Dv]`, not turned.
    pub(crate) qkv: [&'a Tensor; 3],
    pub(crate) rope: &'a Rope,
    /// Factor of the scores.
    pub(crate) scale: f64,
}

/// Kernels of a step of MHA, GQA and MQA.
pub(crate) struct GroupedStep {
    gpu: Arc<Gpu>,
    advance: Arc<Ready<AdvancePlan>>,
    update: Arc<Ready<GroupedUpdatePlan>>,
    decode: Arc<Ready<DecodePlan>>,
}

impl GroupedStep {
    /// Those for a cache, H heads and tokens `x` `[B, 1, M]`; `None` off GPUs, and where the step is to be composed,
    /// which is noted.
    pub(crate) fn of(x: &Tensor, n_heads: usize, rope: &Rope, cache: &mut Cache) -> Option<Self> {
        let Device::Cuda(device) = x.device() else {
            return None;
        };
        noted(OP, Self::find(device, x, n_heads, rope, cache))
    }

    fn find(device: &CudaDevice, x: &Tensor, n_heads: usize, rope: &Rope, cache: &mut Cache) -> Asked<Self> {
        let OnDevice {
            keys,
            values,
            is_plain,
            ..
        } = cache.on_device();
        if !is_plain {
            return Err("slots have a tail, factors or a window, which kernels of GPUs do not know".into());
        }
        let values = values.ok_or("its values are columns of its keys")?;
        let dtype = kernel_dtype(&[x, keys, values])?;
        let (batch, n_kv_heads, slots, key_dim) = keys.dims4()?;
        let value_dim = values.dim(3)?;
        let halves = rope.pairing() == Pairing::Halves;
        let gpu = Gpu::of(device)?;
        let mut state = gpu.state();
        let counting = AdvanceShape {
            dtype: Dtype::F32, // of nothing: one kernel counts for all
            n_heads: 0,
            rope_dim: 2,
            halves: false,
        };
        let advance = state
            .advances
            .entry((counting, batch))
            .or_insert_with(|| gpu.advance_kernel(counting, batch))
            .clone()?;
        let update = GroupedUpdateShape {
            dtype,
            n_heads,
            n_kv_heads,
            key_dim,
            value_dim,
            halves,
        };
        let update = state
            .grouped_updates
            .entry((update, batch))
            .or_insert_with(|| gpu.grouped_update_kernel(update, batch))
            .clone()?;
        let decode = DecodeShape::Grouped(GroupedDecodeShape {
            dtype,
            n_heads,
            n_kv_heads,
            key_dim,
            value_dim,
        });
        let decode = gpu.decode_kernel_for(&mut state, decode, batch, slots)?;
        drop(state);
        Ok(Self {
            gpu,
            advance,
            update,
            decode,
        })
    }

    /// Adds the token to the cache, and attends from it: `[B, 1, H, Dv]`. `None`, and nothing counted, where it is to be
    /// composed after all, which is noted.
    ///
    /// # Errors
    /// [`crate::Error::CacheFull`].
    pub(crate) fn run(&self, token: &GroupedToken, cache: &mut Cache) -> Result<Option<Tensor>> {
        let end = cache.lens().iter().max().map_or(0, |len| len + 1);
        cache.reserve(end)?;
        let mut state = self.gpu.state();
        let done = by_dtype!(self.update.dtype(), self.run_as(&mut state, token, cache));
        Ok(noted(OP, state.settled(done)).inspect(|_| cache.advance(1)))
    }

    fn run_as<T: CudaDType + DeviceRepr>(
        &self,
        state: &mut State,
        token: &GroupedToken,
        cache: &mut Cache,
    ) -> Asked<Tensor> {
        let Self {
            gpu,
            advance,
            update,
            decode,
        } = self;
        let OnDevice {
            keys,
            values,
            lens,
            ends,
            ..
        } = cache.on_device();
        let own = values.ok_or_else(|| Refusal::once("its values are columns of its keys"))?;
        let (b, shape) = (keys.dim(0)?, update.plan.shape);
        let angles = Angles::of(token.rope, keys.dim(2)?, keys.device())?;
        state.keep(angles.tensors());
        let turned = gpu.unwritten::<T>((b, shape.n_heads, shape.key_dim))?;
        let positions = ends.at(&gpu.stream, lens)?;
        gpu.advance(advance, positions, None, &angles)?;
        ends.count();
        let new = NewHeads {
            qkv: token.qkv,
            turned: &turned,
            keys,
            values: own,
        };
        gpu.grouped_update::<T>(update, &new, positions, &angles)?;
        let sources = Sources {
            q: &turned,
            keys,
            values,
            scale: token.scale,
        };
        let heads = gpu.decode::<T>(&mut state.scratch, decode, &sources, positions)?;
        Ok(heads.unsqueeze(1)?)
    }
}
