//! Where the time of a whole decoder goes.

use super::FigureSpec;
use super::points::{listed, replaced_note, time};
use super::ways::{by_way, is_end, why_missing};
use crate::frame::Row;
use crate::sheet::{Body, Sheet, StackBar, StackPanel, Stacks};
use crate::slice::{Slice, WAYS, sizes};
use crate::style::{SeriesKey, series_key};
use crate::units::Unit;
use plotters::style::RGBColor;
use std::collections::BTreeSet;

pub(super) const SPEC: FigureSpec = FigureSpec {
    name: "time-breakdown",
    summary: "Time of a whole decoder by what it is spent on",
    needs: "whole-model",
    uses: |row| row.is_timed_model() && is_end(row),
    dimensions: WAYS,
    sheet,
};

/// What a phase is called, its colour and its column. The last is what is left.
type Phase = (&'static str, RGBColor, fn(&Row) -> Option<f64>);

const PHASES: [Phase; 9] = [
    ("prefill", RGBColor(0x4D, 0x4D, 0x4D), |row| row.prefill_s),
    ("projections", RGBColor(0x56, 0xB4, 0xE9), |row| row.projections_s),
    ("cache update", RGBColor(0xE6, 0x9F, 0x00), |row| {
        row.cache_update_s
    }),
    ("attention", RGBColor(0x00, 0x72, 0xB2), |row| row.attention_s),
    ("reorder", RGBColor(0xD5, 0x5E, 0x00), |row| row.reorder_s),
    ("feed-forward", RGBColor(0x00, 0x9E, 0x73), |row| {
        row.feed_forward_s
    }),
    ("vocabulary", RGBColor(0xCC, 0x79, 0xA7), |row| row.vocabulary_s),
    ("sampling", RGBColor(0xF0, 0xE4, 0x42), |row| row.choosing_s),
    ("other", RGBColor(0xC4, 0xC4, 0xC4), |row| row.other_s),
];

/// How far the phases may be from the sample they are the parts of.
const TOLERANCE: f64 = 0.05;

/// The seconds of each phase; `None` where none was measured. What is left is the sample less the others where
/// the row does not say.
fn phases(row: &Row) -> Option<Vec<f64>> {
    let (_, measured) = PHASES.split_last()?;
    let known: Vec<Option<f64>> = measured.iter().map(|(.., of)| of(row)).collect();
    known.iter().any(Option::is_some).then_some(())?;
    let seconds = |value: Option<f64>| value.filter(|v| v.is_finite() && *v > 0.0).unwrap_or(0.0);
    let mut phases: Vec<f64> = known.into_iter().map(seconds).collect();
    let sum: f64 = phases.iter().sum();
    let left = row.other_s.or_else(|| Some(time(row)?.value - sum));
    phases.push(seconds(left));
    Some(phases)
}

/// Whether they add up to the sample.
fn adds_up(row: &Row, phases: &[f64]) -> bool {
    let sum: f64 = phases.iter().sum();
    time(row).is_some_and(|whole| (sum - whole.value).abs() <= TOLERANCE * whole.value)
}

fn sheet(slice: &Slice<'_>) -> Result<Sheet, String> {
    let (ways, n_replaced) = by_way(slice, time);
    let drawn: Vec<&Row> = ways
        .iter()
        .flat_map(|(_, rows)| rows.iter().copied())
        .filter(|row| phases(row).is_some())
        .collect();
    if drawn.is_empty() {
        return Err("no row has its time by phase".to_owned());
    }
    let series = slice.series(&drawn);
    let mut panels = Vec::new();
    for (way, rows) in &ways {
        if !rows.iter().any(|row| phases(row).is_some()) {
            continue;
        }
        let bar = |key: SeriesKey| {
            let row = rows.iter().find(|row| series_key(row) == key);
            let star = if row.is_none_or(|row| row.is_clean()) {
                ""
            } else {
                " *"
            };
            let parts = row.and_then(|row| phases(row));
            let whole = row.and_then(|row| time(row));
            let text = match (&parts, whole) {
                (Some(_), Some(whole)) => format!("{}{star}", Unit::Seconds.format(whole.value, 3, false)),
                (None, Some(_)) => "not by phase".to_owned(),
                _ => why_missing(slice, way, &key),
            };
            StackBar {
                label: key.1,
                parts: parts.unwrap_or_default(),
                text,
            }
        };
        panels.push(StackPanel {
            title: way.title(),
            bars: series.iter().map(|(key, _)| bar(key.clone())).collect(),
        });
    }
    let mut notes = vec![
        "means of the middle half of the samples; at the ends: the median sample".to_owned(),
        "percentages are of the bar".to_owned(),
    ];
    notes.extend(does_not_add_up(&drawn));
    if drawn.iter().any(|row| !row.is_clean()) {
        notes.push("* trust not clean".to_owned());
    }
    notes.extend(replaced_note(n_replaced));
    Ok(Sheet {
        title: "Where the time goes".to_owned(),
        subtitle: format!(
            "Time of a whole run by phase: {}",
            slice.rows.first().map(|row| sizes(row)).unwrap_or_default()
        ),
        notes,
        reservations: slice.reservations(),
        body: Body::Stacks(Stacks {
            segments: PHASES.iter().map(|(name, color, _)| (*name, *color)).collect(),
            axis_title: "Time".to_owned(),
            unit: Unit::Seconds,
            panels,
        }),
    })
}

fn does_not_add_up(rows: &[&Row]) -> Option<String> {
    let odd = rows
        .iter()
        .filter(|row| phases(row).is_some_and(|phases| !adds_up(row, &phases)));
    let names: BTreeSet<String> = odd.map(|row| row.label.clone()).collect();
    let names: Vec<String> = names.into_iter().collect();
    (!names.is_empty()).then(|| {
        format!(
            "phases and sample differ by more than 5\u{a0}%: {}",
            listed(&names)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_the_sample_less_the_phases() {
        let row = Row {
            time_median_s: Some(10.0),
            prefill_s: Some(2.0),
            attention_s: Some(5.0),
            ..Row::default()
        };
        let parts = phases(&row).unwrap();
        assert_eq!(parts, [2.0, 0.0, 0.0, 5.0, 0.0, 0.0, 0.0, 0.0, 3.0]);
        assert!(adds_up(&row, &parts));
        assert_eq!(phases(&Row::default()), None);
    }

    #[test]
    fn phases_beyond_the_sample_are_told() {
        let row = Row {
            label: "MLA".into(),
            time_median_s: Some(10.0),
            attention_s: Some(10.0),
            other_s: Some(0.6),
            ..Row::default()
        };
        let note = does_not_add_up(&[&row]).unwrap();
        assert_eq!(
            note.replace('\u{a0}', " "),
            "phases and sample differ by more than 5 %: MLA"
        );
        let close = Row {
            other_s: Some(0.4),
            ..row
        };
        assert_eq!(does_not_add_up(&[&close]), None);
    }
}
