//! The workload `quality`: which models are trained, on what, and how.

use std::collections::BTreeMap;
use std::path::Path as FilePath;
use std::sync::Arc;

use attn_core::{Cost, DecoderKind, Habits, ModelShape, ParamValue, Path, Scope, Workload};
use attn_quality::{ModelSizes, TaskModelConfig, TrainingOptions};
use attn_tasks::{SourceKind, TaskConfig, TaskSpec};
use candle_core::DType;
use serde::{Deserialize, Serialize};

use super::axes;
use super::predict::{self, memory_bytes};
use super::spec::SizeSpec;
use super::variants::VariantPoint;
use super::workloads::{self, WorkloadPoint};
use super::{Case, Setup};
use crate::device::Resolved;
use crate::error::Problem;
use crate::locate::KeyPath;
use crate::sweep::{
    Axis, DeviceRequest, Dtype, Entry, Launch, Regime, Scalar, Sweep, TaskChoice, TrainingSettings, unknown,
};

/// Name of the workload.
pub const QUALITY: &str = "quality";

/// What it is, in a sentence.
pub const QUALITY_SUMMARY: &str =
    "models trained on a task, once for each seed, and tested token by token through their caches";

/// The settings of the workload, each an axis, the outermost first; `task` is a word.
pub const QUALITY_SETTINGS: [SizeSpec; 4] = [
    SizeSpec {
        name: "task",
        default: None,
        max: 0,
        help: "a name under `tasks`, or a generated task with its defaults",
    },
    SizeSpec {
        name: "downsample",
        default: Some(1),
        max: 64,
        help: "states of the encoder that are made one by their mean before the cache",
    },
    SizeSpec {
        name: "steps",
        default: Some(1000),
        max: 100_000_000,
        help: "updates",
    },
    SizeSpec {
        name: "batch",
        default: Some(16),
        max: 1 << 16,
        help: "examples of an update",
    },
];

const MAX_SEEDS: usize = 1000;
const MAX_ENCODER_LAYERS: u64 = 64;
const MAX_KERNEL: u64 = 255;
/// What an update of a small model takes whatever its size: some thousand operations are launched.
const UPDATE_OVERHEAD_S: f64 = 2e-3;
/// Part of the machine's rate that one thread has in small products.
const EFFICIENCY: f64 = 0.4;

/// What a case of the workload is beside its variant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// The task's name in the sweep.
    pub task_name: String,
    /// The task.
    pub task: TaskChoice,
    /// Sizes of the model around its attention.
    pub sizes: ModelSizes,
    /// Tokens V of its vocabulary.
    pub vocab: usize,
    /// How it is trained.
    pub options: TrainingOptions,
    /// Seeds of weights and order of the data: a training for each.
    pub seeds: Vec<u64>,
    /// Examples of the test.
    pub test_examples: u64,
}

impl Training {
    /// What is told apart as points of a sweep: task, updates, states that are made one, and learning rate.
    pub(super) fn point(&self) -> (String, u64, usize, u64) {
        let lr = self.options.lr.to_bits();
        (
            self.task_name.clone(),
            self.options.steps,
            self.sizes.downsample,
            lr,
        )
    }

    /// The model that is trained, of a variant.
    pub fn model(&self, spec: &TaskSpec, attention: Arc<dyn attn_core::LayerConfig>) -> TaskModelConfig {
        let spec = TaskSpec {
            vocab: self.vocab,
            ..*spec
        };
        TaskModelConfig::new(&spec, attention, &self.sizes)
    }
}

/// A case of the workload, with what follows from its task and its variant.
#[derive(Debug, Clone, Serialize)]
pub struct Quality {
    /// What is trained, and how.
    #[serde(flatten)]
    pub training: Training,
    /// What a model has to know of the task.
    #[serde(skip)]
    pub spec: TaskSpec,
    /// Parameters of the whole model.
    pub parameters: u64,
    /// Processors of a training on the CPU.
    pub threads: usize,
}

/// A point of the workload.
pub(super) struct QualityPoint {
    pub(super) at: WorkloadPoint,
    training: Training,
    spec: TaskSpec,
}

/// The entries of the workload, with their places.
fn entries(sweep: &Sweep) -> impl Iterator<Item = (KeyPath, &Entry)> {
    let entries = sweep.file.workloads.iter().enumerate();
    entries
        .filter(|(_, entry)| entry.name == QUALITY)
        .map(|(i, entry)| (KeyPath::of("workloads").index(i).key(QUALITY), entry))
}

