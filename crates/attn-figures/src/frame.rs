//! The rows of one or several runs, typed.

use crate::columns::{count, fill, flag, real, required_text, text};
use crate::{Error, style::Palette};
use polars::prelude::DataFrame;
use std::collections::{BTreeMap, BTreeSet};

pub use crate::details::{CurvePoint, Position, Probe, Training};
pub use crate::row::Row;

/// Rows, what belongs to them, and one colour and marker for each variant.
#[derive(Debug, Clone)]
pub struct Frame {
    rows: Vec<Row>,
    details: Details,
    palette: Palette,
    /// Those of several machines each.
    twins: BTreeSet<Kind>,
}

/// The models of a processor and, where a case ran on one, of a GPU.
type Kind = (Option<String>, Option<String>);

/// Of tables other than that of the rows.
#[derive(Debug, Clone, Default)]
struct Details {
    positions: Vec<Position>,
    trainings: Vec<Training>,
    curves: Vec<CurvePoint>,
    probes: Vec<Probe>,
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
        "fingerprint",
        "gpu",
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
        "merge",
        "rope_key",
        "train_mask",
        "task",
        "train_steps",
        "lr",
        "encoder_layers",
        "downsample",
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
        "quality_measure",
        "quality_higher_is_better",
        "quality_best",
        "quality",
        "quality_ci_low",
        "quality_ci_high",
        "quality_sd",
        "n_seeds",
        "n_diverged",
        "test_examples",
        "valid_nats",
        "test_nats",
        "test_accuracy",
        "cache_agreement",
        "parameters",
        "train_time_s",
        "train_step_s",
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

