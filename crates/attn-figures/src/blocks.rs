//! Bars of settings that begin at a base: blocks with a base each under each other, one scale a panel.

use crate::canvas::{Canvas, Drawn, PlotArea, Rect, Type, pixel};
use crate::font::{self, Weight};
use crate::sheet::{Bar, Block, BlockPanel, Grade};
use crate::style::{
    AXIS, AXIS_TITLE_SIZE, CAPTION_SIZE, GREY, GRID, INK, LABEL_SIZE, PANEL_TITLE_SIZE, TICK_SIZE,
};
use crate::ticks;
use plotters::style::WHITE;

const PITCH: f64 = 22.0;
const BAR: f64 = 11.0;
const TITLE: f64 = 22.0;
const HEAD: f64 = 22.0;
/// Under a block.
const SPACE: f64 = 6.0;
const AXIS_HEIGHT: f64 = 50.0;
const GAP: f64 = 34.0;
const BETWEEN: f64 = 12.0;
const LONGEST_LABEL: f64 = 150.0;

fn n_columns(panels: &[BlockPanel]) -> usize {
    panels.len().clamp(1, 2)
}

fn block_height(block: &Block) -> f64 {
    HEAD + block.bars.len() as f64 * PITCH + SPACE
}

fn panel_height(panel: &BlockPanel) -> f64 {
    TITLE + panel.blocks.iter().map(block_height).sum::<f64>() + AXIS_HEIGHT
}

fn row_height(panels: &[BlockPanel]) -> f64 {
    panels.iter().map(panel_height).fold(0.0, f64::max) + BETWEEN
}

/// Height of all panels with their axes.
pub(crate) fn height(panels: &[BlockPanel]) -> f64 {
    panels.chunks(n_columns(panels)).map(row_height).sum::<f64>() - BETWEEN
}

pub(crate) fn draw(canvas: &Canvas<'_>, panels: &[BlockPanel], body: Rect) -> Drawn {
    let columns = n_columns(panels);
    let width = (body.width() - GAP * (columns - 1) as f64) / columns as f64;
    let mut top = body.top;
    for row in panels.chunks(columns) {
        for (at, panel) in row.iter().enumerate() {
            let left = body.left + at as f64 * (width + GAP);
            let cell = Rect {
                left,
                right: left + width,
                top,
                bottom: top + panel_height(panel),
            };
            draw_panel(canvas, panel, cell)?;
        }
        top += row_height(row);
    }
    Ok(())
}

fn label(bar: &Bar) -> String {
    font::fit(&bar.label, LABEL_SIZE, Weight::Regular, LONGEST_LABEL)
}

/// Names on the left, values on the right, bars between them.
fn draw_panel(canvas: &Canvas<'_>, panel: &BlockPanel, cell: Rect) -> Drawn {
    let bars = || panel.blocks.iter().flat_map(|block| &block.bars);
    let widest = |widths: &mut dyn Iterator<Item = f64>| widths.fold(0.0, f64::max);
    let names = widest(&mut bars().map(|bar| font::width(&label(bar), LABEL_SIZE, Weight::Regular)));
    let values = widest(&mut bars().map(|bar| font::width(&bar.text, TICK_SIZE, Weight::Regular)));
    let plot = Rect {
        left: cell.left + names + 10.0,
        right: cell.right - values - 12.0,
        top: cell.top + TITLE,
        bottom: cell.bottom - AXIS_HEIGHT,
    };
    let title = font::fit(&panel.title, PANEL_TITLE_SIZE, Weight::Bold, cell.width());
    let at = (cell.left, cell.top + 8.0);
    canvas.text(&title, at, Type::left(PANEL_TITLE_SIZE, INK).bold())?;
    let area = canvas.plot(plot, panel.axis.range, (0.0, 1.0));
    draw_axis(canvas, &area, panel, plot)?;
    let mut top = plot.top;
    for block in &panel.blocks {
        draw_head(canvas, block, cell, top)?;
        let first = top + HEAD;
        let last = first + block.bars.len() as f64 * PITCH;
        let place = |value: f64| pixel(&area, (panel.axis.scale.project(value), 0.0)).0;
        let base = place(block.base);
        for (slot, bar) in block.bars.iter().enumerate() {
            let y = first + (slot as f64 + 0.5) * PITCH;
            let name = Type::right(LABEL_SIZE, bar.look.ink());
            canvas.text(&label(bar), (plot.left - 8.0, y), name)?;
            draw_bar(canvas, bar, (base, y), &place)?;
            let color = if bar.value.is_some() { INK } else { GREY };
            canvas.text(&bar.text, (cell.right, y), Type::right(TICK_SIZE, color))?;
        }
        canvas.line(&[(base, first), (base, last)], INK, 0.9)?;
        for (slot, bar) in block.bars.iter().enumerate() {
            draw_value(canvas, bar, first + (slot as f64 + 0.5) * PITCH, &place)?;
        }
        top += block_height(block);
    }
    Ok(())
}

