//! From a case and its measurement to its row.

use std::collections::BTreeSet;
use std::time::SystemTime;

use attn_core::phase::Phase;
use attn_core::{Habit, Path, Scope, Workload};

use super::energy::{self, Bill};
use super::gpu::{self, Watched};
use super::model::Phases;
use super::subject::composite;
use crate::conditions::Conditions;
use crate::environment::Environment;
use crate::memory::Kept;
use crate::nvml::{Counter, Gpus};
use crate::plan::{Case, Plan};
use crate::row::{Details, Position, Row, Sample};
use crate::stats::{Summary, median, median_interval, outliers};
use crate::status::Status;
use crate::sweep::{DeviceRequest, Dtype};
use crate::trust::{Choice, Evidence, grade};
use crate::worker::{Built, CaseMeasured, Memory};

/// Resamples of the interval of one position: there may be thousands of positions.
const POSITION_RESAMPLES: usize = 500;

/// Columns of the phases of a sample.
const PHASES: [&str; 10] = [
    "prefill_s",
    "projections_s",
    "cache_update_s",
    "attention_s",
    "reorder_s",
    "feed_forward_s",
    "vocabulary_s",
    "choosing_s",
    "other_s",
    "time_to_first_token_s",
];
/// Columns of the paper's metric.
const PAPER: [&str; 2] = ["paper_time_s", "paper_memory_bytes"];

/// Samples of a case that were taken in one go.
pub(super) struct Burst {
    /// Its number.
    pub(super) replica: u64,
    pub(super) case: CaseMeasured,
    pub(super) rss_peak_bytes: Option<u64>,
    /// What the machine did meanwhile.
    pub(super) conditions: Conditions,
    /// What the GPU did, or why that is not known; none on the processor.
    pub(super) gpu: Option<Counter<Watched>>,
}

/// The time, RFC 3339 in UTC.
pub(super) fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

/// What is known of a case before it runs.
pub(super) fn describe(plan: &Plan, case: &Case, environment: &Environment) -> Row {
    let count = |n: usize| Some(n as u64);
    let mut row = Row {
        case_id: case.id.clone(),
        group: case.group as u64,
        sweep_name: plan.name.clone(),
        question: plan.question.clone(),
        variant: case.variant.key.to_string(),
        label: case.label.clone(),
        d_model: count(case.dims.d_model),
        n_heads: count(case.dims.n_heads),
        head_dim: count(case.dims.head_dim),
        workload: case.workload_name().to_string(),
        scope: case.scope.name().to_string(),
        n_layers: case.model.and_then(|model| count(model.n_layers)),
        d_ff: case.model.and_then(|model| count(model.d_ff)),
        vocab: case.model.and_then(|model| count(model.vocab)),
        decoder: case.model.map(|model| model.decoder.name().to_string()),
        prefix: case.prefix.map(|prefix| prefix.name().to_string()),
        habits: case.habits.map(|habits| habits.to_string()),
        batch: count(case.workload.batch()),
        steps_per_sample: count(case.steps_per_sample),
        seed: Some(case.seed),
        dtype_requested: case.dtype.to_string(),
        device_requested: case.device.to_string(),
        path_requested: case.path.to_string(),
        launch_requested: case.launch.map(|launch| launch.to_string()),
        cache_regime: Some(case.regime.to_string()),
        weights_bytes: Some(case.weights_bytes),
        flops: Some(case.cost.flops),
        bytes_moved: Some(case.cost.bytes_moved),
        predicted_kv_bytes: Some(case.kv_bytes),
        predicted_peak_bytes: Some(case.predicted_peak_bytes),
        predicted_time_s: Some(case.predicted_time_s),
        measure: serde_json::to_string(&plan.measure).ok(),
        memory_limit_bytes: plan.measure.memory_limit.map(|bytes| bytes.0),
        fair: case.fair.as_ref().map(|fair| fair.hold.to_string()),
        fair_reference: case.fair.as_ref().map(|fair| fair.reference.clone()),
        fair_mismatch: case.fair.as_ref().map(|fair| fair.mismatch),
        null_reasons: "{}".to_string(),
        ..Row::default()
    };
    row.set_params(&case.params);
    match case.workload {
        Workload::Decode { context, .. } => row.context = count(context),
        Workload::Prefill { tokens, .. } | Workload::TrainStep { tokens, .. } => row.tokens = count(tokens),
        Workload::Generate {
            tokens, new_tokens, ..
        }
        | Workload::Trajectory {
            tokens, new_tokens, ..
        } => {
            (row.tokens, row.new_tokens) = (count(tokens), count(new_tokens));
        }
        Workload::Beam {
            tokens,
            new_tokens,
            beam,
            ..
        } => (row.tokens, row.new_tokens, row.beam) = (count(tokens), count(new_tokens), count(beam)),
    }
    environment.describe(&mut row);
    row.notes = notes(case, row.cpu_level.as_deref());
    row
}

