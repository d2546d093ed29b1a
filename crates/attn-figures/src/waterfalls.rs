//! Waterfalls: from one whole to the next step by step, small multiples on one scale.

use crate::axis::Axis;
use crate::canvas::{Canvas, Drawn, PlotArea, Rect, Type, pixel};
use crate::font::{self, Weight};
use crate::sheet::{Grade, Step, WaterfallPanel, Waterfalls};
use crate::style::{
    AXIS, AXIS_TITLE_SIZE, CAPTION_SIZE, GREY, GRID, INK, LABEL_SIZE, LEADER, Look, PANEL_TITLE_SIZE, SAVED,
    TICK_SIZE, WASTED,
};
use crate::ticks;
use plotters::style::WHITE;

const PITCH: f64 = 21.0;
const BAR: f64 = 14.0;
const TITLE: f64 = 22.0;
const LINE: f64 = 14.0;
const TICKS: f64 = 24.0;
const AXIS_TITLE: f64 = 22.0;
const GAP: f64 = 22.0;
const LONGEST_LABEL: f64 = 170.0;

fn n_columns(n_panels: usize) -> usize {
    match n_panels {
        0..=4 => n_panels.max(1),
        5 | 6 => 3,
        _ => 4,
    }
}

/// What stands over every plot: a title and the most lines that a panel has.
fn header(waterfalls: &Waterfalls) -> f64 {
    let most = waterfalls.panels.iter().map(|panel| panel.lines.len()).max();
    TITLE + most.unwrap_or(0) as f64 * LINE + 4.0
}

fn row_height(waterfalls: &Waterfalls) -> f64 {
    header(waterfalls) + waterfalls.labels.len() as f64 * PITCH + TICKS
}

/// Height of all panels.
pub(crate) fn height(waterfalls: &Waterfalls) -> f64 {
    let n = waterfalls.panels.len();
    n.div_ceil(n_columns(n)) as f64 * (row_height(waterfalls) + AXIS_TITLE)
}

/// Draws panels of the same steps, which are named at the left of each row.
pub(crate) fn draw(canvas: &Canvas<'_>, waterfalls: &Waterfalls, body: Rect) -> Drawn {
    let label = |text: &str| font::fit(text, LABEL_SIZE, Weight::Regular, LONGEST_LABEL);
    let names = waterfalls
        .labels
        .iter()
        .map(|text| font::width(&label(text), LABEL_SIZE, Weight::Regular))
        .fold(0.0, f64::max)
        + 10.0;
    let columns = n_columns(waterfalls.panels.len());
    let gaps = GAP * (columns - 1) as f64;
    let plot_width = (body.width() - names - gaps) / columns as f64;
    let axis = Axis::from_zero(
        &waterfalls.axis_title,
        waterfalls.unit,
        axis_end(waterfalls, plot_width),
    );

    for (at, panel) in waterfalls.panels.iter().enumerate() {
        let (row, column) = (at / columns, at % columns);
        let left = body.left + names + column as f64 * (plot_width + GAP);
        let top = body.top + row as f64 * (row_height(waterfalls) + AXIS_TITLE) + header(waterfalls);
        let plot = Rect {
            left,
            right: left + plot_width,
            top,
            bottom: top + waterfalls.labels.len() as f64 * PITCH,
        };
        if column == 0 {
            for (slot, text) in waterfalls.labels.iter().enumerate() {
                let y = plot.top + (slot as f64 + 0.5) * PITCH;
                canvas.text(&label(text), (left - 8.0, y), Type::right(LABEL_SIZE, INK))?;
            }
        }
        draw_header(canvas, panel, plot, header(waterfalls))?;
        let area = canvas.plot(plot, axis.range, (0.0, 1.0));
        draw_axis(canvas, &area, &axis, plot)?;
        draw_steps(canvas, &area, panel, plot)?;
        canvas.line(&[(plot.left, plot.top), (plot.left, plot.bottom)], AXIS, 1.0)?;
    }
    Ok(())
}

/// The highest value of a step, and what is written beyond it.
fn reach(step: &Step) -> Option<(f64, &str)> {
    match step {
        Step::Whole { value, text } => Some((value.ends()[1], text)),
        Step::Change {
            from, to, ends, text, ..
        } => Some((from.max(*to).max(ends.1), text)),
        Step::Missing => None,
    }
}

/// Where the common scale must end so that the text beyond each bar still fits.
fn axis_end(waterfalls: &Waterfalls, plot_width: f64) -> f64 {
    let steps = waterfalls.panels.iter().flat_map(|panel| &panel.steps);
    let end = |(value, text): (f64, &str)| {
        let width = font::width(text, TICK_SIZE, Weight::Regular) + 10.0;
        value / (1.0 - (width / plot_width).min(0.8))
    };
    steps.filter_map(reach).map(end).fold(0.0, f64::max)
}

