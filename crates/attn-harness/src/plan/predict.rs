//! What a case will need: bytes in closed form, peak memory and time as estimates.
//!
//! The peak adds to weights and cache what the path holds at once: activations, one tile of scores on the
//! fused path, dense scores where the path keeps them. The floor is the larger of bytes and operations over
//! the [`Rates`] of the machine; the time adds up warm-up, samples and verification at that floor, with replicas and
//! their pauses. Peak and time are there to see a slip of the keyboard before it costs an evening; how far off they
//! were stands in every row.

use attn_core::{Cost, Geometry, Habit, Habits, ModelShape, Path, Prefix, Scope, Values, Workload};
use candle_core::DType;
use serde::Serialize;

use super::decoder_memory::{self, Running};
use super::quality::Training;
use super::spec::describe;
use super::variants::VariantPoint;
use super::whole::Way;
use super::workloads::WorkloadPoint;
use super::{Case, Setup};
use crate::error::Problem;
use crate::run::measure::WARM_SAMPLES;
use crate::sweep::{DeviceRequest, Dtype, Launch, Measure, Regime, Source};

/// Query rows whose scores the fused path holds at once.
const TILE_ROWS: f64 = 128.0;
/// Samples that verifying takes as long as: the reference computes in f64, and with dense scores.
const VERIFY_SAMPLES: f64 = 6.0;

/// What the machine can do, as far as a plan knows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rates {
    /// Bytes a second from memory.
    pub bytes_per_s: f64,
    /// Floating-point operations a second.
    pub flops_per_s: f64,
}

impl Default for Rates {
    /// 10 GB/s and 50 GFLOP/s: a small machine, where nothing was measured.
    fn default() -> Self {
        Self {
            bytes_per_s: 10e9,
            flops_per_s: 50e9,
        }
    }
}

impl Rates {
    /// The roofline floor of some work: no implementation is faster on this machine.
    pub fn floor_s(&self, cost: &Cost) -> f64 {
        (cost.bytes_moved as f64 / self.bytes_per_s).max(cost.flops as f64 / self.flops_per_s)
    }
}

/// What the variants of a group share.
pub(super) struct Shared {
    pub(super) group: usize,
    pub(super) workload: Workload,
    pub(super) scope: Scope,
    /// Of a whole decoder, its sizes.
    pub(super) model: Option<ModelShape>,
    pub(super) way: Way,
    pub(super) device: DeviceRequest,
    pub(super) regime: Regime,
    pub(super) launch: Option<Launch>,
    pub(super) seed: u64,
    pub(super) steps_per_sample: usize,
}

/// All that defines a case, in the order that is hashed. Changing it changes the id of every case there is.
#[derive(Serialize)]
struct Identity<'a> {
    version: u32,
    variant: &'a str,
    params: &'a attn_core::Params,
    dims: attn_core::ModelDims,
    workload: Workload,
    scope: Scope,
    path: Path,
    dtype: Dtype,
    device: DeviceRequest,
    seed: u64,
    /// Left out where it is hot: ids are older than regimes.
    #[serde(skip_serializing_if = "Regime::is_hot")]
    regime: Regime,
    /// Left out where it is the usual one, or none.
    #[serde(skip_serializing_if = "Launch::is_graph")]
    launch: Launch,
    /// Left out for single layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<ModelShape>,
    /// Left out where there are none to choose, and where they are all there: ids are older than habits.
    #[serde(skip_serializing_if = "Option::is_none")]
    habits: Option<Habits>,
    /// Left out for what searches nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix: Option<Prefix>,
    /// Left out for what trains nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    training: Option<&'a Training>,
}

/// The hash of all that defines a case.
pub(super) fn id_of(case: &Case) -> String {
    let identity = Identity {
        version: 1,
        variant: case.variant.key,
        params: &case.params,
        dims: case.dims,
        workload: case.workload,
        scope: case.scope,
        path: case.path,
        dtype: case.dtype,
        device: case.device,
        seed: case.seed,
        regime: case.regime,
        launch: case.launch.unwrap_or_default(),
        model: case.model,
        habits: case.habits.filter(|habits| *habits != Habits::ALL),
        prefix: case.prefix,
        training: case.quality.as_ref().map(|quality| &quality.training),
    };
    let mut hasher = blake3::Hasher::new();
    // Writing into a hasher cannot fail, and no field of an identity can refuse to be written.
    let written = serde_json::to_writer(&mut hasher, &identity);
    debug_assert!(written.is_ok());
    hasher.finalize().to_hex()[..16].to_string()
}