/// Whether a sweep trains.
pub(super) fn is_asked(sweep: &Sweep) -> bool {
    entries(sweep).next().is_some()
}

/// Every point of the workload; its tasks are opened, so that bad data end a sweep before it begins.
pub(super) fn expand(sweep: &Sweep, found: &mut Vec<Problem>) -> Vec<QualityPoint> {
    let source = &sweep.source;
    let mut tasks = BTreeMap::new();
    let mut points: Vec<QualityPoint> = Vec::new();
    check_settings(sweep, found);
    for (at, entry) in entries(sweep) {
        let before = found.len();
        let names: Vec<&str> = QUALITY_SETTINGS.iter().map(|setting| setting.name).collect();
        for name in entry
            .settings
            .keys()
            .filter(|name| !names.contains(&name.as_str()))
        {
            let problem = unknown("setting of quality:", name, &names);
            found.push(source.point(problem, &at.key(name), ""));
        }
        let task_names = task_names(sweep, entry, &at, found);
        let [_, downsample, steps, batch] = QUALITY_SETTINGS.map(|setting| match setting.name {
            "task" => Vec::new(),
            name => match entry.settings.get(name) {
                Some(axis) => workloads::values(source, &setting, axis, &at.key(name), found),
                None => setting.default.map(|value| value as usize).into_iter().collect(),
            },
        });
        for (name, place) in &task_names {
            let opened = tasks
                .entry(name.clone())
                .or_insert_with(|| open(sweep, name, place, found));
            let Some((task, spec)) = opened.clone() else {
                continue;
            };
            if found.len() > before {
                continue;
            }
            for sizes in axes::product(&[downsample.clone(), steps.clone(), batch.clone()]) {
                let [downsample, steps, batch] = sizes[..] else {
                    continue;
                };
                let sizes = [downsample, steps, batch];
                points.extend(rates(sweep, &at, name, &task, &spec, sizes, found));
            }
        }
    }
    check_repeats(sweep, &points, found);
    points
}

/// The names of the tasks of an entry, with their places.
fn task_names(
    sweep: &Sweep,
    entry: &Entry,
    at: &KeyPath,
    found: &mut Vec<Problem>,
) -> Vec<(String, KeyPath)> {
    let source = &sweep.source;
    let place = at.key("task");
    let Some(axis) = entry.settings.get("task") else {
        let problem = Problem::new(format!("`{place}` is missing: {}", QUALITY_SETTINGS[0].help))
            .with_help("add it, for example task: recall; `attn-bench list workloads` names them");
        found.push(source.point(problem, at, "here"));
        return Vec::new();
    };
    axes::check(source, &place, axis, |Scalar(value)| value.to_string(), found);
    let mut names = Vec::new();
    for (i, Scalar(value)) in axis.values.iter().enumerate() {
        let place = if axis.is_list {
            place.index(i)
        } else {
            place.clone()
        };
        match value {
            ParamValue::Text(name) => names.push((name.clone(), place)),
            other => {
                let problem = Problem::new(format!("`{place}` is {other}, expected the name of a task"));
                found.push(source.point(problem, &place, ""));
            }
        }
    }
    names
}

/// A task by its name, and what models need to know of it.
fn open(
    sweep: &Sweep,
    name: &str,
    place: &KeyPath,
    found: &mut Vec<Problem>,
) -> Option<(TaskChoice, TaskSpec)> {
    let source = &sweep.source;
    let own = sweep.file.tasks.get(name);
    let Some(choice) = own
        .cloned()
        .or_else(|| TaskConfig::named(name).map(TaskChoice::Generated))
    else {
        let generated = attn_tasks::names().iter().map(|(name, _)| *name);
        let names: Vec<&str> = sweep
            .file
            .tasks
            .keys()
            .map(String::as_str)
            .chain(generated)
            .collect();
        found.push(source.point(unknown("task", name, &names), place, ""));
        return None;
    };
    match choice.open(base(sweep)) {
        Ok(task) => {
            let spec = task.task().spec();
            Some((choice, spec))
        }
        Err(reason) => {
            let at = match own {
                Some(_) => KeyPath::of("tasks").key(name),
                None => place.clone(),
            };
            let problem = Problem::new(format!("task `{name}` cannot be used: {reason}"));
            found.push(source.point(problem, &at, ""));
            None
        }
    }
}

