//! The work that a sample times.

use attn_core::ops::{self, AttendInput, DecodeInput, Entries};
use attn_core::{
    Attention, Build, Cache, Capacity, LayerConfig, Path, Queries, Replay, Scope, Stepper, Weights, Workload,
    random_tensor,
};
use candle_core::{DType, Device, Tensor, Var};

use super::Failure;
use super::model::Whole;
use crate::memory;
use crate::worker::job::Job;

/// Streams of the random data: the same for every variant.
const INPUT: u64 = 11;
const PROJECTION: u64 = 12;
const OPERANDS: u64 = 20;

/// The work of a sample.
pub(crate) enum Work {
    /// Steps against a filled cache, rewound before each sample; a trajectory's too.
    Decode {
        stepper: Stepper,
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
    DecodeOp { replay: Replay<DecodeOperands> },
    /// The attend operation alone, with its backward pass for a train step.
    AttendOp { operands: Operands, backward: bool },
    /// A whole decoder that searches.
    Model(Box<Whole>),
}

/// Operands of `attend`, as the layers of a variant pass them.
pub(crate) struct Operands {
    pub(crate) q: Tensor,
    /// One for every token: with a stride, the queries' own, of which some close a block.
    pub(crate) k: Tensor,
    pub(crate) v: Tensor,
    pub(crate) stride: usize,
    pub(crate) window: Option<usize>,
    pub(crate) scale: f64,
}

impl Operands {
    /// The operands as the operation takes them.
    pub(crate) fn input(&self) -> AttendInput<'_> {
        let entries = Entries::Apart {
            k: &self.k,
            v: &self.v,
        };
        let has_own = self.stride > 1;
        AttendInput {
            q: &self.q,
            closed: (!has_own).then_some(entries),
            own: has_own.then_some(entries),
            start: 0,
            stride: self.stride,
            window: self.window,
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
    /// The operation.
    fn decode(&self) -> attn_core::Result<Tensor> {
        ops::decode(&self.input(&self.cache.slots()))
    }

    /// The operands as the operation takes them; `slots` are those of the cache.
    pub(crate) fn input<'a>(&'a self, slots: &'a [usize]) -> DecodeInput<'a> {
        DecodeInput {
            q: &self.q,
            rows: self.cache.rows(),
            entry: self.cache.entry(),
            slots,
            scale: self.scale,
        }
    }
}

/// Weights of a case, in f32: its reference gets the same.
pub(crate) fn weights(job: &Job, seed: u64) -> Result<(Box<dyn LayerConfig>, Weights), Failure> {
    let config = job.variant.configure(&job.dims, &job.params)?;
    let weights = Weights::seeded(&config.weight_specs(), seed)?;
    Ok((config, weights))
}

/// A part of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it, in so many steps.
    Steps(usize),
    /// One step.
    Step(usize),
}

impl Part {
    pub(crate) fn each(steps: usize) -> Vec<Self> {
        (0..steps).map(Self::Step).collect()
    }