impl Shared {
    /// The case of one variant.
    pub(super) fn case(&self, point: &VariantPoint, measure: &Measure, setup: &Setup<'_>) -> Case {
        let (geometry, batch) = (&point.geometry, self.workload.batch());
        let Way {
            path,
            dtype,
            habits,
            prefix,
        } = self.way;
        let e = dtype.size_in_bytes();
        let whole = self
            .model
            .and_then(|model| model.cost(geometry, &self.workload, e));
        let cost = whole.unwrap_or_else(|| geometry.cost(&self.workload, self.scope, e));
        let cache_capacity = match self.workload {
            // The step before a sample leaves context - 1 tokens; a sample appends all its steps.
            Workload::Decode { context, .. } => context - 1 + self.steps_per_sample,
            other => other.cached_tokens(),
        };
        let has_kernels = path == Path::Fused && !matches!(self.device, DeviceRequest::Cuda(_));
        let (kv_bytes, kv_capacity_bytes, weights_bytes, state_bytes, working) = match &self.model {
            None => (
                geometry.kv_bytes(batch, self.workload.cached_tokens(), e),
                geometry.kv_bytes(batch, cache_capacity, e),
                (geometry.parameters * e) as u64,
                geometry.kv_state_bytes(batch),
                working_bytes(geometry, &self.workload, path, has_kernels, e),
            ),
            Some(shape) => {
                let kv_bytes = shape.kv_bytes(geometry, &self.workload, prefix, e);
                let sequences = batch * self.workload.beam();
                let working = decoder_memory::working_bytes(&Running {
                    layer: geometry,
                    shape,
                    workload: &self.workload,
                    habits,
                    prefix,
                    kv_bytes,
                    element_bytes: e,
                });
                (
                    kv_bytes,
                    kv_bytes,
                    shape.parameters(geometry) * e as u64,
                    shape.n_layers as u64 * geometry.kv_state_bytes(sequences),
                    working,
                )
            }
        };
        let cached = kv_capacity_bytes + state_bytes + weights_bytes;
        let predicted_peak_bytes = cached.saturating_add(working as u64);

        let predicted_floor_s = setup.rates.floor_s(&cost);
        let sample_s = predicted_floor_s * self.steps_per_sample as f64;
        let memory_bytes = memory_bytes(measure, setup);
        let mut case = Case {
            id: String::new(),
            group: self.group,
            unit: self.group,
            variant: point.variant,
            label: point.label.clone(),
            params: point.params.clone(),
            dims: point.dims,
            workload: self.workload,
            scope: self.scope,
            model: self.model,
            path,
            dtype,
            habits,
            prefix,
            device: self.device,
            regime: self.regime,
            launch: self.launch,
            seed: self.seed,
            geometry: geometry.clone(),
            cost,
            steps_per_sample: self.steps_per_sample,
            cache_capacity,
            kv_bytes,
            kv_capacity_bytes,
            weights_bytes,
            predicted_peak_bytes,
            predicted_floor_s,
            predicted_time_s: predicted_time_s(measure, sample_s),
            unsupported: self.unsupported(setup),
            is_defined: self.undefined().is_none(),
            predicted_oom: memory_bytes.is_some_and(|memory| predicted_peak_bytes > memory),
            dominated_by: None,
            fair: point.fair.clone(),
            quality: None,
        };
        case.id = id_of(&case);
        case
    }

    fn unsupported(&self, setup: &Setup<'_>) -> Option<String> {
        if let Err(missing) = (setup.device)(self.device) {
            return Some(missing.reason());
        }
        self.undefined()
    }

    /// Why there is no such case on any machine.
    fn undefined(&self) -> Option<String> {
        let Way {
            path, dtype, habits, ..
        } = self.way;
        // Without the habit of f32 the seed's way is in bf16; with it a sweep that asks for another type is refused.
        let is_chosen = habits.is_some_and(|habits| !habits.contains(Habit::F32)) && dtype == Dtype::BF16;
        (!is_chosen && !path.supports(DType::from(dtype)))
            .then(|| format!("{path} is not defined for {dtype}"))
    }
}

/// Memory that cases may take, where it is known.
pub(super) fn memory_bytes(measure: &Measure, setup: &Setup<'_>) -> Option<u64> {
    measure.memory_limit.map(|limit| limit.0).or(setup.memory_bytes)
}

/// Time a case takes at most: verifying, in each replica its part of the warm-up, and all samples together, which end
/// early where the interval is narrow enough before.
fn predicted_time_s(measure: &Measure, sample_s: f64) -> f64 {
    let replicas = measure.replicas() as f64;
    let warmup_s = (measure.of_replica().warmup_ms as f64 * 1e-3).max(WARM_SAMPLES as f64 * sample_s);
    let sampling_s = (sample_s * measure.max_samples as f64)
        .min(measure.max_s)
        .max(sample_s * replicas);
    VERIFY_SAMPLES * sample_s
        + replicas * warmup_s
        + (replicas - 1.0) * measure.cooldown_ms as f64 * 1e-3
        + sampling_s
}

