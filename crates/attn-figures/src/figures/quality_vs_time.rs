//! How good a model is against the time of a step that decodes with it, from whichever run measured that.

use super::FigureSpec;
use super::points::{latest, listed, time};
use super::quality::{INTERVAL, Tasks, Trained, front, named, point, quality};
use super::ways::is_end;
use crate::axis::Axis;
use crate::frame::{Frame, Row};
use crate::sheet::{Body, Grid, LinePanel, Measured, Point, Series, Shape, Sheet};
use crate::slice::{Slice, TRAINED, setting, setting_in_words, sizes};
use crate::style::{SeriesKey, series_key};
use crate::units::Unit;
use std::collections::{BTreeMap, BTreeSet};

pub(super) const SPEC: FigureSpec = FigureSpec {
    name: "quality-vs-time",
    summary: "Quality of trained models against the time of a decode step, with the Pareto front",
    needs: "quality",
    uses: Row::is_quality,
    dimensions: TRAINED,
    sheet,
};

/// The workloads that decode, the plainest last.
const WORKLOADS: [&str; 3] = ["beam", "generate", "decode"];

/// What times may be compared at: how it was measured, and the workload with its sizes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    workload: usize,
    context: u64,
    batch: u64,
    new_tokens: u64,
    beam: u64,
    setting: Vec<String>,
}

fn place(frame: &Frame, row: &Row) -> Option<Place> {
    Some(Place {
        workload: WORKLOADS.iter().position(|known| *known == row.workload)?,
        context: row.context.or(row.tokens)?,
        batch: row.batch.unwrap_or(1),
        new_tokens: row.new_tokens.unwrap_or(0),
        beam: row.beam.unwrap_or(0),
        setting: setting(frame, row),
    })
}

/// Seconds of one step: of a whole generation its tokens share the time.
fn step(row: &Row) -> Option<Measured> {
    let whole = time(row)?;
    let steps = match row.workload.as_str() {
        "decode" => 1.0,
        _ => row.new_tokens.filter(|n| *n > 0)? as f64,
    };
    Some(Measured {
        value: whole.value / steps,
        interval: whole.interval.map(|(low, high)| (low / steps, high / steps)),
        ..whole
    })
}

/// Times to compare at, and what there were beside them.
struct Chosen<'a> {
    times: BTreeMap<SeriesKey, &'a Row>,
    n_places: usize,
    /// Trained variants with a time at any place.
    n_timed: usize,
}

/// The place at which most trained models have a time; of several, the plainest workload on the fused path, there
/// the largest context and the largest batch.
fn chosen<'a>(slice: &Slice<'a>, tasks: &Tasks<'_>) -> Option<Chosen<'a>> {
    let trained = tasks.all.iter().flat_map(|trained| &trained.rows);
    let trained: BTreeSet<SeriesKey> = trained.map(|row| series_key(row)).collect();
    let place = |row: &Row| place(slice.frame, row);
    let is_timed = |row: &&Row| row.is_ok() && is_end(row) && step(row).is_some() && place(row).is_some();
    let timed = slice.frame.rows().iter().filter(is_timed);
    let timed: Vec<&Row> = timed.filter(|row| trained.contains(&series_key(row))).collect();
    let (timed, _) = latest(&timed, place, time);
    let n_timed = timed
        .iter()
        .map(|row| series_key(row))
        .collect::<BTreeSet<_>>()
        .len();
    let mut places: BTreeMap<Place, BTreeMap<SeriesKey, &Row>> = BTreeMap::new();
    for row in timed {
        if let Some(place) = place(row) {
            places.entry(place).or_default().insert(series_key(row), row);
        }
    }
    let n_places = places.len();
    let is_fused = |rows: &BTreeMap<SeriesKey, &Row>| {
        rows.values()
            .all(|row| row.path_resolved.as_deref().is_none_or(|path| path == "fused"))
    };
    places
        .into_iter()
        .max_by_key(|(place, rows)| {
            (
                rows.len(),
                place.workload,
                is_fused(rows),
                place.context,
                place.batch,
            )
        })
        .map(|(_, times)| Chosen {
            times,
            n_places,
            n_timed,
        })
}

