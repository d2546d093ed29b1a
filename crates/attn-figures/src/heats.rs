//! Small panels of coloured cells with their numbers, and the scale of the colours.

use crate::canvas::{Canvas, Drawn, Rect, Type};
use crate::font::{self, Weight};
use crate::sheet::{HeatPanel, Heats};
use crate::style::{AXIS, AXIS_TITLE_SIZE, GREY, INK, PANEL_TITLE_SIZE, TICK_SIZE, share_color, text_on};

const TITLE: f64 = 24.0;
const TICKS: f64 = 22.0;
/// A second line of the names of columns.
const SECOND: f64 = 12.0;
const AXIS_TITLE: f64 = 24.0;
const GAP: f64 = 16.0;
/// The scale of colours with its numbers.
const SCALE: f64 = 78.0;
const SCALE_STEPS: u32 = 50;
const LONGEST_TITLE: f64 = 190.0;
const MOST_COLUMNS: usize = 4;
const TALLEST_CELL: f64 = 30.0;
const WIDEST_CELL: f64 = 56.0;
/// A cell that is narrower has no number in it.
const NUMBERED: f64 = 18.0;

/// Whether the panels need the wider page.
pub(crate) fn is_wide(heats: &Heats) -> bool {
    heats.panels.len() > 3 || heats.panels.len() * heats.columns.len() > 16
}

/// Where everything is, for a body of the given width.
struct Plan {
    n_columns: usize,
    /// Of the names of rows, with the title of their axis.
    left: f64,
    cell: (f64, f64),
    /// From the left of one panel to the left of the next: a narrow one has room for its title.
    pitch: f64,
    /// Whether ranges that name columns take two lines.
    is_broken: bool,
}

fn plan(heats: &Heats, width: f64) -> Plan {
    let names = heats
        .rows
        .iter()
        .map(|name| font::width(name, TICK_SIZE, Weight::Regular));
    let left = names.fold(0.0, f64::max) + 10.0 + AXIS_TITLE;
    let n_cells = heats.columns.len().max(1) as f64;
    let titles = heats
        .panels
        .iter()
        .map(|panel| font::width(&title(panel), PANEL_TITLE_SIZE, Weight::Bold));
    let widest_title = titles.fold(0.0, f64::max);
    let panel_width = |columns: usize| (width - left - SCALE + GAP) / columns as f64 - GAP;
    let fits = |columns: usize| panel_width(columns) / n_cells;
    // As many panels a row as leave room for the numbers.
    let n_columns = (1..=heats.panels.len().clamp(1, MOST_COLUMNS))
        .rev()
        .find(|columns| fits(*columns) >= NUMBERED + 6.0 && panel_width(*columns) >= widest_title)
        .unwrap_or(1);
    let wide = fits(n_columns).min(WIDEST_CELL);
    let is_wider = |name: &String| font::width(name, TICK_SIZE, Weight::Regular) > wide - 3.0;
    Plan {
        n_columns,
        left,
        pitch: (n_cells * wide).max(widest_title) + GAP,
        is_broken: heats.columns.iter().any(is_wider),
        cell: (wide, TALLEST_CELL.min(0.9 * wide).max(20.0)),
    }
}

fn title(panel: &HeatPanel) -> String {
    font::fit(&panel.title, PANEL_TITLE_SIZE, Weight::Bold, LONGEST_TITLE)
}

fn panel_height(heats: &Heats, plan: &Plan) -> f64 {
    TITLE + heats.rows.len() as f64 * plan.cell.1 + plan.ticks()
}

impl Plan {
    /// Height of the names of columns.
    fn ticks(&self) -> f64 {
        if self.is_broken { TICKS + SECOND } else { TICKS }
    }
}

/// Height of all panels, in a body of the given width.
pub(crate) fn height(heats: &Heats, width: f64) -> f64 {
    let plan = plan(heats, width);
    heats.panels.len().div_ceil(plan.n_columns) as f64 * panel_height(heats, &plan) + AXIS_TITLE
}