    /// The first step and how many.
    fn range(self, all: usize) -> std::ops::Range<usize> {
        match self {
            Self::Steps(n) => 0..n.min(all),
            Self::Step(i) => i..(i + 1).min(all),
        }
    }
}

impl Work {
    /// The work of a case; a decode step's begins `ahead` tokens later than its own. Notes in `cache_bytes` what the
    /// allocator handed out for the cache.
    pub(crate) fn new(
        job: &Job,
        device: &Device,
        ahead: usize,
        cache_bytes: &mut u64,
    ) -> Result<Self, Failure> {
        let dtype = DType::from(job.dtype);
        let mut build = Build::new(job.path, dtype, device.clone());
        if let Some(habits) = job.habits {
            build = build.with_habits(habits);
        }
        match job.scope {
            Scope::Op => return Self::op(job, &build),
            Scope::Model => return Ok(Self::Model(Box::new(Whole::new(job, &build)?))),
            Scope::Layer => {}
        }
        let (config, weights) = weights(job, job.seed)?;
        let input = |tokens: usize| {
            let shape = [job.workload.batch(), tokens, job.geometry.d_model];
            random_tensor(&shape, job.seed, INPUT, dtype, device)
        };
        let split = |x: &Tensor, first: usize, n: usize| -> candle_core::Result<Vec<Tensor>> {
            (first..first + n)
                .map(|i| x.narrow(1, i, 1)?.contiguous())
                .collect()
        };
        let batch = job.workload.batch();
        let mut new_cache = |layer: &dyn Attention| {
            let before = memory::live_bytes(device);
            let cache = layer.new_cache(batch, Capacity::Exact(job.cache_capacity));
            *cache_bytes = memory::live_bytes(device).saturating_sub(before);
            cache
        };
        Ok(match job.workload {
            Workload::Decode { context, .. } => {
                let layer = config.build(&weights, &build)?;
                let mut cache = new_cache(layer.as_ref())?;
                let past = context - 1 + ahead;
                layer.fill(&mut cache, past, job.seed)?;
                Self::Decode {
                    stepper: Stepper::new(layer, cache),
                    tokens: split(&input(job.steps_per_sample)?, 0, job.steps_per_sample)?,
                    past,
                }
            }
            Workload::Trajectory {
                tokens, new_tokens, ..
            } => {
                let layer = config.build(&weights, &build)?;
                let mut cache = new_cache(layer.as_ref())?;
                layer.fill(&mut cache, tokens, job.seed)?;
                Self::Decode {
                    stepper: Stepper::new(layer, cache),
                    tokens: split(&input(new_tokens)?, 0, new_tokens)?,
                    past: tokens,
                }
            }
            Workload::Prefill { tokens, .. } => {
                let layer = config.build(&weights, &build)?;
                let cache = new_cache(layer.as_ref())?;
                Self::Prefill {
                    layer,
                    cache,
                    x: input(tokens)?,
                }
            }
            Workload::TrainStep { tokens, .. } => {
                let weights = weights.for_build(&build)?.to_vars(dtype)?;
                let layer = config.build(&weights, &build)?;
                let x = Var::from_tensor(&input(tokens)?)?;
                let projection = random_tensor(x.dims(), job.seed, PROJECTION, dtype, device)?;
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
                let cache = new_cache(layer.as_ref())?;
                let all = input(tokens + new_tokens)?;
                let steps = split(&all, tokens, new_tokens)?;
                Self::Generate {
                    layer,
                    cache,
                    x: all.narrow(1, 0, tokens)?.contiguous()?,
                    tokens: steps,
                }
            }
            Workload::Beam { .. } => {
                return Err(Failure::Unsupported(
                    "a beam search of one layer is not defined, use scope model".to_string(),
                ));
            }
        })
    }

    fn op(job: &Job, build: &Build) -> Result<Self, Failure> {
        let undefined =
            |what: &str, remedy: &str| Err(Failure::Unsupported(format!("{what} is not defined, {remedy}")));
        if job.path == Path::Seedlike {
            return undefined(
                "scope op on path seedlike",
                "the seed has no operations of its own, use scope layer",
            );
        }
        let (g, dtype, batch) = (&job.geometry, DType::from(job.dtype), job.workload.batch());
        let random = |shape: &[usize], stream: u64| {
            random_tensor(shape, job.seed, OPERANDS + stream, dtype, &build.device)
        };
        let attend = |t: usize, backward: bool| -> Result<Self, Failure> {
            let operand = |heads: usize, dim: usize, stream: u64| -> attn_core::Result<Tensor> {
                let x = random(&[batch, t, heads, dim], stream)?;
                Ok(match backward {
                    true => Var::from_tensor(&x)?.into_inner(),
                    false => x,
                })
            };
            let operands = Operands {
                q: operand(g.n_heads, g.score_dim, 0)?,
                k: operand(g.n_kv_heads, g.score_dim, 1)?,
                v: operand(g.n_kv_heads, g.v_dim, 2)?,
                stride: g.stride,
                window: g.window,
                scale: (g.score_dim as f64).powf(-0.5),
            };
            Ok(Self::AttendOp { operands, backward })
        };
        match job.workload {
            Workload::Decode { context, .. } => {
                let mut cache = Cache::new(g, build, batch, Capacity::Exact(context))?;
                cache.fill(context, job.seed)?;
                let q = random(&[batch, g.n_heads, g.entry.key], 0)?;
                let scale = (g.score_dim as f64).powf(-0.5);
                Ok(Self::DecodeOp {
                    replay: Replay::new(DecodeOperands { q, cache, scale }, DecodeOperands::decode),
                })
            }
            Workload::Prefill { tokens, .. } => attend(tokens, false),
            Workload::TrainStep { tokens, .. } => attend(tokens, true),
            Workload::Generate { .. } => undefined(
                "scope op of generate",
                "it is prefill and decode, which have theirs",
            ),
            Workload::Trajectory { .. } => {
                undefined("scope op of trajectory", "it is decode, which has its own")
            }
            Workload::Beam { .. } => {
                undefined("scope op of beam", "it is a whole decoder's, use scope model")
            }
        }
    }

