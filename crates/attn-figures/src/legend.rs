//! A row of markers and names above the panels, for curves that cannot be named at their ends.

use crate::canvas::{Canvas, Drawn, Rect, Type};
use crate::font::{self, Weight};
use crate::sheet::{Body, Grid, LinePanel, Shape};
use crate::style::{INK, LABEL_SIZE, Look, SAVED, WASTED, WHOLE};
use plotters::style::RGBColor;

const ROW: f64 = 20.0;
const SAMPLE: f64 = 26.0;
const GAP: f64 = 22.0;
const LONGEST: f64 = 220.0;

/// What stands before a name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Sample {
    /// A piece of the curve.
    Curve(Look, Shape),
    /// A piece of the area.
    Area(RGBColor),
}

/// A name and where it stands, relative to the legend's corner.
pub(crate) struct Entry {
    label: String,
    sample: Sample,
    at: (f64, f64),
}

pub(crate) struct Legend {
    entries: Vec<Entry>,
    pub(crate) height: f64,
}

/// What the panels do not name themselves.
pub(crate) fn entries(body: &Body) -> Vec<(String, Sample)> {
    let area = |(name, color): &(&str, RGBColor)| ((*name).to_owned(), Sample::Area(*color));
    match body {
        Body::Lines(panels) if crate::lines::labels_at_ends(panels) => Vec::new(),
        Body::Lines(panels) => of_series(panels.iter()),
        Body::Fits(fits) => of_series(fits.iter().map(|fit| &fit.panel)),
        Body::Grid(grid) => of_grid(grid),
        Body::Stacks(stacks) => stacks.segments.iter().map(area).collect(),
        Body::Waterfalls(_) => [
            ("a whole run", WHOLE),
            ("saved without the habit", SAVED),
            ("lost without the habit", WASTED),
        ]
        .iter()
        .map(area)
        .collect(),
        Body::Bars(_) | Body::Tables(_) | Body::Blocks(_) | Body::Heats(_) => Vec::new(),
    }
}

/// What is named neither at its end nor beside its points.
fn of_grid(grid: &Grid) -> Vec<(String, Sample)> {
    let mut entries = of_series(grid.panels.iter());
    entries.retain(|(_, sample)| match sample {
        Sample::Curve(_, Shape::Tagged | Shape::Reference | Shape::Level) => false,
        Sample::Curve(_, Shape::Curve | Shape::Band) => !grid.is_named,
        _ => true,
    });
    entries
}

/// Every series once, in the order of the panels.
fn of_series<'a>(panels: impl Iterator<Item = &'a LinePanel>) -> Vec<(String, Sample)> {
    let mut entries: Vec<(String, Look, Shape)> = Vec::new();
    for series in panels.flat_map(|panel| &panel.series) {
        if !entries
            .iter()
            .any(|(label, look, _)| *label == series.label && *look == series.look)
        {
            entries.push((series.label.clone(), series.look, series.shape));
        }
    }
    let sample = |(label, look, shape)| (label, Sample::Curve(look, shape));
    entries.into_iter().map(sample).collect()
}

/// Sets the entries in rows of the given width.
pub(crate) fn place(entries: &[(String, Sample)], width: f64) -> Legend {
    let mut placed = Vec::new();
    let (mut x, mut row) = (0.0, 0);
    for (label, sample) in entries {
        let label = font::fit(label, LABEL_SIZE, Weight::Regular, LONGEST);
        let wide = SAMPLE + font::width(&label, LABEL_SIZE, Weight::Regular);
        if x > 0.0 && x + wide > width {
            (x, row) = (0.0, row + 1);
        }
        placed.push(Entry {
            label,
            sample: *sample,
            at: (x, f64::from(row) * ROW),
        });
        x += wide + GAP;
    }
    let height = if placed.is_empty() {
        0.0
    } else {
        f64::from(row + 1) * ROW + 4.0
    };
    Legend {
        entries: placed,
        height,
    }
}

pub(crate) fn draw(canvas: &Canvas<'_>, legend: &Legend, (left, top): (f64, f64)) -> Drawn {
    for Entry { label, sample, at } in &legend.entries {
        let (x, y) = (left + at.0, top + at.1 + ROW / 2.0 + 4.0);
        let end = x + SAMPLE - 6.0;
        let ink = match sample {
            Sample::Curve(look, shape) => {
                draw_curve(canvas, *look, *shape, (x, end), y)?;
                look.ink()
            }
            Sample::Area(color) => {
                let rect = Rect {
                    left: x + 4.0,
                    right: end,
                    top: y - 6.0,
                    bottom: y + 6.0,
                };
                canvas.fill(rect, *color)?;
                INK
            }
        };
        canvas.text(label, (x + SAMPLE, y), Type::left(LABEL_SIZE, ink))?;
    }
    Ok(())
}

fn draw_curve(canvas: &Canvas<'_>, look: Look, shape: Shape, (left, right): (f64, f64), y: f64) -> Drawn {
    match shape {
        Shape::Scatter | Shape::Tagged => {}
        Shape::Dots => {
            for part in [0.2, 0.5, 0.8] {
                canvas.dot((left + part * (right - left), y), look.color)?;
            }
        }
        Shape::Dashed => {
            let third = (right - left) / 3.0;
            canvas.line(&[(left, y), (left + third, y)], look.color, 1.8)?;
            canvas.line(&[(right - third, y), (right, y)], look.color, 1.8)?;
        }
        _ => canvas.line(&[(left, y), (right, y)], look.color, 1.8)?,
    }
    if shape.is_marked() {
        canvas.marker((f64::midpoint(left, right), y), look, false)?;
    }
    Ok(())
}
