//! A sheet on a page: question, what is drawn, legend, panels, caption.

use crate::canvas::{Canvas, Drawn, Rect, Type, document};
use crate::font::{self, Weight};
use crate::sheet::{Bar, Body, Grade, LinePanel, Sheet, Step};
use crate::slice::{Slice, cases};
use crate::style::{CAPTION_SIZE, GREY, INK, SUBTITLE_SIZE, TITLE_SIZE};
use crate::{bars, blocks, fits, grid, heats, legend, lines, seedlike, stacks, table, waterfalls};
use std::collections::BTreeMap;

const MARGIN: f64 = 24.0;
/// Of a page with one or two panels; more of them get more.
const WIDTH: f64 = 900.0;
const WIDE: f64 = 1140.0;

/// Legend and panels alone, for a page that has title and caption as text of its own.
pub(crate) fn draw_bare(sheet: &Sheet, title: &str) -> Result<String, String> {
    lay_out(&sheet.body, title, [&[], &[], &[]])
}

/// Draws a sheet as an SVG document.
pub(crate) fn draw(sheet: &Sheet, slice: &Slice<'_>) -> Result<String, String> {
    let inner = width(&sheet.body) - 2.0 * MARGIN;
    let title = slice.question().unwrap_or(&sheet.title);
    let titles = font::wrap(title, TITLE_SIZE, Weight::Bold, inner);
    let subtitles = font::wrap(&sheet.subtitle, SUBTITLE_SIZE, Weight::Regular, inner);
    let captions = font::wrap(&caption(sheet, slice), CAPTION_SIZE, Weight::Regular, inner);
    lay_out(&sheet.body, title, [&titles, &subtitles, &captions])
}

fn width(body: &Body) -> f64 {
    if is_wide(body) { WIDE } else { WIDTH }
}

/// The body with lines of text: titles and subtitles above it, captions below.
fn lay_out(body: &Body, title: &str, texts: [&[String]; 3]) -> Result<String, String> {
    let [titles, subtitles, captions] = texts;
    let width = width(body);
    let inner = width - 2.0 * MARGIN;
    let legend = legend::place(&legend::entries(body), inner);

    let title_height = titles.len() as f64 * 22.0;
    let subtitle_height = subtitles.len() as f64 * 17.0;
    let header = MARGIN - 4.0 + title_height + subtitle_height + legend.height + 10.0;
    let footer = captions.len() as f64 * 14.0 + 22.0;
    let body_height = match body {
        Body::Lines(_) => lines::HEIGHT,
        Body::Bars(panels) => bars::height(panels),
        Body::Tables(tables) => table::stack_height(tables),
        Body::Stacks(contents) => stacks::height(contents),
        Body::Waterfalls(contents) => waterfalls::height(contents),
        Body::Fits(contents) => fits::height(contents),
        Body::Grid(contents) => grid::height(contents),
        Body::Blocks(panels) => blocks::height(panels),
        Body::Heats(contents) => heats::height(contents, inner),
    };
    let height = header + body_height + footer;
    let place = Rect {
        left: MARGIN,
        right: width - MARGIN,
        top: header,
        bottom: header + body_height,
    };

    document((width, height), title, |canvas| {
        let mut y = MARGIN - 4.0;
        y = block(canvas, titles, y, 22.0, Type::left(TITLE_SIZE, INK).bold())?;
        y = block(canvas, subtitles, y, 17.0, Type::left(SUBTITLE_SIZE, GREY))?;
        legend::draw(canvas, &legend, (MARGIN, y))?;
        match body {
            Body::Lines(panels) => lines::draw(canvas, panels, place)?,
            Body::Bars(panels) => bars::draw(canvas, panels, place)?,
            Body::Tables(tables) => table::draw_stack(canvas, tables, place)?,
            Body::Stacks(contents) => stacks::draw(canvas, contents, place)?,
            Body::Waterfalls(contents) => waterfalls::draw(canvas, contents, place)?,
            Body::Fits(contents) => fits::draw(canvas, contents, place)?,
            Body::Grid(contents) => grid::draw(canvas, contents, place)?,
            Body::Blocks(panels) => blocks::draw(canvas, panels, place)?,
            Body::Heats(contents) => heats::draw(canvas, contents, place)?,
        }
        block(
            canvas,
            captions,
            place.bottom + 8.0,
            14.0,
            Type::left(CAPTION_SIZE, GREY),
        )?;
        Ok(())
    })
}