        fill!(rows, table, text: case_id, run, scope, dtype_requested, dtype_resolved, device_requested, device_resolved);
        fill!(rows, table, text: path_requested, path_resolved, trust, sweep_name, question, machine);
        fill!(rows, table, text: fingerprint, gpu);
        fill!(rows, table, text: cache_regime, launch_requested, launch_resolved, fair, fair_reference);
        fill!(rows, table, text: decoder, prefix, habits);
        fill!(rows, table, count: d_model, n_heads, n_layers, d_ff, vocab, beam);
        fill!(rows, table, count: stride, n_kv_heads, kv_rank, rope_dim, batch, context, tokens, new_tokens, threads);
        fill!(rows, table, real: time_median_s, time_ci_low_s, time_ci_high_s, tokens_per_s);
        fill!(rows, table, real: kv_bytes, kv_allocated_bytes, kv_bytes_per_token, weights_bytes, peak_bytes);
        fill!(rows, table, real: reserved_peak_bytes, paper_memory_bytes, paper_time_s, time_to_first_token_s);
        fill!(rows, table, real: prefill_s, projections_s, cache_update_s, attention_s, reorder_s);
        fill!(rows, table, real: feed_forward_s, vocabulary_s, choosing_s, other_s);
        fill!(rows, table, real: fair_mismatch, flops, bytes_moved, achieved_flops_per_s);
        fill!(rows, table, real: ceiling_flops_per_s, ceiling_bytes_per_s);
        fill!(rows, table, text: merge, rope_key, train_mask, task, quality_measure);
        fill!(rows, table, flag: quality_higher_is_better);
        fill!(rows, table, count: train_steps, encoder_layers, downsample, n_seeds, n_diverged);
        fill!(rows, table, count: test_examples, parameters);
        fill!(rows, table, real: quality, quality_best, quality_ci_low, quality_ci_high, quality_sd);
        fill!(rows, table, real: lr, valid_nats, test_nats, test_accuracy, cache_agreement, train_time_s, train_step_s);
        for (row, label) in rows.iter_mut().zip(text(table, "label")?) {
            row.label = label.unwrap_or_else(|| default_label(row));
        }
        Ok(Self::from_rows(rows))
    }

    /// A frame of rows that are already typed.
    pub fn from_rows(rows: Vec<Row>) -> Self {
        let palette = Palette::new(&rows);
        let twins = twins(&rows);
        Self {
            rows,
            details: Details::default(),
            palette,
            twins,
        }
    }

    /// The rows of several frames with all that belongs to them, one after the other.
    pub fn joined(frames: Vec<Self>) -> Self {
        let (mut rows, mut all) = (Vec::new(), Details::default());
        for frame in frames {
            rows.extend(frame.rows);
            all.positions.extend(frame.details.positions);
            all.trainings.extend(frame.details.trainings);
            all.curves.extend(frame.details.curves);
            all.probes.extend(frame.details.probes);
        }
        Self {
            details: all,
            ..Self::from_rows(rows)
        }
    }

    /// The same rows with the positions of their trajectories, from a table such as `positions.parquet`.
    ///
    /// # Errors
    /// [`Error::MissingColumn`] and [`Error::Value`] where a position has no case or no number;
    /// [`Error::ColumnType`] where a column does not hold what its name promises.
    pub fn with_positions(self, table: &DataFrame) -> Result<Self, Error> {
        Ok(self.and_positions(Position::read(table)?))
    }

    /// The same rows with their trainings, from a table such as `trainings.parquet`.
    ///
    /// # Errors
    /// [`Error::MissingColumn`] and [`Error::Value`] where a training has no case or no seed;
    /// [`Error::ColumnType`] where a column does not hold what its name promises.
    pub fn with_trainings(self, table: &DataFrame) -> Result<Self, Error> {
        Ok(self.and_trainings(Training::read(table)?))
    }

    /// The same rows with the curves of their trainings, from a table such as `curves.parquet`.
    ///
    /// # Errors
    /// [`Error::MissingColumn`] and [`Error::Value`] where a point has no case, seed or step;
    /// [`Error::ColumnType`] where a column does not hold what its name promises.
    pub fn with_curves(self, table: &DataFrame) -> Result<Self, Error> {
        Ok(self.and_curves(CurvePoint::read(table)?))
    }

    /// The same rows with the answers of their tests by place, from a table such as `probes.parquet`.
    ///
    /// # Errors
    /// [`Error::MissingColumn`] and [`Error::Value`] where a place has no case, seed, distance or load;
    /// [`Error::ColumnType`] where a column does not hold what its name promises.
    pub fn with_probes(self, table: &DataFrame) -> Result<Self, Error> {
        Ok(self.and_probes(Probe::read(table)?))
    }

    /// The same rows with positions that are already typed.
    pub fn and_positions(mut self, positions: Vec<Position>) -> Self {
        self.details.positions = positions;
        self
    }

    /// The same rows with trainings that are already typed.
    pub fn and_trainings(mut self, trainings: Vec<Training>) -> Self {
        self.details.trainings = trainings;
        self
    }

    /// The same rows with curves that are already typed.
    pub fn and_curves(mut self, curves: Vec<CurvePoint>) -> Self {
        self.details.curves = curves;
        self
    }

    /// The same rows with answers that are already typed.
    pub fn and_probes(mut self, probes: Vec<Probe>) -> Self {
        self.details.probes = probes;
        self
    }

    /// The positions of a case in ascending order; where a position is there twice, the last counts.
    pub(crate) fn positions(&self, case_id: &str) -> Vec<&Position> {
        let own = self.details.positions.iter().filter(|it| it.case_id == case_id);
        last_of_each(own, |it| it.position)
    }

    /// The trainings of a case by seed; where one is there twice, the last counts.
    pub(crate) fn trainings(&self, case_id: &str) -> Vec<&Training> {
        let own = self.details.trainings.iter().filter(|it| it.case_id == case_id);
        last_of_each(own, |it| it.seed)
    }

    /// The curves of a case by seed and step; where a point is there twice, the last counts.
    pub(crate) fn curves(&self, case_id: &str) -> Vec<&CurvePoint> {
        let own = self.details.curves.iter().filter(|it| it.case_id == case_id);
        last_of_each(own, |it| (it.seed, it.step))
    }

    /// The places of a case by seed, load and distance; where one is there twice, the last counts.
    pub(crate) fn probes(&self, case_id: &str) -> Vec<&Probe> {
        let own = self.details.probes.iter().filter(|it| it.case_id == case_id);
        last_of_each(own, |it| (it.seed, it.load, it.distance))
    }

    /// The rows, in the order of the table.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub(crate) fn palette(&self) -> &Palette {
        &self.palette
    }

    /// The model of a row's machine, with a mark of its own where the frame has several machines of that model.
    pub(crate) fn machine(&self, row: &Row) -> Option<String> {
        let is_own = |(machine, gpu): &Kind| {
            // A case that failed early may not know its GPU.
            *machine == row.machine && (*gpu == row.gpu || (!row.is_ok() && row.gpu.is_none()))
        };
        let print = row.fingerprint.as_deref().filter(|print| !print.is_empty());
        let print = print.filter(|_| self.twins.iter().any(is_own)).map(mark);
        match (row.machine.clone(), print) {
            (Some(machine), Some(print)) => Some(format!("{machine} ({print})")),
            (None, Some(print)) => Some(format!("machine {print}")),
            (machine, None) => machine,
        }
    }
}

/// As much of a fingerprint as a reader needs to tell machines apart.
pub(crate) fn mark(fingerprint: &str) -> String {
    fingerprint.chars().take(8).collect()
}

/// Models of processor and GPU whose measured rows have several fingerprints. Rows that do not know theirs, as in
/// older runs, are no machine of their own.
fn twins(rows: &[Row]) -> BTreeSet<Kind> {
    let mut prints: BTreeMap<Kind, BTreeSet<&str>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.is_ok()) {
        if let Some(print) = row.fingerprint.as_deref().filter(|print| !print.is_empty()) {
            let model = (row.machine.clone(), row.gpu.clone());
            prints.entry(model).or_default().insert(print);
        }
    }
    prints.retain(|_, own| own.len() > 1);
    prints.into_keys().collect()
}

/// The last element of each key, in the order of the keys.
fn last_of_each<'a, T, K: Ord>(all: impl Iterator<Item = &'a T>, key: fn(&T) -> K) -> Vec<&'a T> {
    let last: BTreeMap<K, &T> = all.map(|one| (key(one), one)).collect();
    last.into_values().collect()
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
