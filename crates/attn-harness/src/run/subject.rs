//! A case made runnable: layer, inputs and cache, and the work that a sample times.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Instant;

use attn_core::ops::{self, AttendInput, DecodeInput, Entries, Fallback};
use attn_core::{
    Attention, Build, Cache, Capacity, LayerConfig, Path, Queries, Scope, Weights, Workload, in_pool,
    random_tensor,
};
use candle_core::{DType, Device, Tensor, Var};

use super::Failure;
use super::measure::{Taken, Task};
use crate::device::Resolved;
use crate::flush::Flusher;
use crate::memory;
use crate::sweep::Regime;
use crate::worker::Fault;
use crate::worker::job::Job;

/// Streams of the random data: the same for every variant.
const INPUT: u64 = 11;
const PROJECTION: u64 = 12;
const OPERANDS: u64 = 20;

/// What empties the caches: one for all cases of a worker, since it is large.
pub(crate) type SharedFlusher = Rc<RefCell<Flusher>>;

/// Where a case runs.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) resolved: Resolved,
    pub(crate) device: Device,
}

/// A case ready to run.
pub(crate) struct Subject {
    pub(crate) job: Job,
    pub(crate) work: Work,
    place: Place,
    /// Bytes the allocator handed out for the cache when it was made, where it counts.
    pub(crate) cache_bytes: Option<u64>,
    /// Empties the caches before each sample, where it begins cold.
    flusher: Option<SharedFlusher>,
    /// Bytes the case holds between samples: weights, inputs, cache.
    held_bytes: u64,
    /// Most bytes a sample held beyond those; none where nobody counts.
    sample_bytes: Option<u64>,
    /// Times of every step of every sample, for a trajectory.
    steps_s: Vec<Vec<f64>>,
    /// What of the work was composed in place of a kernel, and why.
    composed: BTreeSet<String>,
}

/// The work of a sample.
pub(crate) enum Work {
    /// Steps against a filled cache, rewound before each sample; a trajectory's too.
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

/// Operands of `attend`, as the layers of a variant pass them.
pub(crate) struct Operands {
    pub(crate) q: Tensor,
    /// One for every token: with a stride, the queries' own, of which some close a block.
    pub(crate) k: Tensor,
    pub(crate) v: Tensor,
    pub(crate) stride: usize,
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
pub(crate) fn weights(job: &Job, seed: u64) -> Result<(Box<dyn LayerConfig>, Weights), Failure> {
    let config = job.variant.configure(&job.dims, &job.params)?;
    let weights = Weights::seeded(&config.weight_specs(), seed)?;
    Ok((config, weights))
}

impl Subject {
    /// Builds layer, inputs and cache; with a flusher its samples begin cold.
    pub(crate) fn new(job: Job, place: Place, flusher: Option<SharedFlusher>) -> Result<Self, Failure> {
        let before = memory::live_bytes(&place.device);
        let mut cache_bytes = 0;
        let work = Work::new(&job, &place.device, &mut cache_bytes)?;
        let held_bytes = memory::live_bytes(&place.device).saturating_sub(before);
        Ok(Self {
            job,
            work,
            cache_bytes: Some(cache_bytes).filter(|bytes| *bytes > 0),
            place,
            flusher,
            held_bytes,
            sample_bytes: None,
            steps_s: Vec::new(),
            composed: BTreeSet::new(),
        })
    }

    /// Bytes the case holds between samples: weights, inputs, cache.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Most bytes the allocator, or the pool of a GPU, held for the case at once: weights, inputs, cache and what a sample
    /// needed.
    pub(crate) fn peak_bytes(&self) -> Option<u64> {
        self.sample_bytes.map(|bytes| self.held_bytes + bytes)
    }

    /// Bytes that are written before a cold sample.
    pub(crate) fn flush_bytes(&self) -> Option<u64> {
        self.flusher.as_ref().map(|flusher| flusher.borrow().bytes())
    }

    /// Where it runs: device, element type, path, and whether a kernel was missing on it so far.
    pub(crate) fn resolved(&self) -> [String; 3] {
        let path = self.job.path.to_string();
        [
            self.place.resolved.to_string(),
            self.job.dtype.to_string(),
            match self.composed.is_empty() {
                true => path,
                false => composite(&path),
            },
        ]
    }

    /// What was composed in place of a kernel so far, and why.
    pub(crate) fn composed(&self) -> Vec<String> {
        self.composed.iter().cloned().collect()
    }

    /// Keeps what was composed since `before` was all of it.
    pub(crate) fn note_fallbacks(&mut self, before: &[Fallback]) {
        let since = ops::fallbacks_since(before);
        let reasons = since
            .into_iter()
            .map(|Fallback { op, reason, .. }| format!("{op} is composed: {reason}"));
        self.composed.extend(reasons);
    }

    /// The times of every step since they were last taken, a list for each sample.
    pub(crate) fn take_steps(&mut self) -> Vec<Vec<f64>> {
        std::mem::take(&mut self.steps_s)
    }

    /// Forgets the steps of the last sample.
    pub(crate) fn forget_last_steps(&mut self) {
        self.steps_s.pop();
    }

