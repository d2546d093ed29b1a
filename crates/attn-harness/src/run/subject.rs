//! A case made runnable: layer, inputs and cache, and the work that a sample times.

use std::time::Instant;

use attn_core::ops::{self, AttendInput, DecodeInput, Own};
use attn_core::{
    Attention, Build, Cache, Capacity, LayerConfig, Path, Queries, Scope, Weights, Workload, random_tensor,
};
use candle_core::{DType, Device, Tensor, Var};

use super::Failure;
use super::measure::Task;
use crate::memory::CountingAllocator;
use crate::plan::Case;

/// Streams of the random data: the same for every variant.
const INPUT: u64 = 11;
const PROJECTION: u64 = 12;
const OPERANDS: u64 = 20;

/// A case ready to run.
pub(crate) struct Subject {
    pub(crate) work: Work,
    /// Bytes the case holds between samples: weights, inputs, cache.
    held_bytes: u64,
    /// Most bytes a sample held beyond those.
    sample_bytes: u64,
    steps: usize,
}

/// The work of a sample.
pub(crate) enum Work {
    /// Steps against a filled cache, rewound before each sample.
    Decode {
        layer: Box<dyn Attention>,
        cache: Cache,
        tokens: Vec<Tensor>,
        past: usize,
    },
    /// A prompt into an empty cache.
    Prefill {
        layer: Box<dyn Attention>,
        cache: Cache,
        x: Tensor,
    },
    /// Forward and backward over variables.
    Train {
        layer: Box<dyn Attention>,
        weights: Weights,
        x: Var,
        projection: Tensor,
    },
    /// A prompt, then tokens one at a time.
    Generate {
        layer: Box<dyn Attention>,
        cache: Cache,
        x: Tensor,
        tokens: Vec<Tensor>,
    },
    /// The decode operation alone.
    DecodeOp { operands: DecodeOperands },
    /// The attend operation alone, with its backward pass for a train step.
    AttendOp { operands: Operands, backward: bool },
}

/// Operands of `attend`.
pub(crate) struct Operands {
    pub(crate) q: Tensor,
    pub(crate) k: Tensor,
    pub(crate) v: Tensor,
    pub(crate) own: Option<(Tensor, Tensor)>,
    pub(crate) stride: usize,
    pub(crate) scale: f64,
}

impl Operands {
    /// The operands as the operation takes them.
    pub(crate) fn input(&self) -> AttendInput<'_> {
        AttendInput {
            q: &self.q,
            k: &self.k,
            v: &self.v,
            own: self.own.as_ref().map(|(k, v)| Own { k, v }),
            start: 0,
            stride: self.stride,
            scale: self.scale,
        }
    }
}

/// Operands of `decode`.
pub(crate) struct DecodeOperands {
    pub(crate) q: Tensor,
    pub(crate) cache: Cache,
    pub(crate) scale: f64,
}

impl DecodeOperands {
    /// The operands as the operation takes them; `slots` are those of the cache.
    pub(crate) fn input<'a>(&'a self, slots: &'a [usize]) -> DecodeInput<'a> {
        DecodeInput {
            q: &self.q,
            keys: self.cache.keys(),
            values: self.cache.values(),
            layout: self.cache.entry().values,
            slots,
            scale: self.scale,
        }
    }
}

/// Weights of a case, in f32: its reference gets the same.
pub(crate) fn weights(case: &Case) -> Result<(Box<dyn LayerConfig>, Weights), Failure> {
    let config = case.variant.configure(&case.dims, &case.params)?;
    let weights = Weights::seeded(&config.weight_specs(), case.seed)?;
    Ok((config, weights))
}

impl Subject {
    /// Builds layer, inputs and cache.
    pub(crate) fn new(case: &Case) -> Result<Self, Failure> {
        let before = CountingAllocator::snapshot().live_bytes;
        let work = Work::new(case)?;
        let held_bytes = CountingAllocator::snapshot().live_bytes.saturating_sub(before);
        Ok(Self {
            work,
            held_bytes,
            sample_bytes: 0,
            steps: case.steps_per_sample,
        })
    }

    /// Most bytes the allocator held for the case at once: weights, inputs, cache and what a sample needed.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.held_bytes + self.sample_bytes
    }
}

