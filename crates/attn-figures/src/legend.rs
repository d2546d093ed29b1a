//! A row of markers and names above the panels, for curves that cannot be named at their ends.

use crate::canvas::{Canvas, Drawn, Type};
use crate::font::{self, Weight};
use crate::sheet::{LinePanel, Shape};
use crate::style::{LABEL_SIZE, Look};

const ROW: f64 = 20.0;
const SAMPLE: f64 = 26.0;
const GAP: f64 = 22.0;
const LONGEST: f64 = 220.0;

/// A name and where it stands, relative to the legend's corner.
pub(crate) struct Entry {
    label: String,
    look: Look,
    shape: Shape,
    at: (f64, f64),
}

pub(crate) struct Legend {
    entries: Vec<Entry>,
    pub(crate) height: f64,
}

/// Every series once, in the order of the panels.
pub(crate) fn entries(panels: &[LinePanel]) -> Vec<(String, Look, Shape)> {
    let mut entries: Vec<(String, Look, Shape)> = Vec::new();
    for series in panels.iter().flat_map(|panel| &panel.series) {
        if !entries
            .iter()
            .any(|(label, look, _)| *label == series.label && *look == series.look)
        {
            entries.push((series.label.clone(), series.look, series.shape));
        }
    }
    entries
}

/// Sets the entries in rows of the given width.
pub(crate) fn place(entries: &[(String, Look, Shape)], width: f64) -> Legend {
    let mut placed = Vec::new();
    let (mut x, mut row) = (0.0, 0);
    for (label, look, shape) in entries {
        let label = font::fit(label, LABEL_SIZE, Weight::Regular, LONGEST);
        let wide = SAMPLE + font::width(&label, LABEL_SIZE, Weight::Regular);
        if x > 0.0 && x + wide > width {
            (x, row) = (0.0, row + 1);
        }
        placed.push(Entry {
            label,
            look: *look,
            shape: *shape,
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
    for Entry {
        label,
        look,
        shape,
        at,
    } in &legend.entries
    {
        let (x, y) = (left + at.0, top + at.1 + ROW / 2.0 + 4.0);
        if *shape != Shape::Scatter {
            canvas.line(&[(x, y), (x + SAMPLE - 6.0, y)], look.color, 1.8)?;
        }
        if matches!(shape, Shape::Curve | Shape::Scatter) {
            canvas.marker((x + (SAMPLE - 6.0) / 2.0, y), *look, false)?;
        }
        canvas.text(label, (x + SAMPLE, y), Type::left(LABEL_SIZE, look.ink()))?;
    }
    Ok(())
}