pub(crate) fn draw(canvas: &Canvas<'_>, heats: &Heats, body: Rect) -> Drawn {
    let plan = plan(heats, body.width());
    let panel_width = heats.columns.len() as f64 * plan.cell.0;
    let mut right = body.left;
    let mut last_bottom = body.top;
    for (row, panels) in heats.panels.chunks(plan.n_columns).enumerate() {
        let top = body.top + row as f64 * panel_height(heats, &plan) + TITLE;
        for (at, panel) in panels.iter().enumerate() {
            let left = body.left + plan.left + at as f64 * plan.pitch;
            let cells = Rect {
                left,
                right: left + panel_width,
                top,
                bottom: top + heats.rows.len() as f64 * plan.cell.1,
            };
            draw_panel(canvas, heats, panel, cells, &plan)?;
            if at == 0 {
                draw_row_names(canvas, heats, cells, &plan)?;
            }
            right = right.max(cells.right);
            last_bottom = cells.bottom;
        }
    }
    let left = body.left + plan.left;
    let under = (
        f64::midpoint(left, right),
        last_bottom + plan.ticks() + AXIS_TITLE / 2.0 - 2.0,
    );
    canvas.text(&heats.x_title, under, Type::center(AXIS_TITLE_SIZE, INK))?;
    let beside = (
        body.left + AXIS_TITLE_SIZE / 2.0,
        f64::midpoint(body.top + TITLE, last_bottom),
    );
    canvas.text_upwards(&heats.y_title, beside, Type::center(AXIS_TITLE_SIZE, INK))?;
    let n_columns = heats.panels.len().min(plan.n_columns) as f64;
    let right = left + n_columns * plan.pitch - GAP;
    let scale = Rect {
        left: right + SCALE - 56.0,
        right: right + SCALE - 42.0,
        top: body.top + TITLE,
        bottom: last_bottom.min(body.top + TITLE + 220.0),
    };
    draw_scale(canvas, heats, scale)
}

fn draw_panel(canvas: &Canvas<'_>, heats: &Heats, panel: &HeatPanel, cells: Rect, plan: &Plan) -> Drawn {
    let title = title(panel);
    let kind = Type::left(PANEL_TITLE_SIZE, panel.look.ink()).bold();
    canvas.text(&title, (cells.left, cells.top - 11.0), kind)?;
    for (row, values) in panel.cells.iter().enumerate() {
        for (column, value) in values.iter().enumerate() {
            let left = cells.left + column as f64 * plan.cell.0;
            let bottom = cells.bottom - row as f64 * plan.cell.1;
            let cell = Rect {
                left: left + 0.5,
                right: left + plan.cell.0 - 0.5,
                top: bottom - plan.cell.1 + 0.5,
                bottom: bottom - 0.5,
            };
            draw_cell(canvas, *value, cell)?;
        }
    }
    for (column, name) in heats.columns.iter().enumerate() {
        let x = cells.left + (column as f64 + 0.5) * plan.cell.0;
        let lines = match name.split_once('–') {
            Some((from, to)) if plan.is_broken => vec![format!("{from}–"), to.to_owned()],
            _ => vec![name.clone()],
        };
        for (at, line) in lines.iter().enumerate() {
            let y = cells.bottom + 11.0 + at as f64 * SECOND;
            canvas.text(line, (x, y), Type::center(TICK_SIZE, GREY))?;
        }
    }
    Ok(())
}

fn draw_cell(canvas: &Canvas<'_>, value: Option<f64>, cell: Rect) -> Drawn {
    let middle = (
        f64::midpoint(cell.left, cell.right),
        f64::midpoint(cell.top, cell.bottom),
    );
    let Some(value) = value else {
        return canvas.text("-", middle, Type::center(TICK_SIZE - 1.0, GREY));
    };
    let color = share_color(value);
    canvas.fill(cell, color)?;
    if cell.width() < NUMBERED {
        return Ok(());
    }
    let number = format!("{:.0}", 100.0 * value);
    canvas.text(&number, middle, Type::center(TICK_SIZE - 1.0, text_on(color)))
}

fn draw_row_names(canvas: &Canvas<'_>, heats: &Heats, cells: Rect, plan: &Plan) -> Drawn {
    for (row, name) in heats.rows.iter().enumerate() {
        let y = cells.bottom - (row as f64 + 0.5) * plan.cell.1;
        canvas.text(name, (cells.left - 7.0, y), Type::right(TICK_SIZE, GREY))?;
    }
    Ok(())
}

fn draw_scale(canvas: &Canvas<'_>, heats: &Heats, bar: Rect) -> Drawn {
    let height = bar.bottom - bar.top;
    let at = |share: f64| bar.bottom - share * height;
    for step in 0..SCALE_STEPS {
        let [from, to] = [step, step + 1].map(|step| f64::from(step) / f64::from(SCALE_STEPS));
        let piece = Rect {
            top: (at(to) - 1.0).max(bar.top),
            bottom: at(from),
            ..bar
        };
        canvas.fill(piece, share_color(f64::midpoint(from, to)))?;
    }
    canvas.outline(bar, AXIS, 0.6)?;
    for share in [0.0, 0.5, 1.0] {
        let text = format!("{:.0}\u{a0}%", 100.0 * share);
        canvas.text(&text, (bar.right + 5.0, at(share)), Type::left(TICK_SIZE, GREY))?;
    }
    let title = (bar.left, bar.top - 11.0);
    canvas.text(&heats.scale_title, title, Type::left(TICK_SIZE, INK))
}