impl Task for Subject {
    fn sample(&mut self) -> Result<f64, String> {
        self.work.reset().map_err(|error| error.to_string())?;
        let live = CountingAllocator::snapshot().live_bytes;
        CountingAllocator::reset_peak();
        let began = Instant::now();
        let outputs = self.work.run(self.steps);
        let elapsed = began.elapsed().as_secs_f64();
        let peak = CountingAllocator::snapshot().peak_bytes;
        self.sample_bytes = self.sample_bytes.max(peak.saturating_sub(live));
        // Dropped after the clock was read: freeing is not the work.
        drop(outputs.map_err(|error| error.to_string())?);
        Ok(elapsed / self.steps as f64)
    }
}

impl Work {
    fn new(case: &Case) -> Result<Self, Failure> {
        if case.scope == Scope::Op {
            return Self::op(case);
        }
        let dtype = DType::from(case.dtype);
        let build = Build::cpu(case.path, dtype);
        let (config, weights) = weights(case)?;
        let input = |tokens: usize| {
            let shape = [case.workload.batch(), tokens, case.geometry.d_model];
            random_tensor(&shape, case.seed, INPUT, dtype, &Device::Cpu)
        };
        let split = |x: &Tensor, first: usize, n: usize| -> candle_core::Result<Vec<Tensor>> {
            (first..first + n)
                .map(|i| x.narrow(1, i, 1)?.contiguous())
                .collect()
        };
        let batch = case.workload.batch();
        Ok(match case.workload {
            Workload::Decode { context, .. } => {
                let layer = config.build(&weights, &build)?;
                let mut cache = layer.new_cache(batch, Capacity::Exact(case.cache_capacity))?;
                layer.fill(&mut cache, context - 1, case.seed)?;
                let tokens = split(&input(case.steps_per_sample)?, 0, case.steps_per_sample)?;
                Self::Decode {
                    layer,
                    cache,
                    tokens,
                    past: context - 1,
                }
            }
            Workload::Prefill { tokens, .. } => {
                let layer = config.build(&weights, &build)?;
                let cache = layer.new_cache(batch, Capacity::Exact(case.cache_capacity))?;
                Self::Prefill {
                    layer,
                    cache,
                    x: input(tokens)?,
                }
            }
            Workload::TrainStep { tokens, .. } => {
                let weights = weights.to_vars(dtype)?;
                let layer = config.build(&weights, &build)?;
                let x = Var::from_tensor(&input(tokens)?)?;
                let projection = random_tensor(x.dims(), case.seed, PROJECTION, dtype, &Device::Cpu)?;
                Self::Train {
                    layer,
                    weights,
                    x,
                    projection,
                }
            }
            Workload::Generate {
                tokens, new_tokens, ..
            } => {
                let layer = config.build(&weights, &build)?;
                let cache = layer.new_cache(batch, Capacity::Exact(case.cache_capacity))?;
                let all = input(tokens + new_tokens)?;
                let steps = split(&all, tokens, new_tokens)?;
                Self::Generate {
                    layer,
                    cache,
                    x: all.narrow(1, 0, tokens)?.contiguous()?,
                    tokens: steps,
                }
            }
        })
    }

