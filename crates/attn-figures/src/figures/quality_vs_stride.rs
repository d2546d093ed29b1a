//! What MTLA's stride costs in quality.

use super::FigureSpec;
use super::points::values;
use super::quality::{INTERVAL, Tasks, Trained, named, point};
use crate::axis::{Axis, Scale};
use crate::frame::Row;
use crate::sheet::{Body, Grid, LinePanel, Point, Series, Shape, Sheet};
use crate::slice::{Slice, TRAINED};
use crate::style::{line_look, series_key};
use crate::units::Unit;
use std::collections::BTreeMap;

pub(super) const SPEC: FigureSpec = FigureSpec {
    name: "quality-vs-stride",
    summary: "Quality of trained models against MTLA's stride, beside variants without one",
    needs: "quality",
    uses: Row::is_quality,
    dimensions: TRAINED,
    sheet,
};

/// What a line through strides has in common: name and value of each setting, empty where it is the usual one.
type Settings = Vec<(&'static str, String)>;

fn settings(row: &Row) -> Settings {
    let unless = |value: &Option<String>, usual: &str| {
        value.clone().filter(|value| value != usual).unwrap_or_default()
    };
    let number = |value: Option<u64>| value.map(|n| n.to_string()).unwrap_or_default();
    vec![
        ("", row.variant.to_uppercase()),
        ("r=", number(row.kv_rank)),
        ("rope dim ", number(row.rope_dim)),
        ("merge ", unless(&row.merge, "hyper")),
        ("rope key ", unless(&row.rope_key, "newest")),
        ("mask ", unless(&row.train_mask, "strided")),
        ("÷", number(row.downsample.filter(|n| *n > 1))),
    ]
}

fn sheet(slice: &Slice<'_>) -> Result<Sheet, String> {
    let mut tasks = Tasks::of(slice)?;
    tasks.retain(|trained| lines(trained).iter().any(|(_, rows)| rows.len() > 1));
    if tasks.all.is_empty() {
        return Err("two strides of one variant, trained on the same task, are needed".to_owned());
    }
    let of_all: Vec<(Settings, Vec<&Row>)> = tasks.all.iter().flat_map(lines).collect();
    let (drawn, single): (Vec<_>, Vec<_>) = of_all.into_iter().partition(|(_, rows)| rows.len() > 1);
    let mut kinds: Vec<Settings> = drawn.into_iter().map(|(settings, _)| settings).collect();
    kinds.sort_by_key(|kind| {
        (
            kind[3..].iter().filter(|(_, value)| !value.is_empty()).count(),
            kind.clone(),
        )
    });
    kinds.dedup();

    let panels: Vec<LinePanel> = tasks
        .all
        .iter()
        .map(|trained| panel(slice, trained, &kinds))
        .collect();
    let mut notes = vec![INTERVAL.to_owned()];
    notes.extend(tasks.notes());
    let alone = single
        .iter()
        .flat_map(|(_, rows)| rows)
        .map(|row| series_key(row).1);
    notes.extend(named("one stride only, no line", alone));
    Ok(Sheet {
        title: "What the temporal stride costs".to_owned(),
        subtitle: format!(
            "Quality on the test against the stride s; dashed, in bands of their intervals: variants without a stride{}",
            tasks.updates()
        ),
        notes,
        reservations: tasks.reservations(slice),
        body: Body::Grid(Grid {
            panels,
            is_named: kinds.len() < 3,
        }),
    })
}

/// The rows with a stride by all other settings, strides ascending.
fn lines<'a>(trained: &Trained<'a>) -> Vec<(Settings, Vec<&'a Row>)> {
    let mut lines: BTreeMap<Settings, Vec<&Row>> = BTreeMap::new();
    for row in trained
        .rows
        .iter()
        .filter(|row| row.stride.is_some_and(|s| s > 0))
    {
        lines.entry(settings(row)).or_default().push(row);
    }
    for rows in lines.values_mut() {
        rows.sort_by_key(|row| row.stride);
        rows.dedup_by_key(|row| row.stride);
    }
    lines.into_iter().collect()
}

/// The settings that tell a line from the others.
fn name(kind: &Settings, kinds: &[Settings]) -> String {
    let tells = |at: &usize| *at == 0 || kinds.iter().any(|other| other[*at].1 != kind[*at].1);
    let parts = (0..kind.len()).filter(tells).filter(|at| !kind[*at].1.is_empty());
    parts
        .map(|at| format!("{}{}", kind[at].0, kind[at].1))
        .collect::<Vec<_>>()
        .join(" ")
}

fn panel(slice: &Slice<'_>, trained: &Trained<'_>, kinds: &[Settings]) -> LinePanel {
    let lines = lines(trained);
    let drawn = || lines.iter().filter(|(_, rows)| rows.len() > 1);
    let merged: Vec<&Row> = drawn().flat_map(|(_, rows)| rows.iter().copied()).collect();
    let strides: Vec<f64> = values(&merged, |row| row.stride)
        .into_iter()
        .map(|s| s as f64)
        .collect();
    let others = || trained.rows.iter().copied().filter(|row| row.stride.is_none());
    let is_drawn = |row: &Row| row.stride.is_none() || merged.iter().any(|other| std::ptr::eq(*other, row));
    let y = trained.only(is_drawn).axis(&[]);
    let palette = slice.frame.palette();

    // A reference has no place along x: any inside will do.
    let inside = strides.first().copied().unwrap_or(1.0);
    let reference = |row: &Row| {
        Some(Series {
            label: series_key(row).1,
            look: palette.look(&series_key(row)),
            points: vec![point(inside, trained.drawn(row, &y)?)],
            shape: Shape::Level,
        })
    };
    let mut series: Vec<Series> = others().filter_map(reference).collect();
    for (at, kind) in kinds.iter().enumerate() {
        let Some((_, rows)) = drawn().find(|(settings, _)| settings == kind) else {
            continue;
        };
        // Where there is one line, its strides look as they do elsewhere.
        let own = |row: &Row| (kinds.len() == 1).then(|| palette.look(&series_key(row)));
        let place = |row: &&Row| {
            Some(Point {
                look: own(row),
                ..point(row.stride? as f64, trained.drawn(row, &y)?)
            })
        };
        let middle = rows.get(rows.len() / 2).and_then(|row| own(row));
        series.push(Series {
            label: name(kind, kinds),
            look: middle.unwrap_or_else(|| line_look(at)),
            points: rows.iter().filter_map(place).collect(),
            shape: Shape::Curve,
        });
    }
    LinePanel {
        title: Some(trained.title.clone()),
        x: Axis::at_values("Temporal stride s", Scale::Log, Unit::Integer, &strides),
        y,
        same_y_as_previous: false,
        series,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_named_by_what_differs() {
        let row = |merge: Option<&str>, rank: u64| Row {
            variant: "mtla".into(),
            kv_rank: Some(rank),
            merge: merge.map(str::to_owned),
            ..Row::default()
        };
        let kinds = [row(Some("hyper"), 64), row(Some("mean"), 64), row(None, 32)].map(|row| settings(&row));
        let names: Vec<String> = kinds.iter().map(|kind| name(kind, &kinds)).collect();
        assert_eq!(names, ["MTLA r=64", "MTLA r=64 merge mean", "MTLA r=32"]);
        assert_eq!(name(&kinds[1], &kinds[..2]), "MTLA merge mean");
    }
}
