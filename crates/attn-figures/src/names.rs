//! The names of curves at their ends.

use crate::canvas::{Canvas, Drawn, PlotArea, Rect, Type, pixel};
use crate::font::{self, Weight};
use crate::labels::spread;
use crate::lines;
use crate::sheet::{LinePanel, Point, Series};
use crate::style::{LABEL_SIZE, LEADER};

/// Between the plot and the names.
pub(crate) const LEADER_WIDTH: f64 = 18.0;
/// Where there is room.
pub(crate) const LONGEST: f64 = 170.0;

/// Names on the right of the plot, each beside the end of its curve or tied to it by a thin line. A curve
/// that ends early has its name right there, where no other curve passes.
pub(crate) fn draw(
    canvas: &Canvas<'_>,
    area: &PlotArea<'_>,
    panel: &LinePanel,
    plot: Rect,
    ends: &[&Series],
    longest: f64,
) -> Drawn {
    let right_end = ends
        .iter()
        .flat_map(|s| &s.points)
        .map(|p| p.x)
        .fold(f64::NEG_INFINITY, f64::max);
    let mut at_border = Vec::new();
    let mut inside: Vec<Rect> = Vec::new();
    for series in ends {
        let Some(point) = series.points.last() else {
            continue;
        };
        let (x, y) = pixel(area, lines::project(panel, point));
        let name = shown(series, longest);
        let kind = Type::left(LABEL_SIZE, series.look.ink());
        if !series.is_reference() && point.x < right_end {
            let width = font::width(&name, LABEL_SIZE, Weight::Regular);
            let space = Rect {
                left: x + 7.0,
                right: x + 13.0 + width,
                top: y - 9.0,
                bottom: y + 9.0,
            };
            let is_free = inside.iter().all(|other| !other.overlaps(&space));
            let others = panel.series.iter().filter(|other| other.label != series.label);
            if is_free
                && space.right < plot.right
                && others.into_iter().all(|s| !passes(area, panel, s, space))
            {
                canvas.text(&name, (x + 9.0, y), kind)?;
                inside.push(space);
                continue;
            }
        }
        at_border.push((
            name,
            kind,
            if series.is_reference() {
                plot.right
            } else {
                x + 6.0
            },
            y,
        ));
    }
    let wanted: Vec<f64> = at_border.iter().map(|(.., y)| *y).collect();
    let places = spread(&wanted, LABEL_SIZE + 3.0, plot.top, plot.bottom);
    for ((name, kind, start, y), place) in at_border.into_iter().zip(places) {
        let text_x = plot.right + LEADER_WIDTH;
        let bend = plot.right + 4.0;
        canvas.line(
            &[(start, y), (bend.max(start), y), (text_x - 3.0, place)],
            LEADER,
            0.8,
        )?;
        canvas.text(&name, (text_x, place), kind)?;
    }
    Ok(())
}

/// Whether a curve or one of its intervals runs through a rectangle of the page.
fn passes(area: &PlotArea<'_>, panel: &LinePanel, series: &Series, rect: Rect) -> bool {
    const STEPS: u32 = 64;
    let at = |point: &Point, y: f64| pixel(area, (panel.x.scale.project(point.x), panel.y.scale.project(y)));
    let points: Vec<(f64, f64)> = series
        .points
        .iter()
        .map(|point| at(point, point.y.value))
        .collect();
    let pieces = points.windows(2).map(|pair| (pair[0], pair[1]));
    let bars = series.points.iter().map(|point| {
        let [low, high] = point.y.ends();
        (at(point, low), at(point, high))
    });
    let is_inside = |(x, y): (f64, f64)| x > rect.left && x < rect.right && y > rect.top && y < rect.bottom;
    let crosses = |(from, to): ((f64, f64), (f64, f64))| {
        let along = |step: u32| {
            let share = f64::from(step) / f64::from(STEPS);
            (from.0 + (to.0 - from.0) * share, from.1 + (to.1 - from.1) * share)
        };
        (0..=STEPS).any(|step| is_inside(along(step)))
    };
    series.is_reference() || pieces.chain(bars).any(crosses)
}

/// A series' name as it is written.
pub(crate) fn shown(series: &Series, longest: f64) -> String {
    font::fit(&series.label, LABEL_SIZE, Weight::Regular, longest)
}