/// Whether the panels or columns need the wider page.
fn is_wide(body: &Body) -> bool {
    match body {
        Body::Lines(panels) => panels.len() > 2,
        Body::Bars(panels) => panels.len() > 2,
        Body::Tables(tables) => tables.iter().any(|table| table.heads.len() > 8),
        Body::Stacks(stacks) => stacks::is_wide(stacks),
        Body::Waterfalls(waterfalls) => waterfalls.panels.len() > 2,
        Body::Fits(fits) => fits.len() > 2,
        Body::Grid(grid) => grid.panels.len() > 1,
        Body::Blocks(panels) => panels.len() > 1,
        Body::Heats(heats) => heats::is_wide(heats),
    }
}

/// Lines of text under each other; returns where the next block starts.
fn block(canvas: &Canvas<'_>, lines: &[String], top: f64, height: f64, kind: Type) -> Result<f64, String> {
    let mut y = top;
    for line in lines {
        let drawn: Drawn = canvas.text(line, (MARGIN, y + height / 2.0), kind);
        drawn?;
        y += height;
    }
    Ok(y)
}

/// Everything a reader needs to judge the figure away from its run.
fn caption(sheet: &Sheet, slice: &Slice<'_>) -> String {
    remarks(sheet, slice).join(" · ")
}

/// The same, remark by remark.
pub(crate) fn remarks(sheet: &Sheet, slice: &Slice<'_>) -> Vec<String> {
    let mut parts = slice.provenance();
    parts.extend(sheet.notes.iter().cloned());
    parts.extend(hollow_note(sheet));
    parts.extend(sheet.reservations.iter().cloned());
    parts.extend(slice.is_measured_seedlike().then(seedlike::note));
    parts
}

/// The values drawn hollow, by what weakens them: `hollow: trust not clean (3 cases: 2 shared, 1 throttled)`.
fn hollow_note(sheet: &Sheet) -> Option<String> {
    let mut counts: BTreeMap<Grade, usize> = BTreeMap::new();
    for grade in grades(sheet).into_iter().filter(|grade| *grade != Grade::Clean) {
        *counts.entry(grade).or_default() += 1;
    }
    let n_weak = counts.values().sum();
    let each: Vec<String> = counts
        .iter()
        .map(|(grade, n)| format!("{n} {}", grade.name()))
        .collect();
    (n_weak > 0).then(|| format!("hollow: trust not clean ({}: {})", cases(n_weak), each.join(", ")))
}

/// Of all values that are drawn so that they could be hollow.
fn grades(sheet: &Sheet) -> Vec<Grade> {
    match &sheet.body {
        Body::Lines(panels) => of_points(panels.iter()),
        Body::Fits(fits) => of_points(fits.iter().map(|fit| &fit.panel)),
        Body::Grid(grid) => of_points(grid.panels.iter()),
        Body::Bars(panels) => of_bars(panels.iter().flat_map(|panel| &panel.bars)),
        Body::Blocks(panels) => {
            let blocks = panels.iter().flat_map(|panel| &panel.blocks);
            of_bars(blocks.flat_map(|block| &block.bars))
        }
        Body::Waterfalls(waterfalls) => {
            let steps = waterfalls.panels.iter().flat_map(|panel| &panel.steps);
            let whole = |step: &Step| match step {
                Step::Whole { value, .. } => Some(value.grade),
                _ => None,
            };
            steps.filter_map(whole).collect()
        }
        // They mark what to doubt with a star, and say so themselves.
        Body::Tables(_) | Body::Stacks(_) | Body::Heats(_) => Vec::new(),
    }
}

fn of_bars<'a>(bars: impl Iterator<Item = &'a Bar>) -> Vec<Grade> {
    bars.filter_map(|bar| bar.value)
        .map(|value| value.grade)
        .collect()
}

fn of_points<'a>(panels: impl Iterator<Item = &'a LinePanel>) -> Vec<Grade> {
    let series = panels.flat_map(|panel| &panel.series);
    let marked = series.filter(|series| series.shape.is_marked());
    marked
        .flat_map(|series| &series.points)
        .map(|point| point.y.grade)
        .collect()
}