fn sheet(slice: &Slice<'_>) -> Result<Sheet, String> {
    let mut tasks = Tasks::of(slice)?;
    let Chosen {
        times,
        n_places,
        n_timed,
    } = chosen(slice, &tasks).ok_or("no decode, generate or beam row has the label of a trained model")?;
    let without = tasks
        .all
        .iter()
        .flat_map(|trained| &trained.rows)
        .map(|row| series_key(row));
    let without: Vec<String> = without
        .filter(|key| !times.contains_key(key))
        .map(|(_, name)| name)
        .collect();
    tasks.retain(|trained| {
        trained
            .rows
            .iter()
            .any(|row| times.contains_key(&series_key(row)))
    });
    let Some(example) = times.values().next() else {
        return Err("no decode, generate or beam row has the label of a trained model".to_owned());
    };

    let mut panels = Vec::new();
    let mut notes = vec![
        INTERVAL.to_owned(),
        "times: median, 95\u{a0}% bootstrap interval".to_owned(),
        format!(
            "measured on {}",
            setting_in_words(slice.frame, example).join(", ")
        ),
    ];
    notes.extend(other_sizes(&tasks, example));
    for trained in &tasks.all {
        let panel = panel(slice, trained, &times);
        notes.extend(trained.best_note(&panel.y));
        panels.push(panel);
    }
    if n_places > 1 {
        notes.push(format!("one of {n_places} places with times"));
    }
    notes.extend(tasks.notes());
    notes.extend(named("no time there", without.into_iter()));
    Ok(Sheet {
        title: "What quality costs in time".to_owned(),
        subtitle: format!(
            "Quality on the test against the time of {}: {}, the largest at which {} timed variants are{}",
            if example.workload == "decode" {
                "a decode step"
            } else {
                "a generated token"
            },
            workload(example),
            if times.len() == n_timed {
                format!("all {n_timed}")
            } else {
                format!("{} of {n_timed}", times.len())
            },
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

/// `decode, context 8k, batch 16`.
fn workload(row: &Row) -> String {
    match (row.workload.as_str(), row.context) {
        ("decode", Some(context)) => format!(
            "decode, context {}, batch {}",
            Unit::Tokens.format(context as f64, 15, true),
            row.batch.unwrap_or(1)
        ),
        _ => sizes(row),
    }
}

/// Times of a layer or model of other sizes than those that were trained: said, because the label does not.
fn other_sizes(tasks: &Tasks<'_>, timed: &Row) -> Option<String> {
    let trained = tasks.all.iter().flat_map(|trained| &trained.rows);
    let widths: BTreeSet<u64> = trained.filter_map(|row| row.d_model).collect();
    let width = timed.d_model?;
    let others: Vec<String> = widths
        .iter()
        .filter(|other| **other != width)
        .map(u64::to_string)
        .collect();
    (!others.is_empty()).then(|| {
        format!(
            "times are of width {width}, qualities of width {}",
            listed(&others)
        )
    })
}

fn panel(slice: &Slice<'_>, trained: &Trained<'_>, times: &BTreeMap<SeriesKey, &Row>) -> LinePanel {
    let trained = trained.only(|row| times.contains_key(&series_key(row)));
    let known: Vec<(&Row, Measured)> = trained
        .rows
        .iter()
        .filter_map(|row| Some((*row, step(times.get(&series_key(row))?)?)))
        .collect();
    let is_decode = times.values().all(|row| row.workload == "decode");
    let x = Axis::logarithmic(
        if is_decode {
            "Time per decode step"
        } else {
            "Time per generated token"
        },
        Unit::Seconds,
        known.iter().flat_map(|(_, time)| time.ends()),
    );
    let y = trained.axis(&[]);
    let places: Vec<(f64, f64)> = known
        .iter()
        .filter_map(|(row, time)| Some((time.value, quality(row)?.value)))
        .collect();
    let mut series: Vec<Series> = trained.best_line(&x, &y).into_iter().collect();
    series.extend(front(&places, trained.is_higher_better(), x.reach()[1]));
    series.extend(known.iter().filter_map(|(row, time)| {
        let drawn = trained.drawn(row, &y)?;
        let both = Measured {
            grade: drawn.grade.max(time.grade),
            ..drawn
        };
        Some(Series {
            label: series_key(row).1,
            look: slice.frame.palette().look(&series_key(row)),
            points: vec![Point {
                x_interval: time.interval,
                ..point(time.value, both)
            }],
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
