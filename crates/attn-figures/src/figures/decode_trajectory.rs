//! Time of each generated token and the cache it leaves, one position after the other.

use super::FigureSpec;
use super::points::{is_of, latest, positive, replaced_note, time};
use crate::axis::Axis;
use crate::frame::{Position, Row};
use crate::sheet::{Body, Grade, LinePanel, Measured, Point, Series, Shape, Sheet};
use crate::slice::{Slice, TIMED};
use crate::style::series_key;
use crate::units::Unit;
use std::collections::BTreeSet;

pub(super) const SPEC: FigureSpec = FigureSpec {
    name: "decode-trajectory",
    summary: "Time and cache growth of each generated token",
    needs: "trajectory",
    uses: |row| is_of(row, "trajectory"),
    dimensions: TIMED,
    sheet,
};

/// A case and its positions in ascending order.
struct Trajectory<'a> {
    row: &'a Row,
    positions: Vec<&'a Position>,
}

/// Tokens before, tokens generated, and batch.
type Place = (Option<u64>, Option<u64>, Option<u64>);

fn place(row: &Row) -> Place {
    (row.tokens, row.new_tokens, row.batch)
}

/// Of the places that trajectories were measured at, the one with most variants; of several, the one with most
/// tokens.
fn sheet(slice: &Slice<'_>) -> Result<Sheet, String> {
    let (rows, n_replaced) = latest(&slice.rows, place, time);
    let all: Vec<Trajectory<'_>> = rows
        .into_iter()
        .filter_map(|row| trajectory(slice, row))
        .collect();
    let n_at = |wanted: Place| all.iter().filter(|it| place(it.row) == wanted).count();
    let places: BTreeSet<Place> = all.iter().map(|it| place(it.row)).collect();
    let chosen = places
        .iter()
        .copied()
        .max_by_key(|at| (n_at(*at), *at))
        .ok_or("no trajectory has times at two positions")?;
    let drawn: Vec<Trajectory<'_>> = all.into_iter().filter(|it| place(it.row) == chosen).collect();

    let mut notes = vec![
        "median, band: 95\u{a0}% bootstrap interval, cut at the frame".to_owned(),
        "cache in closed form".to_owned(),
    ];
    if drawn.iter().any(|it| it.row.stride > Some(1)) {
        notes.push("a merging cache grows where a slot opens, every s tokens".to_owned());
    }
    if places.len() > 1 {
        notes.push(format!("one of {} trajectories measured", places.len()));
    }
    notes.extend(replaced_note(n_replaced));
    notes.extend(doubtful(&drawn));
    let (tokens, new_tokens, batch) = chosen;
    let known = |count: Option<u64>| count.map_or_else(|| "?".to_owned(), |count| count.to_string());
    Ok(Sheet {
        title: "Decoding, token by token".to_owned(),
        subtitle: format!(
            "{} tokens generated after {}, each step timed on its own; batch {}",
            known(new_tokens),
            known(tokens),
            known(batch)
        ),
        notes,
        reservations: slice.narrowed(|row| place(row) == chosen).reservations(),
        body: Body::Lines(panels(slice, &drawn)),
    })
}

/// `None` where there is no line to draw.
fn trajectory<'a>(slice: &Slice<'a>, row: &'a Row) -> Option<Trajectory<'a>> {
    let mut positions = slice.frame.positions(row.case_id.as_deref()?);
    positions.retain(|position| positive(position.time_median_s).is_some());
    (positions.len() > 1).then_some(Trajectory { row, positions })
}

fn panels(slice: &Slice<'_>, drawn: &[Trajectory<'_>]) -> Vec<LinePanel> {
    let positions = drawn.iter().flat_map(|it| &it.positions);
    let x = Axis::linear(
        "Tokens in the cache",
        Unit::Integer,
        positions.map(|position| position.position as f64),
    );
    let times = series(slice, drawn, Shape::Band, times);
    let growths = series(slice, drawn, Shape::Steps, growths);
    let mut panels = vec![LinePanel {
        title: Some("Time of a step".to_owned()),
        x: x.clone(),
        y: Axis::logarithmic("Time per step", Unit::Seconds, visible(&times).into_iter()),
        same_y_as_previous: false,
        series: times,
    }];
    if !growths.is_empty() {
        let bytes = growths
            .iter()
            .flat_map(|series| &series.points)
            .map(|point| point.y.value);
        panels.push(LinePanel {
            title: Some("KV cache of one layer".to_owned()),
            x,
            y: Axis::logarithmic("Bytes added since the first position", Unit::Bytes, bytes),
            same_y_as_previous: false,
            series: growths,
        });
    }
    panels
}

/// A line for each trajectory that has points, in the order of legends.
fn series(
    slice: &Slice<'_>,
    drawn: &[Trajectory<'_>],
    shape: Shape,
    points: fn(&Trajectory<'_>) -> Vec<Point>,
) -> Vec<Series> {
    let rows: Vec<&Row> = drawn.iter().map(|it| it.row).collect();
    let line = |(key, look)| {
        let own = drawn.iter().find(|it| series_key(it.row) == key)?;
        Some(Series {
            label: key.1,
            look,
            points: points(own),
            shape,
        })
    };
    let lines = slice.series(&rows).into_iter().filter_map(line);
    lines.filter(|series| !series.points.is_empty()).collect()
}

fn times(trajectory: &Trajectory<'_>) -> Vec<Point> {
    let point = |position: &&Position| {
        let value = positive(position.time_median_s)?;
        let interval = positive(position.time_ci_low_s).zip(positive(position.time_ci_high_s));
        Some(Point {
            x_interval: None,
            x: position.position as f64,
            y: Measured {
                value,
                interval: interval.filter(|(low, high)| *low <= value && value <= *high),
                grade: Grade::of(trajectory.row),
            },
            look: None,
        })
    };
    trajectory.positions.iter().filter_map(point).collect()
}

/// Bytes since the first position, from where there are any: a logarithmic axis has no place for none.
fn growths(trajectory: &Trajectory<'_>) -> Vec<Point> {
    let first = trajectory.positions.iter().find_map(|position| position.kv_bytes);
    let point = |position: &&Position| {
        let value = positive(Some(position.kv_bytes? - first?))?;
        Some(Point {
            x_interval: None,
            x: position.position as f64,
            y: Measured {
                value,
                interval: None,
                grade: Grade::Clean,
            },
            look: None,
        })
    };
    trajectory.positions.iter().filter_map(point).collect()
}

/// What the axis of times must reach: every median, and the intervals of all positions but the widest fiftieth,
/// because one step that was disturbed would flatten all others.
fn visible(times: &[Series]) -> Vec<f64> {
    let points: Vec<&Point> = times.iter().flat_map(|series| &series.points).collect();
    let mut widths: Vec<[f64; 2]> = points.iter().map(|point| point.y.ends()).collect();
    widths.sort_by(|a, b| (a[1] / a[0]).total_cmp(&(b[1] / b[0])));
    widths.truncate(points.len() - points.len() / 50);
    let medians = points.iter().map(|point| point.y.value);
    medians.chain(widths.into_iter().flatten()).collect()
}

/// A band has no marker to be hollow: the caption says which to doubt.
fn doubtful(drawn: &[Trajectory<'_>]) -> Option<String> {
    let weak = drawn.iter().filter(|it| !it.row.is_clean());
    let mut names: Vec<String> = weak
        .map(|it| format!("{} ({})", it.row.label, Grade::of(it.row).name()))
        .collect();
    names.sort();
    (!names.is_empty()).then(|| format!("trust not clean: {}", names.join(", ")))
}
