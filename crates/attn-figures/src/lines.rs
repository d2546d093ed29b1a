//! Panels of curves side by side: grid, axes, intervals, markers, names at the ends.

use crate::axis::Axis;
use crate::canvas::{Canvas, Drawn, PlotArea, Rect, Type, pixel, stroke};
use crate::font::{self, Weight};
use crate::sheet::{Grade, LinePanel, Measured, Point, Series, Shape};
use crate::style::{
    AXIS, AXIS_TITLE_SIZE, GREY, GRID, INK, LABEL_SIZE, Look, MINOR_GRID, PANEL_TITLE_SIZE, TICK_SIZE,
};
use crate::{names, tags, ticks};
use plotters::prelude::{Color, DashedLineSeries, LineSeries, PathElement, Polygon};

/// Of the panels with their axes.
pub(crate) const HEIGHT: f64 = 440.0;
const PANEL_GAP: f64 = 18.0;
/// Of single seeds from the mean over them.
pub(crate) const DOTS_LEFT: f64 = 7.0;

/// Whether every curve is named at its end in the last panel; otherwise there is a legend. Names need a
/// panel where every series ends, most of them at its right border.
pub(crate) fn labels_at_ends(panels: &[LinePanel]) -> bool {
    let Some(last) = panels.last() else { return false };
    let ends = |label: &str| last.series.iter().any(|series| series.label == label);
    let ends_here: f64 = last.x.ticks.iter().map(|tick| tick.value).fold(0.0, f64::max);
    if panels
        .iter()
        .flat_map(|panel| &panel.series)
        .any(|s| s.shape == Shape::Scatter)
    {
        return false;
    }
    let reaches = |s: &&Series| s.is_reference() || s.points.last().is_some_and(|point| point.x >= ends_here);
    let n_reaching = last.series.iter().filter(reaches).count();
    let all = panels
        .iter()
        .flat_map(|panel| &panel.series)
        .all(|series| ends(&series.label));
    all && last.series.len() as f64 * (LABEL_SIZE + 3.0) < HEIGHT - 80.0
        && 2 * n_reaching >= last.series.len()
}

pub(crate) fn draw(canvas: &Canvas<'_>, panels: &[LinePanel], body: Rect) -> Drawn {
    draw_as(canvas, panels, labels_at_ends(panels), names::LONGEST, body)
}

/// Draws panels whose curves are named at their ends or not, with names no wider than `longest`.
pub(crate) fn draw_as(
    canvas: &Canvas<'_>,
    panels: &[LinePanel],
    named: bool,
    longest: f64,
    body: Rect,
) -> Drawn {
    // References are named in their own panel: each panel has its own.
    let names_of = |at: usize, panel: &LinePanel| -> f64 {
        let here = panel
            .series
            .iter()
            .filter(|s| is_named(s, named, ends_row(panels, at)));
        let widest = here
            .map(|s| font::width(&names::shown(s, longest), LABEL_SIZE, Weight::Regular))
            .fold(0.0, f64::max);
        if widest > 0.0 {
            widest + names::LEADER_WIDTH + 4.0
        } else {
            0.0
        }
    };
    let left_of = |panel: &LinePanel| {
        if panel.same_y_as_previous {
            0.0
        } else {
            y_axis_width(&panel.y)
        }
    };
    let taken: f64 = panels
        .iter()
        .enumerate()
        .map(|(at, p)| left_of(p) + names_of(at, p))
        .sum();
    let gaps = PANEL_GAP * panels.len().saturating_sub(1) as f64;
    let plot_width = (body.width() - taken - gaps) / panels.len().max(1) as f64;
    let titled = panels.iter().any(|panel| panel.title.is_some());

    let mut left = body.left;
    for (at, panel) in panels.iter().enumerate() {
        left += left_of(panel);
        let plot = Rect {
            left,
            right: left + plot_width,
            top: body.top + if titled { 24.0 } else { 6.0 },
            bottom: body.bottom - 44.0,
        };
        let named = |series: &&Series| is_named(series, named, ends_row(panels, at));
        let ends: Vec<&Series> = panel.series.iter().filter(named).collect();
        let area = draw_panel(canvas, panel, plot)?;
        names::draw(canvas, &area, panel, plot, &ends, longest)?;
        tags::draw(canvas, &area, panel, plot)?;
        left += plot_width + names_of(at, panel) + PANEL_GAP;
    }
    Ok(())
}

/// Whether no later panel shows the same curves on the same axis.
fn ends_row(panels: &[LinePanel], at: usize) -> bool {
    panels.get(at + 1).is_none_or(|next| !next.same_y_as_previous)
}

/// References carry their names in every panel, curves in the last one of their axis.
fn is_named(series: &Series, named: bool, is_last: bool) -> bool {
    series.is_reference() || (named && is_last)
}

