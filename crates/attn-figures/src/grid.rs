//! Small panels of curves or points in rows, each with axes of its own.

use crate::canvas::{Canvas, Drawn, Rect};
use crate::lines;
use crate::sheet::Grid;

/// Names at the ends of curves may take this much of a panel.
const LONGEST_NAME: f64 = 104.0;
const GAP: f64 = 22.0;
/// Between rows of panels.
const BETWEEN: f64 = 16.0;

/// One, two or three in a row; four are a square.
fn n_columns(n_panels: usize) -> usize {
    match n_panels {
        0 | 1 => 1,
        2 | 4 => 2,
        _ => 3,
    }
}

/// Of one panel with its axes.
fn panel_height(n_panels: usize) -> f64 {
    match n_panels {
        0 | 1 => 430.0,
        2..=4 => 360.0,
        _ => 320.0,
    }
}

/// Height of all panels.
pub(crate) fn height(grid: &Grid) -> f64 {
    let n = grid.panels.len();
    let n_rows = n.div_ceil(n_columns(n)) as f64;
    n_rows * (panel_height(n) + BETWEEN) - BETWEEN
}

pub(crate) fn draw(canvas: &Canvas<'_>, grid: &Grid, body: Rect) -> Drawn {
    let n = grid.panels.len();
    let columns = n_columns(n) as f64;
    let width = (body.width() - GAP * (columns - 1.0)) / columns;
    for (row, panels) in grid.panels.chunks(n_columns(n)).enumerate() {
        let top = body.top + row as f64 * (panel_height(n) + BETWEEN);
        for (at, panel) in panels.iter().enumerate() {
            let left = body.left + at as f64 * (width + GAP);
            let cell = Rect {
                left,
                right: left + width,
                top,
                bottom: top + panel_height(n),
            };
            lines::draw_as(
                canvas,
                std::slice::from_ref(panel),
                grid.is_named,
                LONGEST_NAME,
                cell,
            )?;
        }
    }
    Ok(())
}