    /// Takes the case back to where a sample begins; not timed.
    pub(crate) fn reset(&mut self) -> attn_core::Result<()> {
        match self {
            Self::Decode { stepper, past, .. } => stepper.rewind(*past),
            Self::Prefill { layer, cache, .. } | Self::Generate { layer, cache, .. } => {
                layer.rewind(cache, 0)
            }
            Self::Model(whole) => {
                whole.reset();
                Ok(())
            }
            Self::Train { .. } | Self::DecodeOp { .. } | Self::AttendOp { .. } => Ok(()),
        }
    }

    /// Records a step as a graph, which is replayed from then on; for what has steps.
    ///
    /// # Errors
    /// [`attn_core::Error::Unsupported`] with the reason why it cannot be.
    pub(crate) fn record(&mut self, device: &Device) -> attn_core::Result<()> {
        match self {
            Self::Decode { stepper, tokens, .. } => match tokens.first() {
                Some(x) => stepper.record(x),
                None => Ok(()),
            },
            Self::DecodeOp { replay } => replay.record(device),
            _ => Ok(()),
        }
    }

    /// The timed work. Where steps are replayed there is nothing to return: their token is that of the step before, and
    /// their output stays in the graph's memory.
    pub(crate) fn time(&mut self, part: Part) -> attn_core::Result<Vec<Tensor>> {
        match self {
            Self::Decode { stepper, tokens, .. } if stepper.is_recorded() => {
                for _ in part.range(tokens.len()) {
                    stepper.replay()?;
                }
                Ok(Vec::new())
            }
            Self::DecodeOp { replay } if replay.is_recorded() => {
                for _ in part.range(usize::MAX) {
                    replay.replay()?;
                }
                Ok(Vec::new())
            }
            _ => self.run(part),
        }
    }

    /// The work, with what it computed: outputs, or gradients (input first, then weights by name). A whole decoder keeps
    /// what it found.
    pub(crate) fn run(&mut self, part: Part) -> attn_core::Result<Vec<Tensor>> {
        match self {
            Self::Decode { stepper, tokens, .. } => {
                let steps = &tokens[part.range(tokens.len())];
                steps.iter().map(|x| stepper.decode(x)).collect()
            }
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
            Self::Model(whole) => {
                whole.search()?;
                Ok(Vec::new())
            }
            Self::DecodeOp { replay } => {
                let steps = part.range(usize::MAX);
                steps.map(|_| replay.run()).collect()
            }
            Self::AttendOp { operands, backward } => {
                let y = ops::attend(&operands.input())?;
                if !*backward {
                    return Ok(vec![y]);
                }
                let grads = y.sum_all()?.backward()?;
                [&operands.q, &operands.k, &operands.v]
                    .into_iter()
                    .map(|t| Ok(grads.get(t).cloned().unwrap_or(t.zeros_like()?)))
                    .collect()
            }
        }
    }

    /// The cache, where the work keeps one.
    pub(crate) fn cache(&self) -> Option<&Cache> {
        match self {
            Self::Decode { stepper, .. } => Some(stepper.cache()),
            Self::Prefill { cache, .. } | Self::Generate { cache, .. } => Some(cache),
            Self::DecodeOp { replay } => Some(&replay.operands().cache),
            Self::Train { .. } | Self::AttendOp { .. } | Self::Model(_) => None,
        }
    }
}