fn draw_panel<'a>(canvas: &Canvas<'a>, panel: &LinePanel, plot: Rect) -> Result<PlotArea<'a>, String> {
    let area = canvas.plot(plot, panel.x.range, panel.y.range);
    draw_y_axis(canvas, &area, panel, plot)?;
    draw_x_axis(canvas, &area, panel, plot)?;
    if let Some(title) = &panel.title {
        let title = font::fit(title, PANEL_TITLE_SIZE, Weight::Bold, plot.width());
        canvas.text(
            &title,
            (plot.left, plot.top - 13.0),
            Type::left(PANEL_TITLE_SIZE, INK).bold(),
        )?;
    }
    // Bands first, or they would tint the lines of others.
    for series in panel.series.iter().filter(|series| series.shape == Shape::Level) {
        for point in &series.points {
            draw_level(&area, panel, point.y, series.look)?;
        }
    }
    for series in &panel.series {
        draw_series(canvas, &area, panel, series)?;
    }
    // Markers over every line, so that no line runs through one.
    for series in panel.series.iter().filter(|series| series.shape.is_marked()) {
        for point in &series.points {
            let look = point.look.unwrap_or(series.look);
            let hollow = point.y.grade != Grade::Clean;
            canvas.marker(pixel(&area, project(panel, point)), look, hollow)?;
        }
    }
    Ok(area)
}

/// A point of a panel, as plotters' coordinates.
pub(crate) fn project(panel: &LinePanel, point: &Point) -> (f64, f64) {
    (
        panel.x.scale.project(point.x),
        panel.y.scale.project(point.y.value),
    )
}

fn draw_series(canvas: &Canvas<'_>, area: &PlotArea<'_>, panel: &LinePanel, series: &Series) -> Drawn {
    if series.is_reference() {
        let Some(point) = series.points.first() else {
            return Ok(());
        };
        let y = panel.y.scale.project(point.y.value);
        let ends = [(panel.x.range.0, y), (panel.x.range.1, y)];
        let dashes = DashedLineSeries::new(ends, 60, 40, stroke(series.look.color, 1.5));
        return dashes
            .into_iter()
            .try_for_each(|dash| area.draw(&dash))
            .map_err(|e| e.to_string());
    }
    if series.shape == Shape::Dashed {
        let dashes = DashedLineSeries::new(path(panel, series), 60, 40, stroke(series.look.color, 1.5));
        return dashes
            .into_iter()
            .try_for_each(|dash| area.draw(&dash))
            .map_err(|e| e.to_string());
    }
    if series.shape == Shape::Dots {
        return draw_dots(canvas, area, panel, series);
    }
    let width = match series.shape {
        Shape::Scatter | Shape::Tagged => 0.0,
        Shape::Band | Shape::Steps => 1.3,
        _ => 1.8,
    };
    if series.shape == Shape::Band {
        draw_band(area, panel, series)?;
    }
    if width > 0.0 {
        let mut curve = LineSeries::new(path(panel, series), stroke(series.look.color, width));
        curve
            .try_for_each(|piece| area.draw(&piece))
            .map_err(|e| e.to_string())?;
    }
    if !series.shape.is_marked() {
        return Ok(());
    }
    for point in &series.points {
        if let Some(interval) = point.x_interval {
            draw_x_interval(canvas, area, panel, series, (point, interval))?;
        }
        let Some((low, high)) = point.y.interval else {
            continue;
        };
        let color = point.look.unwrap_or(series.look).color;
        let x = panel.x.scale.project(point.x);
        let ends = [low, high].map(|end| (x, panel.y.scale.project(end)));
        area.draw(&PathElement::new(ends, stroke(color, 1.4)))
            .map_err(|e| e.to_string())?;
        let middle = pixel(area, (x, panel.y.scale.project(point.y.value))).1;
        // Under the marker a cap would only spoil its shape.
        let visible = ends
            .map(|end| pixel(area, end))
            .into_iter()
            .filter(|(_, y)| (y - middle).abs() > 6.0);
        for (x, y) in visible {
            canvas.line(&[(x - 3.0, y), (x + 3.0, y)], color, 1.4)?;
        }
    }
    Ok(())
}

/// The interval of what is along x.
fn draw_x_interval(
    canvas: &Canvas<'_>,
    area: &PlotArea<'_>,
    panel: &LinePanel,
    series: &Series,
    (point, (low, high)): (&Point, (f64, f64)),
) -> Drawn {
    let color = point.look.unwrap_or(series.look).color;
    let (x, y) = pixel(area, project(panel, point));
    let place = |end: f64| pixel(area, (panel.x.scale.project(end), 0.0)).0;
    let ends = [low, high].map(place);
    canvas.line(&[(ends[0], y), (ends[1], y)], color, 1.4)?;
    for end in ends.into_iter().filter(|end| (end - x).abs() > 6.0) {
        canvas.line(&[(end, y - 3.0), (end, y + 3.0)], color, 1.4)?;
    }
    Ok(())
}

