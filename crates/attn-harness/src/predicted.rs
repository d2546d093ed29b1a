//! What a plan predicted against what was measured.

use crate::row::Row;
use crate::stats::median;

/// How the measured values of a quantity compare with the predicted ones.
#[derive(Debug, Clone, PartialEq)]
pub struct Accuracy {
    /// Cases compared.
    pub n: usize,
    /// Median of measured over predicted.
    pub median: f64,
    /// Smallest ratio, and whose.
    pub least: (f64, String),
    /// Largest ratio, and whose.
    pub most: (f64, String),
}

impl Accuracy {
    /// Over the rows for which `measured` and `predicted` are known and not zero.
    pub fn of(
        rows: &[Row],
        measured: impl Fn(&Row) -> Option<f64>,
        predicted: impl Fn(&Row) -> Option<f64>,
    ) -> Option<Self> {
        let ratio = |row: &Row| {
            let (measured, predicted) = (measured(row)?, predicted(row)?);
            (measured > 0.0 && predicted > 0.0).then_some(measured / predicted)
        };
        let name = |row: &Row| format!("{}, {}", crate::table::workload_title(row), row.label);
        let mut ratios: Vec<(f64, String)> = rows
            .iter()
            .filter_map(|row| Some((ratio(row)?, name(row))))
            .collect();
        ratios.sort_by(|a, b| a.0.total_cmp(&b.0));
        let values: Vec<f64> = ratios.iter().map(|(ratio, _)| *ratio).collect();
        Some(Self {
            n: ratios.len(),
            median: median(&values),
            least: ratios.first()?.clone(),
            most: ratios.last()?.clone(),
        })
    }

    fn line(&self, what: &str) -> String {
        if self.least.0 == self.most.0 {
            return format!(
                "- {what}: {:.2} times as predicted in all {} cases\n",
                self.median, self.n
            );
        }
        format!(
            "- {what}: {:.2} times as predicted in the median of {} cases, from {:.2} ({}) to {:.2} ({})\n",
            self.median, self.n, self.least.0, self.least.1, self.most.0, self.most.1
        )
    }
}

/// The plan's predictions of rows, looked back on: a line each for cache, memory and time. Empty where nothing was
/// measured.
pub fn summary(rows: &[Row]) -> String {
    let count = |cell: Option<u64>| cell.map(|n| n as f64);
    let spent = |row: &Row| {
        let parts = [
            row.build_s,
            row.verify_s,
            row.warmup_s,
            row.sampling_s,
            row.reset_s,
        ];
        row.sampling_s?;
        Some(parts.into_iter().flatten().sum())
    };
    let lines = [
        (
            "cache",
            Accuracy::of(
                rows,
                |row| count(row.kv_bytes),
                |row| count(row.predicted_kv_bytes),
            ),
        ),
        (
            "peak memory",
            Accuracy::of(
                rows,
                |row| count(row.peak_bytes),
                |row| count(row.predicted_peak_bytes),
            ),
        ),
        ("time", Accuracy::of(rows, spent, |row| row.predicted_time_s)),
    ];
    let lines: String = lines
        .into_iter()
        .filter_map(|(what, accuracy)| Some(accuracy?.line(what)))
        .collect();
    if lines.is_empty() {
        return lines;
    }
    format!("Measured against predicted:\n{lines}")
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
