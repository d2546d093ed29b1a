//! What each variant makes of each learning rate.

use super::FigureSpec;
use super::points::positive;
use super::quality::{INTERVAL, Tasks, Trained, named, point};
use crate::axis::{Axis, Scale};
use crate::frame::Row;
use crate::sheet::{Body, Grid, LinePanel, Point, Series, Shape, Sheet};
use crate::slice::{Slice, TRAINED};
use crate::style::{SeriesKey, series_key};
use crate::units::Unit;

pub(super) const SPEC: FigureSpec = FigureSpec {
    name: "quality-vs-lr",
    summary: "Quality of trained models against the learning rate, a line a variant",
    needs: "quality",
    uses: Row::is_quality,
    dimensions: TRAINED,
    sheet,
};

fn rate(row: &Row) -> Option<f64> {
    positive(row.lr)
}

fn sheet(slice: &Slice<'_>) -> Result<Sheet, String> {
    let mut tasks = Tasks::at_every_rate(slice)?;
    tasks.retain(|trained| lines(trained).iter().any(|(_, rows)| rows.len() > 1));
    if tasks.all.is_empty() {
        return Err("two learning rates of one variant, trained on the same task, are needed".to_owned());
    }
    let mut notes = vec![INTERVAL.to_owned()];
    notes.extend(tasks.notes());
    let single = tasks
        .all
        .iter()
        .flat_map(lines)
        .filter(|(_, rows)| rows.len() == 1);
    notes.extend(named(
        "one learning rate only, not shown",
        single.map(|(key, _)| key.1),
    ));
    Ok(Sheet {
        title: "What the learning rate decides".to_owned(),
        subtitle: format!(
            "Quality on the test against the highest learning rate of the training{}",
            tasks.updates()
        ),
        notes,
        reservations: tasks.reservations(slice),
        body: Body::Grid(Grid {
            panels: tasks.all.iter().map(|trained| panel(slice, trained)).collect(),
            is_named: false,
        }),
    })
}

/// The rows of each series, rates ascending.
fn lines<'a>(trained: &Trained<'a>) -> Vec<(SeriesKey, Vec<&'a Row>)> {
    let mut lines: Vec<(SeriesKey, Vec<&Row>)> = Vec::new();
    for row in trained.rows.iter().copied().filter(|row| rate(row).is_some()) {
        let key = series_key(row);
        match lines.iter_mut().find(|(other, _)| *other == key) {
            Some((_, rows)) => rows.push(row),
            None => lines.push((key, vec![row])),
        }
    }
    for (_, rows) in &mut lines {
        rows.sort_by(|a, b| a.lr.unwrap_or(0.0).total_cmp(&b.lr.unwrap_or(0.0)));
    }
    lines
}

fn panel(slice: &Slice<'_>, trained: &Trained<'_>) -> LinePanel {
    let mut lines = lines(trained);
    lines.retain(|(_, rows)| rows.len() > 1);
    let drawn = |row: &Row| {
        lines
            .iter()
            .any(|(_, rows)| rows.iter().any(|other| std::ptr::eq(*other, row)))
    };
    let y = trained.only(drawn).axis(&[]);
    let mut rates: Vec<f64> = lines
        .iter()
        .flat_map(|(_, rows)| rows)
        .filter_map(|row| rate(row))
        .collect();
    rates.sort_by(f64::total_cmp);
    rates.dedup();
    let place = |row: &&Row| -> Option<Point> { Some(point(rate(row)?, trained.drawn(row, &y)?)) };
    let line = |(key, rows): &(SeriesKey, Vec<&Row>)| Series {
        label: key.1.clone(),
        look: slice.frame.palette().look(key),
        points: rows.iter().filter_map(place).collect(),
        shape: Shape::Curve,
    };
    LinePanel {
        title: Some(trained.title.clone()),
        x: Axis::at_values("Learning rate", Scale::Log, Unit::Score, &rates),
        series: lines.iter().map(line).collect(),
        y,
        same_y_as_previous: false,
    }
}
