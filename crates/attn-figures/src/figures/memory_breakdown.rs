//! What the memory of a whole decoder holds.

use super::FigureSpec;
use super::points::{listed, positive, replaced_note};
use super::ways::{Way, by_way, is_end, why_missing};
use crate::frame::Row;
use crate::sheet::{Body, Grade, Measured, Sheet, StackBar, StackPanel, Stacks};
use crate::slice::{Slice, WAYS, sizes};
use crate::style::{SeriesKey, series_key};
use crate::units::Unit;
use plotters::style::RGBColor;
use std::collections::BTreeSet;

pub(super) const SPEC: FigureSpec = FigureSpec {
    name: "memory-breakdown",
    summary: "Peak memory of a whole decoder by what it holds",
    needs: "whole-model",
    uses: |row| row.is_timed_model() && is_end(row),
    dimensions: WAYS,
    sheet,
};

const SEGMENTS: [(&str, RGBColor); 4] = [
    ("weights", RGBColor(0x4D, 0x4D, 0x4D)),
    ("cache", RGBColor(0x00, 0x72, 0xB2)),
    ("activations and copies", RGBColor(0xE6, 0x9F, 0x00)),
    ("allocator", RGBColor(0xC4, 0xC4, 0xC4)),
];

/// What a row's memory holds, in the order of the segments.
#[derive(Debug, PartialEq)]
struct Held {
    parts: Vec<f64>,
    /// Whether something would have been below zero.
    is_clamped: bool,
}

fn held(row: &Row) -> Option<Held> {
    let (weights, cache) = (positive(row.weights_bytes)?, row.kv_allocated_bytes?.max(0.0));
    let peak = positive(row.peak_bytes)?;
    let activations = peak - weights - cache;
    let allocator = row.reserved_peak_bytes.map_or(0.0, |reserved| reserved - peak);
    Some(Held {
        is_clamped: activations < 0.0 || allocator < 0.0,
        parts: vec![weights, cache, activations.max(0.0), allocator.max(0.0)],
    })
}

/// The bytes at a bar's end: what was reserved, or the peak where that is not known.
fn whole(row: &Row) -> Option<Measured> {
    held(row)?;
    Some(Measured {
        value: positive(row.reserved_peak_bytes.or(row.peak_bytes))?,
        interval: None,
        grade: Grade::of(row),
    })
}

fn sheet(slice: &Slice<'_>) -> Result<Sheet, String> {
    let (ways, n_replaced) = by_way(slice, whole);
    let drawn: Vec<&Row> = ways.iter().flat_map(|(_, rows)| rows.iter().copied()).collect();
    if drawn.is_empty() {
        return Err("no row has weights_bytes, kv_allocated_bytes and peak_bytes".to_owned());
    }
    let series = slice.series(&drawn);
    let panel = |(way, rows): &(Way, Vec<&Row>)| {
        let bar = |key: SeriesKey| {
            let row = rows.iter().find(|row| series_key(row) == key);
            let bytes = row.and_then(|row| whole(row));
            let parts = row.and_then(|row| held(row)).map(|held| held.parts);
            let text = match bytes {
                Some(bytes) => Unit::Bytes.format(bytes.value, 3, true),
                None => why_missing(slice, way, &key),
            };
            StackBar {
                label: key.1,
                parts: parts.unwrap_or_default(),
                text,
            }
        };
        StackPanel {
            title: way.title(),
            bars: series.iter().map(|(key, _)| bar(key.clone())).collect(),
        }
    };
    let panels: Vec<StackPanel> = ways.iter().map(panel).collect();
    let mut notes =
        vec!["activations and copies: the allocator's peak less weights and cache as allocated".to_owned()];
    notes.extend(allocator_note(&drawn));
    notes.extend(clamped_note(&drawn));
    notes.extend(replaced_note(n_replaced));
    // Without an allocator that keeps more than it gives out, there is no such part.
    let has_allocator = drawn.iter().any(|row| row.reserved_peak_bytes.is_some());
    let n_segments = if has_allocator { 4 } else { 3 };
    Ok(Sheet {
        title: "What the memory holds".to_owned(),
        subtitle: format!(
            "Peak memory of a whole run by what it holds: {}",
            slice.rows.first().map(|row| sizes(row)).unwrap_or_default()
        ),
        notes,
        reservations: slice.reservations(),
        body: Body::Stacks(Stacks {
            segments: SEGMENTS[..n_segments].to_vec(),
            axis_title: "Memory".to_owned(),
            unit: Unit::Bytes,
            panels,
        }),
    })
}

fn labels(rows: &[&Row], has: impl Fn(&Row) -> bool) -> Vec<String> {
    let names: BTreeSet<String> = rows
        .iter()
        .filter(|row| has(row))
        .map(|row| row.label.clone())
        .collect();
    names.into_iter().collect()
}

fn allocator_note(rows: &[&Row]) -> Option<String> {
    let without = labels(rows, |row| row.reserved_peak_bytes.is_none());
    if without.is_empty() {
        None
    } else if rows.iter().all(|row| row.reserved_peak_bytes.is_none()) {
        Some("what the allocator keeps beyond that was not measured".to_owned())
    } else {
        Some(format!("allocator not measured: {}", listed(&without)))
    }
}

fn clamped_note(rows: &[&Row]) -> Option<String> {
    let odd = labels(rows, |row| held(row).is_some_and(|held| held.is_clamped));
    (!odd.is_empty()).then(|| {
        format!(
            "a part that would be below zero is drawn as nothing: {}",
            listed(&odd)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(weights: f64, cache: f64, peak: f64, reserved: Option<f64>) -> Row {
        Row {
            label: "MLA".into(),
            weights_bytes: Some(weights),
            kv_allocated_bytes: Some(cache),
            peak_bytes: Some(peak),
            reserved_peak_bytes: reserved,
            ..Row::default()
        }
    }

    #[test]
    fn parts_add_up_to_what_was_reserved() {
        let known = held(&row(10.0, 20.0, 50.0, Some(64.0))).unwrap();
        assert_eq!(
            (known.parts, known.is_clamped),
            (vec![10.0, 20.0, 20.0, 14.0], false)
        );
        let unknown = row(10.0, 20.0, 50.0, None);
        assert_eq!(held(&unknown).unwrap().parts, [10.0, 20.0, 20.0, 0.0]);
        assert_eq!(
            allocator_note(&[&unknown]).unwrap(),
            "what the allocator keeps beyond that was not measured"
        );
        assert_eq!(held(&Row::default()), None);
    }

    #[test]
    fn nothing_is_below_zero_and_the_caption_says_why() {
        let odd = row(10.0, 20.0, 25.0, Some(24.0));
        let held = held(&odd).unwrap();
        assert_eq!((held.parts, held.is_clamped), (vec![10.0, 20.0, 0.0, 0.0], true));
        assert!(clamped_note(&[&odd]).unwrap().ends_with(": MLA"));
    }
}
