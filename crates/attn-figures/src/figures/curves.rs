//! A quantity against a free parameter, one curve a series, one panel for each value of a second parameter.

use super::points::{choose, latest, listed, replaced_note, values};
use crate::axis::{Axis, Scale};
use crate::frame::Row;
use crate::sheet::{Body, LinePanel, Measured, Point, Series, Shape, Sheet};
use crate::slice::Slice;
use crate::style::series_key;
use crate::units::Unit;

/// A parameter of a workload.
pub(super) struct Parameter {
    /// In a sentence: `batch`.
    pub(super) name: &'static str,
    pub(super) field: fn(&Row) -> Option<u64>,
    pub(super) unit: Unit,
}

pub(super) const BATCH: Parameter = Parameter {
    name: "batch",
    field: |row| row.batch,
    unit: Unit::Integer,
};
pub(super) const CONTEXT: Parameter = Parameter {
    name: "context",
    field: |row| row.context,
    unit: Unit::Tokens,
};
pub(super) const TOKENS: Parameter = Parameter {
    name: "length",
    field: |row| row.tokens,
    unit: Unit::Tokens,
};

/// What is drawn against what.
pub(super) struct Curves {
    pub(super) title: &'static str,
    /// What is drawn, without the panels.
    pub(super) subtitle: &'static str,
    pub(super) x: Parameter,
    pub(super) x_title: &'static str,
    pub(super) y: fn(&Row) -> Option<Measured>,
    pub(super) y_title: &'static str,
    pub(super) y_unit: Unit,
    pub(super) panels: Parameter,
    /// For the caption.
    pub(super) notes: &'static [&'static str],
}

/// Builds the sheet, or says what is missing.
pub(super) fn sheet(slice: &Slice<'_>, curves: &Curves) -> Result<Sheet, String> {
    let Curves { x, y, panels, .. } = curves;
    let has_place = |row: &&Row| (x.field)(row).is_some_and(|v| v > 0) && (panels.field)(row).is_some();
    let drawable = |row: &&Row| has_place(row) && y(row).is_some();
    let (rows, empty): (Vec<&Row>, Vec<&Row>) = slice.rows.iter().copied().partition(drawable);
    if rows.is_empty() {
        return Err(format!(
            "no row has {} with {} and {}",
            curves.y_title, x.name, panels.name
        ));
    }
    let (rows, n_replaced) = latest(&rows, |row| ((x.field)(row), (panels.field)(row)), *y);

    // A panel needs a curve: two places at least.
    let in_panel = |value: u64| -> Vec<&Row> {
        rows.iter()
            .copied()
            .filter(|row| (panels.field)(row) == Some(value))
            .collect()
    };
    let all = values(&rows, panels.field);
    let (usable, single): (Vec<u64>, Vec<u64>) = all
        .iter()
        .partition(|value| values(&in_panel(**value), x.field).len() > 1);
    if usable.is_empty() {
        return Err(format!(
            "a curve needs two values of {} at one {}",
            x.name, panels.name
        ));
    }
    let chosen = choose(&usable);
    let drawn: Vec<&Row> = chosen.iter().flat_map(|value| in_panel(*value)).collect();

    let ends = drawn.iter().filter_map(|row| y(row)).flat_map(Measured::ends);
    let y_axis = Axis::logarithmic(curves.y_title, curves.y_unit, ends);
    let x_values: Vec<f64> = values(&drawn, x.field).into_iter().map(|v| v as f64).collect();
    let x_axis = Axis::at_values(curves.x_title, Scale::Log, x.unit, &x_values);
    let name = |value: u64| panels.unit.format(value as f64, 15, true);
    let panel = |(at, value): (usize, &u64)| LinePanel {
        title: (chosen.len() > 1).then(|| format!("{} {}", panels.name, name(*value))),
        x: x_axis.clone(),
        y: y_axis.clone(),
        same_y_as_previous: at > 0,
        series: series(slice, &in_panel(*value), x.field, *y),
    };

    let names = |values: &[u64]| listed(&values.iter().map(|v| name(*v)).collect::<Vec<_>>());
    let mut notes: Vec<String> = curves.notes.iter().map(|note| (*note).to_owned()).collect();
    if chosen.len() < usable.len() {
        notes.push(format!(
            "{} {} of {} measured",
            panels.name,
            names(&chosen),
            usable.len()
        ));
    }
    if !single.is_empty() {
        let at = names(&choose(&single));
        notes.push(format!("no curve at {} {at}: one {} only", panels.name, x.name));
    }
    notes.extend(replaced_note(n_replaced));
    if !empty.is_empty() {
        notes.push(format!("{} without a value", crate::slice::cases(empty.len())));
    }
    let is_drawn = |row: &Row| (panels.field)(row).is_none_or(|value| chosen.contains(&value));
    Ok(Sheet {
        title: curves.title.to_owned(),
        subtitle: format!("{}; {} {}", curves.subtitle, panels.name, names(&chosen)),
        notes,
        reservations: slice.narrowed(is_drawn).reservations(),
        body: Body::Lines(chosen.iter().enumerate().map(panel).collect()),
    })
}

/// A curve for each series of the rows, sorted along x.
pub(super) fn series(
    slice: &Slice<'_>,
    rows: &[&Row],
    x: fn(&Row) -> Option<u64>,
    y: fn(&Row) -> Option<Measured>,
) -> Vec<Series> {
    let curve = |(key, look)| {
        let own = rows.iter().filter(|row| series_key(row) == key);
        let mut points: Vec<Point> = own
            .filter_map(|row| {
                Some(Point {
                    x_interval: None,
                    x: x(row)? as f64,
                    y: y(row)?,
                    look: None,
                })
            })
            .collect();
        points.sort_by(|a, b| a.x.total_cmp(&b.x));
        Series {
            label: key.1,
            look,
            points,
            shape: Shape::Curve,
        }
    };
    slice.series(rows).into_iter().map(curve).collect()
}
