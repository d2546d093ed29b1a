//! Bars of parts: panels under each other on one scale, whole values at the ends.

use crate::axis::Axis;
use crate::canvas::{Canvas, Drawn, PlotArea, Rect, Type, pixel};
use crate::font::{self, Weight};
use crate::sheet::{StackBar, Stacks};
use crate::style::{
    AXIS, AXIS_TITLE_SIZE, GREY, GRID, INK, LABEL_SIZE, PANEL_TITLE_SIZE, TICK_SIZE, text_on,
};
use crate::ticks;

const PITCH: f64 = 22.0;
const BAR: f64 = 16.0;
const TITLE: f64 = 24.0;
const GAP: f64 = 8.0;
const AXIS_HEIGHT: f64 = 46.0;
const LONGEST_LABEL: f64 = 170.0;
const COLUMN_GAP: f64 = 26.0;
const MOST_IN_A_COLUMN: usize = 5;
/// A part that is narrower is not labelled.
const LABELLED: f64 = 30.0;

fn n_columns(stacks: &Stacks) -> usize {
    if stacks.panels.len() > MOST_IN_A_COLUMN {
        2
    } else {
        1
    }
}

/// Whether the panels stand in two columns.
pub(crate) fn is_wide(stacks: &Stacks) -> bool {
    n_columns(stacks) > 1
}

/// Panels have the same bars.
fn row_height(stacks: &Stacks) -> f64 {
    let most = stacks.panels.iter().map(|panel| panel.bars.len()).max();
    TITLE + most.unwrap_or(0) as f64 * PITCH + GAP
}

/// Height of the panels with their axis.
pub(crate) fn height(stacks: &Stacks) -> f64 {
    let n_rows = stacks.panels.len().div_ceil(n_columns(stacks));
    n_rows as f64 * row_height(stacks) + AXIS_HEIGHT
}

/// Draws panels of the same bars, which are named at the left of each row.
pub(crate) fn draw(canvas: &Canvas<'_>, stacks: &Stacks, body: Rect) -> Drawn {
    let label = |bar: &StackBar| font::fit(&bar.label, LABEL_SIZE, Weight::Regular, LONGEST_LABEL);
    let bars = || stacks.panels.iter().flat_map(|panel| &panel.bars);
    let names = bars()
        .map(|bar| font::width(&label(bar), LABEL_SIZE, Weight::Regular))
        .fold(0.0, f64::max)
        + 10.0;
    let columns = n_columns(stacks);
    let plot_width = (body.width() - names - COLUMN_GAP * (columns - 1) as f64) / columns as f64;
    let reach = |bar: &StackBar| {
        let text = font::width(&bar.text, TICK_SIZE, Weight::Regular) + 12.0;
        bar.parts.iter().sum::<f64>() / (1.0 - (text / plot_width).min(0.8))
    };
    let axis = Axis::from_zero(
        &stacks.axis_title,
        stacks.unit,
        bars().map(reach).fold(0.0, f64::max),
    );

    for (at, panel) in stacks.panels.iter().enumerate() {
        let (row, column) = (at / columns, at % columns);
        let left = body.left + names + column as f64 * (plot_width + COLUMN_GAP);
        let top = body.top + row as f64 * row_height(stacks) + TITLE;
        let plot = Rect {
            left,
            right: left + plot_width,
            top,
            bottom: top + panel.bars.len() as f64 * PITCH,
        };
        let area = canvas.plot(plot, axis.range, (0.0, 1.0));
        let is_last = at + columns >= stacks.panels.len();
        draw_frame(canvas, &area, &axis, plot, is_last)?;
        let title = font::fit(&panel.title, PANEL_TITLE_SIZE, Weight::Bold, plot.width());
        let kind = Type::left(PANEL_TITLE_SIZE, INK).bold();
        canvas.text(&title, (plot.left, plot.top - 11.0), kind)?;
        for (slot, bar) in panel.bars.iter().enumerate() {
            let y = plot.top + (slot as f64 + 0.5) * PITCH;
            if column == 0 {
                canvas.text(&label(bar), (plot.left - 8.0, y), Type::right(LABEL_SIZE, INK))?;
            }
            draw_bar(canvas, &area, stacks, bar, y)?;
        }
        canvas.line(&[(plot.left, plot.top), (plot.left, plot.bottom)], AXIS, 1.0)?;
    }
    Ok(())
}

fn draw_frame(canvas: &Canvas<'_>, area: &PlotArea<'_>, axis: &Axis, plot: Rect, is_last: bool) -> Drawn {
    let place = |value: f64| pixel(area, (value, 0.0)).0;
    let mut shown = axis.ticks.clone();
    ticks::thin(&mut shown, place);
    for tick in &shown {
        let x = place(tick.value);
        canvas.line(&[(x, plot.top), (x, plot.bottom)], GRID, 1.0)?;
        if let (true, Some(label)) = (is_last, &tick.label) {
            canvas.text(label, (x, plot.bottom + 11.0), Type::center(TICK_SIZE, GREY))?;
        }
    }
    if is_last {
        let middle = (f64::midpoint(plot.left, plot.right), plot.bottom + 31.0);
        canvas.text(&axis.title, middle, Type::center(AXIS_TITLE_SIZE, INK))?;
    }
    Ok(())
}

fn draw_bar(canvas: &Canvas<'_>, area: &PlotArea<'_>, stacks: &Stacks, bar: &StackBar, y: f64) -> Drawn {
    let place = |value: f64| pixel(area, (value, 0.0)).0;
    let whole: f64 = bar.parts.iter().sum();
    let mut from = 0.0;
    for (part, (_, color)) in bar.parts.iter().zip(&stacks.segments) {
        let rect = Rect {
            left: place(from),
            right: place(from + part),
            top: y - BAR / 2.0,
            bottom: y + BAR / 2.0,
        };
        from += part;
        if *part <= 0.0 {
            continue;
        }
        canvas.fill(rect, *color)?;
        if rect.width() >= LABELLED {
            let share = format!("{:.0}\u{a0}%", 100.0 * part / whole);
            let middle = (f64::midpoint(rect.left, rect.right), y);
            canvas.text(&share, middle, Type::center(TICK_SIZE - 1.0, text_on(*color)))?;
        }
    }
    let color = if bar.parts.is_empty() { GREY } else { INK };
    canvas.text(&bar.text, (place(from) + 6.0, y), Type::left(TICK_SIZE, color))
}
