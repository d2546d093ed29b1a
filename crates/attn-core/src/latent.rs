//! Latent attention: what MLA and MTLA share. The cache holds one latent and one rope key for all heads.
//!
//! `c = norm(x W_r)`, `k^R = RoPE(x W_kr)`; per head `k = [c W_UK, k^R]`, `v = c W_UV`, scores times
//! `(Dn + Dr)^-1/2`. Whole sequences decompress latents into keys and values; decoding absorbs `W_UK` into the
//! query and `W_UV` into the output, and reads only the latent.
//!
//! ```
//! use attn_core::latent::{Latent, LatentConfig};
//! use attn_core::{Build, ModelDims, ParamValue, Params, Path, Weights, random_tensor};
//! use candle_core::{DType, Device};
//!
//! let dims = ModelDims { d_model: 32, n_heads: 4, head_dim: 8 };
//! let params = Params::default().with("kv_rank", ParamValue::Int(16)).with("rope_dim", ParamValue::Int(4));
//! let config = LatentConfig::new(&dims, &params)?;
//! let weights = Weights::seeded(&config.weight_specs(), 42)?;
//! let latent = Latent::new(config, &weights, &Build::cpu(Path::Fused, DType::F32))?;
//!
//! // All that a cache holds of three tokens, whatever the number of heads.
//! let x = random_tensor(&[1, 3, 32], 7, 0, DType::F32, &Device::Cpu)?;
//! let (c, k_r) = latent.latents(&x, &[0])?;
//! assert_eq!((c.dims(), k_r.dims()), (&[1, 3, 16][..], &[1, 3, 4][..]));
//! # Ok::<(), attn_core::Error>(())
//! ```

mod config;

use attn_kernels::Orientation;
use candle_core::{D, Tensor};

use crate::cache::{Cache, SlotRows};
use crate::error::Result;
use crate::habits::Habit;
use crate::linear::Linear;
use crate::norm::Norm;
use crate::ops::cuda::{self, LatentStep, LatentToken};
use crate::ops::native::{self, LatentsInput};
use crate::ops::{self, Entries};
use crate::phase::{Phase, timed};
use crate::rope::Rope;
use crate::route::{for_products, product};
use crate::variant::Build;
use crate::weights::Weights;

pub use config::{LATENT_PARAMS, LatentConfig};

/// The projections of latent attention, and its view of the two operations.
///
/// ```
/// # use attn_core::latent::{Latent, LatentConfig};
/// # use attn_core::ops::Entries;
/// # use attn_core::{Build, ModelDims, ParamValue, Params, Path, Weights, random_tensor};
/// # use candle_core::{D, DType, Device, Tensor};
/// # let dims = ModelDims { d_model: 32, n_heads: 4, head_dim: 8 };
/// # let params = Params::default().with("kv_rank", ParamValue::Int(16)).with("rope_dim", ParamValue::Int(4));
/// # let config = LatentConfig::new(&dims, &params)?;
/// # let weights = Weights::seeded(&config.weight_specs(), 42)?.for_build(&Build::cpu(Path::Fused, DType::F64))?;
/// # let latent = Latent::new(config, &weights, &Build::cpu(Path::Fused, DType::F64))?;
/// # let x = random_tensor(&[1, 3, 32], 7, 0, DType::F64, &Device::Cpu)?;
/// // The last token's scores in both ways: of an absorbed query over the latents, and over decompressed keys.
/// let q = latent.queries(&x, 1, &[0])?; // [1, 1, H, Dn + Dr]
/// let (c, k_r) = latent.latents(&x, &[0])?;
/// let entries = Tensor::cat(&[&c, &k_r], D::Minus1)?; // [1, 3, r + Dr]
/// let absorbed = latent.absorb(&q)?.squeeze(1)?.contiguous()?.matmul(&entries.t()?.contiguous()?)?; // [1, H, 3]
///
/// let decompressed = latent.decompress(&c, &k_r)?;
/// let Entries::Joint { kv, nope_dim, .. } = decompressed.entries() else { panic!() };
/// let k = Tensor::cat(&[kv.narrow(3, 0, nope_dim)?, k_r.unsqueeze(2)?.broadcast_as((1, 3, 4, 4))?.contiguous()?], 3)?;
/// let scores = k.broadcast_mul(&q)?.sum(3)?.transpose(1, 2)?; // [1, H, 3]
/// assert!((scores - absorbed)?.abs()?.max_all()?.to_scalar::<f64>()? < 1e-12);
/// assert_eq!(latent.scale(), 12_f64.powf(-0.5));
/// # Ok::<(), attn_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Latent {
    config: LatentConfig,
    query: QueryProjection,
    wkv_a: Linear,
    /// One for each latent head.
    kv_norms: Vec<Norm>,
    /// `[H (Dn + Dv), r]`, of each query head over the rank of its latent head.
    wkv_b: Linear,
    wo: Linear,
    rope: Rope,
    /// Whether everything is an operation by itself, as the seed has it.
    is_by_operations: bool,
    scale: f64,
}