/// Bytes beside weights and cache. With kernels no scores are kept for a backward pass.
fn working_bytes(
    geometry: &Geometry,
    workload: &Workload,
    path: Path,
    has_kernels: bool,
    element_bytes: usize,
) -> f64 {
    let (b, e) = (workload.batch() as f64, element_bytes as f64);
    let (m, h, h_kv) = (
        geometry.d_model as f64,
        geometry.n_heads as f64,
        geometry.n_kv_heads as f64,
    );
    let width = (geometry.score_dim + geometry.v_dim) as f64;
    let parameters = geometry.parameters as f64;
    // Input and output, queries and attention output of every head, keys and values.
    let forward = |t: f64| b * t * e * (2.0 * m + (h + h_kv) * width);
    // Scores, their mask and their softmax.
    let dense = |t: f64| 3.0 * 4.0 * b * h * t * t;
    let whole = |t: f64| match path {
        Path::Seedlike => forward(t) + dense(t),
        // Scores of a tile, and about half of their weights beside them.
        Path::Fused => forward(t) + 1.5 * 4.0 * b * h * TILE_ROWS.min(t) * t,
    };
    match *workload {
        Workload::Decode { .. } | Workload::Trajectory { .. } => {
            let slots = geometry.slots(workload.cached_tokens()) as f64;
            let one = forward(1.0) + 2.0 * 4.0 * b * h * slots;
            // Concatenated anew at every step, with heads expanded.
            if path == Path::Seedlike {
                one + 2.0 * b * h * slots * width * e
            } else {
                one
            }
        }
        Workload::Prefill { tokens, .. } => whole(tokens as f64),
        // Activations are kept for the backward pass, gradients come beside the weights, which the backward pass
        // turns. Scores are kept too, but where kernels compute them again: these have a gradient of keys and values
        // for every head.
        Workload::TrainStep { tokens, .. } => {
            let t = tokens as f64;
            let scores = if has_kernels {
                4.0 * b * h * t * width
            } else {
                dense(t)
            };
            5.0 * forward(t) + scores + 2.0 * parameters * e
        }
        // No layer searches by itself.
        Workload::Beam { .. } => 0.0,
        Workload::Generate { tokens, .. } if path == Path::Seedlike => whole(tokens as f64),
        // One token of the prompt is a query; a latent is decompressed before it is split into keys and values.
        Workload::Generate { tokens, .. } => {
            let copies = match geometry.entry.values {
                Values::Own(_) => 1.0,
                Values::KeyPrefix(_) => 2.0,
            };
            b * tokens as f64 * e * (2.0 * m + copies * h_kv * width)
        }
    }
}

/// Refuses sizes whose products leave 64 bits: the closed forms count in u64.
pub(super) fn check_magnitude(
    source: &Source,
    workload: &WorkloadPoint,
    variants: &[VariantPoint],
    model: Option<&ModelShape>,
    found: &mut Vec<Problem>,
) {
    let is_generation = workload.workload.scopes().contains(&Scope::Model);
    let model = model.filter(|_| is_generation);
    let too_large = variants.iter().find(|variant| {
        let whole = model.map(|model| decoder_memory::bound(&variant.geometry, model, &workload.workload));
        !countable(&variant.geometry, &workload.workload) || whole.is_some_and(|bound| bound > COUNTABLE)
    });
    if let Some(variant) = too_large {
        let (at, point_words) = (&workload.at, describe(&workload.workload));
        let message = format!(
            "`{at}` is too large to count in 64 bits for `{}`: {point_words}",
            variant.at
        );
        let problem = Problem::new(message).with_help("check the sizes for a zero too many");
        found.push(source.point(problem, at, ""));
    }
}

/// Beyond this the closed forms, which count in u64, could overflow.
const COUNTABLE: f64 = (1_u64 << 62) as f64;

/// Whether the closed forms of a layer stay within 64 bits.
pub(super) fn countable(geometry: &Geometry, workload: &Workload) -> bool {
    bound(geometry, workload) <= COUNTABLE
}

/// More than any closed form of [`attn_core::cost`] reaches.
fn bound(g: &Geometry, workload: &Workload) -> f64 {
    let (steps, t) = match *workload {
        Workload::Decode { context, .. } => (1.0, context as f64),
        Workload::Prefill { tokens, .. } | Workload::TrainStep { tokens, .. } => {
            (tokens as f64, tokens as f64)
        }
        Workload::Generate {
            tokens, new_tokens, ..
        }
        | Workload::Trajectory {
            tokens, new_tokens, ..
        }
        | Workload::Beam {
            tokens, new_tokens, ..
        } => ((tokens + new_tokens) as f64, (tokens + new_tokens) as f64),
    };
    let widths = (g.score_dim + g.v_dim + g.entry.key + g.entry.values.width() + g.d_model) as f64;
    let heads = (g.n_heads + g.n_kv_heads + g.entry.heads) as f64;
    let macs = (g.forward_macs.query + g.forward_macs.key + g.decode_macs.query + g.decode_macs.key) as f64;
    let sequences = workload.batch() as f64 * workload.beam() as f64;
    let work = sequences * (steps * macs + steps * t * heads * widths + t * heads * widths);
    // A multiply-add counts two, the backward pass twice the forward one, an element at most 4 bytes.
    12.0 * (work + steps * g.parameters as f64)
}
