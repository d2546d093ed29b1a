//! Achieved rate of computing against operations per byte, under the ceilings measured in the run.

use super::FigureSpec;
use super::points::{INTERVAL, positive, time};
use crate::axis::Axis;
use crate::frame::Row;
use crate::marker::Marker;
use crate::sheet::{Body, Grade, LinePanel, Measured, Point, Series, Shape, Sheet};
use crate::slice::{Slice, TIMED, cases};
use crate::style::{GREY, Look, series_key};
use crate::units::Unit;

pub(super) const SPEC: FigureSpec = FigureSpec {
    name: "roofline",
    summary: "Rate of computing against operations per byte, under the ceilings of the machine",
    needs: "measured",
    uses: |row| !row.is_model() && !row.is_quality(),
    dimensions: TIMED,
    sheet,
};

/// Operations for each byte moved, by the cost model.
fn intensity(row: &Row) -> Option<f64> {
    Some(positive(row.flops)? / positive(row.bytes_moved)?)
}

/// Operations per second; the interval is that of the time, turned over.
fn rate(row: &Row) -> Option<Measured> {
    let value = positive(row.achieved_flops_per_s)?;
    let time = time(row);
    Some(Measured {
        value,
        interval: time.and_then(|time| {
            let (low, high) = time.interval?;
            Some((value * time.value / high, value * time.value / low))
        }),
        grade: Grade::of(row),
    })
}

/// The ceilings a row was held against: bytes and operations per second.
fn ceilings(row: &Row) -> Option<(f64, f64)> {
    positive(row.ceiling_bytes_per_s).zip(positive(row.ceiling_flops_per_s))
}

fn sheet(slice: &Slice<'_>) -> Result<Sheet, String> {
    let drawable = |row: &&Row| intensity(row).is_some() && rate(row).is_some() && ceilings(row).is_some();
    let (rows, without): (Vec<&Row>, Vec<&Row>) = slice.rows.iter().copied().partition(drawable);
    // Runs measure their own ceilings: the highest of all is the one that nothing should exceed.
    let (bytes_per_s, flops_per_s) = rows
        .iter()
        .filter_map(|row| ceilings(row))
        .reduce(|a, b| (a.0.max(b.0), a.1.max(b.1)))
        .ok_or("no row has operations, bytes and measured ceilings")?;

    let places = rows.iter().filter_map(|row| intensity(row));
    let ridge = flops_per_s / bytes_per_s;
    let x = Axis::logarithmic(
        "Operational intensity (FLOP per byte)",
        Unit::Intensity,
        places.chain([ridge / 2.0, ridge * 2.0]),
    );
    let roof = |at: f64| (at * bytes_per_s).min(flops_per_s);
    let ends = rows.iter().filter_map(|row| rate(row)).flat_map(Measured::ends);
    let y = Axis::logarithmic("Achieved rate", Unit::Flops, ends.chain([flops_per_s]));
    let limit = |at: f64| Point {
        x_interval: None,
        x: at,
        y: Measured {
            value: roof(at),
            interval: None,
            grade: Grade::Clean,
        },
        look: None,
    };
    // The slope begins where it enters the panel, at the left or from below.
    let left = 10f64.powf(x.range.0).max(10f64.powf(y.range.0) / bytes_per_s);
    let mut series = vec![Series {
        label: "ceilings".to_owned(),
        look: Look {
            color: GREY,
            marker: Marker::Circle,
        },
        points: [left, ridge, 10f64.powf(x.range.1)].map(limit).to_vec(),
        shape: Shape::Limit,
    }];
    series.extend(scattered(slice, &rows));

    let gb = bytes_per_s / 1e9;
    let mut notes = vec![
        INTERVAL.to_owned(),
        format!(
            "ceilings measured in this run: {gb:.1}\u{a0}GB/s read, {} in matrix products",
            Unit::Flops.format(flops_per_s, 3, false)
        ),
    ];
    let exceeds = |row: &&Row| {
        intensity(row)
            .zip(rate(row))
            .is_some_and(|(at, y)| y.value > roof(at))
    };
    if rows.iter().any(exceeds) {
        notes.push("above the slope: data from caches".to_owned());
    }
    if !without.is_empty() {
        notes.push(format!("{} without a ceiling", cases(without.len())));
    }
    Ok(Sheet {
        title: "How close to the machine's ceilings".to_owned(),
        subtitle: format!("All workloads of the sweep: {}", workloads(&rows)),
        notes,
        reservations: slice.reservations(),
        body: Body::Lines(vec![LinePanel {
            title: None,
            x,
            y,
            same_y_as_previous: false,
            series,
        }]),
    })
}

fn scattered(slice: &Slice<'_>, rows: &[&Row]) -> Vec<Series> {
    let points = |key: &(String, String)| -> Vec<Point> {
        let own = rows.iter().filter(|row| series_key(row) == *key);
        let mut points: Vec<Point> = own
            .filter_map(|row| {
                Some(Point {
                    x_interval: None,
                    x: intensity(row)?,
                    y: rate(row)?,
                    look: None,
                })
            })
            .collect();
        points.sort_by(|a, b| a.x.total_cmp(&b.x).then(a.y.value.total_cmp(&b.y.value)));
        points
    };
    let series = |(key, look)| Series {
        points: points(&key),
        label: key.1,
        look,
        shape: Shape::Scatter,
    };
    slice.series(rows).into_iter().map(series).collect()
}

/// `decode, prefill`.
fn workloads(rows: &[&Row]) -> String {
    let mut names: Vec<String> = rows.iter().map(|row| row.workload.replace('_', " ")).collect();
    names.sort();
    names.dedup();
    names.join(", ")
}
