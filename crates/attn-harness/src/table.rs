//! The summary of a run: one block for each workload point, one line for each variant, each against MHA.

mod render;

use attn_core::{Habits, Path};
use serde::Serialize;

use crate::row::Row;
use crate::stats::{Interval, Ratio, ratio_of_intervals};
use crate::status::{Status, Trust};
use crate::units::format_time;

use self::render::render;

/// The variant every other one is compared with.
const BASELINE: &str = "mha";

/// How a table is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TableFormat {
    /// For a terminal.
    #[default]
    Table,
    /// For a README.
    Markdown,
    /// For other programs: numbers in base units.
    Json,
}

/// Rows of one workload point: what their times may be compared over.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// The point in words.
    pub title: String,
    /// One line a row, in the order of the rows.
    pub variants: Vec<Line>,
}

/// A variant at a point.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// The case's hash.
    pub case_id: String,
    /// Name.
    pub label: String,
    /// How it ended.
    pub status: Status,
    /// Why it is not `ok` or not `clean`.
    pub note: Option<String>,
    /// Median time in seconds.
    pub time_median_s: Option<f64>,
    /// Lower end of its 95 % interval.
    pub time_ci_low_s: Option<f64>,
    /// Upper end of its 95 % interval.
    pub time_ci_high_s: Option<f64>,
    /// Times as fast as MHA.
    pub speedup: Option<f64>,
    /// Lower end of its 95 % interval.
    pub speedup_low: Option<f64>,
    /// Upper end of its 95 % interval.
    pub speedup_high: Option<f64>,
    /// How good trained models are, for `quality`: mean over seeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quality: Option<f64>,
    /// Lower end of its 95 % interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quality_low: Option<f64>,
    /// Upper end of its 95 % interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quality_high: Option<f64>,
    /// Of what it is the value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quality_measure: Option<String>,
    /// Parameters of those models.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<u64>,
    /// Time of a training, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_time_s: Option<f64>,
    /// Tokens per second.
    pub tokens_per_s: Option<f64>,
    /// Bytes of the cache.
    pub kv_bytes: Option<u64>,
    /// Times smaller than the cache of MHA.
    pub kv_reduction: Option<f64>,
    /// Most bytes allocated.
    pub peak_bytes: Option<u64>,
    /// Largest relative difference from the reference.
    pub error_max: Option<f64>,
    /// What weakens the times.
    pub trust: Option<Trust>,
}

/// The summary of rows as text that ends with a newline.
pub fn summary_table(rows: &[Row], format: TableFormat) -> String {
    let points = points(rows);
    match format {
        // Serialising plain structs of numbers and text cannot fail.
        TableFormat::Json => serde_json::to_string_pretty(&points).unwrap_or_default() + "\n",
        TableFormat::Markdown => render(&points, true),
        TableFormat::Table => render(&points, false),
    }
}

