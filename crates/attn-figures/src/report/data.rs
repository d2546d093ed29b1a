//! The numbers of a figure as a table.

use crate::sheet::{Bar, Body, Cell, LinePanel, Measured, Step};
use crate::units::Unit;
use serde::Serialize;

use super::cells::plain;

/// A table of text; columns of numbers stand to the right.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Table {
    pub(super) heads: Vec<String>,
    /// One for each head.
    pub(super) is_number: Vec<bool>,
    pub(super) rows: Vec<Vec<String>>,
    /// Rows that were left out because there are too many for a page.
    pub(super) n_more: usize,
}

impl Table {
    /// A head that begins with `>` is one of numbers.
    pub(super) fn new(heads: &[&str]) -> Self {
        Self {
            heads: heads
                .iter()
                .map(|head| head.trim_start_matches('>').to_owned())
                .collect(),
            is_number: heads.iter().map(|head| head.starts_with('>')).collect(),
            ..Self::default()
        }
    }

    pub(super) fn push(&mut self, row: Vec<String>) {
        if self.rows.len() < MOST_ROWS {
            self.rows.push(row);
        } else {
            self.n_more += 1;
        }
    }

    /// Without columns that are empty in every row.
    pub(super) fn compact(mut self) -> Self {
        let used: Vec<bool> = (0..self.heads.len())
            .map(|at| self.rows.iter().any(|row| !row[at].is_empty()))
            .collect();
        let mut keep = used.iter().cycle();
        let mut kept = |_: &String| *keep.next().unwrap_or(&true);
        for row in &mut self.rows {
            row.retain(&mut kept);
        }
        self.heads.retain(&mut kept);
        let mut keep = used.iter();
        self.is_number.retain(|_| *keep.next().unwrap_or(&true));
        self
    }
}

/// Rows of a table under a figure: curves of trainings have thousands of points.
const MOST_ROWS: usize = 400;

/// What a figure shows.
pub(super) fn of(body: &Body) -> Table {
    match body {
        Body::Lines(panels) => lines(panels.iter()),
        Body::Grid(grid) => lines(grid.panels.iter()),
        Body::Fits(fits) => lines(fits.iter().map(|fit| &fit.panel)),
        Body::Bars(panels) => {
            let all = panels.iter().flat_map(|panel| {
                let head = (panel.title.as_str(), "", panel.unit.head(&panel.axis_title));
                panel.bars.iter().map(move |one| (head.clone(), one))
            });
            bars(all)
        }
        Body::Blocks(panels) => {
            let all = panels.iter().flat_map(|panel| {
                panel.blocks.iter().flat_map(move |block| {
                    let head = (
                        panel.title.as_str(),
                        block.title.as_str(),
                        panel.axis.unit.head(&panel.axis.title),
                    );
                    block.bars.iter().map(move |one| (head.clone(), one))
                })
            });
            bars(all)
        }
        Body::Tables(tables) => {
            let mut all = Table::new(&["variant", "column", "value", "detail", "trust"]);
            for table in tables {
                let groups = table.groups.iter().flat_map(|(name, n)| vec![name.as_str(); *n]);
                let heads: Vec<String> = (groups.chain(std::iter::repeat("")))
                    .zip(&table.heads)
                    .map(|(group, head)| words(&[group, &head[0], &head[1]]))
                    .collect();
                for row in &table.rows {
                    for (head, cell) in heads.iter().zip(&row.cells) {
                        all.push(table_cell(&row.label, head, cell));
                    }
                }
            }
            all.compact()
        }
        Body::Stacks(stacks) => {
            let mut heads = vec!["panel", "bar"];
            let named: Vec<String> = stacks
                .segments
                .iter()
                .map(|(name, _)| format!(">{}", stacks.unit.head(name)))
                .collect();
            heads.extend(named.iter().map(String::as_str));
            heads.push("at its end");
            let mut all = Table::new(&heads);
            for panel in &stacks.panels {
                for bar in &panel.bars {
                    let mut row = vec![panel.title.clone(), bar.label.clone()];
                    let parts = (0..stacks.segments.len()).map(|at| bar.parts.get(at));
                    row.extend(parts.map(|part| part.map(|value| plain(*value)).unwrap_or_default()));
                    row.push(bar.text.clone());
                    all.push(row);
                }
            }
            all.compact()
        }
        Body::Waterfalls(falls) => {
            let [from, to, low, high] = [">from", ">to", ">low", ">high"].map(|head| falls.unit.head(head));
            let mut all = Table::new(&["panel", "step", &from, &to, &low, &high, "in words"]);
            for panel in &falls.panels {
                for (label, step) in falls.labels.iter().zip(&panel.steps) {
                    let [from, to, low, high, text] = match step {
                        Step::Whole { value, text } => {
                            let [low, high] = ends(*value);
                            ["0".to_owned(), plain(value.value), low, high, text.clone()]
                        }
                        Step::Change { from, to, ends, text } => [
                            plain(*from),
                            plain(*to),
                            plain(ends.0),
                            plain(ends.1),
                            text.clone(),
                        ],
                        Step::Missing => [const { String::new() }; 5],
                    };
                    all.push(vec![
                        panel.title.clone(),
                        label.clone(),
                        from,
                        to,
                        low,
                        high,
                        text,
                    ]);
                }
            }
            all.compact()
        }
        Body::Heats(heats) => {
            let mut all = Table::new(&[
                "panel",
                &heats.y_title,
                &heats.x_title,
                // All heats are of shares.
                &format!(">{}", Unit::Share.head(&heats.scale_title)),
            ]);
            for panel in &heats.panels {
                for (row, cells) in heats.rows.iter().zip(&panel.cells) {
                    for (column, value) in heats.columns.iter().zip(cells) {
                        let value = value.map(plain).unwrap_or_default();
                        all.push(vec![panel.title.clone(), row.clone(), column.clone(), value]);
                    }
                }
            }
            all.compact()
        }
    }
}

