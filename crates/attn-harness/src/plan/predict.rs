//! What a case will need: bytes in closed form, peak memory and time as estimates.
//!
//! The peak adds to weights and cache what the path holds at once: activations, one tile of scores on the
//! fused path, dense scores where the path keeps them. The time is the larger of bytes over 10 GB/s and
//! operations over 50 GFLOP/s, rates of a small machine, times the samples that fit `measure`. Both are there
//! to see a slip of the keyboard before it costs an evening, not to be compared with measurements.

use attn_core::{Geometry, Path, Scope, Workload};
use candle_core::DType;
use serde::Serialize;

use super::spec::describe;
use super::variants::VariantPoint;
use super::workloads::WorkloadPoint;
use super::{Case, Setup};
use crate::error::Problem;
use crate::sweep::{DeviceRequest, Dtype, Measure, Regime, Source};

const BYTES_PER_S: f64 = 10e9;
const FLOPS_PER_S: f64 = 50e9;
/// Query rows whose scores the fused path holds at once.
const TILE_ROWS: f64 = 256.0;

/// What all cases of a group share.
pub(super) struct Shared {
    pub(super) group: usize,
    pub(super) workload: Workload,
    pub(super) scope: Scope,
    pub(super) path: Path,
    pub(super) dtype: Dtype,
    pub(super) device: DeviceRequest,
    pub(super) regime: Regime,
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
}

impl Shared {
    /// The case of one variant.
    pub(super) fn case(&self, point: &VariantPoint, measure: &Measure, setup: &Setup<'_>) -> Case {
        let (geometry, batch) = (&point.geometry, self.workload.batch());
        let e = self.dtype.size_in_bytes();
        let cost = geometry.cost(&self.workload, self.scope, e);
        let cache_capacity = match self.workload {
            // The step before a sample leaves context - 1 tokens; a sample appends all its steps.
            Workload::Decode { context, .. } => context - 1 + self.steps_per_sample,
            other => other.cached_tokens(),
        };
        let kv_capacity_bytes = geometry.kv_bytes(batch, cache_capacity, e);
        let weights_bytes = (geometry.parameters * e) as u64;
        let cached = kv_capacity_bytes + geometry.kv_state_bytes(batch) + weights_bytes;
        let working = working_bytes(geometry, &self.workload, self.path, e);
        let predicted_peak_bytes = cached.saturating_add(working as u64);

        let run_s = (cost.bytes_moved as f64 / BYTES_PER_S).max(cost.flops as f64 / FLOPS_PER_S);
        let sample_s = run_s * self.steps_per_sample as f64;
        let sampling_s = (sample_s * measure.max_samples as f64)
            .min(measure.max_s)
            .max(sample_s);
        Case {
            id: self.id(point),
            group: self.group,
            variant: point.variant,
            label: point.label.clone(),
            params: point.params.clone(),
            dims: point.dims,
            workload: self.workload,
            scope: self.scope,
            path: self.path,
            dtype: self.dtype,
            device: self.device,
            regime: self.regime,
            seed: self.seed,
            geometry: geometry.clone(),
            cost,
            steps_per_sample: self.steps_per_sample,
            cache_capacity,
            kv_bytes: geometry.kv_bytes(batch, self.workload.cached_tokens(), e),
            kv_capacity_bytes,
            weights_bytes,
            predicted_peak_bytes,
            predicted_time_s: measure.warmup_ms as f64 * 1e-3 + sampling_s,
            unsupported: self.unsupported(setup),
            predicted_oom: setup
                .memory_bytes
                .is_some_and(|memory| predicted_peak_bytes > memory),
        }
    }

