//! The rows of one or several runs, typed.

use crate::columns::{count, flag, real, required_count, required_text, text};
use crate::{Error, style::Palette};
use polars::prelude::DataFrame;
use std::collections::BTreeMap;

/// One case of a run. Field names are the columns of `rows.parquet`; null cells, and columns an older run
/// does not have, are `None`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Row {
    /// Hash of all that defines the case.
    pub case_id: Option<String>,
    /// The run this row comes from, where several are drawn together.
    pub run: Option<String>,
    /// Registry key of the variant: `mha`, `gqa`, `mqa`, `mla`, `mtla`, or one defined elsewhere.
    pub variant: String,
    /// Display name, unique for a variant and its parameters.
    pub label: String,
    /// MTLA's temporal stride.
    pub stride: Option<u64>,
    /// Key and value heads.
    pub n_kv_heads: Option<u64>,
    /// Rank of the latent.
    pub kv_rank: Option<u64>,
    /// Size of the shared RoPE key.
    pub rope_dim: Option<u64>,
    /// `decode`, `prefill`, `train_step`, `generate`.
    pub workload: String,
    /// `layer` or `op`.
    pub scope: Option<String>,
    /// Sequences.
    pub batch: Option<u64>,
    /// Entries a decode step reads, its own token included; the prompt's length for `generate`.
    pub context: Option<u64>,
    /// Tokens in one call.
    pub tokens: Option<u64>,
    /// Tokens generated.
    pub new_tokens: Option<u64>,
    /// Element type asked for.
    pub dtype_requested: Option<String>,
    /// Element type it ran in.
    pub dtype_resolved: Option<String>,
    /// Device asked for.
    pub device_requested: Option<String>,
    /// Device it ran on.
    pub device_resolved: Option<String>,
    /// `fused` or `seedlike`, as asked for.
    pub path_requested: Option<String>,
    /// The path it took.
    pub path_resolved: Option<String>,
    /// `ok`, or why there is no time.
    pub status: String,
    /// `clean`, or what weakens the measurement; null counts as clean.
    pub trust: Option<String>,
    /// Median seconds of a sample (a decode step, a prefill, a training step, a generation).
    pub time_median_s: Option<f64>,
    /// Lower end of the 95 % bootstrap interval of the median.
    pub time_ci_low_s: Option<f64>,
    /// Upper end of it.
    pub time_ci_high_s: Option<f64>,
    /// Tokens per second at the median.
    pub tokens_per_s: Option<f64>,
    /// Bytes of the cache at this length, in closed form.
    pub kv_bytes: Option<f64>,
    /// Bytes the cache holds allocated.
    pub kv_allocated_bytes: Option<f64>,
    /// Bytes of the cache a token adds on average.
    pub kv_bytes_per_token: Option<f64>,
    /// Bytes of the parameters.
    pub weights_bytes: Option<f64>,
    /// Peak bytes of the allocator.
    pub peak_bytes: Option<f64>,
    /// The sweep's name.
    pub sweep_name: Option<String>,
    /// The question the sweep asks.
    pub question: Option<String>,
    /// The processor, and the GPU where there is one.
    pub machine: Option<String>,
    /// Threads used.
    pub threads: Option<u64>,
    /// What the caches held when a sample began: `hot` or `cold`; null counts as hot.
    pub cache_regime: Option<String>,
    /// How a decode step was to get to a GPU: `graph` or `eager`.
    pub launch_requested: Option<String>,
    /// How it did.
    pub launch_resolved: Option<String>,
    /// What the sweep holds equal: `width`, `params`, `kv_bytes` or `flops`; null counts as width.
    pub fair: Option<String>,
    /// Name of the variant the others are matched to.
    pub fair_reference: Option<String>,
    /// How far the case is from that, as a fraction.
    pub fair_mismatch: Option<f64>,
    /// Useful operations, by the cost model.
    pub flops: Option<f64>,
    /// The least bytes to read and write, by the cost model.
    pub bytes_moved: Option<f64>,
    /// Operations per second at the median.
    pub achieved_flops_per_s: Option<f64>,
    /// Operations per second of a matrix product, as measured in the run.
    pub ceiling_flops_per_s: Option<f64>,
    /// Bytes per second read from memory, as measured in the run.
    pub ceiling_bytes_per_s: Option<f64>,
}

/// One position of a trajectory. Field names are the columns of `positions.parquet`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Position {
    /// The case's hash.
    pub case_id: String,
    /// Tokens in the cache once this one is.
    pub position: u64,
    /// Median seconds of the step.
    pub time_median_s: Option<f64>,
    /// Lower end of the 95 % bootstrap interval of the median.
    pub time_ci_low_s: Option<f64>,
    /// Upper end of it.
    pub time_ci_high_s: Option<f64>,
    /// Bytes of the cache after the step, in closed form.
    pub kv_bytes: Option<f64>,
    /// Whether the step completes a slot of the cache.
    pub closes_slot: Option<bool>,
}

impl Row {
    /// Whether the case was measured.
    pub fn is_ok(&self) -> bool {
        self.status == "ok"
    }

    /// Whether nothing weakens the measurement.
    pub fn is_clean(&self) -> bool {
        self.trust
            .as_deref()
            .is_none_or(|trust| trust.is_empty() || trust.eq_ignore_ascii_case("clean"))
    }
}

/// Rows, the positions of trajectories among them, and one colour and marker for each variant.
#[derive(Debug, Clone)]
pub struct Frame {
    rows: Vec<Row>,
    positions: Vec<Position>,
    palette: Palette,
}