/// What path and dtype do not say of how a case is computed on the processor, whose attention kernels have this level.
fn notes(case: &Case, cpu_level: Option<&str>) -> Option<String> {
    if matches!(case.device, DeviceRequest::Cuda(_)) {
        return None;
    }
    let mut notes = Vec::new();
    let is_training = matches!(case.workload, Workload::TrainStep { .. });
    if is_training && case.path == Path::Seedlike {
        notes.push("scores are kept for the backward pass, O(T^2) memory, as the seed keeps them");
    }
    // The kernels have them, and not the formulation that forms all scores.
    let has_kernels = case
        .habits
        .is_none_or(|habits| !habits.contains(Habit::DenseMask));
    let has_products = case.dtype == Dtype::BF16 && cpu_level == Some("amx") && has_kernels && !is_training;
    if case.dtype != Dtype::F32 && !has_products {
        notes.push("arithmetic is f32, widened from half precision: the time says nothing about the type");
    }
    (!notes.is_empty()).then(|| notes.join("; "))
}

/// Adds to what there is to know of how a row was computed.
pub(super) fn note(row: &mut Row, text: &str) {
    row.notes = Some(match row.notes.take() {
        Some(notes) => format!("{notes}; {text}"),
        None => text.to_string(),
    });
}

/// Whether the row says already how the case ends, because it need not or cannot be tried.
pub(super) fn decide_unrun(row: &mut Row, case: &Case, skip: impl FnOnce() -> Option<String>) -> bool {
    let (status, reason) = if let Some(reason) = &case.unsupported {
        (Status::Unsupported, reason.clone())
    } else if case.predicted_oom {
        let reason = "not run: its predicted peak is more than there is memory";
        (Status::Oom, reason.to_string())
    } else if let Some(reason) = skip() {
        (Status::SkippedOom, reason)
    } else {
        return false;
    };
    (row.status, row.reason) = (status, Some(reason));
    true
}

/// What building and verifying found. A case that is built again for another replica adds its times.
pub(super) fn built(row: &mut Row, case: &Case, built: &Built) {
    let add = |cell: &mut Option<f64>, seconds: f64| *cell = Some(cell.unwrap_or(0.0) + seconds);
    add(&mut row.build_s, built.build_s);
    add(&mut row.verify_s, built.verify_s);
    row.peak_build_bytes = row.peak_build_bytes.max(built.build_memory.peak_bytes);
    row.rss_peak_build_bytes = row.rss_peak_build_bytes.max(built.build_memory.rss_peak_bytes);
    row.peak_verify_bytes = row.peak_verify_bytes.max(built.verify_memory.peak_bytes);
    row.rss_peak_verify_bytes = row.rss_peak_verify_bytes.max(built.verify_memory.rss_peak_bytes);
    let kept = |memory: &Memory| memory.kept.reserved_peak_bytes;
    row.reserved_peak_build_bytes = row.reserved_peak_build_bytes.max(kept(&built.build_memory));
    row.reserved_peak_verify_bytes = row.reserved_peak_verify_bytes.max(kept(&built.verify_memory));
    row.flush_bytes = built.flush_bytes;
    row.launch_resolved = built.launch.map(|launch| launch.to_string());
    if let Some(text) = &built.launch_note {
        note(row, text);
    }
    if let Some([device, dtype, path]) = built.resolved.clone() {
        (row.device_resolved, row.dtype_resolved, row.path_resolved) =
            (Some(device), Some(dtype), Some(path));
    }
    row.paper_time_s = row.paper_time_s.or(built.paper_time_s);
    row.paper_memory_bytes = row.paper_memory_bytes.or(built.paper_memory_bytes);
    let Some(verdict) = &built.verdict else { return };
    row.verified_against = Some(verdict.against.clone());
    row.verified_rows = Some(verdict.rows as u64);
    row.error_max = verdict.error_max;
    row.error_cosine = verdict.error_cosine;
    if let Some([at_length, allocated, state]) = verdict.cache_bytes {
        row.kv_bytes = Some(at_length);
        row.kv_allocated_bytes = Some(allocated);
        row.kv_state_bytes = Some(state);
        let sequences = case.workload.batch() * case.workload.beam();
        let tokens = sequences * case.workload.cached_tokens();
        row.kv_bytes_per_token = Some(at_length as f64 / tokens as f64);
    }
}