    fn id(&self, point: &VariantPoint) -> String {
        let identity = Identity {
            version: 1,
            variant: point.variant.key,
            params: &point.params,
            dims: point.dims,
            workload: self.workload,
            scope: self.scope,
            path: self.path,
            dtype: self.dtype,
            device: self.device,
            seed: self.seed,
            regime: self.regime,
        };
        let mut hasher = blake3::Hasher::new();
        // Writing into a hasher cannot fail, and no field of an identity can refuse to be written.
        let written = serde_json::to_writer(&mut hasher, &identity);
        debug_assert!(written.is_ok());
        hasher.finalize().to_hex()[..16].to_string()
    }

    fn unsupported(&self, setup: &Setup<'_>) -> Option<String> {
        if matches!(self.device, DeviceRequest::Cuda(_)) && !setup.cuda {
            return Some("cuda is not supported by this version, use device cpu".to_string());
        }
        let (path, dtype) = (self.path, self.dtype);
        (!path.supports(DType::from(dtype))).then(|| format!("{path} is not defined for {dtype}"))
    }
}

/// Bytes beside weights and cache.
fn working_bytes(geometry: &Geometry, workload: &Workload, path: Path, element_bytes: usize) -> f64 {
    let (b, e) = (workload.batch() as f64, element_bytes as f64);
    let (m, h, h_kv) = (
        geometry.d_model as f64,
        geometry.n_heads as f64,
        geometry.n_kv_heads as f64,
    );
    let width = (geometry.score_dim + geometry.v_dim) as f64;
    let forward = |t: f64| b * t * e * (2.0 * m + (h + h_kv) * width);
    // Scores, their mask and their softmax.
    let dense = |t: f64| 3.0 * 4.0 * b * h * t * t;
    let whole = |t: f64| match path {
        Path::Seedlike => forward(t) + dense(t),
        Path::Fused => forward(t) + 2.0 * 4.0 * b * h * TILE_ROWS.min(t) * t,
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
        // Activations and scores are kept for the backward pass, gradients come beside the weights.
        Workload::TrainStep { tokens, .. } => {
            3.0 * forward(tokens as f64) + dense(tokens as f64) + geometry.parameters as f64 * e
        }
        Workload::Generate { tokens, .. } => whole(tokens as f64),
    }
}

/// Refuses sizes whose products leave 64 bits: the closed forms count in u64.
pub(super) fn check_magnitude(
    source: &Source,
    workloads: &[WorkloadPoint],
    variants: &[VariantPoint],
    found: &mut Vec<Problem>,
) {
    const LIMIT: f64 = (1_u64 << 62) as f64;
    for point in workloads {
        let too_large = variants
            .iter()
            .find(|variant| bound(&variant.geometry, &point.workload) > LIMIT);
        if let Some(variant) = too_large {
            let (at, point_words) = (&point.at, describe(&point.workload));
            let message = format!(
                "`{at}` is too large to count in 64 bits for `{}`: {point_words}",
                variant.at
            );
            let problem = Problem::new(message).with_help("check the sizes for a zero too many");
            found.push(source.point(problem, at, ""));
            return;
        }
    }
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
        } => ((tokens + new_tokens) as f64, (tokens + new_tokens) as f64),
    };
    let widths = (g.score_dim + g.v_dim + g.entry.key + g.entry.values.width() + g.d_model) as f64;
    let heads = (g.n_heads + g.n_kv_heads + g.entry.heads) as f64;
    let macs = (g.forward_macs.query + g.forward_macs.key + g.decode_macs.query + g.decode_macs.key) as f64;
    let work = workload.batch() as f64 * (steps * macs + steps * t * heads * widths + t * heads * widths);
    // A multiply-add counts two, the backward pass twice the forward one, an element at most 4 bytes.
    12.0 * (work + steps * g.parameters as f64)
}

/// d
pub fn dominates(a: &Case, b: &Case) -> bool {
    a.variant.key == b.variant.key
        && a.params == b.params
        && a.dims == b.dims
        && a.workload.name() == b.workload.name()
        && a.workload.batch() <= b.workload.batch()
        && a.workload.cached_tokens() <= b.workload.cached_tokens()
        && a.path == b.path
        && a.dtype == b.dtype
        && a.scope == b.scope
}
