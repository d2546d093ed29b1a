//! Points with lines through them, each over a table of what the lines leave unexplained.

use crate::canvas::{Canvas, Drawn, Rect, Type};
use crate::font::{self, Weight};
use crate::sheet::Fit;
use crate::style::{CAPTION_SIZE, INK};
use crate::{lines, table};

/// Of a plot with its axes.
const PLOT: f64 = 290.0;
const EQUATION: f64 = 15.0;
const GAP: f64 = 26.0;
/// Between rows of fits.
const BETWEEN: f64 = 14.0;
const MOST_COLUMNS: usize = 3;

fn fit_height(fit: &Fit) -> f64 {
    PLOT + fit.equations.len() as f64 * EQUATION + 8.0 + table::height(&fit.residuals) + BETWEEN
}

fn row_height(fits: &[Fit]) -> f64 {
    fits.iter().map(fit_height).fold(0.0, f64::max)
}

/// Height of all fits.
pub(crate) fn height(fits: &[Fit]) -> f64 {
    fits.chunks(MOST_COLUMNS).map(row_height).sum()
}

pub(crate) fn draw(canvas: &Canvas<'_>, fits: &[Fit], body: Rect) -> Drawn {
    let columns = fits.len().clamp(1, MOST_COLUMNS) as f64;
    let width = (body.width() - GAP * (columns - 1.0)) / columns;
    let mut top = body.top;
    for row in fits.chunks(MOST_COLUMNS) {
        for (at, fit) in row.iter().enumerate() {
            let left = body.left + at as f64 * (width + GAP);
            let cell = Rect {
                left,
                right: left + width,
                top,
                bottom: top + PLOT,
            };
            lines::draw(canvas, std::slice::from_ref(&fit.panel), cell)?;
            let mut y = cell.bottom;
            for equation in &fit.equations {
                let text = font::fit(equation, CAPTION_SIZE, Weight::Regular, width);
                canvas.text(&text, (left, y + EQUATION / 2.0), Type::left(CAPTION_SIZE, INK))?;
                y += EQUATION;
            }
            let under = Rect {
                top: y + 8.0,
                bottom: y + 8.0 + table::height(&fit.residuals),
                ..cell
            };
            table::draw(canvas, &fit.residuals, under)?;
        }
        top += row_height(row);
    }
    Ok(())
}