/// Dots a little to the left of their place, so that the point they belong to does not hide them.
fn draw_dots(canvas: &Canvas<'_>, area: &PlotArea<'_>, panel: &LinePanel, series: &Series) -> Drawn {
    for point in &series.points {
        let (x, y) = pixel(area, project(panel, point));
        canvas.dot((x - DOTS_LEFT, y), point.look.unwrap_or(series.look).color)?;
    }
    Ok(())
}

/// The interval of a value for comparison, as an area across the panel, cut at the frame.
fn draw_level(area: &PlotArea<'_>, panel: &LinePanel, value: Measured, look: Look) -> Drawn {
    let (low, high) = panel.y.range;
    let [from, to] = value
        .ends()
        .map(|end| panel.y.scale.project(end).clamp(low, high));
    let (left, right) = panel.x.range;
    let outline = vec![(left, from), (right, from), (right, to), (left, to)];
    area.draw(&Polygon::new(outline, look.color.mix(0.13)))
        .map_err(|e| e.to_string())
}

/// The places a line goes through; steps go along before they go up.
pub(crate) fn path(panel: &LinePanel, series: &Series) -> Vec<(f64, f64)> {
    let mut path: Vec<(f64, f64)> = Vec::with_capacity(2 * series.points.len());
    for point in &series.points {
        let (x, y) = project(panel, point);
        if let (Shape::Steps, Some((_, before))) = (series.shape, path.last()) {
            path.push((x, *before));
        }
        path.push((x, y));
    }
    path
}

/// The intervals of all points as one area behind the line, cut at the frame.
fn draw_band(area: &PlotArea<'_>, panel: &LinePanel, series: &Series) -> Drawn {
    let (low, high) = panel.y.range;
    let place = |point: &Point, end: usize| {
        let y = panel.y.scale.project(point.y.ends()[end]);
        (panel.x.scale.project(point.x), y.clamp(low, high))
    };
    let there = series.points.iter().map(|point| place(point, 0));
    let back = series.points.iter().rev().map(|point| place(point, 1));
    let outline: Vec<(f64, f64)> = there.chain(back).collect();
    area.draw(&Polygon::new(outline, series.look.color.mix(0.2)))
        .map_err(|e| e.to_string())
}

/// The label column, the tick labels and the title of a vertical axis.
fn y_axis_width(axis: &Axis) -> f64 {
    let labels = axis.ticks.iter().filter_map(|tick| tick.label.as_deref());
    let widest = labels
        .map(|label| font::width(label, TICK_SIZE, Weight::Regular))
        .fold(0.0, f64::max);
    widest + 8.0 + AXIS_TITLE_SIZE + 10.0
}

fn draw_y_axis(canvas: &Canvas<'_>, area: &PlotArea<'_>, panel: &LinePanel, plot: Rect) -> Drawn {
    let place = |value: f64| pixel(area, (panel.x.range.0, panel.y.scale.project(value))).1;
    for tick in panel.y.ticks.iter().filter(|tick| tick.label.is_none()) {
        let y = place(tick.value);
        canvas.line(&[(plot.left, y), (plot.right, y)], MINOR_GRID, 0.8)?;
    }
    for tick in &panel.y.ticks {
        let Some(label) = &tick.label else { continue };
        let y = place(tick.value);
        canvas.line(&[(plot.left, y), (plot.right, y)], GRID, 1.0)?;
        if !panel.same_y_as_previous {
            canvas.text(label, (plot.left - 7.0, y), Type::right(TICK_SIZE, GREY))?;
        }
    }
    if panel.same_y_as_previous {
        return Ok(());
    }
    let at = (
        plot.left - y_axis_width(&panel.y) + AXIS_TITLE_SIZE / 2.0,
        f64::midpoint(plot.top, plot.bottom),
    );
    canvas.text_upwards(&panel.y.title, at, Type::center(AXIS_TITLE_SIZE, INK))
}

fn draw_x_axis(canvas: &Canvas<'_>, area: &PlotArea<'_>, panel: &LinePanel, plot: Rect) -> Drawn {
    let place = |value: f64| pixel(area, (panel.x.scale.project(value), panel.y.range.0)).0;
    let mut shown = panel.x.ticks.clone();
    ticks::thin(&mut shown, place);
    for tick in &shown {
        let x = place(tick.value);
        canvas.line(&[(x, plot.top), (x, plot.bottom)], MINOR_GRID, 0.8)?;
        canvas.line(&[(x, plot.bottom), (x, plot.bottom + 4.0)], AXIS, 1.0)?;
        if let Some(label) = &tick.label {
            canvas.text(label, (x, plot.bottom + 13.0), Type::center(TICK_SIZE, GREY))?;
        }
    }
    canvas.line(&[(plot.left, plot.bottom), (plot.right, plot.bottom)], AXIS, 1.0)?;
    let middle = (f64::midpoint(plot.left, plot.right), plot.bottom + 34.0);
    canvas.text(&panel.x.title, middle, Type::center(AXIS_TITLE_SIZE, INK))
}