/// Where relative paths of a sweep's data begin: beside the sweep.
pub(super) fn base(sweep: &Sweep) -> &FilePath {
    match sweep.source.path.parent() {
        Some(parent) if parent != FilePath::new("") => parent,
        _ => FilePath::new("."),
    }
}

/// The points of a task at some sizes, one for each learning rate; none where the task cannot have them.
fn rates(
    sweep: &Sweep,
    at: &KeyPath,
    name: &str,
    task: &TaskChoice,
    spec: &TaskSpec,
    [downsample, steps, batch]: [usize; 3],
    found: &mut Vec<Problem>,
) -> Vec<QualityPoint> {
    let (file, source) = (&sweep.file, &sweep.source);
    let has_source = spec.source != SourceKind::None;
    if downsample > 1 && !has_source {
        let problem = Problem::new(format!(
            "`{at}` makes {downsample} states of an encoder one, but task `{name}` has no source and its model no encoder"
        ))
        .with_help("remove downsample, or choose a task with a source");
        found.push(source.point(problem, &at.key("downsample"), ""));
        return Vec::new();
    }
    let vocab = file.model.vocab.map_or(spec.vocab, |vocab| vocab as usize);
    if vocab < spec.vocab {
        let problem = Problem::new(format!(
            "`model.vocab` is {vocab}, but task `{name}` has {} tokens",
            spec.vocab
        ))
        .with_help("remove model.vocab: a model then has the tokens of its task");
        let problem = source.point(problem, &KeyPath::of("model").key("vocab"), "vocab");
        found.push(source.point(problem, &at.key("task"), "task"));
        return Vec::new();
    }
    let kind = if has_source {
        DecoderKind::Prefix
    } else {
        DecoderKind::Llama
    };
    if let Some(given) = file.model.decoder.filter(|given| *given != kind) {
        let problem = Problem::new(format!(
            "`model.decoder` is {}, but the model of task `{name}` is a {}: it {} a source",
            given.name(),
            kind.name(),
            if has_source { "has" } else { "has no" }
        ));
        let problem = source.point(problem, &KeyPath::of("model").key("decoder"), "decoder");
        found.push(source.point(problem, &at.key("task"), "task"));
        return Vec::new();
    }
    let model = &file.model;
    let training = |lr: f64| Training {
        task_name: name.to_string(),
        task: task.clone(),
        sizes: ModelSizes {
            n_layers: model.n_layers.unwrap_or(super::whole::LAYERS) as usize,
            d_ff: model.d_ff.unwrap_or(model.d_model.saturating_mul(4)) as usize,
            encoder_layers: model.encoder_layers.unwrap_or(2) as usize,
            encoder_kernel: model.encoder_kernel.unwrap_or(5) as usize,
            downsample,
        },
        vocab,
        options: file.training.options(lr, steps, batch),
        seeds: (0..file.training.seeds as u64)
            .map(|i| file.seed.wrapping_add(i))
            .collect(),
        test_examples: file.training.test_examples,
    };
    let states = if has_source {
        spec.max_source.div_ceil(downsample)
    } else {
        0
    };
    let tokens = states + spec.max_text.saturating_sub(1).max(1);
    let point = |lr: &f64| QualityPoint {
        at: WorkloadPoint {
            workload: Workload::TrainStep { batch, tokens },
            at: at.clone(),
        },
        training: training(*lr),
        spec: *spec,
    };
    file.training.lr.values.iter().map(point).collect()
}

