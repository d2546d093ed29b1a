//! How good a model is against the bytes that a token costs its cache.

use super::FigureSpec;
use super::points::positive;
use super::quality::{INTERVAL, Tasks, Trained, dots, front, point};
use crate::axis::Axis;
use crate::frame::Row;
use crate::sheet::{Body, Grid, LinePanel, Series, Shape, Sheet};
use crate::slice::{Slice, TRAINED};
use crate::style::series_key;
use crate::units::Unit;

pub(super) const SPEC: FigureSpec = FigureSpec {
    name: "quality-vs-cache",
    summary: "Quality of trained models against the cache bytes of a token, with the Pareto front",
    needs: "quality",
    uses: Row::is_quality,
    dimensions: TRAINED,
    sheet,
};

fn bytes(row: &Row) -> Option<f64> {
    positive(row.kv_bytes_per_token)
}

fn sheet(slice: &Slice<'_>) -> Result<Sheet, String> {
    let mut tasks = Tasks::of(slice)?;
    tasks.retain(|trained| trained.rows.iter().any(|row| bytes(row).is_some()));
    if tasks.all.is_empty() {
        return Err("no training has kv_bytes_per_token".to_owned());
    }
    let mut notes = vec![INTERVAL.to_owned(), "cache in closed form".to_owned()];
    let mut panels = Vec::new();
    for trained in &tasks.all {
        let panel = panel(slice, trained);
        notes.extend(trained.best_note(&panel.y));
        panels.push(panel);
    }
    notes.extend(tasks.notes());
    Ok(Sheet {
        title: "What quality costs in cache".to_owned(),
        subtitle: format!(
            "Quality on the test, decoded through the cache, against the bytes a token adds to it (whole model){}",
            tasks.updates()
        ),
        notes,
        reservations: tasks.reservations(slice),
        body: Body::Grid(Grid {
            panels,
            is_named: false,
        }),
    })
}

fn panel(slice: &Slice<'_>, trained: &Trained<'_>) -> LinePanel {
    let known: Vec<(&Row, f64)> = trained
        .rows
        .iter()
        .filter_map(|row| Some((*row, bytes(row)?)))
        .collect();
    let x = Axis::logarithmic(
        "KV cache per token (bytes)",
        Unit::Bytes,
        known.iter().map(|(_, bytes)| *bytes),
    );
    let seeds = |row: &Row| Trained::seeds(slice, row);
    let values: Vec<f64> = known.iter().flat_map(|(row, _)| seeds(row)).collect();
    let y = trained.axis(&values);

    let look = |row: &Row| slice.frame.palette().look(&series_key(row));
    let of_seeds = known.iter().flat_map(|(row, bytes)| {
        let look = look(row);
        seeds(row).into_iter().map(move |value| (*bytes, value, look))
    });
    let places: Vec<(f64, f64)> = known
        .iter()
        .filter_map(|(row, bytes)| Some((*bytes, row.quality?)))
        .collect();
    let mut series: Vec<Series> = trained.best_line(&x, &y).into_iter().collect();
    series.extend(front(&places, trained.is_higher_better(), x.reach()[1]));
    series.extend(dots(of_seeds.collect()));
    series.extend(known.iter().filter_map(|(row, bytes)| {
        Some(Series {
            label: series_key(row).1,
            look: look(row),
            points: vec![point(*bytes, trained.drawn(row, &y)?)],
            shape: Shape::Tagged,
        })
    }));
    LinePanel {
        title: Some(trained.title.clone()),
        x,
        y,
        same_y_as_previous: false,
        series,
    }
}
