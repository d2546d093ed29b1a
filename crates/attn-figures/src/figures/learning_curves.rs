//! Loss on the validation part while models were trained.

use super::FigureSpec;
use super::quality::{Tasks, Trained, point};
use crate::axis::Axis;
use crate::frame::Row;
use crate::sheet::{Body, Grade, Grid, LinePanel, Measured, Point, Series, Shape, Sheet};
use crate::slice::{Slice, TRAINED};
use crate::style::series_key;
use crate::units::Unit;
use std::collections::BTreeMap;

pub(super) const SPEC: FigureSpec = FigureSpec {
    name: "learning-curves",
    summary: "Validation loss against the updates of a training, mean over seeds",
    needs: "quality",
    uses: Row::is_quality,
    dimensions: TRAINED,
    sheet,
};

fn sheet(slice: &Slice<'_>) -> Result<Sheet, String> {
    let mut tasks = Tasks::of(slice)?;
    tasks.retain(|trained| trained.rows.iter().any(|row| points(slice, row).len() > 1));
    if tasks.all.is_empty() {
        return Err("no training has a validation loss at two updates".to_owned());
    }
    let panels: Vec<LinePanel> = tasks.all.iter().map(|trained| panel(slice, trained)).collect();
    let mut notes = vec!["mean over seeds, band: least and largest".to_owned()];
    notes.extend(tasks.notes());
    Ok(Sheet {
        title: "How fast variants learn".to_owned(),
        subtitle: "Loss on the validation part against the updates before it, lower is better".to_owned(),
        notes,
        reservations: tasks.reservations(slice),
        body: Body::Grid(Grid {
            is_named: panels.len() == 1,
            panels,
        }),
    })
}

/// The mean loss at every step, with the least and the largest of several seeds.
fn points(slice: &Slice<'_>, row: &Row) -> Vec<Point> {
    let Some(case_id) = row.case_id.as_deref() else {
        return Vec::new();
    };
    let mut losses: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for place in slice.frame.curves(case_id) {
        if let Some(loss) = place.valid_nats.filter(|loss| loss.is_finite()) {
            losses.entry(place.step).or_default().push(loss);
        }
    }
    let mean = |(step, all): (u64, Vec<f64>)| {
        let least = all.iter().copied().fold(f64::INFINITY, f64::min);
        let most = all.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let value = all.iter().sum::<f64>() / all.len() as f64;
        point(
            step as f64,
            Measured {
                value,
                interval: (all.len() > 1).then_some((least, most)),
                grade: Grade::Clean,
            },
        )
    };
    losses.into_iter().map(mean).collect()
}

fn panel(slice: &Slice<'_>, trained: &Trained<'_>) -> LinePanel {
    let curve = |row: &&Row| {
        let key = series_key(row);
        let points = points(slice, row);
        (points.len() > 1).then(|| Series {
            look: slice.frame.palette().look(&key),
            label: key.1,
            points,
            shape: Shape::Band,
        })
    };
    let series: Vec<Series> = trained.rows.iter().filter_map(curve).collect();
    let all = || series.iter().flat_map(|series| &series.points);
    let ends: Vec<f64> = all().flat_map(|point| point.y.ends()).collect();
    let means = || all().map(|point| point.y.value);
    let (least, most) = (
        means().fold(f64::INFINITY, f64::min),
        means().fold(f64::NEG_INFINITY, f64::max),
    );
    let title = "Validation loss (nats an answer)";
    let y = if least > 0.0 && most > 10.0 * least {
        Axis::logarithmic(title, Unit::Score, ends.into_iter().filter(|end| *end > 0.0))
    } else {
        Axis::linear(title, Unit::Score, ends.into_iter())
    };
    LinePanel {
        title: Some(trained.title.clone()),
        x: Axis::linear("Updates", Unit::Integer, all().map(|point| point.x)),
        y,
        same_y_as_previous: false,
        series,
    }
}
