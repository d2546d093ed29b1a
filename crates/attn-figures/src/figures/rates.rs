//! Of trainings that differ in their learning rate alone, the one that the validation part says is best.

use super::quality::named;
use crate::frame::Row;
use crate::style::series_key;
use crate::tasks::Task;
use std::collections::BTreeMap;

/// Rows at the best of their learning rates, and between which rates they were chosen.
pub(super) struct AtBest<'a> {
    pub(super) rows: Vec<&'a Row>,
    /// Learning rates of a row that was chosen, the lowest and the highest number of them; 1 where none was.
    tried: (usize, usize),
    /// Rows that are best at the lowest or the highest rate of several.
    at_an_end: Vec<&'a Row>,
}

/// Of the rows of a series on a task, the one with the lowest validation loss. Where only some rows know it, one of
/// them; where none does, the last one.
pub(super) fn at_best<'a>(rows: &[&'a Row]) -> AtBest<'a> {
    let mut groups: BTreeMap<_, Vec<&'a Row>> = BTreeMap::new();
    for row in rows {
        groups
            .entry((series_key(row), Task::of(row)))
            .or_default()
            .push(row);
    }
    let mut best = AtBest {
        rows: Vec::new(),
        tried: (usize::MAX, 1),
        at_an_end: Vec::new(),
    };
    for group in groups.into_values() {
        let known: Vec<(&Row, f64)> = group.iter().filter_map(|row| Some((*row, loss(row)?))).collect();
        let chosen = known
            .iter()
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .map(|(row, _)| *row);
        let Some(row) = chosen.or(group.last().copied()) else {
            continue;
        };
        let rates = || known.iter().filter_map(|(row, _)| row.lr);
        let ends = [rates().reduce(f64::min), rates().reduce(f64::max)];
        let n_rates = known.len().max(1);
        if n_rates > 1 && row.lr.is_some() && ends.contains(&row.lr) {
            best.at_an_end.push(row);
        }
        best.tried = (best.tried.0.min(n_rates), best.tried.1.max(n_rates));
        best.rows.push(row);
    }
    best
}

fn loss(row: &Row) -> Option<f64> {
    row.lr?;
    row.valid_nats.filter(|nats| nats.is_finite())
}

impl AtBest<'_> {
    /// `each at the best of 3 learning rates by validation loss`, where there were several.
    pub(super) fn note(&self) -> Option<String> {
        let (least, most) = self.tried;
        let rates = if least == most {
            most.to_string()
        } else {
            format!("{least} to {most}")
        };
        (most > 1).then(|| format!("each at the best of {rates} learning rates by validation loss"))
    }

    /// Whose best rate has nothing tried on one side of it.
    pub(super) fn reservation(&self) -> Option<String> {
        if !self.at_an_end.is_empty() && self.at_an_end.len() == self.rows.len() {
            return Some(
                "every best learning rate is the lowest or highest tried, another may be better".to_owned(),
            );
        }
        let name = |row: &&Row| {
            let lr = row.lr.map(|lr| format!(" ({lr})")).unwrap_or_default();
            format!("{}{lr}", series_key(row).1)
        };
        let label = "best at the lowest or highest learning rate tried, which another may beat";
        named(label, self.at_an_end.iter().map(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(label: &str, lr: f64, valid_nats: Option<f64>) -> Row {
        Row {
            label: label.into(),
            lr: Some(lr),
            valid_nats,
            ..Row::default()
        }
    }

    fn chosen(rows: &[Row]) -> (Vec<Option<f64>>, Option<String>, Option<String>) {
        let rows: Vec<&Row> = rows.iter().collect();
        let best = at_best(&rows);
        let rates = best.rows.iter().map(|row| row.lr).collect();
        (rates, best.note(), best.reservation())
    }

    #[test]
    fn validation_chooses_the_rate() {
        let rows = [
            row("MHA", 0.001, Some(0.4)),
            row("MHA", 0.002, Some(0.3)),
            row("MHA", 0.004, Some(0.5)),
            row("MQA", 0.001, Some(0.4)),
            row("MQA", 0.002, Some(0.2)),
        ];
        let (rates, note, reservation) = chosen(&rows);
        assert_eq!(rates, [Some(0.002), Some(0.002)]);
        assert_eq!(
            note.unwrap(),
            "each at the best of 2 to 3 learning rates by validation loss"
        );
        assert!(reservation.unwrap().ends_with(": MQA (0.002)"));
    }

    #[test]
    fn one_rate_is_no_choice() {
        let (rates, note, reservation) = chosen(&[row("MHA", 0.001, Some(0.4)), row("MQA", 0.002, None)]);
        assert_eq!(rates, [Some(0.001), Some(0.002)]);
        assert_eq!((note, reservation), (None, None));
    }

    #[test]
    fn rows_that_do_not_know_their_loss_are_no_candidates() {
        let rows = [row("MHA", 0.001, Some(0.4)), row("MHA", 0.002, None)];
        assert_eq!(chosen(&rows).0, [Some(0.001)]);
        let rows = [row("MHA", 0.001, None), row("MHA", 0.002, None)];
        assert_eq!(chosen(&rows).0, [Some(0.002)]);
    }
}