    /// Seconds spent flushing; none where samples begin hot.
    fn flush(&mut self) -> f64 {
        let began = Instant::now();
        if let Some(flusher) = &self.flusher {
            flusher.borrow_mut().flush();
        }
        began.elapsed().as_secs_f64()
    }

    /// Runs the part of a sample that `part` names and returns its seconds, on a thread of the pool: that a thread of
    /// ours hands over is not the work. What it computed is dropped after the clock was read: nor is freeing.
    fn timed(&mut self, part: Part) -> attn_core::Result<f64> {
        let (work, device, fault) = (&mut self.work, &self.place.device, self.job.fault);
        in_pool(|| {
            // A GPU is handed its work and goes on by itself: the clock waits for it before and after.
            device.synchronize()?;
            let began = Instant::now();
            let outputs = work.run(part)?;
            device.synchronize()?;
            if let Some(fault) = fault {
                commit(fault, began);
            }
            let spent_s = began.elapsed().as_secs_f64();
            drop(outputs);
            Ok(spent_s)
        })
    }
}

/// The name of a path on which a kernel was missing.
pub(crate) fn composite(path: &str) -> String {
    format!("{path} (composite)")
}

/// Does what a test planted.
fn commit(fault: Fault, began: Instant) {
    match fault {
        Fault::Oom => {
            // Grows until something refuses, in steps that the kernel has to back.
            let mut hoard = Vec::new();
            loop {
                hoard.push(std::hint::black_box(vec![1_u8; 64 << 20]));
            }
        }
        Fault::Abort => std::process::abort(),
        Fault::Kill => {
            #[cfg(unix)]
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
        Fault::Panic => panic!("planted"),
        Fault::Hang => loop {
            std::thread::sleep(std::time::Duration::from_secs(3600));
        },
        Fault::Slow(fraction) => {
            let until = began.elapsed().mul_f64(1.0 + fraction);
            while began.elapsed() < until {
                std::hint::spin_loop();
            }
        }
        Fault::Wrong => {}
    }
}

impl Task for Subject {
    fn sample(&mut self) -> Result<Taken, String> {
        let entered = Instant::now();
        self.work.reset().map_err(|error| error.to_string())?;
        let mut around_s = entered.elapsed().as_secs_f64();
        let before = ops::fallbacks();
        let live = memory::live_bytes(&self.place.device);
        memory::reset_peak(&self.place.device);
        // A step of a cold sample begins cold too, and those of a trajectory are timed one by one.
        let parts = match (self.job.workload, self.job.regime) {
            (Workload::Trajectory { new_tokens, .. }, _) => Part::each(new_tokens),
            (Workload::Decode { .. }, Regime::Cold) => Part::each(self.job.steps_per_sample),
            _ => vec![Part::Steps(self.job.steps_per_sample)],
        };
        let mut steps_s = Vec::with_capacity(parts.len());
        for part in parts {
            around_s += self.flush();
            steps_s.push(self.timed(part).map_err(|error| error.to_string())?);
        }
        let peak = memory::peak_bytes(&self.place.device);
        self.sample_bytes = self.sample_bytes.max(peak.map(|peak| peak.saturating_sub(live)));
        self.note_fallbacks(&before);
        let time_s = steps_s.iter().sum::<f64>() / self.job.steps_per_sample as f64;
        if matches!(self.job.workload, Workload::Trajectory { .. }) {
            self.steps_s.push(steps_s);
        }
        Ok(Taken { time_s, around_s })
    }
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
    fn each(steps: usize) -> Vec<Self> {
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
    /// Notes in `cache_bytes` what the allocator handed out for the cache.
    fn new(job: &Job, device: &Device, cache_bytes: &mut u64) -> Result<Self, Failure> {
        let dtype = DType::from(job.dtype);
        let build = Build {
            path: job.path,
            dtype,
            device: device.clone(),
        };
        if job.scope == Scope::Op {
            return Self::op(job, &build);
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
                layer.fill(&mut cache, context - 1, job.seed)?;
                let tokens = split(&input(job.steps_per_sample)?, 0, job.steps_per_sample)?;
                Self::Decode {
                    layer,
                    cache,
                    tokens,
                    past: context - 1,
                }
            }
            Workload::Trajectory {
                tokens, new_tokens, ..
            } => {
                let layer = config.build(&weights, &build)?;
                let mut cache = new_cache(layer.as_ref())?;
                layer.fill(&mut cache, tokens, job.seed)?;
                Self::Decode {
                    layer,
                    cache,
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
                    operands: DecodeOperands { q, cache, scale },
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
    pub(crate) fn run(&mut self, part: Part) -> attn_core::Result<Vec<Tensor>> {
        match self {
            Self::Decode {
                layer, cache, tokens, ..
            } => {
                let steps = &tokens[part.range(tokens.len())];
                steps.iter().map(|x| layer.decode(x, cache)).collect()
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
            Self::DecodeOp { operands } => {
                let slots = operands.cache.slots();
                let input = operands.input(&slots);
                let steps = part.range(usize::MAX);
                steps.map(|_| ops::decode(&input)).collect()
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
            Self::Decode { cache, .. } | Self::Prefill { cache, .. } | Self::Generate { cache, .. } => {
                Some(cache)
            }
            Self::DecodeOp { operands } => Some(&operands.cache),
            Self::Train { .. } | Self::AttendOp { .. } => None,
        }
    }
}
