//! From a case and its measurement to its row.

use std::time::SystemTime;

use attn_core::Workload;

use super::check::Verdict;
use super::measure::Measured;
use crate::environment::Environment;
use crate::plan::{Case, Plan};
use crate::row::{Row, Sample};
use crate::stats::{StopRule, Summary, outliers};
use crate::status::{Status, Trust};
use crate::sweep::Dtype;

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
        workload: case.workload.name().to_string(),
        scope: case.scope.name().to_string(),
        batch: count(case.workload.batch()),
        steps_per_sample: count(case.steps_per_sample),
        seed: Some(case.seed),
        dtype_requested: case.dtype.to_string(),
        device_requested: case.device.to_string(),
        path_requested: case.path.to_string(),
        cache_regime: Some(case.regime.to_string()),
        weights_bytes: Some(case.weights_bytes),
        flops: Some(case.cost.flops),
        bytes_moved: Some(case.cost.bytes_moved),
        predicted_kv_bytes: Some(case.kv_bytes),
        predicted_peak_bytes: Some(case.predicted_peak_bytes),
        predicted_time_s: Some(case.predicted_time_s),
        null_reasons: "{}".to_string(),
        ..Row::default()
    };
    row.set_params(&case.params);
    match case.workload {
        Workload::Decode { context, .. } => row.context = count(context),
        Workload::Prefill { tokens, .. } | Workload::TrainStep { tokens, .. } => row.tokens = count(tokens),
        Workload::Generate {
            tokens, new_tokens, ..
        } => {
            (row.tokens, row.new_tokens) = (count(tokens), count(new_tokens));
        }
    }
    row.notes = notes(case);
    environment.describe(&mut row);
    row
}

/// What path and dtype do not say of how a case is computed.
fn notes(case: &Case) -> Option<String> {
    let mut notes = Vec::new();
    if matches!(case.workload, Workload::TrainStep { .. }) {
        notes.push(
            "scores are kept for the backward pass, O(T^2) memory: there is no native backward pass yet",
        );
    }
    if case.dtype != Dtype::F32 {
        notes.push("arithmetic is f32, widened from half precision: the time says nothing about the type");
    }
    (!notes.is_empty()).then(|| notes.join("; "))
}

/// What the gate found.
pub(super) fn verified(row: &mut Row, case: &Case, verdict: &Verdict) {
    row.dtype_resolved = Some(case.dtype.to_string());
    row.device_resolved = Some("cpu".to_string());
    row.path_resolved = Some(case.path.to_string());
    row.verified_against = Some(verdict.against.clone());
    row.verified_rows = Some(verdict.rows as u64);
    row.error_max = Some(verdict.error_max);
    row.error_cosine = Some(verdict.error_cosine);
    if let Some([at_length, allocated, state]) = verdict.cache_bytes {
        row.kv_bytes = Some(at_length);
        row.kv_allocated_bytes = Some(allocated);
        row.kv_state_bytes = Some(state);
        let tokens = case.workload.batch() * case.workload.cached_tokens();
        row.kv_bytes_per_token = Some(at_length as f64 / tokens as f64);
    }
}

/// What was measured; returns the samples to store.
pub(super) fn conclude(row: &mut Row, case: &Case, measured: &Measured, plan: &Plan) -> Vec<Sample> {
    if let Some(reason) = &measured.failure {
        (row.status, row.reason) = (Status::Crash, Some(reason.clone()));
        return Vec::new();
    }
    let Some(summary) = Summary::of(&measured.times_s, plan.measure.seed.unwrap_or(plan.seed)) else {
        (row.status, row.reason) = (Status::Crash, Some("no sample was taken".to_string()));
        return Vec::new();
    };
    row.status = Status::Ok;
    row.set_times(&summary);
    row.warmup_s = Some(measured.warmup_s);
    row.stop_rule = measured.stop.map(|rule| rule.name().to_string());
    let median = summary.median;
    row.tokens_per_s = Some(case.workload.processed_tokens() as f64 / median);
    row.achieved_bytes_per_s = Some(case.cost.bytes_moved as f64 / median);
    row.achieved_flops_per_s = Some(case.cost.flops as f64 / median);
    let half_width = summary.ci.relative_half_width(median);
    (row.trust, row.trust_reason) = match measured.stop {
        Some(StopRule::TargetCi) => (Some(Trust::Clean), None),
        _ if half_width <= plan.measure.target_ci => (Some(Trust::Clean), None),
        _ => {
            let reason = format!(
                "the interval of the median is ±{:.1} % after {} samples, ±{:.1} % was asked for",
                half_width * 100.0,
                summary.n,
                plan.measure.target_ci * 100.0
            );
            (Some(Trust::Unconverged), Some(reason))
        }
    };
    let labels = outliers(&measured.times_s);
    (0..measured.times_s.len())
        .map(|i| Sample {
            case_id: row.case_id.clone(),
            index: i as u64,
            time_s: measured.times_s[i],
            started_at_s: measured.started_at_s[i],
            round: measured.rounds[i],
            replica: Some(0),
            outlier: labels[i],
        })
        .collect()
}

/// Says why columns are empty that a reader might look for.
pub(super) fn explain_nulls(row: &mut Row) {
    let gpu = "not measured: the case ran on a CPU";
    for column in ["nvml_used_bytes", "gpu", "driver", "clocks"] {
        row.explain_null(column, gpu);
    }
    row.explain_null("energy_j", "not measured: no energy counter on the CPU");
    for column in ["ceiling_bytes_per_s", "ceiling_flops_per_s"] {
        row.explain_null(column, "not measured: this version measures no ceilings");
    }
    if row.cpu_mhz_start.is_none() {
        row.explain_null("cpu_mhz_start", "not known: the system does not tell the clock");
    }
    if row.cpu_mhz_end.is_none() {
        row.explain_null("cpu_mhz_end", "not known: the system does not tell the clock");
    }
    if row.peak_bytes.is_none() {
        let reason = if row.is_ok() {
            "not measured: this process does not count"
        } else {
            "not measured: not run"
        };
        row.explain_null("peak_bytes", reason);
    }
    if row.kv_bytes.is_none() {
        let reason = if row.is_ok() {
            "not applicable: the workload keeps no cache"
        } else {
            "not measured: not run"
        };
        for column in [
            "kv_bytes",
            "kv_allocated_bytes",
            "kv_state_bytes",
            "kv_bytes_per_token",
        ] {
            row.explain_null(column, reason);
        }
    }
    if !row.is_ok() {
        for column in [
            "time_median_s",
            "tokens_per_s",
            "achieved_bytes_per_s",
            "achieved_flops_per_s",
        ] {
            row.explain_null(column, "not measured: see status and reason");
        }
    }
}