/// What was measured; returns what is stored beside the row.
pub(super) fn conclude(
    row: &mut Row,
    case: &Case,
    bursts: &[Burst],
    bill: &Bill,
    plan: &Plan,
    best_clock_rate: f64,
) -> Details {
    let seed = plan.measure.seed.unwrap_or(plan.seed);
    let times: Vec<f64> = bursts
        .iter()
        .flat_map(|burst| &burst.case.measured.times_s)
        .copied()
        .collect();
    let Some(summary) = Summary::of(&times, seed) else {
        (row.status, row.reason) = (Status::Crash, Some("no sample was taken".to_string()));
        return Details::default();
    };
    row.status = Status::Ok;
    row.set_times(&summary);
    row.time_clock = bursts.first().map(|burst| burst.case.clock.clone());
    let walls: Vec<f64> = bursts
        .iter()
        .flat_map(|burst| &burst.case.measured.walls_s)
        .copied()
        .collect();
    row.wall_median_s = (!walls.is_empty()).then(|| median(&walls));
    // Of several replicas the one that fell shortest speaks for all.
    let stop = bursts.iter().filter_map(|burst| burst.case.measured.stop).max();
    row.stop_rule = stop.map(|rule| rule.name().to_string());
    let sum = |of: fn(&Burst) -> f64| Some(bursts.iter().map(of).sum());
    row.sampling_s = sum(|burst| burst.case.measured.sampling_s);
    row.reset_s = sum(|burst| burst.case.measured.around_s);
    row.peak_bytes = bursts.iter().filter_map(|burst| burst.case.peak_bytes).max();
    row.rss_peak_bytes = bursts.iter().filter_map(|burst| burst.rss_peak_bytes).max();
    let kept = |of: fn(&Kept) -> Option<u64>| bursts.iter().filter_map(|burst| of(&burst.case.kept)).max();
    row.reserved_peak_bytes = kept(|kept| kept.reserved_peak_bytes);
    row.graph_peak_bytes = kept(|kept| kept.graph_peak_bytes);
    row.graph_reserved_peak_bytes = kept(|kept| kept.graph_reserved_peak_bytes);
    row.replicas = Some(bursts.len() as u64);
    if bursts.len() > 1 {
        let medians: Vec<f64> = bursts
            .iter()
            .map(|burst| median(&burst.case.measured.times_s))
            .collect();
        let most = medians.iter().copied().fold(f64::MIN, f64::max);
        let least = medians.iter().copied().fold(f64::MAX, f64::min);
        row.replica_spread = Some((most - least) / summary.median);
        row.cooldown_s = Some(plan.measure.cooldown_ms as f64 * 1e-3);
    }
    set_phases(row, bursts);
    row.tokens_per_s = Some(case.workload.processed_tokens() as f64 / summary.median);
    row.achieved_bytes_per_s = Some(case.cost.bytes_moved as f64 / summary.median);
    row.achieved_flops_per_s = Some(case.cost.flops as f64 / summary.median);
    let conditions: Vec<Conditions> = bursts.iter().map(|burst| burst.conditions.clone()).collect();
    let conditions = Conditions::over(&conditions);
    conditions.describe(row, best_clock_rate);
    let mut watched = None;
    if is_on_gpu(row) {
        let of_bursts: Vec<Counter<Watched>> = bursts.iter().filter_map(|burst| burst.gpu.clone()).collect();
        watched = gpu::describe(row, &of_bursts);
        bill.describe(row, case);
    }
    let composed: BTreeSet<String> = bursts
        .iter()
        .flat_map(|burst| burst.case.composed.iter().cloned())
        .collect();
    let composed: Vec<String> = composed.into_iter().collect();
    if !composed.is_empty() {
        row.path_resolved = Some(composite(&row.path_requested));
    }
    let (trust, reason) = grade(&Evidence {
        half_width: summary.ci.relative_half_width(summary.median),
        target_ci: plan.measure.target_ci,
        n_samples: summary.n,
        stop_rule: stop,
        conditions: &conditions,
        gpu: watched.as_ref(),
        best_clock_rate,
        device: choice(&row.device_requested, &row.device_resolved),
        dtype: choice(&row.dtype_requested, &row.dtype_resolved),
        path: choice(&row.path_requested, &row.path_resolved),
        composed: &composed,
    });
    (row.trust, row.trust_reason) = (Some(trust), reason);
    Details {
        samples: samples(row, bursts, &times),
        positions: positions(row, case, bursts, seed),
        ..Details::default()
    }
}

