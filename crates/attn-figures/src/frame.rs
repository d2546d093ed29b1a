//! The rows of one or several runs, typed.

use crate::columns::{count, flag, real, required_count, required_text, text};
use crate::{Error, style::Palette};
use polars::prelude::DataFrame;
use std::collections::BTreeMap;

pub use crate::row::{Position, Row};

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
        "decoder",
        "prefix",
        "habits",
        "stride",
        "n_kv_heads",
        "kv_rank",
        "rope_dim",
        "batch",
        "context",
        "tokens",
        "new_tokens",
        "threads",
        "d_model",
        "n_heads",
        "n_layers",
        "d_ff",
        "vocab",
        "beam",
        "time_median_s",
        "time_ci_low_s",
        "time_ci_high_s",
        "tokens_per_s",
        "kv_bytes",
        "kv_allocated_bytes",
        "kv_bytes_per_token",
        "weights_bytes",
        "peak_bytes",
        "reserved_peak_bytes",
        "paper_memory_bytes",
        "paper_time_s",
        "time_to_first_token_s",
        "prefill_s",
        "projections_s",
        "cache_update_s",
        "attention_s",
        "reorder_s",
        "feed_forward_s",
        "vocabulary_s",
        "choosing_s",
        "other_s",
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
        fill!(text: decoder, prefix, habits);
        fill!(count: d_model, n_heads, n_layers, d_ff, vocab, beam);
        fill!(count: stride, n_kv_heads, kv_rank, rope_dim, batch, context, tokens, new_tokens, threads);
        fill!(real: time_median_s, time_ci_low_s, time_ci_high_s, tokens_per_s);
        fill!(real: kv_bytes, kv_allocated_bytes, kv_bytes_per_token, weights_bytes, peak_bytes);
        fill!(real: reserved_peak_bytes, paper_memory_bytes, paper_time_s, time_to_first_token_s);
        fill!(real: prefill_s, projections_s, cache_update_s, attention_s, reorder_s);
        fill!(real: feed_forward_s, vocabulary_s, choosing_s, other_s);
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