#[derive(Debug)]
enum QueryProjection {
    Plain(Linear),
    LowRank { down: Linear, norm: Norm, up: Linear },
}

/// MTLA's hyper-network as constants of each block j: a token's weight is `sigmoid(c . u[j] + b[j])` (math: fact A).
///
/// ```
/// use attn_core::latent::GateTable;
/// use candle_core::{DType, Device, Tensor};
///
/// // With tables of zeros every weight is sigmoid(0) = 1/2.
/// let table = GateTable {
///     u: Tensor::zeros((4, 16), DType::F32, &Device::Cpu)?,
///     b: Tensor::zeros(4, DType::F32, &Device::Cpu)?,
///     stride: 2,
/// };
/// assert_eq!(table.u.dim(0)? * table.stride, 8); // tokens that four blocks hold
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct GateTable {
    /// `[blocks, r]`, f32 (f64 for an f64 layer).
    pub u: Tensor,
    /// `[blocks]`.
    pub b: Tensor,
    /// Tokens s of a block.
    pub stride: usize,
}

/// Merged latents of T tokens.
///
/// ```
/// use attn_core::latent::{GateTable, Latent, LatentConfig};
/// use attn_core::{Build, ModelDims, ParamValue, Params, Path, Weights, random_tensor};
/// use candle_core::{DType, Device, Tensor};
///
/// let dims = ModelDims { d_model: 32, n_heads: 4, head_dim: 8 };
/// let params = Params::default().with("kv_rank", ParamValue::Int(16)).with("rope_dim", ParamValue::Int(4));
/// let config = LatentConfig::new(&dims, &params)?;
/// let weights = Weights::seeded(&config.weight_specs(), 42)?;
/// let latent = Latent::new(config, &weights, &Build::cpu(Path::Fused, DType::F32))?;
/// let table = GateTable {
///     u: Tensor::zeros((2, 16), DType::F32, &Device::Cpu)?,
///     b: Tensor::zeros(2, DType::F32, &Device::Cpu)?,
///     stride: 2,
/// };
/// let x = random_tensor(&[1, 4, 32], 7, 0, DType::F32, &Device::Cpu)?;
/// // `None` where the processor's kernel does not take the operands.
/// if let Some(merged) = latent.merged(&x, &[0], &table, None)? {
///     // Weights of 1/2: a block's second sum is the mean of its two latents.
///     let (c, _) = latent.latents(&x, &[0])?;
///     let mean = c.narrow(1, 0, 2)?.mean(1)?;
///     let gap = (merged.c.narrow(1, 1, 1)?.squeeze(1)? - mean)?.abs()?.max_all()?.to_scalar::<f32>()?;
///     assert!(gap < 1e-5, "{gap}");
/// }
/// # Ok::<(), attn_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Merged {
    /// Partial sum of every token's block, `[B, T, r]`.
    pub c: Tensor,
    /// Rope key of every token, `[B, T, Dr]`.
    pub k_r: Tensor,
    /// The last token's partial sum before it is rounded, `[B, r]`, f32 (f64 for an f64 layer); `None` where it was not
    /// asked for and costs something.
    pub last: Option<Tensor>,
}