fn ends(value: Measured) -> [String; 2] {
    match value.interval {
        Some((low, high)) => [plain(low), plain(high)],
        None => [String::new(), String::new()],
    }
}

fn lines<'a>(panels: impl Iterator<Item = &'a LinePanel>) -> Table {
    let panels: Vec<&LinePanel> = panels.collect();
    // The axes of the figure have a unit at each tick; here the numbers are bare.
    let titles: Vec<[String; 2]> = panels
        .iter()
        .map(|panel| [&panel.x, &panel.y].map(|axis| axis.unit.head(&axis.title)))
        .collect();
    // Where panels have axes of their own, a row says which.
    let is_same = titles.windows(2).all(|two| two[0] == two[1]);
    let [x, y] = match titles.first() {
        Some([x, y]) if is_same => [x.as_str(), y.as_str()],
        _ => ["x", "y"],
    };
    let heads = [
        "panel",
        "axes",
        "series",
        &format!(">{x}"),
        &format!(">{y}"),
        ">low",
        ">high",
        "trust",
    ];
    let mut all = Table::new(&heads);
    for (panel, [own_x, own_y]) in panels.iter().zip(&titles) {
        let axes = if is_same {
            String::new()
        } else {
            format!("{own_y} against {own_x}")
        };
        for series in &panel.series {
            for point in &series.points {
                let [low, high] = ends(point.y);
                all.push(vec![
                    panel.title.clone().unwrap_or_default(),
                    axes.clone(),
                    series.label.clone(),
                    plain(point.x),
                    plain(point.y.value),
                    low,
                    high,
                    point.y.grade.name().to_owned(),
                ]);
            }
        }
    }
    all.compact()
}

/// Panel, block, and the quantity with its unit.
type Head<'a> = (&'a str, &'a str, String);

fn bars<'a>(all: impl Iterator<Item = (Head<'a>, &'a Bar)>) -> Table {
    let mut table = Table::new(&[
        "panel",
        "block",
        "bar",
        "quantity",
        ">value",
        ">low",
        ">high",
        "at its end",
        "trust",
    ]);
    for ((panel, block, quantity), bar) in all {
        let [low, high] = bar.value.map_or([String::new(), String::new()], ends);
        table.push(vec![
            panel.to_owned(),
            block.to_owned(),
            bar.label.clone(),
            quantity,
            bar.value.map(|value| plain(value.value)).unwrap_or_default(),
            low,
            high,
            bar.text.clone(),
            bar.value
                .map(|value| value.grade.name().to_owned())
                .unwrap_or_default(),
        ]);
    }
    table.compact()
}

fn table_cell(label: &str, head: &str, cell: &Cell) -> Vec<String> {
    let trust = if cell.is_weak { "not clean" } else { "" };
    vec![
        label.to_owned(),
        head.to_owned(),
        cell.text.clone(),
        cell.detail.clone(),
        trust.to_owned(),
    ]
}

fn words(parts: &[&str]) -> String {
    let known: Vec<&str> = parts.iter().copied().filter(|part| !part.is_empty()).collect();
    known.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_columns_go_and_long_tables_say_what_is_missing() {
        let mut table = Table::new(&["a", ">b", ">c"]);
        for at in 0..MOST_ROWS + 3 {
            table.push(vec![at.to_string(), String::new(), "1".to_owned()]);
        }
        let table = table.compact();
        assert_eq!(table.heads, ["a", "c"]);
        assert_eq!(table.is_number, [false, true]);
        assert_eq!((table.rows.len(), table.n_more), (MOST_ROWS, 3));
        assert_eq!(table.rows[2], ["2", "1"]);
    }
}
