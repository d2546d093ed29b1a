//! A sweep file as it was typed: one file asks one question.
//!
//! Nothing is decided here. [`Sweep::load`] reads, applies overrides and types; what the values mean together
//! (geometry, duplicates, sizes) is [`Plan::build`](crate::plan::Plan::build)'s to say. The docs of the
//! fields are what `attn-bench schema` shows.

mod bytes;
mod device;
mod fair;
mod load;
mod model;
mod overrides;
mod source;
mod training;
mod typing;
mod values;

use std::collections::BTreeMap;

use attn_core::{DecoderKind, Path, Prefix, Scope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::trust::SAMPLES_MIN;

pub use bytes::ByteCount;
pub use device::{DeviceRequest, Dtype, Launch, Regime};
pub use fair::{FairRule, Hold};
pub use model::HabitsChoice;
pub use overrides::Override;
pub use source::Source;
pub(crate) use source::unknown;
pub use training::{OpenTask, TaskChoice, TrainingSettings};
pub use values::{Axis, Entry, Scalar, Scenario};

/// A sweep with the text it came from.
#[derive(Debug)]
pub struct Sweep {
    /// What was typed.
    pub file: SweepFile,
    /// Where it was typed.
    pub source: Source,
    /// What typing had to leave out, to be reported with what planning finds.
    pub(crate) problems: Vec<crate::error::Problem>,
}

/// One question, and the cases that answer it: every variant at every workload, scope, path and dtype.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SweepFile {
    /// Name of the sweep and of its result folders: lower-case letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// The question the sweep asks, in one sentence. Reports and figures print it.
    #[serde(default)]
    pub question: String,
    /// Where to run: `cpu`, `cuda`, `cuda:N`, or `auto` (CUDA where there is one). Default: `cpu`.
    #[serde(default)]
    #[schemars(schema_with = "device::device_schema")]
    pub device: DeviceRequest,
    /// Element type of weights, activations and cache: `f32`, `f16`, `bf16`, or a list. Default: `f32`.
    #[serde(default)]
    pub dtype: Option<Axis<Dtype>>,
    /// Seed of weights, inputs and cache contents. Default: 42.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// Sizes that all variants share.
    pub model: Model,
    /// Attention variants, each `name: {setting: value}`; a list as a value is an axis.
    pub variants: Vec<Entry>,
    /// What to hold equal between variants: `width` (nothing is solved), `params`, `kv_bytes` (per token) or `flops`,
    /// or `{hold: params, reference: mha}` (default: the first variant). The others get the value of their free
    /// setting that comes nearest.
    #[serde(default)]
    pub fair: Option<FairRule>,
    /// Formulations: `fused`, `seedlike`, or both. Default: `[fused]`.
    #[serde(default = "default_paths")]
    #[schemars(with = "Axis<device::PathName>")]
    pub paths: Axis<Path>,
    /// Habits of the seed's code that path `seedlike` has: `all`, `none`, `combinations` (every set there is), or a list
    /// of sets as `cat+expand`. A set without `f32` is a case in bf16, so that `dtype` does not multiply them. Default:
    /// all, in each `dtype`.
    #[serde(default)]
    pub habits: Option<Axis<HabitsChoice>>,
    /// Where the hypotheses of a `beam` keep their prefix on path `fused`: `replicated` (each computes and stores it),
    /// `copied` (computed once a sentence), `shared` (computed and stored once a sentence), or a list. On path `seedlike`
    /// it is replicated, as the seed does it. Default: `[copied]`.
    #[serde(default)]
    #[schemars(with = "Option<Axis<model::PrefixName>>")]
    pub prefixes: Option<Axis<Prefix>>,
    /// What to measure: `layer` (projections, cache, attention, output), `op` (attention alone), `model` (a whole decoder,
    /// for `beam` and `generate`), or a list. A workload is multiplied by the scopes it has. Default: `[layer]`.
    #[serde(default = "default_scopes")]
    #[schemars(with = "Axis<device::ScopeName>")]
    pub scopes: Axis<Scope>,
    /// What the device's caches hold when a sample begins: `hot` (what the sample before left there), `cold`
    /// (none of the case's data), or both. Default: `[hot]`.
    #[serde(default = "default_regimes")]
    pub regimes: Axis<Regime>,
    /// How a decode step gets to a GPU: `graph` (one CUDA graph), `eager` (launch by launch), or both. What is no
    /// decode, or on the processor, is not multiplied by it. Default: `[graph]`.
    #[serde(default = "default_launches")]
    pub launches: Axis<Launch>,
    /// Workloads, each `name: {size: value}`; a list as a value is an axis, and axes multiply.
    #[serde(default)]
    pub workloads: Vec<Entry>,
    /// Axes shared by all of `workloads`: each is multiplied into every workload that has such a size. A
    /// size is given here or in the workload, not in both; scenarios are not touched.
    #[serde(default)]
    pub grid: Grid,
    /// Chosen points beside the grid, each `{workload: name, size: value}` with single values.
    #[serde(default)]
    pub scenarios: Vec<Scenario>,
    /// What the workload `quality` may name as its task: generated tasks with settings of their own
    /// (`hard: {recall: {pairs: 64}}`), or data from files beside the sweep (`mine: {text: {train: a.txt, ..}}`).
    #[serde(default)]
    pub tasks: BTreeMap<String, TaskChoice>,
    /// How models are trained, for `quality`.
    #[serde(default)]
    pub training: TrainingSettings,
    /// How long and how precisely to measure. It does not define a case.
    #[serde(default)]
    pub measure: Measure,
    /// Figures to draw from the rows, by name. Default: all that the rows can fill.
    #[serde(default)]
    pub figures: Option<Vec<String>>,
}