/// Keys and values of latents, as the decompression wrote them: token by token, with one rope key for all heads.
///
/// ```
/// use attn_core::latent::{Latent, LatentConfig};
/// use attn_core::ops::Entries;
/// use attn_core::{Build, ModelDims, ParamValue, Params, Path, Weights, random_tensor};
/// use candle_core::{DType, Device};
///
/// let dims = ModelDims { d_model: 32, n_heads: 4, head_dim: 8 };
/// let params = Params::default().with("kv_rank", ParamValue::Int(16)).with("rope_dim", ParamValue::Int(4));
/// let config = LatentConfig::new(&dims, &params)?;
/// let weights = Weights::seeded(&config.weight_specs(), 42)?;
/// let latent = Latent::new(config, &weights, &Build::cpu(Path::Fused, DType::F32))?;
/// let x = random_tensor(&[1, 3, 32], 7, 0, DType::F32, &Device::Cpu)?;
/// let (c, k_r) = latent.latents(&x, &[0])?;
/// let keys_and_values = latent.decompress(&c, &k_r)?;
/// let Entries::Joint { kv, .. } = keys_and_values.entries() else { panic!() };
/// assert_eq!(kv.dims(), [1, 3, 4, 8 + 8]); // Dn + Dv of each head
/// # Ok::<(), attn_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Decompressed {
    /// `[B, N, H, Dn + Dv]`.
    kv: Tensor,
    /// `[B, N, Dr]`.
    k_r: Tensor,
    nope_dim: usize,
}

impl Decompressed {
    /// Whole keys `[B, H, N, Dn + Dr]` and values `[B, H, N, Dv]`.
    ///
    /// # Errors
    /// [`crate::Error::Candle`] where memory runs out.
    pub fn keys_values(&self) -> Result<[Tensor; 2]> {
        let (k, v) = self.entries().joined()?;
        Ok([k.transpose(1, 2)?, v.transpose(1, 2)?])
    }

    /// As the operation takes them.
    pub fn entries(&self) -> Entries<'_> {
        Entries::Joint {
            kv: &self.kv,
            k_r: &self.k_r,
            nope_dim: self.nope_dim,
        }
    }
}

/// Partial sums `[B, T, r]` of latents weighed by `table`, of sequences from their beginning: by a GPU's kernel, in the
/// latents' dtype and with gradients. `None` where they are to be composed.
///
/// ```
/// use attn_core::latent::{GateTable, gated_sums_on_gpu};
/// use candle_core::{DType, Device, Tensor};
///
/// let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu);
/// let table = GateTable { u: zeros(&[2, 16])?, b: zeros(&[2])?, stride: 2 };
/// // On the processor they are composed, or the latents' kernel has them.
/// assert!(gated_sums_on_gpu(&zeros(&[1, 4, 16])?, &table).is_none());
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn gated_sums_on_gpu(c: &Tensor, table: &GateTable) -> Option<Tensor> {
    cuda::gated_sums(c, table)
}

impl Latent {
    /// The projections over the given weights, already of the layer's dtype.
    ///
    /// # Errors
    /// A weight is missing or misshapen.
    pub fn new(config: LatentConfig, weights: &Weights, build: &Build) -> Result<Self> {
        let LatentConfig {
            d_model: m,
            n_heads: h,
            kv_rank: r,
            q_rank,
            bias,
            ..
        } = config;
        let q_out = h * config.score_dim();
        let is_by_operations = build.has(Habit::DenseMask);
        let norm = |name: &str, width: usize| Norm::load(config.norm, name, width, config.norm_eps, weights);
        let query = match q_rank {
            0 => QueryProjection::Plain(Linear::load("wq", q_out, m, bias, weights)?),
            _ => QueryProjection::LowRank {
                down: Linear::load("wq_a", q_rank, m, bias, weights)?,
                norm: norm("q_norm", q_rank)?,
                up: Linear::load("wq_b", q_out, q_rank, bias, weights)?,
            },
        };
        Ok(Self {
            query,
            wkv_a: Linear::load("wkv_a", r + config.rope_dim, m, bias, weights)?,
            kv_norms: norm("kv_norm", r)?.parts(config.n_latents)?,
            wkv_b: Linear::load(
                "wkv_b",
                h * (config.nope_dim + config.v_dim),
                config.latent_dim(),
                false,
                weights,
            )?,
            wo: Linear::load("wo", m, h * config.v_dim, bias, weights)?,
            rope: Rope::new(config.rope_dim, config.rope_theta, config.rope_pairing)?.for_build(build),
            is_by_operations,
            scale: (config.score_dim() as f64).powf(-0.5),
            config,
        })
    }