/// Checks what all trainings of a sweep share, and that nothing given would do nothing.
fn check_settings(sweep: &Sweep, found: &mut Vec<Problem>) {
    let (file, source) = (&sweep.file, &sweep.source);
    if !is_asked(sweep) {
        let given = [
            (
                KeyPath::of("training"),
                file.training != TrainingSettings::default(),
            ),
            (KeyPath::of("tasks"), !file.tasks.is_empty()),
            (
                KeyPath::of("model").key("encoder_layers"),
                file.model.encoder_layers.is_some(),
            ),
            (
                KeyPath::of("model").key("encoder_kernel"),
                file.model.encoder_kernel.is_some(),
            ),
        ];
        for (at, _) in given.into_iter().filter(|(_, is_given)| *is_given) {
            let problem = Problem::new(format!("`{at}` is given, but `workloads` has no quality"))
                .with_help("remove it, or add a workload as in quality: {task: recall, steps: 1000}");
            found.push(source.point(problem, &at, ""));
        }
        return;
    }
    let training = &file.training;
    let at = KeyPath::of("training");
    axes::check(source, &at.key("lr"), &training.lr, f64::to_string, found);
    let mut require = |ok: bool, at: &KeyPath, got: String, expected: String| {
        if !ok {
            let problem = Problem::new(format!("`{at}` is {got}, expected {expected}"));
            found.push(source.point(problem, at, ""));
        }
    };
    let range = |most: u64| format!("an integer from 1 to {most}");
    for (key, value, most) in [
        ("seeds", training.seeds as u64, MAX_SEEDS as u64),
        ("threads", training.threads as u64, 4096),
        ("test_examples", training.test_examples, 1 << 40),
    ] {
        require(
            (1..=most).contains(&value),
            &at.key(key),
            value.to_string(),
            range(most),
        );
    }
    for (key, value) in [("beta1", training.beta1), ("beta2", training.beta2)] {
        let ok = (0.0..1.0).contains(&value);
        require(ok, &at.key(key), value.to_string(), "0 to below 1".to_string());
    }
    for (key, value) in [
        ("weight_decay", training.weight_decay),
        ("clip_norm", training.clip_norm),
    ] {
        let ok = value.is_finite() && value >= 0.0;
        require(
            ok,
            &at.key(key),
            value.to_string(),
            "a number of at least 0".to_string(),
        );
    }
    let rate = at.key("lr");
    for (i, lr) in training.lr.values.iter().enumerate() {
        let rate = if training.lr.is_list {
            rate.index(i)
        } else {
            rate.clone()
        };
        let ok = lr.is_finite() && *lr > 0.0;
        require(ok, &rate, lr.to_string(), "a positive number".to_string());
    }
    if let Err(attn_quality::Error::Input { what, got, expected }) = training.options(1.0, 1, 1).check() {
        require(false, &at.key(what), got, expected);
    }
    let model = KeyPath::of("model");
    for (key, value, most) in [
        ("encoder_layers", file.model.encoder_layers, MAX_ENCODER_LAYERS),
        ("encoder_kernel", file.model.encoder_kernel, MAX_KERNEL),
    ] {
        let value = value.unwrap_or(1);
        require(
            (1..=most).contains(&value),
            &model.key(key),
            value.to_string(),
            range(most),
        );
    }
    let kernel = file.model.encoder_kernel.unwrap_or(1);
    let ahead_as_back = "an odd number: a layer looks as far ahead as back".to_string();
    require(
        kernel % 2 == 1,
        &model.key("encoder_kernel"),
        kernel.to_string(),
        ahead_as_back,
    );
}

fn check_repeats(sweep: &Sweep, points: &[QualityPoint], found: &mut Vec<Problem>) {
    let mut repeats = axes::Repeats::new();
    for (i, point) in points.iter().enumerate() {
        let same = |other: &&QualityPoint| other.training == point.training && other.at.at != point.at.at;
        if let Some(first) = points[..i].iter().find(same) {
            let words = format!("quality of {}", point.training.task_name);
            repeats.note(&first.at.at, &point.at.at, &words);
        }
    }
    repeats.report(&sweep.source, found);
}

impl Quality {
    /// Trainings that there is room for beside each other, where they are on the CPU.
    pub(crate) fn beside_each_other(&self, device: DeviceRequest) -> usize {
        match crate::device::resolve(device) {
            Ok(Resolved::Cpu) => {
                let processors = std::thread::available_parallelism().map_or(1, usize::from);
                (processors / self.threads.max(1)).max(1)
            }
            _ => 1,
        }
    }
}

impl QualityPoint {
    /// The cases of some variants: each is a group by itself, since nothing of it is timed in turns.
    pub(super) fn cases(
        &self,
        sweep: &Sweep,
        variants: &[VariantPoint],
        dtypes: &Axis<Dtype>,
        setup: &Setup<'_>,
        first_group: usize,
        found: &mut Vec<Problem>,
    ) -> Vec<Case> {
        let mut cases = Vec::new();
        for &path in &sweep.file.paths.values {
            for &dtype in &dtypes.values {
                for variant in variants {
                    let group = first_group + cases.len();
                    match self.case(sweep, variant, path, dtype, setup, group) {
                        Ok(case) => cases.push(case),
                        Err(error) => {
                            let problem = Problem::new(format!("`{}` makes no model: {error}", variant.at));
                            found.push(sweep.source.point(problem, &variant.at, ""));
                        }
                    }
                }
            }
        }
        cases
    }

