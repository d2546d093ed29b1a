//! Panels of horizontal bars on one scale: names on the left, values at the ends.

use crate::axis::Axis;
use crate::canvas::{Canvas, Drawn, PlotArea, Rect, Type, pixel};
use crate::font::{self, Weight};
use crate::sheet::{Bar, BarPanel, Grade};
use crate::style::{AXIS, AXIS_TITLE_SIZE, GREY, GRID, INK, LABEL_SIZE, PANEL_TITLE_SIZE, TICK_SIZE};
use crate::ticks;
use plotters::style::WHITE;

const PITCH: f64 = 30.0;
const BAR: f64 = 18.0;
const TITLE: f64 = 26.0;
const AXIS_HEIGHT: f64 = 48.0;
const GAP: f64 = 20.0;
const LONGEST_LABEL: f64 = 170.0;

/// Height of the panels with their axes.
pub(crate) fn height(panels: &[BarPanel]) -> f64 {
    let most = panels.iter().map(|panel| panel.bars.len()).max().unwrap_or(0);
    TITLE + most as f64 * PITCH + AXIS_HEIGHT
}

/// Draws panels of the same bars, which are named once, on the left.
pub(crate) fn draw(canvas: &Canvas<'_>, panels: &[BarPanel], body: Rect) -> Drawn {
    let Some(first) = panels.first() else {
        return Ok(());
    };
    let label = |bar: &Bar| font::fit(&bar.label, LABEL_SIZE, Weight::Regular, LONGEST_LABEL);
    let widths = first
        .bars
        .iter()
        .map(|bar| font::width(&label(bar), LABEL_SIZE, Weight::Regular));
    let names = widths.fold(0.0, f64::max) + 10.0;
    let n = panels.len() as f64;
    let plot_width = (body.width() - names - GAP * (n - 1.0)) / n;
    let high = axis_end(panels, plot_width);

    let middle = |slot: usize| body.top + TITLE + (slot as f64 + 0.5) * PITCH;
    for (slot, bar) in first.bars.iter().enumerate() {
        let at = (body.left + names - 8.0, middle(slot));
        canvas.text(&label(bar), at, Type::right(LABEL_SIZE, bar.look.ink()))?;
    }
    let mut left = body.left + names;
    for panel in panels {
        let top = body.top + TITLE;
        let bottom = top + panel.bars.len() as f64 * PITCH;
        let plot = Rect {
            left,
            right: left + plot_width,
            top,
            bottom,
        };
        let axis = Axis::from_zero(&panel.axis_title, panel.unit, high);
        let area = canvas.plot(plot, axis.range, (0.0, 1.0));
        draw_axis(canvas, &area, &axis, panel, plot)?;
        for (slot, bar) in panel.bars.iter().enumerate() {
            draw_bar(canvas, &area, bar, middle(slot), plot)?;
        }
        if let Some(value) = panel.divide {
            let x = pixel(&area, (value, 0.0)).0;
            canvas.line(&[(x, plot.top), (x, plot.bottom)], INK, 0.9)?;
        }
        for (slot, bar) in panel.bars.iter().enumerate() {
            draw_value(canvas, &area, bar, middle(slot), plot)?;
        }
        canvas.line(&[(plot.left, plot.top), (plot.left, plot.bottom)], AXIS, 1.0)?;
        left += plot_width + GAP;
    }
    Ok(())
}

/// Where the common scale must end so that the text beyond each bar still fits.
fn axis_end(panels: &[BarPanel], plot_width: f64) -> f64 {
    let reach = |bar: &Bar| {
        let value = bar.value?;
        let end = value
            .interval
            .map_or(value.value, |(_, high)| high.max(value.value));
        let text = font::width(&bar.text, TICK_SIZE, Weight::Regular) + 12.0;
        Some(end / (1.0 - (text / plot_width).min(0.8)))
    };
    panels
        .iter()
        .flat_map(|panel| &panel.bars)
        .filter_map(reach)
        .fold(0.0, f64::max)
}

fn draw_axis(canvas: &Canvas<'_>, area: &PlotArea<'_>, axis: &Axis, panel: &BarPanel, plot: Rect) -> Drawn {
    let title = font::fit(&panel.title, PANEL_TITLE_SIZE, Weight::Bold, plot.width());
    canvas.text(
        &title,
        (plot.left, plot.top - 13.0),
        Type::left(PANEL_TITLE_SIZE, INK).bold(),
    )?;
    let place = |value: f64| pixel(area, (value, 0.0)).0;
    let mut shown = axis.ticks.clone();
    ticks::thin(&mut shown, place);
    for tick in &shown {
        let x = place(tick.value);
        canvas.line(&[(x, plot.top), (x, plot.bottom)], GRID, 1.0)?;
        if let Some(label) = &tick.label {
            canvas.text(label, (x, plot.bottom + 11.0), Type::center(TICK_SIZE, GREY))?;
        }
    }
    let middle = (f64::midpoint(plot.left, plot.right), plot.bottom + 31.0);
    let title = font::fit(&axis.title, AXIS_TITLE_SIZE, Weight::Regular, plot.width() + GAP);
    canvas.text(&title, middle, Type::center(AXIS_TITLE_SIZE, INK))
}

fn draw_bar(canvas: &Canvas<'_>, area: &PlotArea<'_>, bar: &Bar, y: f64, plot: Rect) -> Drawn {
    let Some(value) = bar.value else { return Ok(()) };
    let right = pixel(area, (value.value, 0.0)).0;
    let rect = Rect {
        left: plot.left,
        right,
        top: y - BAR / 2.0,
        bottom: y + BAR / 2.0,
    };
    if value.grade == Grade::Clean {
        canvas.fill(rect, bar.look.color)
    } else {
        canvas.outline(rect, bar.look.color, 1.8)
    }
}

/// The interval, and the number beyond it on a clear ground.
fn draw_value(canvas: &Canvas<'_>, area: &PlotArea<'_>, bar: &Bar, y: f64, plot: Rect) -> Drawn {
    let place = |v: f64| pixel(area, (v, 0.0)).0;
    let mut end = bar.value.map_or(plot.left, |value| place(value.value));
    if let Some((low, high)) = bar.value.and_then(|value| value.interval) {
        let (from, to) = (place(low), place(high));
        // White below, or a dark bar would hide half of it.
        for (color, width) in [(WHITE, 3.2), (INK, 1.2)] {
            canvas.line(&[(from, y), (to, y)], color, width)?;
            canvas.line(&[(from, y - 3.5), (from, y + 3.5)], color, width)?;
            canvas.line(&[(to, y - 3.5), (to, y + 3.5)], color, width)?;
        }
        end = end.max(to);
    }
    let left = end + 6.0;
    let right = left + font::width(&bar.text, TICK_SIZE, Weight::Regular);
    canvas.fill(
        Rect {
            left: left - 2.0,
            right: right + 2.0,
            top: y - 7.0,
            bottom: y + 7.0,
        },
        WHITE,
    )?;
    let color = if bar.value.is_some() { INK } else { GREY };
    canvas.text(&bar.text, (left, y), Type::left(TICK_SIZE, color))
}