    fn op(case: &Case) -> Result<Self, Failure> {
        let undefined =
            |what: &str, remedy: &str| Err(Failure::Unsupported(format!("{what} is not defined, {remedy}")));
        if case.path == Path::Seedlike {
            return undefined(
                "scope op on path seedlike",
                "the seed has no operations of its own, use scope layer",
            );
        }
        let (g, dtype, batch) = (&case.geometry, DType::from(case.dtype), case.workload.batch());
        let random = |shape: &[usize], stream: u64| {
            random_tensor(shape, case.seed, OPERANDS + stream, dtype, &Device::Cpu)
        };
        let attend = |t: usize, backward: bool| -> Result<Self, Failure> {
            let slots = if g.stride == 1 { t } else { t / g.stride };
            let pair = |n: usize, stream: u64| -> attn_core::Result<(Tensor, Tensor)> {
                let k = random(&[batch, g.n_kv_heads, n, g.score_dim], stream)?;
                Ok((k, random(&[batch, g.n_kv_heads, n, g.v_dim], stream + 1)?))
            };
            let q = random(&[batch, g.n_heads, t, g.score_dim], 0)?;
            let (k, v) = pair(slots, 1)?;
            let own = if g.stride == 1 { None } else { Some(pair(t, 3)?) };
            let var = |t: Tensor| -> candle_core::Result<Tensor> {
                if backward {
                    Ok(Var::from_tensor(&t)?.into_inner())
                } else {
                    Ok(t)
                }
            };
            let own = match own {
                Some((k, v)) => Some((var(k)?, var(v)?)),
                None => None,
            };
            let scale = (g.score_dim as f64).powf(-0.5);
            let operands = Operands {
                q: var(q)?,
                k: var(k)?,
                v: var(v)?,
                own,
                stride: g.stride,
                scale,
            };
            Ok(Self::AttendOp { operands, backward })
        };
        match case.workload {
            Workload::Decode { context, .. } => {
                let build = Build::cpu(case.path, dtype);
                let mut cache = Cache::new(g, &build, batch, Capacity::Exact(context))?;
                cache.fill(context, case.seed)?;
                let q = random(&[batch, g.n_heads, g.entry.key], 0)?;
                let scale = (g.score_dim as f64).powf(-0.5);
                Ok(Self::DecodeOp {
                    operands: DecodeOperands { q, cache, scale },
                })
            }
            Workload::Prefill { tokens, .. } => attend(tokens, false),
            Workload::TrainStep { tokens, .. } => attend(tokens, true),
            Workload::Generate { .. } => undefined(
                "scope op of generate",
                "it is prefill and decode, which have theirs",
            ),
        }
    }

    /// Takes the case back to where a sample begins; not timed.
    pub(crate) fn reset(&mut self) -> attn_core::Result<()> {
        match self {
            Self::Decode {
                layer, cache, past, ..
            } => layer.rewind(cache, *past),
            Self::Prefill { layer, cache, .. } | Self::Generate { layer, cache, .. } => {
                layer.rewind(cache, 0)
            }
            Self::Train { .. } | Self::DecodeOp { .. } | Self::AttendOp { .. } => Ok(()),
        }
    }

    /// The timed work. Returns what it computed: outputs, or gradients (input first, then weights by name).
    pub(crate) fn run(&mut self, steps: usize) -> attn_core::Result<Vec<Tensor>> {
        match self {
            Self::Decode {
                layer, cache, tokens, ..
            } => tokens.iter().map(|x| layer.decode(x, cache)).collect(),
            Self::Prefill { layer, cache, x } => Ok(vec![layer.prefill(x, cache, Queries::All)?]),
            Self::Train {
                layer,
                weights,
                x,
                projection,
            } => {
                let loss = (layer.forward(x, Queries::All)? * &*projection)?.sum_all()?;
                let grads = loss.backward()?;
                let all = std::iter::once(x.as_tensor()).chain(weights.iter().map(|(_, weight)| weight));
                all.map(|t| match grads.get(t) {
                    Some(grad) => Ok(grad.clone()),
                    None => Ok(t.zeros_like()?),
                })
                .collect()
            }
            Self::Generate {
                layer,
                cache,
                x,
                tokens,
            } => {
                let mut outputs = vec![layer.prefill(x, cache, Queries::Last(1))?];
                for x in tokens {
                    outputs.push(layer.decode(x, cache)?);
                }
                Ok(outputs)
            }
            Self::DecodeOp { operands } => {
                let slots = operands.cache.slots();
                let input = operands.input(&slots);
                (0..steps).map(|_| ops::decode(&input)).collect()
            }
            Self::AttendOp { operands, backward } => {
                let y = ops::attend(&operands.input())?;
                if !*backward {
                    return Ok(vec![y]);
                }
                let grads = y.sum_all()?.backward()?;
                let mut all = vec![&operands.q, &operands.k, &operands.v];
                if let Some((k, v)) = &operands.own {
                    all.extend([k, v]);
                }
                all.into_iter()
                    .map(|t| Ok(grads.get(t).cloned().unwrap_or(t.zeros_like()?)))
                    .collect()
            }
        }
    }

    /// The cache, where the work keeps one.
    pub(crate) fn cache(&self) -> Option<&Cache> {
        match self {
            Self::Decode { cache, .. } | Self::Prefill { cache, .. } | Self::Generate { cache, .. } => {
                Some(cache)
            }
            Self::DecodeOp { operands } => Some(&operands.cache),
            Self::Train { .. } | Self::AttendOp { .. } => None,
        }
    }
}