/// Where the time of a sample of a whole decoder went: means over the middle half of the samples by their time, so that
/// phases add up to the time of a usual sample, which medians of single phases need not.
fn set_phases(row: &mut Row, bursts: &[Burst]) {
    let mut phases: Vec<&Phases> = bursts.iter().flat_map(|burst| &burst.case.phases).collect();
    phases.sort_by(|a, b| a.total_s.total_cmp(&b.total_s));
    let n = phases.len();
    let quarter = n.div_ceil(4).min(n.saturating_sub(1) / 2);
    let middle = &phases[quarter..phases.len() - quarter];
    let of = |seconds: &dyn Fn(&Phases) -> f64| {
        let sum: f64 = middle.iter().map(|phases| seconds(phases)).sum();
        (!middle.is_empty()).then(|| sum / middle.len() as f64)
    };
    let cells = [
        (Phase::Prefill, &mut row.prefill_s),
        (Phase::Projections, &mut row.projections_s),
        (Phase::CacheUpdate, &mut row.cache_update_s),
        (Phase::Attention, &mut row.attention_s),
        (Phase::Reorder, &mut row.reorder_s),
        (Phase::FeedForward, &mut row.feed_forward_s),
        (Phase::Vocabulary, &mut row.vocabulary_s),
        (Phase::Sampling, &mut row.choosing_s),
    ];
    for (phase, cell) in cells {
        *cell = of(&|phases| phases.times[phase]);
    }
    row.other_s = of(&|phases| (phases.total_s - phases.times.total_s()).max(0.0));
    row.time_to_first_token_s = of(&|phases| phases.first_token_s);
}

fn choice<'a>(requested: &'a str, resolved: &'a Option<String>) -> Choice<'a> {
    Choice {
        requested,
        resolved: resolved.as_deref().unwrap_or(requested),
    }
}

fn samples(row: &Row, bursts: &[Burst], times: &[f64]) -> Vec<Sample> {
    let labels = outliers(times);
    let of_burst = |burst: &Burst| {
        let measured = &burst.case.measured;
        let taken = measured
            .times_s
            .iter()
            .zip(&measured.started_at_s)
            .zip(&measured.rounds);
        let taken: Vec<_> = taken
            .map(|((time_s, started_at_s), round)| (*time_s, *started_at_s, *round, burst.replica))
            .collect();
        taken
    };
    let taken = bursts.iter().flat_map(of_burst).zip(labels).enumerate();
    taken
        .map(|(i, ((time_s, started_at_s, round, replica), outlier))| Sample {
            case_id: row.case_id.clone(),
            index: i as u64,
            time_s,
            started_at_s,
            round,
            replica: Some(replica),
            outlier,
        })
        .collect()
}

/// What every generated token cost, for a trajectory.
fn positions(row: &Row, case: &Case, bursts: &[Burst], seed: u64) -> Vec<Position> {
    let Workload::Trajectory {
        batch,
        tokens,
        new_tokens,
    } = case.workload
    else {
        return Vec::new();
    };
    let e = case.dtype.size_in_bytes();
    let at = |step: usize| {
        let times: Vec<f64> = bursts
            .iter()
            .flat_map(|burst| burst.case.steps_s.iter().filter_map(|steps| steps.get(step)))
            .copied()
            .collect();
        let ci = median_interval(&times, seed, POSITION_RESAMPLES)?;
        let position = tokens + step + 1;
        Some(Position {
            case_id: row.case_id.clone(),
            position: position as u64,
            n_samples: times.len() as u64,
            time_median_s: median(&times),
            time_ci_low_s: ci.low,
            time_ci_high_s: ci.high,
            kv_bytes: case.geometry.kv_bytes(batch, position, e),
            bytes_moved: case
                .geometry
                .step_cost(batch, position, case.scope, e)
                .bytes_moved,
            closes_slot: position % case.geometry.stride == 0,
        })
    };
    (0..new_tokens).filter_map(at).collect()
}