/// Sizes that all variants share.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Model width M.
    #[schemars(range(min = 1))]
    pub d_model: u64,
    /// Query heads H.
    #[schemars(range(min = 1))]
    pub n_heads: u64,
    /// Head size D. Default: `d_model / n_heads`.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub head_dim: Option<u64>,
    /// Layers of a whole decoder, for scope `model` and for `quality`. Default: 9.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub n_layers: Option<u64>,
    /// Width F of its feed-forward layers. Default: 4 times `d_model`.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub d_ff: Option<u64>,
    /// Tokens V of its vocabulary. Default: 8000; for `quality` those of the task.
    #[serde(default)]
    #[schemars(range(min = 2))]
    pub vocab: Option<u64>,
    /// What stands around its attention layers: `prefix` (the paper's decoder, over encoder states) or `llama` (a plain
    /// language model, over a prompt). Default: `prefix`.
    #[serde(default)]
    #[schemars(with = "Option<model::DecoderName>")]
    pub decoder: Option<DecoderKind>,
    /// Layers of the encoder before it, for `quality` of a task with a source: convolutions, without attention. Default: 2.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub encoder_layers: Option<u64>,
    /// States that a layer of the encoder looks at. Default: 5.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub encoder_kernel: Option<u64>,
}

/// Axes shared by all workloads of a sweep.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Grid {
    /// Sequences B, for every workload.
    #[serde(default)]
    pub batch: Option<Axis<Scalar>>,
    /// Entries L a decode step reads, for `decode`.
    #[serde(default)]
    pub context: Option<Axis<Scalar>>,
    /// Tokens T of a call, a prompt, a prefix or a filled cache, for every workload but `decode`.
    #[serde(default)]
    pub tokens: Option<Axis<Scalar>>,
    /// Tokens decoded after those, for `generate`, `trajectory` and `beam`.
    #[serde(default)]
    pub new_tokens: Option<Axis<Scalar>>,
    /// Hypotheses K of a sentence, for `beam`.
    #[serde(default)]
    pub beam: Option<Axis<Scalar>>,
    /// Element types, in place of `dtype`.
    #[serde(default)]
    pub dtype: Option<Axis<Dtype>>,
}

