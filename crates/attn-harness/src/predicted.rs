//! What a plan predicted against what was measured.

use crate::row::Row;
use crate::stats::median;

/// The plan's predictions of rows, looked back on: cache, memory and time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Lookback {
    cache: Ratios,
    peak: Ratios,
    time: Ratios,
}

impl Lookback {
    /// The columns of a row that count, beside those without which there is no row.
    pub(crate) const COLUMNS: &[&str] = &[
        "kv_bytes",
        "predicted_kv_bytes",
        "peak_bytes",
        "predicted_peak_bytes",
        "build_s",
        "verify_s",
        "warmup_s",
        "sampling_s",
        "reset_s",
        "predicted_time_s",
        // The workload's title:
        "batch",
        "context",
        "tokens",
        "new_tokens",
        "beam",
        "task",
        "train_steps",
        "downsample",
        "lr",
    ];

    /// Takes a row into account.
    pub fn add(&mut self, row: &Row) {
        let count = |cell: Option<u64>| cell.map(|n| n as f64);
        self.cache
            .add(row, count(row.kv_bytes), count(row.predicted_kv_bytes));
        self.peak
            .add(row, count(row.peak_bytes), count(row.predicted_peak_bytes));
        let parts = [
            row.build_s,
            row.verify_s,
            row.warmup_s,
            row.sampling_s,
            row.reset_s,
        ];
        let spent_s = row.sampling_s.map(|_| parts.into_iter().flatten().sum());
        self.time.add(row, spent_s, row.predicted_time_s);
    }

    /// A line for each quantity; empty where nothing was measured.
    pub fn summary(&self) -> String {
        let all = [
            ("cache", &self.cache),
            ("peak memory", &self.peak),
            ("time", &self.time),
        ];
        let lines: String = all
            .into_iter()
            .filter_map(|(what, ratios)| ratios.line(what))
            .collect();
        if lines.is_empty() {
            return lines;
        }
        format!("Measured against predicted:\n{lines}")
    }
}

/// Measured over predicted.
#[derive(Debug, Clone, Default, PartialEq)]
struct Ratios {
    all: Vec<f64>,
    /// The smallest, and whose it is.
    least: Option<(f64, String)>,
    /// The largest.
    most: Option<(f64, String)>,
}

impl Ratios {
    /// Where both are known and not zero.
    fn add(&mut self, row: &Row, measured: Option<f64>, predicted: Option<f64>) {
        let Some((measured, predicted)) = measured.zip(predicted) else {
            return;
        };
        if measured <= 0.0 || predicted <= 0.0 {
            return;
        }
        let ratio = measured / predicted;
        self.all.push(ratio);
        let named = || {
            Some((
                ratio,
                format!("{}, {}", crate::table::workload_title(row), row.label),
            ))
        };
        if self.least.as_ref().is_none_or(|(least, _)| ratio < *least) {
            self.least = named();
        }
        if self.most.as_ref().is_none_or(|(most, _)| ratio > *most) {
            self.most = named();
        }
    }

    fn line(&self, what: &str) -> Option<String> {
        let ((least, least_of), (most, most_of)) = self.least.as_ref().zip(self.most.as_ref())?;
        let (median, n) = (median(&self.all), self.all.len());
        if least == most {
            return Some(format!(
                "- {what}: {median:.2} times as predicted in all {n} cases\n"
            ));
        }
        Some(format!(
            "- {what}: {median:.2} times as predicted in the median of {n} cases, from {least:.2} ({least_of}) to \
             {most:.2} ({most_of})\n"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(label: &str, kv: u64, predicted_kv: u64) -> Row {
        Row {
            workload: "decode".into(),
            batch: Some(1),
            context: Some(8),
            label: label.into(),
            kv_bytes: Some(kv),
            predicted_kv_bytes: Some(predicted_kv),
            ..Row::default()
        }
    }

    fn summary(rows: &[Row]) -> String {
        let mut lookback = Lookback::default();
        rows.iter().for_each(|row| lookback.add(row));
        lookback.summary()
    }

    #[test]
    fn predictions_are_looked_back_on_with_their_worst_cases() {
        assert_eq!(summary(&[]), "");
        let rows = [
            row("MHA", 100, 100),
            row("MLA", 50, 100),
            row("MQA", 300, 100),
            row("GQA", 0, 100),
        ];
        let text = summary(&rows);
        let expected = "- cache: 1.00 times as predicted in the median of 3 cases, from 0.50 (";
        assert!(
            text.contains(expected) && text.contains("MLA) to 3.00 (") && text.contains("MQA)"),
            "{text}"
        );
        let text = summary(&[row("MHA", 7, 7)]);
        assert!(
            text.contains("- cache: 1.00 times as predicted in all 1 cases"),
            "{text}"
        );
    }
}