    /// Factor of the scores, `(Dn + Dr)^-1/2`.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// Queries of the last `n` tokens, rope part turned: `[B, n, H, Dn + Dr]`.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] where `starts` (positions of `x`'s first tokens) is not one per sequence.
    pub fn queries(&self, x: &Tensor, n: usize, starts: &[usize]) -> Result<Tensor> {
        timed(Phase::Projections, || {
            let t = x.dim(1)?;
            let q = self.projected_queries(&x.narrow(1, t - n, n)?)?;
            let starts: Vec<usize> = starts.iter().map(|start| start + t - n).collect();
            self.rope.apply(&q, &starts)
        })
    }

    /// Queries before they are turned, `[B, n, H, Dn + Dr]`.
    fn projected_queries(&self, x: &Tensor) -> Result<Tensor> {
        let (b, n, _) = x.dims3()?;
        let q = match &self.query {
            QueryProjection::Plain(wq) => wq.forward(x)?,
            QueryProjection::LowRank { down, norm, up } => up.forward(&norm.forward(&down.forward(x)?)?)?,
        };
        Ok(q.reshape((b, n, self.config.n_heads, self.config.score_dim()))?)
    }

    /// Latents `[B, T, r]`, normalised, and rope keys `[B, T, Dr]`, turned: in one pass, but for the seed's way, which has
    /// an operation for each.
    ///
    /// # Errors
    /// As [`queries`](Self::queries).
    pub fn latents(&self, x: &Tensor, starts: &[usize]) -> Result<(Tensor, Tensor)> {
        let both = timed(Phase::Projections, || self.wkv_a.forward(x))?;
        timed(Phase::CacheUpdate, || {
            if !self.is_by_operations
                && self.config.n_latents == 1
                && let Some((c, k_r, _)) = native::latents(&self.latents_input(&both, starts, None, None))?
            {
                return Ok((c, k_r));
            }
            let LatentConfig {
                kv_rank: r,
                rope_dim: d_r,
                ..
            } = self.config;
            let c = self.normalised(&both.narrow(2, 0, r)?)?;
            let k_r = self.rope.apply(&both.narrow(2, r, d_r)?.unsqueeze(2)?, starts)?;
            Ok((c, k_r.squeeze(2)?))
        })
    }

    /// Latents `[B, T, r]` with those of each head normalised by themselves.
    fn normalised(&self, c: &Tensor) -> Result<Tensor> {
        let dim = self.config.latent_dim();
        let heads = self.kv_norms.iter().enumerate();
        let mut heads = heads.map(|(i, norm)| norm.forward(&c.narrow(2, i * dim, dim)?));
        match (heads.next(), self.config.n_latents) {
            (Some(only), 1) => only,
            (first, _) => {
                let heads = first.into_iter().chain(heads).collect::<Result<Vec<_>>>()?;
                Ok(Tensor::cat(&heads, 2)?)
            }
        }
    }

    /// The norm of all latents, where they have one.
    fn kv_norm(&self) -> &Norm {
        &self.kv_norms[0]
    }

    /// The same, latents merged by a gate from the sums of `open` blocks on, in one pass; `None` where there is no
    /// kernel for these operands.
    ///
    /// # Errors
    /// As [`queries`](Self::queries).
    pub fn merged(
        &self,
        x: &Tensor,
        starts: &[usize],
        gate: &GateTable,
        open: Option<&Tensor>,
    ) -> Result<Option<Merged>> {
        if !self.has_latents_kernel(x) {
            return Ok(None); // before the projection is computed for nothing
        }
        let both = self.wkv_a.forward(x)?;
        let Some((c, k_r, Some(last))) =
            native::latents(&self.latents_input(&both, starts, Some(gate), open))?
        else {
            return Ok(None);
        };
        Ok(Some(Merged {
            c,
            k_r,
            last: Some(last),
        }))
    }

