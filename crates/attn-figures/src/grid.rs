//! Small panels of curves or points in rows, each with axes of its own.

use crate::canvas::{Canvas, Drawn, Rect};
use crate::sheet::{Grid, LinePanel, Shape};
use crate::{lines, names};

/// Names at the ends of curves may take this much of a panel, where it is not alone.
const LONGEST_NAME: f64 = 104.0;
const GAP: f64 = 22.0;
/// Between rows of panels.
const BETWEEN: f64 = 16.0;

/// Names beside points are hard to place where there are more.
const MANY_NAMES: usize = 9;

/// Panels in a row, and the height of one with its axes: four are a square, and names need room.
fn layout(grid: &Grid) -> (usize, f64) {
    let n_names = |panel: &LinePanel| panel.series.iter().filter(|it| it.shape == Shape::Tagged).count();
    let is_crowded = grid.panels.iter().any(|panel| n_names(panel) > MANY_NAMES);
    match grid.panels.len() {
        0 | 1 => (1, 430.0),
        _ if is_crowded => (2, 430.0),
        2 | 4 => (2, 360.0),
        3 => (3, 360.0),
        _ => (3, 320.0),
    }
}

/// Height of all panels.
pub(crate) fn height(grid: &Grid) -> f64 {
    let (n_columns, panel) = layout(grid);
    let n_rows = grid.panels.len().div_ceil(n_columns) as f64;
    n_rows * (panel + BETWEEN) - BETWEEN
}

pub(crate) fn draw(canvas: &Canvas<'_>, grid: &Grid, body: Rect) -> Drawn {
    let (n_columns, panel_height) = layout(grid);
    let columns = n_columns as f64;
    let width = (body.width() - GAP * (columns - 1.0)) / columns;
    for (row, panels) in grid.panels.chunks(n_columns).enumerate() {
        let top = body.top + row as f64 * (panel_height + BETWEEN);
        for (at, panel) in panels.iter().enumerate() {
            let left = body.left + at as f64 * (width + GAP);
            let cell = Rect {
                left,
                right: left + width,
                top,
                bottom: top + panel_height,
            };
            let longest = match n_columns {
                1 => names::LONGEST,
                _ => LONGEST_NAME,
            };
            lines::draw_as(canvas, std::slice::from_ref(panel), grid.is_named, longest, cell)?;
        }
    }
    Ok(())
}
