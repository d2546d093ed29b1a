//! The paper's ratios beside ours, for runs of its four tasks.

use crate::figures::paper_table;
use crate::frame::Frame;
use crate::sheet::{Body, Cell};
use crate::slice::Slice;

use super::data::Table;
use super::findings::{Block, Sentence, State, capital};

/// A block for each task and setting that the paper's table is drawn for.
pub(super) fn blocks(frame: &Frame) -> Vec<Block> {
    let figure = paper_table::SPEC;
    let slices = Slice::split(frame, figure.dimensions, figure.uses);
    let mut blocks = Vec::new();
    for slice in &slices {
        let Ok(sheet) = (figure.sheet)(slice) else {
            continue;
        };
        let Body::Tables(tables) = &sheet.body else {
            continue;
        };
        let mut block = Block {
            title: sheet.title.clone(),
            setting: slice.suffix.trim_start_matches('-').replace('-', " "),
            sentences: Vec::new(),
            table: Table::default(),
            short: Vec::new(),
        };
        for (at, table) in tables.iter().enumerate() {
            let groups: Vec<&str> = table
                .groups
                .iter()
                .flat_map(|(name, n)| vec![name.as_str(); *n])
                .collect();
            let heads: Vec<String> = groups
                .iter()
                .zip(&table.heads)
                .map(|(group, head)| {
                    let parts = [*group, head[0].as_str(), head[1].as_str()];
                    let known: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
                    known.join(", ")
                })
                .collect();
            // A second table is of another quantity: its columns stand beside those of the first.
            if at == 0 {
                block.table.heads.push("variant".to_owned());
                block.table.is_number.push(false);
                block.table.rows = table.rows.iter().map(|row| vec![row.label.clone()]).collect();
            }
            block.table.is_number.extend(heads.iter().map(|_| true));
            block.table.heads.extend(heads.iter().cloned());
            for (own, row) in block.table.rows.iter_mut().zip(&table.rows) {
                own.extend(row.cells.iter().map(written));
            }
            for row in &table.rows {
                block.sentences.extend(sentence(&row.label, &heads, &row.cells));
            }
        }
        block.short = block
            .table
            .rows
            .iter()
            .filter_map(|row| Some((row.first()?.clone(), row[1..].join(" · "))))
            .collect();
        block
            .sentences
            .push(Sentence::new(State::Note, capital(&sheet.notes.join(" · "))));
        blocks.push(block);
    }
    blocks
}

fn written(cell: &Cell) -> String {
    let star = if cell.is_weak { "*" } else { "" };
    let detail = if cell.detail.is_empty() {
        String::new()
    } else {
        format!(" ({})", cell.detail)
    };
    format!("{}{star}{detail}", cell.text)
}

/// `MTLA s=2, times as fast as MHA: paper 4.29×; seed-like, f32 2.31×; fused f32, copied 1.49× (1.34 to 1.57)`, of a variant
/// that both sides have.
fn sentence(label: &str, heads: &[String], cells: &[Cell]) -> Option<Sentence> {
    const SPEED: &str = "Times as fast as MHA, ";
    let speeds: Vec<(&str, &Cell)> = heads
        .iter()
        .zip(cells)
        .filter_map(|(head, cell)| Some((head.strip_prefix(SPEED)?, cell)))
        .filter(|(head, cell)| *head != "deviation" && cell.text != "-")
        .collect();
    let (first, _) = speeds.first()?;
    if *first != "paper" || speeds.len() < 2 || label == "MHA" {
        return None;
    }
    let told: Vec<String> = speeds
        .iter()
        .map(|(head, cell)| format!("{head} {}", written(cell)))
        .collect();
    let known: Vec<(f64, f64)> = speeds.iter().filter_map(|(_, cell)| cell.interval).collect();
    let state = match known.as_slice() {
        [] => State::Single,
        all if all.iter().all(|(low, high)| *low > 1.0 || *high < 1.0) => State::Shown,
        _ => State::Open,
    };
    Some(Sentence {
        text: format!("{label}, times as fast as MHA: {}.", told.join("; ")),
        state,
        doubt: (speeds.iter().any(|(_, cell)| cell.is_weak)).then(|| "where there is a star".to_owned()),
    })
}