/// Rows by workload point, in the order of their first rows. Model sizes, machines and GPUs keep rows apart
/// too; a title names them where they are not the same everywhere.
pub fn points(rows: &[Row]) -> Vec<Point> {
    let sizes = |row: &Row| [row.d_model, row.n_heads, row.head_dim];
    let differs_in_sizes = rows.iter().any(|row| sizes(row) != sizes(&rows[0]));
    let whole = |row: &Row| (row.n_layers, row.d_ff, row.vocab, row.decoder.clone());
    // Layers beside decoders are told apart by their scope.
    let mut decoders = rows.iter().filter(|row| row.n_layers.is_some()).map(whole);
    let first = decoders.next();
    let differs_in_decoder = decoders.any(|decoder| Some(&decoder) != first.as_ref());
    let differs_in_machine = rows.iter().any(|row| row.fingerprint != rows[0].fingerprint);
    // The fingerprint is of the host alone. Cases on a processor have no GPU, and their device tells them apart.
    let mut gpus = rows.iter().filter_map(|row| row.gpu.as_deref());
    let first_gpu = gpus.next();
    let differs_in_gpu = gpus.any(|gpu| Some(gpu) != first_gpu);
    let mut groups: Vec<(String, Vec<&Row>)> = Vec::new();
    for row in rows {
        let mut title = point_title(row);
        if differs_in_sizes {
            let [m, h, d] = sizes(row).map(Option::unwrap_or_default);
            title.push_str(&format!(", M={m} H={h} D={d}"));
        }
        if let (true, (Some(n), Some(f), Some(v), Some(decoder))) = (differs_in_decoder, whole(row)) {
            title.push_str(&format!(", {n} layers F={f} V={v} {decoder}"));
        }
        if differs_in_machine {
            let name = row.machine.as_deref().unwrap_or("unknown machine");
            title.push_str(&format!(
                ", {name} ({})",
                row.fingerprint.as_deref().unwrap_or("-")
            ));
        }
        if let (true, Some(gpu)) = (differs_in_gpu, row.gpu.as_deref()) {
            title.push_str(&format!(", {gpu}"));
        }
        match groups.iter_mut().find(|(known, _)| *known == title) {
            Some((_, group)) => group.push(row),
            None => groups.push((title, vec![row])),
        }
    }
    let point = |(title, group): (String, Vec<&Row>)| {
        let baseline = group
            .iter()
            .copied()
            .find(|row| row.variant == BASELINE && row.is_ok());
        Point {
            title,
            variants: group.into_iter().map(|row| Line::new(row, baseline)).collect(),
        }
    };
    groups.into_iter().map(point).collect()
}

/// A row's workload point: `decode B=1 L=512, layer, f32, cpu, fused`. What was asked for, so that a case that
/// failed stands beside those that did not.
pub fn point_title(row: &Row) -> String {
    let mut parts = vec![workload_title(row)];
    let asked = [
        &row.scope,
        &row.dtype_requested,
        &row.device_requested,
        &row.path_requested,
    ];
    parts.extend(asked.into_iter().filter(|part| !part.is_empty()).cloned());
    // All habits are what the path is, and replicated is how it does a beam.
    let is_seedlike = row.path_requested == Path::Seedlike.name();
    let habits = row
        .habits
        .as_deref()
        .filter(|habits| *habits != Habits::ALL.to_string());
    parts.extend(habits.map(|habits| format!("habits {habits}")));
    let prefix = row.prefix.as_deref().filter(|_| !is_seedlike);
    parts.extend(prefix.map(|prefix| format!("{prefix} prefix")));
    if row.launch_requested.as_deref() == Some("eager") {
        parts.push("eager launches".to_string());
    }
    if row.cache_regime.as_deref() == Some("cold") {
        parts.push("cold caches".to_string());
    }
    parts.join(", ")
}

/// A row's workload with its sizes: `decode B=1 L=512`.
pub fn workload_title(row: &Row) -> String {
    if let Some(task) = &row.task {
        let steps = row.train_steps.unwrap_or_default();
        let batch = row.batch.unwrap_or_default();
        let mut title = format!("{} of {task}, {steps} updates B={batch}", row.workload);
        if let Some(n) = row.downsample.filter(|n| *n > 1) {
            title.push_str(&format!(", {n} states made one"));
        }
        if let Some(lr) = row.lr {
            title.push_str(&format!(", lr {lr}"));
        }
        return title;
    }
    let sizes = [
        ("B", row.batch),
        ("L", row.context),
        ("T", row.tokens),
        ("N", row.new_tokens),
        ("K", row.beam),
    ];
    let mut title = row.workload.clone();
    for (letter, size) in sizes {
        if let Some(size) = size {
            title.push_str(&format!(" {letter}={size}"));
        }
    }
    title
}