    /// Decodes one token `[B, 1, M]` of every sequence on a GPU, by kernels that have lengths there: `[B, 1, M]`. `None`,
    /// and nothing done, off GPUs, and where the step is to be composed; that is noted.
    ///
    /// # Errors
    /// [`crate::Error::CacheFull`].
    pub fn step(&self, x: &Tensor, cache: &mut Cache, gate: Option<&GateTable>) -> Result<Option<Tensor>> {
        if cache.shared().is_some() {
            return Ok(None);
        }
        let n_heads = self.config.n_heads;
        let Some(step) = LatentStep::of(x, n_heads, self.kv_norm(), &self.rope, gate, cache) else {
            return Ok(None);
        };
        let (w_uk, w_uv) = self.up_projections()?;
        let heads = step.run(
            &LatentToken {
                q: &self.projected_queries(x)?,
                x: &self.wkv_a.forward(x)?,
                norm: self.kv_norm(),
                rope: &self.rope,
                gate,
                up: [&w_uk, &w_uv],
                scale: self.scale,
            },
            cache,
        )?;
        heads.map(|heads| self.output(&heads)).transpose()
    }

    /// Adds one token `[B, 1, M]` of every sequence to a cache: projected, normalised, merged by `gate` where there is
    /// one, turned and written in one pass. False, and nothing done, where there is no kernel for it.
    ///
    /// # Errors
    /// [`crate::Error::CacheFull`].
    pub fn append(&self, x: &Tensor, cache: &mut Cache, gate: Option<&GateTable>) -> Result<bool> {
        if !self.has_latents_kernel(x) {
            return Ok(false);
        }
        let starts = cache.lens().to_vec();
        let stride = gate.map_or(1, |gate| gate.stride);
        cache.reserve(starts.iter().max().map_or(0, |len| len + 1))?;
        let slots: Vec<usize> = starts.iter().map(|len| len / stride).collect();
        let slots = cache.own_slots(&slots);
        let both = timed(Phase::Projections, || self.wkv_a.forward(x))?;
        timed(Phase::CacheUpdate, || {
            let input = self.latents_input(&both, &starts, gate, cache.open());
            let Some(sums) = native::append(&input, cache.keys(), &slots)? else {
                return Ok(false);
            };
            if let (Some(sums), true) = (sums, cache.open().is_some()) {
                cache.set_open(sums);
            }
            cache.advance(1);
            Ok(true)
        })
    }

    fn has_latents_kernel(&self, x: &Tensor) -> bool {
        native::takes(&[x, self.wkv_a.weight(), self.kv_norm().weight()])
    }