impl Frame {
    /// The columns that [`from_polars`](Self::from_polars) reads; a table needs no others.
    pub const COLUMNS: &[&str] = &[
        "variant",
        "workload",
        "status",
        "label",
        "case_id",
        "run",
        "scope",
        "dtype_requested",
        "dtype_resolved",
        "device_requested",
        "device_resolved",
        "path_requested",
        "path_resolved",
        "trust",
        "sweep_name",
        "question",
        "machine",
        "cache_regime",
        "launch_requested",
        "launch_resolved",
        "fair",
        "fair_reference",
        "stride",
        "n_kv_heads",
        "kv_rank",
        "rope_dim",
        "batch",
        "context",
        "tokens",
        "new_tokens",
        "threads",
        "time_median_s",
        "time_ci_low_s",
        "time_ci_high_s",
        "tokens_per_s",
        "kv_bytes",
        "kv_allocated_bytes",
        "kv_bytes_per_token",
        "weights_bytes",
        "peak_bytes",
        "fair_mismatch",
        "flops",
        "bytes_moved",
        "achieved_flops_per_s",
        "ceiling_flops_per_s",
        "ceiling_bytes_per_s",
    ];

    /// Reads the rows of a table such as `rows.parquet`. Unknown columns are ignored, optional ones may be
    /// missing, numbers may have any width.
    ///
    /// # Errors
    /// [`Error::MissingColumn`] without `variant`, `workload` or `status`; [`Error::ColumnType`] and
    /// [`Error::Value`] where a column does not hold what its name promises.
    pub fn from_polars(table: &DataFrame) -> Result<Self, Error> {
        let variant = required_text(table, "variant")?;
        let workload = required_text(table, "workload")?;
        let status = required_text(table, "status")?;
        let mut rows: Vec<Row> = (variant.into_iter().zip(workload).zip(status))
            .map(|((variant, workload), status)| Row {
                variant,
                workload,
                status,
                ..Row::default()
            })
            .collect();

        macro_rules! fill {
            ($read:ident: $($field:ident),+) => {$(
                for (row, value) in rows.iter_mut().zip($read(table, stringify!($field))?) {
                    row.$field = value;
                }
            )+};
        }
        fill!(text: case_id, run, scope, dtype_requested, dtype_resolved, device_requested, device_resolved);
        fill!(text: path_requested, path_resolved, trust, sweep_name, question, machine);
        fill!(text: cache_regime, launch_requested, launch_resolved, fair, fair_reference);
        fill!(count: stride, n_kv_heads, kv_rank, rope_dim, batch, context, tokens, new_tokens, threads);
        fill!(real: time_median_s, time_ci_low_s, time_ci_high_s, tokens_per_s);
        fill!(real: kv_bytes, kv_allocated_bytes, kv_bytes_per_token, weights_bytes, peak_bytes);
        fill!(real: fair_mismatch, flops, bytes_moved, achieved_flops_per_s);
        fill!(real: ceiling_flops_per_s, ceiling_bytes_per_s);
        for (row, label) in rows.iter_mut().zip(text(table, "label")?) {
            row.label = label.unwrap_or_else(|| default_label(row));
        }
        Ok(Self::from_rows(rows))
    }

    /// A frame of rows that are already typed.
    pub fn from_rows(rows: Vec<Row>) -> Self {
        let palette = Palette::new(&rows);
        Self {
            rows,
            positions: Vec::new(),
            palette,
        }
    }

    /// The rows of several frames, one after the other.
    pub fn joined(frames: Vec<Self>) -> Self {
        let (mut rows, mut positions) = (Vec::new(), Vec::new());
        for frame in frames {
            rows.extend(frame.rows);
            positions.extend(frame.positions);
        }
        Self::from_rows(rows).and_positions(positions)
    }

    /// The same rows with the positions of their trajectories, from a table such as `positions.parquet`.
    ///
    /// # Errors
    /// [`Error::MissingColumn`] and [`Error::Value`] where a position has no case or no number;
    /// [`Error::ColumnType`] where a column does not hold what its name promises.
    pub fn with_positions(self, table: &DataFrame) -> Result<Self, Error> {
        let case_id = required_text(table, "case_id")?;
        let number = required_count(table, "position")?;
        let mut positions: Vec<Position> = (case_id.into_iter().zip(number))
            .map(|(case_id, position)| Position {
                case_id,
                position,
                ..Position::default()
            })
            .collect();
        macro_rules! fill {
            ($read:ident: $($field:ident),+) => {$(
                for (position, value) in positions.iter_mut().zip($read(table, stringify!($field))?) {
                    position.$field = value;
                }
            )+};
        }
        fill!(real: time_median_s, time_ci_low_s, time_ci_high_s, kv_bytes);
        fill!(flag: closes_slot);
        Ok(self.and_positions(positions))
    }

    /// The same rows with positions that are already typed.
    pub fn and_positions(self, positions: Vec<Position>) -> Self {
        Self { positions, ..self }
    }

    /// The positions of a case in ascending order; where a position is there twice, the last counts.
    pub(crate) fn positions(&self, case_id: &str) -> Vec<&Position> {
        let own = self
            .positions
            .iter()
            .filter(|position| position.case_id == case_id);
        let last: BTreeMap<u64, &Position> = own.map(|position| (position.position, position)).collect();
        last.into_values().collect()
    }

    /// The rows, in the order of the table.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub(crate) fn palette(&self) -> &Palette {
        &self.palette
    }
}

/// What an unlabelled row is called: `MTLA s=2`, `GQA (2)`.
fn default_label(row: &Row) -> String {
    let name = row.variant.to_uppercase();
    match (row.stride, row.n_kv_heads) {
        (Some(stride), _) => format!("{name} s={stride}"),
        (None, Some(heads)) if row.variant == "gqa" => format!("{name} ({heads})"),
        _ => name,
    }
}