fn draw_head(canvas: &Canvas<'_>, block: &Block, cell: Rect, top: f64) -> Drawn {
    let y = top + HEAD / 2.0 + 1.0;
    canvas.line(&[(cell.left, top), (cell.right, top)], GRID, 1.0)?;
    let title = font::fit(&block.title, LABEL_SIZE, Weight::Bold, 0.5 * cell.width());
    canvas.text(&title, (cell.left, y), Type::left(LABEL_SIZE, INK).bold())?;
    let left = cell.left + font::width(&title, LABEL_SIZE, Weight::Bold) + 10.0;
    let detail = font::fit(&block.detail, CAPTION_SIZE, Weight::Regular, cell.right - left);
    canvas.text(&detail, (left, y), Type::left(CAPTION_SIZE, GREY))
}

fn draw_axis(canvas: &Canvas<'_>, area: &PlotArea<'_>, panel: &BlockPanel, plot: Rect) -> Drawn {
    let place = |value: f64| pixel(area, (panel.axis.scale.project(value), 0.0)).0;
    let mut shown = panel.axis.ticks.clone();
    ticks::thin(&mut shown, place);
    for tick in &shown {
        let x = place(tick.value);
        let mut top = plot.top;
        // Not through the heads of the blocks.
        for block in &panel.blocks {
            let ends = (top + HEAD, top + block_height(block));
            canvas.line(&[(x, ends.0), (x, ends.1)], GRID, 1.0)?;
            top = ends.1;
        }
        canvas.line(&[(x, plot.bottom), (x, plot.bottom + 4.0)], AXIS, 1.0)?;
        if let Some(label) = &tick.label {
            canvas.text(label, (x, plot.bottom + 13.0), Type::center(TICK_SIZE, GREY))?;
        }
    }
    canvas.line(&[(plot.left, plot.bottom), (plot.right, plot.bottom)], AXIS, 1.0)?;
    let middle = (f64::midpoint(plot.left, plot.right), plot.bottom + 33.0);
    canvas.text(&panel.axis.title, middle, Type::center(AXIS_TITLE_SIZE, INK))
}

fn draw_bar(canvas: &Canvas<'_>, bar: &Bar, (base, y): (f64, f64), place: &dyn Fn(f64) -> f64) -> Drawn {
    let Some(value) = bar.value else { return Ok(()) };
    let end = place(value.value);
    let rect = Rect {
        left: base.min(end),
        right: base.max(end),
        top: y - BAR / 2.0,
        bottom: y + BAR / 2.0,
    };
    if rect.width() < 0.5 {
        return Ok(());
    }
    if value.grade == Grade::Clean {
        canvas.fill(rect, bar.look.color)
    } else {
        canvas.outline(rect, bar.look.color, 1.8)
    }
}

/// The interval on a clear ground, and the value in it.
fn draw_value(canvas: &Canvas<'_>, bar: &Bar, y: f64, place: &dyn Fn(f64) -> f64) -> Drawn {
    let Some(value) = bar.value else { return Ok(()) };
    if let Some((low, high)) = value.interval {
        let (from, to) = (place(low), place(high));
        for (color, width) in [(WHITE, 3.2), (INK, 1.2)] {
            canvas.line(&[(from, y), (to, y)], color, width)?;
            canvas.line(&[(from, y - 3.5), (from, y + 3.5)], color, width)?;
            canvas.line(&[(to, y - 3.5), (to, y + 3.5)], color, width)?;
        }
    }
    canvas.marker((place(value.value), y), bar.look, value.grade != Grade::Clean)
}