    fn latents_input<'a>(
        &'a self,
        x: &'a Tensor,
        starts: &'a [usize],
        gate: Option<&'a GateTable>,
        open: Option<&'a Tensor>,
    ) -> LatentsInput<'a> {
        LatentsInput {
            x,
            norm: self.kv_norm(),
            rope: &self.rope,
            gate,
            open,
            starts,
        }
    }

    /// Keys and values of latents `[B, N, r]` and rope keys `[B, N, Dr]`.
    ///
    /// # Errors
    /// [`crate::Error::Candle`] where shapes do not fit.
    pub fn decompress(&self, c: &Tensor, k_r: &Tensor) -> Result<Decompressed> {
        let LatentConfig {
            n_heads: h,
            nope_dim: d_n,
            v_dim: d_v,
            ..
        } = self.config;
        let (b, n, _) = c.dims3()?;
        Ok(Decompressed {
            kv: self.per_head(c)?.reshape((b, n, h, d_n + d_v))?,
            k_r: k_r.clone(),
            nope_dim: d_n,
        })
    }

    /// Latents `[B, n, r]` through `wkv_b`, those of each latent head for its query heads: `[B, n, H (Dn + Dv)]`.
    fn per_head(&self, c: &Tensor) -> Result<Tensor> {
        let (latents, dim) = (self.config.n_latents, self.config.latent_dim());
        if latents == 1 {
            return self.wkv_b.forward(c);
        }
        let of_each = self.wkv_b.weight().dim(0)? / latents;
        let heads = (0..latents).map(|i| {
            let weight = self.wkv_b.weight().narrow(0, i * of_each, of_each)?;
            Linear::new(weight, None).forward(&c.narrow(2, i * dim, dim)?.contiguous()?)
        });
        Ok(Tensor::cat(&heads.collect::<Result<Vec<_>>>()?, 2)?)
    }

    /// Output projection of `[B, n, H, Dv]`: `[B, n, M]`.
    ///
    /// # Errors
    /// [`crate::Error::Candle`] where shapes do not fit.
    pub fn output(&self, heads: &Tensor) -> Result<Tensor> {
        let (b, n, h, d_v) = heads.dims4()?;
        self.wo.forward(&heads.reshape((b, n, h * d_v))?)
    }

    /// `W_UK` `[H, Dn, r]` and `W_UV` `[H, Dv, r]`, views of `wkv_b`; r is the rank of one latent head.
    fn up_projections(&self) -> Result<(Tensor, Tensor)> {
        let LatentConfig {
            n_heads: h,
            nope_dim: d_n,
            v_dim: d_v,
            ..
        } = self.config;
        let r = self.config.latent_dim();
        let w = self.wkv_b.weight().reshape((h, d_n + d_v, r))?;
        Ok((w.narrow(1, 0, d_n)?, w.narrow(1, d_n, d_v)?))
    }

    /// Queries `[B, n, H, Dn + Dr]` with `W_UK` absorbed: `[B, n, H, r + Dr]`, to be multiplied with cache entries.
    ///
    /// # Errors
    /// [`crate::Error::Candle`] where shapes do not fit.
    pub fn absorb(&self, q: &Tensor) -> Result<Tensor> {
        let (nope, rope) = self.query_parts(q)?;
        if q.dim(1)? == 1 {
            let (w_uk, _) = self.up_projections()?;
            let (nope, rope) = (nope.squeeze(1)?, rope.squeeze(1)?);
            if let Some(q) = native::project_heads(&nope, &w_uk, Orientation::Inputs, Some(&rope))? {
                return Ok(q.unsqueeze(1)?);
            }
        }
        Ok(Tensor::cat(&[&self.absorbed(&nope)?, &rope], D::Minus1)?)
    }

    /// The parts of queries `[B, n, H, Dn + Dr]`.
    fn query_parts(&self, q: &Tensor) -> Result<(Tensor, Tensor)> {
        let LatentConfig {
            nope_dim, rope_dim, ..
        } = self.config;
        Ok((q.narrow(3, 0, nope_dim)?, q.narrow(3, nope_dim, rope_dim)?))
    }

    /// `[B, n, H, Dn]` times every head's `W_UK`: `[B, n, H, r]`, in memory head by head.
    fn absorbed(&self, nope: &Tensor) -> Result<Tensor> {
        let (b, n, h, d_n) = nope.dims4()?;
        let (w_uk, _) = self.up_projections()?;
        let nope = nope.permute((2, 0, 1, 3))?.reshape((h, b * n, d_n))?;
        Ok(product(&nope, &w_uk)?
            .reshape((h, b, n, self.config.latent_dim()))?
            .permute((1, 2, 0, 3))?)
    }

    /// Weighted latents `[B, n, H, r]` through `W_UV` and the output projection: `[B, n, M]`.
    ///
    /// # Errors
    /// [`crate::Error::Candle`] where shapes do not fit.
    pub fn output_absorbed(&self, latents: &Tensor) -> Result<Tensor> {
        self.output(&self.values_of(latents)?)
    }

    /// Weighted latents `[B, n, H, r]` through `W_UV`: `[B, n, H, Dv]`.
    ///
    /// # Errors
    /// [`crate::Error::Candle`] where shapes do not fit.
    pub fn values_of(&self, latents: &Tensor) -> Result<Tensor> {
        let LatentConfig { v_dim: d_v, .. } = self.config;
        let (b, n, h, r) = latents.dims4()?;
        let (_, w_uv) = self.up_projections()?;
        if n == 1
            && let Some(v) = native::project_heads(&latents.squeeze(1)?, &w_uv, Orientation::Outputs, None)?
        {
            return Ok(v.unsqueeze(1)?);
        }
        let rows = latents.permute((2, 0, 1, 3))?.reshape((h, b * n, r))?;
        let v = product(&rows, &w_uv.transpose(1, 2)?)?.reshape((h, b, n, d_v))?; // [H, B n, Dv]
        Ok(v.permute((1, 2, 0, 3))?)
    }

    /// Attention of one query per sequence `[B, 1, H, Dn + Dr]` over the cache, output projected: `[B, 1, M]`.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] where lengths do not fit.
    pub fn decode_absorbed(&self, q: &Tensor, cache: &Cache) -> Result<Tensor> {
        let q = timed(Phase::Projections, || self.absorb(q))?;
        let latents = ops::decode_cached(&q.squeeze(1)?, cache, self.scale)?;
        timed(Phase::Projections, || {
            self.output_absorbed(&latents.unsqueeze(1)?)
        })
    }

    /// The seed's formulation: every query absorbed, every score formed, a dense mask added.
    ///
    /// # Shapes
    /// - `q`: `[B, n, H, Dn + Dr]`; `c`: `[B, L, r]`; `k_r`: `[B, L, Dr]`; `mask`: `[n, L]`
    /// - returns `[B, n, M]`
    ///
    /// # Errors
    /// [`crate::Error::Candle`] where shapes do not fit.
    pub fn dense(&self, q: &Tensor, c: &Tensor, k_r: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let LatentConfig {
            kv_rank: r,
            rope_dim: d_r,
            ..
        } = self.config;
        let (b, n, h, _) = q.dims4()?;
        let l = c.dim(1)?;
        let (nope, rope) = self.query_parts(q)?;
        let nope = timed(Phase::Projections, || self.absorbed(&nope))?;
        let latents = timed(Phase::Attention, || -> Result<Tensor> {
            // [B, H n, r] x [B, r, L]: one product a sequence, heads folded into rows.
            let fold = |x: &Tensor, width: usize| x.transpose(1, 2)?.reshape((b, h * n, width));
            // Not copied: they may be views of the whole cache, which the seed keeps as two tensors and reads where they are.
            let (c, k_r) = (for_products(c)?, for_products(k_r)?);
            let nope = product(&fold(&nope, r)?, &c.t()?)?;
            let rope = product(&fold(&rope, d_r)?, &k_r.t()?)?;
            let scores = (nope + rope)?.reshape((b, h, n, l))?;
            let weights = ops::seedlike::masked_softmax(&scores, mask, self.scale)?;
            Ok(product(&weights.reshape((b, h * n, l))?, &c)?.reshape((b, h, n, r))?)
        })?;
        timed(Phase::Projections, || {
            self.output_absorbed(&latents.transpose(1, 2)?)
        })
    }

    /// Latents `[B, n, r]` and rope keys `[B, n, Dr]` of the first `n` slots of a cache.
    ///
    /// # Errors
    /// [`crate::Error::Candle`] where the cache is shorter.
    pub fn cached(&self, cache: &Cache, n: usize) -> Result<(Tensor, Tensor)> {
        split_entries(&cache.first(n)?.keys, self.config.kv_rank)
    }

    /// Writes latents `[B, n, r]` and rope keys `[B, n, Dr]` to n slots from `first[b]` on.
    ///
    /// # Errors
    /// [`crate::Error::CacheFull`].
    pub fn write(&self, cache: &mut Cache, first: &[usize], c: &Tensor, k_r: &Tensor) -> Result<()> {
        let entries = Tensor::cat(&[&c.to_dtype(k_r.dtype())?, k_r], 2)?.unsqueeze(1)?; // [B, 1, n, r + Dr]
        cache.write(first, &SlotRows::keys(entries))
    }
}

/// Latents `[B, n, r]` and rope keys `[B, n, Dr]` of cache entries `[B, 1, n, r + Dr]`.
///
/// # Errors
/// [`crate::Error::Candle`] where the entries are of more than one head, or narrower than r.
///
/// ```
/// use attn_core::latent::split_entries;
/// use candle_core::{DType, Device, Tensor};
///
/// let entries = Tensor::zeros((2, 1, 5, 16 + 4), DType::F32, &Device::Cpu)?;
/// let (c, k_r) = split_entries(&entries, 16)?;
/// assert_eq!((c.dims(), k_r.dims()), (&[2, 5, 16][..], &[2, 5, 4][..]));
/// # Ok::<(), attn_core::Error>(())
/// ```
pub fn split_entries(entries: &Tensor, r: usize) -> Result<(Tensor, Tensor)> {
    let entries = entries.squeeze(1)?;
    let width = entries.dim(D::Minus1)?;
    Ok((entries.narrow(2, 0, r)?, entries.narrow(2, r, width - r)?))
}