/// A row's time with half the width of its interval: `131 µs ±1.2 %`; the quality of what was trained; its status where
/// there is neither.
pub fn time_cell(row: &Row) -> String {
    if let Some(quality) = row.quality {
        let measure = row.quality_measure.as_deref().unwrap_or_default();
        return format!(
            "{measure} {}",
            quality_text(quality, row.quality_ci_low.zip(row.quality_ci_high))
        );
    }
    time_text(
        row.status,
        row.time_median_s,
        row.time_ci_low_s.zip(row.time_ci_high_s),
    )
}

/// A quality with half the width of its interval: `0.934 ± 0.012`.
fn quality_text(quality: f64, ci: Option<(f64, f64)>) -> String {
    match ci {
        Some((low, high)) => format!(
            "{} ± {}",
            format_quality(quality),
            format_quality((high - low) / 2.0)
        ),
        None => format_quality(quality),
    }
}

/// Four digits are more than seeds agree in.
pub(crate) fn format_quality(quality: f64) -> String {
    match quality.abs() {
        q if q >= 100.0 => format!("{quality:.1}"),
        q if q >= 10.0 => format!("{quality:.2}"),
        _ => format!("{quality:.4}"),
    }
}

fn time_text(status: Status, median: Option<f64>, ci: Option<(f64, f64)>) -> String {
    match (status, median, ci) {
        (Status::Ok, Some(median), Some((low, high))) => {
            let percent = 100.0 * Interval { low, high }.relative_half_width(median);
            format!("{} ±{percent:.1} %", format_time(median))
        }
        (Status::Ok, Some(median), None) => format_time(median),
        (status, ..) => status.to_string(),
    }
}

impl Line {
    fn new(row: &Row, baseline: Option<&Row>) -> Self {
        let speedup = baseline.and_then(|baseline| speedup(row, baseline));
        let baseline_kv = baseline.and_then(|baseline| baseline.kv_bytes);
        let kv_reduction = |(own, base): (u64, u64)| (own > 0).then(|| base as f64 / own as f64);
        Self {
            case_id: row.case_id.clone(),
            label: row.label.clone(),
            status: row.status,
            note: note(row),
            time_median_s: row.time_median_s,
            time_ci_low_s: row.time_ci_low_s,
            time_ci_high_s: row.time_ci_high_s,
            speedup: speedup.map(|ratio| ratio.value),
            speedup_low: speedup.map(|ratio| ratio.ci.low),
            speedup_high: speedup.map(|ratio| ratio.ci.high),
            quality: row.quality,
            quality_low: row.quality_ci_low,
            quality_high: row.quality_ci_high,
            quality_measure: row.quality_measure.clone(),
            parameters: row.parameters,
            train_time_s: row.train_time_s,
            tokens_per_s: row.tokens_per_s,
            kv_bytes: row.kv_bytes,
            kv_reduction: row.kv_bytes.zip(baseline_kv).and_then(kv_reduction),
            peak_bytes: row.peak_bytes,
            error_max: row.error_max,
            trust: row.trust,
        }
    }
}

/// How many times as fast as the baseline. The baseline itself is 1, without an interval.
fn speedup(row: &Row, baseline: &Row) -> Option<Ratio> {
    let times = |row: &Row| {
        let ci = Interval {
            low: row.time_ci_low_s?,
            high: row.time_ci_high_s?,
        };
        (row.is_ok() && ci.low > 0.0).then_some((row.time_median_s?, ci))
    };
    let ratio = ratio_of_intervals(times(baseline)?, times(row)?);
    if std::ptr::eq(row, baseline) {
        return Some(Ratio {
            value: 1.0,
            ci: Interval { low: 1.0, high: 1.0 },
        });
    }
    Some(ratio)
}

/// Why a row is not what it should be, `None` where it is.
fn note(row: &Row) -> Option<String> {
    let because = |word: &str, reason: &Option<String>| match reason {
        Some(reason) => format!("{word}: {reason}"),
        None => word.to_string(),
    };
    if !row.is_ok() {
        return Some(because(row.status.name(), &row.reason));
    }
    let trust = row.trust.filter(|_| !row.is_clean())?;
    Some(because(trust.name(), &row.trust_reason))
}