    fn case(
        &self,
        sweep: &Sweep,
        point: &VariantPoint,
        path: Path,
        dtype: Dtype,
        setup: &Setup<'_>,
        group: usize,
    ) -> attn_core::Result<Case> {
        let (file, training) = (&sweep.file, &self.training);
        let attention = point.variant.configure(&point.dims, &point.params)?;
        let model = training.model(&self.spec, attention.into());
        let parameters = model.parameters() as u64;
        let workload = self.at.workload;
        let e = dtype.size_in_bytes();
        let cost = self.cost(&point.geometry, parameters);
        let weights_bytes = parameters * 4;
        let kv_bytes = model.kv_bytes(&self.spec, e);
        let predicted_peak_bytes = self.peak_bytes(parameters);
        let update_s = (cost.flops as f64 / (EFFICIENCY * setup.rates.flops_per_s)).max(UPDATE_OVERHEAD_S);
        let updates = training.options.steps as f64 * training.seeds.len() as f64;
        let memory = memory_bytes(&file.measure, setup);
        let quality = Quality {
            training: training.clone(),
            spec: self.spec,
            parameters,
            threads: file.training.threads,
        };
        let mut case = Case {
            id: String::new(),
            group,
            unit: group,
            variant: point.variant,
            label: point.label.clone(),
            params: point.params.clone(),
            dims: point.dims,
            workload,
            scope: Scope::Model,
            model: Some(ModelShape {
                n_layers: training.sizes.n_layers,
                d_ff: training.sizes.d_ff,
                vocab: training.vocab,
                decoder: model.decoder.kind,
            }),
            path,
            dtype,
            habits: (path == Path::Seedlike).then_some(Habits::ALL),
            prefix: None,
            device: file.device,
            regime: Regime::Hot,
            launch: None::<Launch>,
            seed: file.seed,
            geometry: point.geometry.clone(),
            cost,
            steps_per_sample: 1,
            cache_capacity: workload.cached_tokens(),
            kv_bytes,
            kv_capacity_bytes: kv_bytes,
            weights_bytes,
            predicted_peak_bytes,
            predicted_floor_s: setup.rates.floor_s(&cost),
            predicted_time_s: updates * update_s,
            unsupported: match (setup.device)(file.device) {
                Err(missing) => Some(missing.reason()),
                Ok(_) if !path.supports(DType::from(dtype)) => {
                    Some(format!("{path} is not defined for {dtype}"))
                }
                Ok(_) => None,
            },
            is_defined: path.supports(DType::from(dtype)),
            predicted_oom: memory.is_some_and(|memory| predicted_peak_bytes > memory),
            dominated_by: None,
            fair: point.fair.clone(),
            quality: Some(Box::new(quality)),
        };
        case.id = predict::id_of(&case);
        Ok(case)
    }

    /// Operations of an update: those of the attention layers, and three products of every other weight with every token.
    /// The least bytes it moves are not modelled.
    fn cost(&self, layer: &attn_core::Geometry, parameters: u64) -> Cost {
        let n_layers = self.training.sizes.n_layers as u64;
        let attention = layer.cost(&self.at.workload, Scope::Layer, 4).flops;
        let others = parameters.saturating_sub(n_layers * layer.parameters as u64);
        let Workload::TrainStep { batch, tokens } = self.at.workload else {
            return Cost {
                flops: 0,
                bytes_moved: 0,
            };
        };
        Cost {
            flops: n_layers * attention + 6 * others * (batch * tokens) as u64,
            bytes_moved: 0,
        }
    }

    /// Weights, gradients, two means of the optimiser, checkpoints that are averaged, and what a backward pass keeps.
    fn peak_bytes(&self, parameters: u64) -> u64 {
        let Workload::TrainStep { batch, tokens } = self.at.workload else {
            return 0;
        };
        let sizes = &self.training.sizes;
        let kept = 4 + self.training.options.average as u64;
        // A dozen states of the width of the feed-forward layer in each layer, and logits with their gradients.
        let layers = (sizes.n_layers + sizes.encoder_layers) * 6 * sizes.d_ff;
        let states = (batch * tokens) as u64 * (layers + 6 * self.training.vocab) as u64;
        4 * (kept * parameters + states)
    }
}
