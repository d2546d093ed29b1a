//! What MTLA's stride buys: time of a decode step and size of the cache against s.

use super::FigureSpec;
use super::curves;
use super::points::{INTERVAL, cache, is_decode, larger_than_rivals, latest, replaced_note, time, values};
use crate::axis::{Axis, Scale};
use crate::frame::Row;
use crate::sheet::{Body, LinePanel, Measured, Point, Series, Shape, Sheet};
use crate::slice::{Slice, TIMED};
use crate::style::series_key;
use crate::units::Unit;
use std::collections::BTreeMap;

pub(super) const SPEC: FigureSpec = FigureSpec {
    name: "compression-rate",
    summary: "Time of a decode step and size of the KV cache against MTLA's stride",
    needs: "decode",
    uses: is_decode,
    dimensions: TIMED,
    sheet,
};

/// At the longest context that two strides were measured at, and there at the batch with most variants (the
/// largest such).
fn sheet(slice: &Slice<'_>) -> Result<Sheet, String> {
    let place = |row: &Row| row.context.zip(row.batch);
    let (rows, n_replaced) = latest(&slice.rows, place, time);
    let mut places: BTreeMap<(u64, u64), Vec<&Row>> = BTreeMap::new();
    for row in rows {
        if let Some(place) = place(row) {
            places.entry(place).or_default().push(row);
        }
    }
    let ((context, batch), here) = places
        .into_iter()
        .filter(|(_, rows)| values(rows, |row| row.stride).len() > 1)
        .max_by_key(|((context, batch), rows)| (*context, rows.len(), *batch))
        .ok_or("two strides of one variant at the same context and batch are needed")?;

    let panels = [
        panel(
            slice,
            &here,
            "Time of a decode step",
            "Time per step",
            Unit::Seconds,
            time,
        ),
        panel(
            slice,
            &here,
            "KV cache of one layer",
            "KV cache (bytes)",
            Unit::Bytes,
            cache,
        ),
    ];
    let panels: Vec<LinePanel> = panels.into_iter().flatten().collect();
    if panels.is_empty() {
        return Err("neither time nor kv_bytes is known at two strides".to_owned());
    }
    let mut notes = vec![INTERVAL.to_owned(), "cache in closed form".to_owned()];
    notes.extend(larger_than_rivals(&here));
    notes.extend(replaced_note(n_replaced));
    notes.extend(unclean_references(&here));
    Ok(Sheet {
        title: "What the temporal stride buys".to_owned(),
        subtitle: format!(
            "Decode against the stride s; dashed: variants without a stride; context {}, batch {batch}",
            Unit::Tokens.format(context as f64, 15, true)
        ),
        notes,
        reservations: slice
            .narrowed(|row| place(row) == Some((context, batch)))
            .reservations(),
        body: Body::Lines(panels),
    })
}

/// A dashed line has no marker to be hollow: the caption says which to doubt.
fn unclean_references(rows: &[&Row]) -> Option<String> {
    let labels: Vec<&str> = rows
        .iter()
        .filter(|row| row.stride.is_none() && !row.is_clean())
        .map(|row| row.label.as_str())
        .collect();
    (!labels.is_empty()).then(|| format!("dashed, trust not clean: {}", labels.join(", ")))
}

fn panel(
    slice: &Slice<'_>,
    rows: &[&Row],
    title: &str,
    y_title: &str,
    unit: Unit,
    y: fn(&Row) -> Option<Measured>,
) -> Option<LinePanel> {
    let known: Vec<&Row> = rows.iter().copied().filter(|row| y(row).is_some()).collect();
    let (merged, others): (Vec<&Row>, Vec<&Row>) = known.iter().partition(|row| row.stride.is_some());
    let strides = values(&merged, |row| row.stride);
    if strides.len() < 2 {
        return None;
    }
    let references = curves::series(slice, &others, |_| Some(0), y).into_iter();
    let mut series: Vec<Series> = references
        .map(|s| Series {
            shape: Shape::Reference,
            ..s
        })
        .collect();
    for reference in &mut series {
        for point in &mut reference.points {
            // A reference has no place along x: any inside will do.
            point.x = strides[0] as f64;
        }
    }
    series.extend(through_strides(slice, &merged, y));

    let ends = known.iter().filter_map(|row| y(row)).flat_map(Measured::ends);
    let strides: Vec<f64> = strides.iter().map(|s| *s as f64).collect();
    let many = strides[strides.len() - 1] > 5.0 * strides[0].max(1.0);
    let scale = if many { Scale::Log } else { Scale::Linear };
    Some(LinePanel {
        title: Some(title.to_owned()),
        x: Axis::at_values("Temporal stride s", scale, Unit::Integer, &strides),
        y: Axis::logarithmic(y_title, unit, ends),
        same_y_as_previous: false,
        series,
    })
}

/// One curve through all strides of a variant that agrees in everything else; each stride keeps its marker.
fn through_strides(slice: &Slice<'_>, merged: &[&Row], y: fn(&Row) -> Option<Measured>) -> Vec<Series> {
    type Geometry = (String, Option<u64>, Option<u64>, Option<u64>);
    let geometry =
        |row: &Row| -> Geometry { (row.variant.clone(), row.kv_rank, row.rope_dim, row.n_kv_heads) };
    let mut curves: BTreeMap<Geometry, Vec<Point>> = BTreeMap::new();
    for row in merged {
        let look = Some(slice.frame.palette().look(&series_key(row)));
        if let (Some(stride), Some(y)) = (row.stride, y(row)) {
            curves.entry(geometry(row)).or_default().push(Point {
                x_interval: None,
                x: stride as f64,
                y,
                look,
            });
        }
    }
    let several = curves.len() > 1;
    let curve = |((variant, rank, ..), mut points): (Geometry, Vec<Point>)| {
        points.sort_by(|a, b| a.x.total_cmp(&b.x));
        let rank = rank
            .filter(|_| several)
            .map(|r| format!(" r={r}"))
            .unwrap_or_default();
        // The colour in the middle of the family.
        let look = points.get(points.len() / 2).and_then(|point| point.look)?;
        Some(Series {
            label: format!("{}{rank}", variant.to_uppercase()),
            look,
            points,
            shape: Shape::Curve,
        })
    };
    curves.into_iter().filter_map(curve).collect()
}
