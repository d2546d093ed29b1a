//! A table as papers print them: three rules, columns set to the right, small print under a number.

use crate::canvas::{Canvas, Drawn, Rect, Type};
use crate::font::{self, Weight};
use crate::sheet::{Cell, Table};
use crate::style::{AXIS, CAPTION_SIZE, GREY, GRID, INK, LABEL_SIZE, TICK_SIZE};

const LINE: f64 = 22.0;
/// Of the second line of a row.
const DETAIL: f64 = 13.0;
const HEAD: f64 = 15.0;
const NARROWEST_GAP: f64 = 6.0;
/// Beyond a number, for its star.
const STAR: f64 = 7.0;
/// Columns that are further apart are harder to read along.
const WIDEST_GAP: f64 = 44.0;
const LONGEST_LABEL: f64 = 190.0;
const SHORTEST_LABEL: f64 = 50.0;
/// Between tables under each other.
const BETWEEN: f64 = 16.0;

fn has_groups(table: &Table) -> bool {
    table.groups.iter().any(|(title, _)| !title.is_empty())
}

fn n_head_lines(table: &Table) -> f64 {
    let has_second = table.heads.iter().any(|head| !head[1].is_empty());
    if has_second { 2.0 } else { 1.0 }
}

fn row_height(cells: &[Cell]) -> f64 {
    let has_detail = cells.iter().any(|cell| !cell.detail.is_empty());
    if has_detail { LINE + DETAIL } else { LINE }
}

fn header_height(table: &Table) -> f64 {
    let groups = if has_groups(table) { LINE } else { 0.0 };
    groups + n_head_lines(table) * HEAD + 10.0
}

/// Height of the whole table.
pub(crate) fn height(table: &Table) -> f64 {
    let rows: f64 = table.rows.iter().map(|row| row_height(&row.cells)).sum();
    header_height(table) + rows + 10.0
}

/// Height of tables under each other.
pub(crate) fn stack_height(tables: &[Table]) -> f64 {
    tables.iter().map(|table| height(table) + BETWEEN).sum::<f64>() - BETWEEN
}

/// Draws tables under each other.
pub(crate) fn draw_stack(canvas: &Canvas<'_>, tables: &[Table], body: Rect) -> Drawn {
    let mut top = body.top;
    for table in tables {
        draw(canvas, table, Rect { top, ..body })?;
        top += height(table) + BETWEEN;
    }
    Ok(())
}

/// Draws the table at the top left of a rectangle, no wider than it.
pub(crate) fn draw(canvas: &Canvas<'_>, table: &Table, body: Rect) -> Drawn {
    let widths: Vec<f64> = (0..table.heads.len()).map(|at| column_width(table, at)).collect();
    let columns: f64 = widths.iter().map(|width| width + STAR + NARROWEST_GAP).sum();
    let longest = (body.width() - columns).clamp(SHORTEST_LABEL, LONGEST_LABEL);
    let label = |text: &str| font::fit(text, LABEL_SIZE, Weight::Regular, longest);
    let labels = table.rows.iter().map(|row| label(&row.label));
    let label_width = labels
        .map(|text| font::width(&text, LABEL_SIZE, Weight::Regular))
        .fold(0.0, f64::max);
    let taken: f64 = label_width + widths.iter().map(|width| width + STAR).sum::<f64>();
    let n_gaps = widths.len().max(1) as f64;
    let gap = ((body.width() - taken) / n_gaps).clamp(NARROWEST_GAP, WIDEST_GAP);
    // Where each column's numbers end.
    let mut rights = Vec::with_capacity(widths.len());
    let mut x = body.left + label_width;
    for width in &widths {
        x += gap + width;
        rights.push(x);
        x += STAR;
    }
    let right = x.min(body.right);

    let rule = |y: f64, width: f64| canvas.line(&[(body.left, y), (right, y)], INK, width);
    rule(body.top, 1.4)?;
    let mut y = body.top;
    if has_groups(table) {
        draw_groups(canvas, table, y, &rights, &widths)?;
        y += LINE;
    }
    for (line, offset) in [(0, 0.0), (1, HEAD)] {
        for (head, right) in table.heads.iter().zip(&rights) {
            let at = (*right, y + 5.0 + HEAD / 2.0 + offset);
            let color = if line == 0 { INK } else { GREY };
            canvas.text(&head[line], at, Type::right(TICK_SIZE, color))?;
        }
    }
    y = body.top + header_height(table);
    rule(y, 0.8)?;
    for (at, row) in table.rows.iter().enumerate() {
        if at > 0 {
            canvas.line(&[(body.left, y), (right, y)], GRID, 0.8)?;
        }
        let middle = y + LINE / 2.0 + 1.0;
        canvas.text(
            &label(&row.label),
            (body.left, middle),
            Type::left(LABEL_SIZE, INK),
        )?;
        for (cell, right) in row.cells.iter().zip(&rights) {
            let color = if cell.text == "-" { GREY } else { INK };
            canvas.text(&cell.text, (*right, middle), Type::right(LABEL_SIZE, color))?;
            if cell.is_weak {
                canvas.text("*", (*right + 1.0, middle), Type::left(LABEL_SIZE, INK))?;
            }
            let under = (*right, middle + DETAIL + 1.0);
            canvas.text(&cell.detail, under, Type::right(CAPTION_SIZE - 0.5, GREY))?;
        }
        y += row_height(&row.cells);
    }
    rule(y, 1.4)
}

/// The titles over several columns, each with a line over the columns it is for.
fn draw_groups(canvas: &Canvas<'_>, table: &Table, top: f64, rights: &[f64], widths: &[f64]) -> Drawn {
    let mut first = 0;
    for (title, n) in &table.groups {
        let columns = first..first + n;
        first += n;
        let (Some(width), Some(start), Some(end)) = (
            widths.get(columns.start),
            rights.get(columns.start),
            rights.get(columns.end - 1),
        ) else {
            continue;
        };
        if title.is_empty() {
            continue;
        }
        let left = start - width;
        let middle = (f64::midpoint(left, *end), top + LINE / 2.0 + 1.0);
        canvas.text(title, middle, Type::center(LABEL_SIZE, INK).bold())?;
        let y = top + LINE;
        canvas.line(&[(left, y), (*end + STAR, y)], AXIS, 0.8)?;
    }
    Ok(())
}

fn column_width(table: &Table, at: usize) -> f64 {
    let heads = table.heads[at]
        .iter()
        .map(|line| font::width(line, TICK_SIZE, Weight::Regular));
    let cells = table.rows.iter().filter_map(|row| row.cells.get(at));
    let texts = cells.map(|cell| {
        let text = font::width(&cell.text, LABEL_SIZE, Weight::Regular);
        text.max(font::width(&cell.detail, CAPTION_SIZE - 0.5, Weight::Regular))
    });
    heads.chain(texts).fold(0.0, f64::max)
}