/// Whether the case ran on a GPU, or would have.
pub(super) fn is_on_gpu(row: &Row) -> bool {
    let device = row.device_resolved.as_ref().unwrap_or(&row.device_requested);
    device.starts_with("cuda")
}

/// What a GPU kept beyond what was in use, by column.
fn kept(row: &Row) -> [(&'static str, Option<u64>); 3] {
    [
        ("reserved_peak_bytes", row.reserved_peak_bytes),
        ("graph_peak_bytes", row.graph_peak_bytes),
        ("graph_reserved_peak_bytes", row.graph_reserved_peak_bytes),
    ]
}

/// Fills what is known of the GPU of a row, and says why the rest is null.
pub(super) fn describe_gpu(row: &mut Row, gpus: &Gpus) {
    let driver = gpus.driver();
    let cuda = &gpus.cuda;
    let ordinal = row
        .device_resolved
        .as_deref()
        .and_then(|device| device.strip_prefix("cuda:"))
        .and_then(|ordinal| ordinal.parse::<usize>().ok());
    let gpu = cuda
        .as_ref()
        .ok()
        .zip(ordinal)
        .and_then(|(cuda, ordinal)| cuda.gpus.get(ordinal));
    row.gpu = gpu.map(|gpu| gpu.name.clone());
    match driver {
        Ok(version) => row.driver = Some(version),
        Err(reason) => row.explain_null("driver", reason),
    }
    let mut nulls: Vec<(&'static str, &str)> = Vec::new();
    if row.gpu.is_none() {
        nulls.push(("gpu", "not known: the driver does not list it"));
    }
    if row.is_ok() {
        let untold = "not measured: the driver does not tell of its memory pool";
        let counted = [("peak_bytes", row.peak_bytes)].into_iter().chain(kept(row));
        nulls.extend(
            counted
                .filter(|(_, bytes)| bytes.is_none())
                .map(|(column, _)| (column, untold)),
        );
    }
    row.explain_nulls(&nulls);
}

/// Says why columns are empty that a reader might look for.
pub(super) fn explain_nulls(row: &mut Row) {
    let mut reasons: Vec<(&'static str, &str)> = Vec::new();
    let mut because = |columns: &[&'static str], reason: &'static str| {
        reasons.extend(columns.iter().map(|column| (*column, reason)));
    };
    let (ok, built) = (row.is_ok(), row.build_s.is_some());
    let on_gpu = is_on_gpu(row);
    if !on_gpu {
        because(&["gpu", "driver"], "not measured: the case ran on a CPU");
        because(&gpu::COLUMNS, "not measured: the case ran on a CPU");
        because(&energy::COLUMNS, "not measured: no energy counter on the CPU");
        because(&["idle_power_w"], "not measured: no energy counter on the CPU");
    }
    let unrun = if built {
        "not measured: see status and reason"
    } else {
        "not measured: not run"
    };
    if on_gpu && !ok {
        because(&gpu::COLUMNS, unrun);
        because(&energy::COLUMNS, unrun);
        because(&["idle_power_w"], unrun);
    }
    if !ok {
        because(
            &[
                "time_median_s",
                "tokens_per_s",
                "achieved_bytes_per_s",
                "achieved_flops_per_s",
            ],
            unrun,
        );
        because(
            &[
                "trust",
                "stop_rule",
                "bandwidth_fraction",
                "flops_fraction",
                "time_over_floor",
            ],
            unrun,
        );
    }
    if row.peak_bytes.is_none() {
        because(
            &["peak_bytes"],
            if ok {
                "not measured: the worker does not count"
            } else {
                unrun
            },
        );
    }
    let kept = kept(row).into_iter().filter(|(_, bytes)| bytes.is_none());
    because(
        &kept.map(|(column, _)| column).collect::<Vec<_>>(),
        match on_gpu {
            true => unrun,
            false => "not applicable: the processor has no memory pool and no graphs",
        },
    );
    if row.rss_peak_bytes.is_none() {
        because(
            &["rss_peak_bytes"],
            if ok {
                "not measured: the system does not tell"
            } else {
                unrun
            },
        );
    }
    if row.kv_bytes.is_none() {
        let columns = [
            "kv_bytes",
            "kv_allocated_bytes",
            "kv_state_bytes",
            "kv_bytes_per_token",
        ];
        because(
            &columns,
            if ok {
                "not applicable: the workload keeps no cache"
            } else {
                unrun
            },
        );
    }
    if row.n_layers.is_none() {
        let columns = ["n_layers", "d_ff", "vocab", "decoder"];
        because(&columns, "not applicable: the scope is no whole decoder");
    }
    if row.beam.is_none() {
        because(&["beam", "prefix"], "not applicable: nothing is searched");
    }
    if row.habits.is_none() {
        because(
            &["habits"],
            "not applicable: path fused has none of the seed's habits",
        );
    }
    if row.scope != Scope::Model.name() {
        because(&PHASES, "not applicable: phases are those of a whole decoder");
        because(&PAPER, "not applicable: the paper measures whole decoders");
    } else if !ok {
        because(&PHASES, unrun);
        because(&PAPER, unrun);
    } else if on_gpu {
        because(
            &PHASES,
            "not measured: launches are asynchronous, phases are not timed apart",
        );
    }
    if ok && row.paper_memory_bytes.is_none() {
        because(&["paper_memory_bytes"], "not measured: the worker does not count");
    }
    if row.launch_requested.is_none() || row.launch_resolved.is_none() {
        because(
            &["launch_requested", "launch_resolved"],
            if row.launch_requested.is_some() && !ok {
                unrun
            } else {
                "not applicable: it is no decode step on a GPU"
            },
        );
    }
    if row.flush_bytes.is_none() && row.cache_regime.as_deref() == Some("hot") {
        because(&["flush_bytes"], "not applicable: samples begin with hot caches");
    }
    if row.memory_limit_bytes.is_none() {
        because(
            &["memory_limit_bytes"],
            "not known: neither the sweep nor the system sets a limit",
        );
    }
    if row.fair.is_none() {
        let columns = ["fair", "fair_reference", "fair_mismatch"];
        because(
            &columns,
            "not applicable: the sweep holds nothing equal but what all variants share",
        );
    }
    if ok && row.replica_spread.is_none() {
        because(&["replica_spread", "cooldown_s"], "not applicable: one replica");
    }
    row.explain_nulls(&reasons);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Cuda, DeviceError, Gpu, Version};
    use crate::nvml::NvmlError;

    fn without_counters(cuda: Result<Cuda, DeviceError>) -> Gpus {
        Gpus {
            cuda,
            counters: Err(NvmlError::NoDriver),
        }
    }

    #[test]
    fn a_row_of_a_gpu_names_it_and_has_none_of_the_processors_numbers() {
        let version = Version { major: 13, minor: 0 };
        let gpu = |name: &str| Gpu {
            name: name.to_string(),
            uuid: String::new(),
            capability: version,
            memory_bytes: 1,
            l2_bytes: 50 << 20,
        };
        let cuda = Ok(Cuda {
            driver: version,
            gpus: vec![gpu("first"), gpu("second")],
        });
        let mut row = Row {
            device_requested: "auto".to_string(),
            device_resolved: Some("cuda:1".to_string()),
            status: Status::Ok,
            ..Row::default()
        };
        assert!(is_on_gpu(&row));
        describe_gpu(&mut row, &without_counters(cuda));
        explain_nulls(&mut row);
        assert_eq!(row.gpu.as_deref(), Some("second"));
        let reasons = row.null_reasons();
        assert!(reasons["peak_bytes"].contains("memory pool"));
        assert!(reasons["graph_peak_bytes"].contains("memory pool"));
        assert!(reasons["driver"].contains("not loaded"));
        let mut unrun = Row {
            device_requested: "cuda".to_string(),
            ..Row::default()
        };
        explain_nulls(&mut unrun);
        assert!(unrun.null_reasons()["gpu_power_w_max"].contains("not run"));
    }

    #[test]
    fn what_never_ran_is_told_by_the_device_it_asked_for() {
        let asks = |requested: &str, resolved: Option<&str>| {
            is_on_gpu(&Row {
                device_requested: requested.to_string(),
                device_resolved: resolved.map(str::to_string),
                ..Row::default()
            })
        };
        assert!(asks("cuda", None) && asks("cuda:1", Some("cuda:1")));
        assert!(!asks("auto", None) && !asks("auto", Some("cpu")) && !asks("cpu", None));
        let mut row = Row {
            device_requested: "cuda".to_string(),
            ..Row::default()
        };
        describe_gpu(&mut row, &without_counters(Err(DeviceError::NoGpu)));
        assert!(row.gpu.is_none() && row.null_reasons()["gpu"].contains("does not list"));
    }
}