fn draw_header(canvas: &Canvas<'_>, panel: &WaterfallPanel, plot: Rect, height: f64) -> Drawn {
    let top = plot.top - height;
    let title = font::fit(&panel.title, PANEL_TITLE_SIZE, Weight::Bold, plot.width());
    let kind = Type::left(PANEL_TITLE_SIZE, panel.look.ink()).bold();
    canvas.text(&title, (plot.left, top + TITLE / 2.0), kind)?;
    for (at, line) in panel.lines.iter().enumerate() {
        let line = font::fit(line, CAPTION_SIZE, Weight::Regular, plot.width() + GAP / 2.0);
        let y = top + TITLE + (at as f64 + 0.5) * LINE;
        canvas.text(&line, (plot.left, y), Type::left(CAPTION_SIZE, GREY))?;
    }
    Ok(())
}

fn draw_axis(canvas: &Canvas<'_>, area: &PlotArea<'_>, axis: &Axis, plot: Rect) -> Drawn {
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
    let middle = (f64::midpoint(plot.left, plot.right), plot.bottom + 29.0);
    let title = font::fit(&axis.title, AXIS_TITLE_SIZE, Weight::Regular, plot.width() + GAP);
    canvas.text(&title, middle, Type::center(AXIS_TITLE_SIZE, INK))
}

fn draw_steps(canvas: &Canvas<'_>, area: &PlotArea<'_>, panel: &WaterfallPanel, plot: Rect) -> Drawn {
    let place = |value: f64| pixel(area, (value, 0.0)).0;
    let middle = |slot: usize| plot.top + (slot as f64 + 0.5) * PITCH;
    // Where one step ends the next begins: a thin line leads there.
    for (slot, pair) in panel.steps.windows(2).enumerate() {
        if let Some(x) = joint(&pair[0], &pair[1]).map(place) {
            canvas.line(&[(x, middle(slot)), (x, middle(slot + 1))], LEADER, 0.9)?;
        }
    }
    for (slot, step) in panel.steps.iter().enumerate() {
        let y = middle(slot);
        draw_step(canvas, area, panel.look, step, y)?;
        if let Some((_, text)) = reach(step) {
            let left = reach(step).map_or(plot.left, |(value, _)| place(value)) + 5.0;
            let ground = Rect {
                left: left - 1.0,
                right: left + font::width(text, TICK_SIZE, Weight::Regular) + 1.0,
                top: y - 7.0,
                bottom: y + 7.0,
            };
            canvas.fill(ground, WHITE)?;
            canvas.text(text, (left, y), Type::left(TICK_SIZE, INK))?;
        } else {
            canvas.text("-", (plot.left + 6.0, y), Type::left(TICK_SIZE, GREY))?;
        }
    }
    Ok(())
}

/// The value at which two neighbouring steps meet.
fn joint(first: &Step, second: &Step) -> Option<f64> {
    match (first, second) {
        (Step::Change { to, .. }, Step::Change { .. } | Step::Whole { .. }) => Some(*to),
        (Step::Whole { value, .. }, Step::Change { .. }) => Some(value.value),
        _ => None,
    }
}

fn draw_step(canvas: &Canvas<'_>, area: &PlotArea<'_>, look: Look, step: &Step, y: f64) -> Drawn {
    let place = |value: f64| pixel(area, (value, 0.0)).0;
    let bar = |from: f64, to: f64| Rect {
        left: place(from.min(to)),
        right: place(from.max(to)),
        top: y - BAR / 2.0,
        bottom: y + BAR / 2.0,
    };
    match step {
        Step::Missing => Ok(()),
        Step::Whole { value, .. } => {
            if value.grade == Grade::Clean {
                canvas.fill(bar(0.0, value.value), look.color)?;
            } else {
                canvas.outline(bar(0.0, value.value), look.color, 1.8)?;
            }
            match value.interval {
                Some((low, high)) => draw_range(canvas, (place(low), place(high)), y),
                None => Ok(()),
            }
        }
        Step::Change { from, to, ends, .. } => {
            let color = if to > from { WASTED } else { SAVED };
            canvas.fill(bar(*from, *to), color)?;
            draw_range(canvas, (place(ends.0), place(ends.1)), y)
        }
    }
}

/// A range with caps, on white so that it can be seen on a dark bar.
fn draw_range(canvas: &Canvas<'_>, (from, to): (f64, f64), y: f64) -> Drawn {
    for (color, width) in [(WHITE, 3.0), (INK, 1.1)] {
        canvas.line(&[(from, y), (to, y)], color, width)?;
        canvas.line(&[(from, y - 3.0), (from, y + 3.0)], color, width)?;
        canvas.line(&[(to, y - 3.0), (to, y + 3.0)], color, width)?;
    }
    Ok(())
}