/// How long and how precisely to measure a case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Measure {
    /// Warm-up before the first sample, in milliseconds. Default: 200.
    pub warmup_ms: u64,
    /// Samples below which no case stops, unless `max_s` ends it. Default: 10.
    #[schemars(range(min = 1))]
    pub min_samples: usize,
    /// Samples at which a case stops. Default: 200.
    #[schemars(range(min = 1))]
    pub max_samples: usize,
    /// Half width of the 95 % interval of the median, relative to it, at which a case stops. Default: 0.02.
    #[schemars(range(min = 0))]
    pub target_ci: f64,
    /// Seconds of sampling at which a case stops. Default: 10.
    #[schemars(range(min = 0))]
    pub max_s: f64,
    /// Seed of the order of groups, of the order in which variants take turns, and of the bootstrap. Default: the
    /// sweep's `seed`.
    pub seed: Option<u64>,
    /// Bursts of samples a case is measured in, each in a process of its own; their samples are pooled, and
    /// `warmup_ms`, `max_s` and the numbers of samples are for all of them together. Default: 1, and 4 with
    /// `run --against`.
    #[schemars(range(min = 1))]
    pub replicas: Option<usize>,
    /// Pause before every replica but the first, in milliseconds. Default: 0.
    pub cooldown_ms: u64,
    /// Seconds one step of a case (building, verifying, a sample) may take before its worker is ended. Default: 300.
    #[schemars(range(min = 0))]
    pub timeout_s: f64,
    /// Memory a worker may allocate, as bytes or with a unit: `8 GiB`. Default: the memory of the machine.
    pub memory_limit: Option<ByteCount>,
    /// Whether each computing thread stays on a processor of its own. Default: true.
    pub pin: bool,
    /// Whether to measure first what the machine can do: bandwidth, matrix products, launches. Default: true.
    pub ceilings: bool,
    /// Seconds each case on a GPU runs by itself, after it was sampled, while the GPU counts its energy: at least 2 where
    /// it is not 0, which leaves energy out. Default: 0.
    #[schemars(range(min = 0))]
    pub energy_s: f64,
    /// Size of the last-level cache, where the system reports another one than there is. Default: as reported.
    pub llc_bytes: Option<ByteCount>,
}

/// Replicas of a case that is measured in two builds. Processes of one and the same binary differ by up to a fifth
/// in some cases, so that one pair of them says little of the builds.
const REPLICAS_AGAINST: usize = 4;

impl Measure {
    /// Replicas of a case, at least one.
    pub fn replicas(&self) -> usize {
        self.replicas.unwrap_or(1).max(1)
    }

    /// Asks for as many replicas as two builds need, unless the sweep has its own number.
    pub fn prepare_against(&mut self) {
        self.replicas.get_or_insert(REPLICAS_AGAINST);
    }

    /// What one of the replicas is held to, so that all of them together meet the whole.
    pub fn of_replica(&self) -> Self {
        let n = self.replicas();
        Self {
            warmup_ms: self.warmup_ms.div_ceil(n as u64),
            // Fewer than an interval takes would end on one that says nothing.
            min_samples: self
                .min_samples
                .div_ceil(n)
                .max(SAMPLES_MIN.min(self.min_samples)),
            max_samples: self.max_samples.div_ceil(n),
            // The width of an interval falls with the root of the number of samples, if they all are of one kind;
            // replicas differ, and make that of all of them wider.
            target_ci: self.target_ci * (n as f64 / 2.0).sqrt().max(1.0),
            max_s: self.max_s / n as f64,
            ..self.clone()
        }
    }
}

impl Default for Measure {
    fn default() -> Self {
        Self {
            warmup_ms: 200,
            min_samples: 10,
            max_samples: 200,
            target_ci: 0.02,
            max_s: 10.0,
            seed: None,
            replicas: None,
            cooldown_ms: 0,
            timeout_s: 300.0,
            memory_limit: None,
            pin: true,
            ceilings: true,
            energy_s: 0.0,
            llc_bytes: None,
        }
    }
}

fn default_seed() -> u64 {
    42
}

fn default_paths() -> Axis<Path> {
    Axis::one(Path::Fused)
}

fn default_regimes() -> Axis<Regime> {
    Axis::one(Regime::Hot)
}

fn default_launches() -> Axis<Launch> {
    Axis::one(Launch::Graph)
}

fn default_scopes() -> Axis<Scope> {
    Axis::one(Scope::Layer)
}
