//! The paper's table, measured again: its ratios, ours in the seed's way, and ours.

use super::FigureSpec;
use super::points::{is_baseline, latest, positive, quotient, replaced_note, time};
use super::published::{Entry, entries, task_of};
use super::ways::{Way, habits};
use crate::frame::Row;
use crate::habits::Habits;
use crate::sheet::{Body, Cell, Grade, Measured, Sheet, Table, TableRow};
use crate::slice::{Slice, WAYS};
use crate::units::Unit;
use std::collections::{BTreeMap, BTreeSet};

pub(crate) const SPEC: FigureSpec = FigureSpec {
    name: "paper-table",
    summary: "The MTLA paper's speed-ups and memory reductions beside those measured in the seed's way and fused",
    needs: "beam of a paper-st, paper-xsum, paper-asr or paper-slu sweep",
    uses: |row| row.workload == "beam" && row.is_model() && task_of(row).is_some(),
    dimensions: WAYS,
    sheet,
};

/// Fused columns with which both quantities still fit beside each other.
const MOST_BESIDE: usize = 3;

/// A quantity that the table compares.
struct Quantity {
    title: &'static str,
    unit: Unit,
    published: fn(&Entry<'_>) -> Option<f64>,
    /// In the paper's metric, for seed-like rows.
    paper_metric: fn(&Row) -> Option<Measured>,
    /// In ours, for fused ones.
    ours: fn(&Row) -> Option<Measured>,
}

const QUANTITIES: [Quantity; 2] = [
    Quantity {
        title: "Times as fast as MHA",
        unit: Unit::Seconds,
        published: |entry| entry.published.map(|row| row.time_s),
        paper_metric: |row| exact(row, row.paper_time_s),
        ours: time,
    },
    Quantity {
        title: "Times less memory than MHA",
        unit: Unit::Bytes,
        published: |entry| entry.published.map(|row| row.memory_mib * 1024.0 * 1024.0),
        paper_metric: |row| exact(row, row.paper_memory_bytes),
        ours: |row| exact(row, row.peak_bytes),
    },
];

/// A value without an interval.
fn exact(row: &Row, value: Option<f64>) -> Option<Measured> {
    Some(Measured {
        value: positive(value)?,
        interval: None,
        grade: Grade::of(row),
    })
}

/// A column of measured ratios: the rows of one way.
struct Column<'a> {
    head: [String; 2],
    rows: Vec<&'a Row>,
}

fn sheet(slice: &Slice<'_>) -> Result<Sheet, String> {
    let task = slice.rows.first().and_then(|row| task_of(row));
    let task = task.ok_or("no sweep of the paper's tasks")?;
    let seedlike = seedlike_column(slice);
    let (fused, n_replaced) = fused_columns(slice);
    let measured: Vec<&Row> = (fused.iter().chain([&seedlike]))
        .flat_map(|column| &column.rows)
        .chain(&slice.failed)
        .copied()
        .collect();
    let entries = entries(task.key, slice, &measured)?;
    if entries.is_empty() {
        return Err("neither the paper nor the rows have a variant".to_owned());
    }

    let table = |quantities: &[Quantity]| {
        let row = |entry: &Entry<'_>| {
            let mut cells = vec![quality(entry)];
            let of_quantity = |quantity| cells_of(quantity, entry, &entries, &seedlike, &fused);
            cells.extend(quantities.iter().flat_map(of_quantity));
            TableRow {
                label: entry.label.clone(),
                cells,
            }
        };
        let (groups, heads) = header(quantities, &entries, &seedlike, &fused);
        Table {
            groups,
            heads,
            rows: entries.iter().map(row).collect(),
        }
    };
    // Side by side where there is room.
    let tables = if fused.len() > MOST_BESIDE {
        QUANTITIES.chunks(1).map(table).collect()
    } else {
        vec![table(&QUANTITIES)]
    };
    let mut notes = notes(&entries, &seedlike, &fused, slice);
    notes.extend(stars(&tables));
    notes.extend(replaced_note(n_replaced));
    Ok(Sheet {
        title: format!("{}: the paper's table, measured again", task.title),
        subtitle: format!(
            "{}. Relative to MHA of the same column; under the ratios of MHA its own time and memory, under the \
             others the 95\u{a0}% interval where there is one. Seed-like: all habits, in the paper's metric (first pass, mean \
             of sampled memory). Fused: median of warm passes, peak memory",
            task.title
        ),
        notes,
        reservations: slice.narrowed(is_in_table).reservations(),
        body: Body::Tables(tables),
    })
}

fn is_in_table(row: &Row) -> bool {
    habits(row).is_none_or(|set| set == Habits::ALL)
}

/// The rows with all habits, of the prefix that the seed has: each hypothesis its own.
fn seedlike_column<'a>(slice: &Slice<'a>) -> Column<'a> {
    let of_seed = |row: &&&Row| Way::of(row).is_seedlike() && habits(row) == Some(Habits::ALL);
    let own = slice.rows.iter().filter(of_seed);
    let way = own.clone().map(|row| Way::of(row)).min();
    let rows: Vec<&Row> = own.copied().filter(|row| Some(Way::of(row)) == way).collect();
    let (rows, _) = latest(&rows, |_| (), |row| exact(row, row.paper_time_s));
    Column {
        head: [
            "seed-like".to_owned(),
            way.map_or_else(String::new, |way| way.dtype().to_owned()),
        ],
        rows,
    }
}

/// A column for each way of the fused path, and how many rows were measured again. One without rows where there
/// is no such way.
fn fused_columns<'a>(slice: &Slice<'a>) -> (Vec<Column<'a>>, usize) {
    let fused = slice.narrowed(|row| !Way::of(row).is_seedlike());
    let (rows, n_replaced) = latest(&fused.rows, Way::of, time);
    let mut ways: BTreeMap<Way, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        ways.entry(Way::of(row)).or_default().push(row);
    }
    let column = |(way, rows): (Way, Vec<&'a Row>)| Column {
        head: [
            format!("fused {}", way.dtype()).trim_end().to_owned(),
            way.prefix().name().to_owned(),
        ],
        rows,
    };
    let mut columns: Vec<Column<'_>> = ways.into_iter().map(column).collect();
    if columns.is_empty() {
        columns.push(Column {
            head: ["fused".to_owned(), String::new()],
            rows: Vec::new(),
        });
    }
    (columns, n_replaced)
}

/// Titles over the columns, and what stands over each of them.
fn header(
    quantities: &[Quantity],
    entries: &[Entry<'_>],
    seedlike: &Column<'_>,
    fused: &[Column<'_>],
) -> (Vec<(String, usize)>, Vec<[String; 2]>) {
    let named = |entry: &Entry<'_>| Some(entry.published?.quality.as_ref()?.0.clone());
    let quality = entries.iter().find_map(named);
    let mut groups = vec![("Paper".to_owned(), 1)];
    let mut heads = vec![[quality.unwrap_or_else(|| "quality".to_owned()), String::new()]];
    for quantity in quantities {
        groups.push((quantity.title.to_owned(), 3 + fused.len()));
        heads.push(["paper".to_owned(), String::new()]);
        heads.push(seedlike.head.clone());
        heads.push(["deviation".to_owned(), String::new()]);
        heads.extend(fused.iter().map(|column| column.head.clone()));
    }
    (groups, heads)
}

fn missing() -> Cell {
    Cell {
        text: "-".to_owned(),
        ..Cell::default()
    }
}

fn quality(entry: &Entry<'_>) -> Cell {
    let value = entry.published.and_then(|row| row.quality.as_ref());
    value.map_or_else(missing, |(_, value)| Cell {
        text: format!("{value:.2}"),
        ..Cell::default()
    })
}

/// Paper, seed-like, how far apart those are, and each fused column.
fn cells_of(
    quantity: &Quantity,
    entry: &Entry<'_>,
    entries: &[Entry<'_>],
    seedlike: &Column<'_>,
    fused: &[Column<'_>],
) -> Vec<Cell> {
    let base = entries.iter().find(|other| other.variant == "mha");
    let published = |entry: &Entry<'_>| (quantity.published)(entry).map(certain);
    let paper = ratio(base.and_then(published), published(entry));
    let paper_cell = cell(quantity, paper, entry, published(entry));

    let value = |column: &Column<'_>, of: fn(&Row) -> Option<Measured>| {
        let own = column.rows.iter().find(|row| entry.holds(row));
        let base = column.rows.iter().find(|row| is_baseline(row));
        let own = own.and_then(|row| of(row));
        let ratio = ratio(base.and_then(|row| of(row)), own);
        (ratio, cell(quantity, ratio, entry, own))
    };
    let (seed, seed_cell) = value(seedlike, quantity.paper_metric);
    let off = paper.zip(seed).filter(|_| entry.variant != "mha");
    let off_cell = off.map_or_else(missing, |(paper, seed)| Cell {
        text: percent(deviation(paper.value, seed.value)),
        is_weak: seed.grade != Grade::Clean,
        ..Cell::default()
    });
    let mut cells = vec![paper_cell, seed_cell, off_cell];
    cells.extend(fused.iter().map(|column| value(column, quantity.ours).1));
    cells
}

fn certain(value: f64) -> Measured {
    Measured {
        value,
        interval: None,
        grade: Grade::Clean,
    }
}

fn ratio(base: Option<Measured>, own: Option<Measured>) -> Option<Measured> {
    Some(quotient(base?, own?))
}

/// How far the second is from the first, as a fraction of it.
fn deviation(paper: f64, measured: f64) -> f64 {
    measured / paper - 1.0
}

/// `+12 %`, `−3.4 %`: with a sign, and a digit after the point below ten.
fn percent(fraction: f64) -> String {
    let percent = 100.0 * fraction;
    let digits = usize::from(percent.abs() < 9.95);
    let sign = if percent < 0.0 { "−" } else { "+" };
    format!("{sign}{:.digits$}\u{a0}%", percent.abs())
}

/// A ratio; under it MHA's own value, or the interval.
fn cell(quantity: &Quantity, ratio: Option<Measured>, entry: &Entry<'_>, own: Option<Measured>) -> Cell {
    let Some(ratio) = ratio else { return missing() };
    let interval = |(low, high): (f64, f64)| format!("{low:.2} to {high:.2}");
    let detail = if entry.variant == "mha" {
        own.map(|own| quantity.unit.format(own.value, 3, true))
    } else {
        ratio.interval.map(interval)
    };
    Cell {
        text: format!("{:.2}×", ratio.value),
        detail: detail.unwrap_or_default(),
        is_weak: ratio.grade != Grade::Clean,
        interval: ratio.interval.filter(|_| entry.variant != "mha"),
    }
}

/// Where the numbers come from, and why some are not there.
fn notes(
    entries: &[Entry<'_>],
    seedlike: &Column<'_>,
    fused: &[Column<'_>],
    slice: &Slice<'_>,
) -> Vec<String> {
    let tables: BTreeSet<&str> = entries
        .iter()
        .filter_map(|entry| entry.published)
        .map(|row| row.source.split(", row").next().unwrap_or(&row.source))
        .collect();
    let tables: Vec<&str> = tables.into_iter().collect();
    let mut notes = vec![format!(
        "paper: arXiv 2505.13544, {}, one RTX 6000 Ada; its rows without FlashAttention",
        tables.join(", ")
    )];
    let names = |is_missing: &dyn Fn(&Entry<'_>) -> bool| {
        let missing = entries.iter().filter(|entry| is_missing(entry));
        missing
            .map(|entry| entry.label.clone())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let mut reasons = Vec::new();
    let mut reason = |what: &str, names: String| {
        if !names.is_empty() {
            reasons.push(format!("{what} ({names})"));
        }
    };
    reason("not in the paper", names(&|entry| entry.published.is_none()));
    for column in [seedlike].into_iter().chain(fused) {
        let head = column.head.join(" ");
        let head = head.trim_end();
        if column.rows.is_empty() {
            reason("no rows", head.to_owned());
        } else if !column.rows.iter().any(|row| is_baseline(row)) {
            reason("no MHA to divide by", head.to_owned());
        } else {
            let is_missing = |entry: &Entry<'_>| !column.rows.iter().any(|row| entry.holds(row));
            reason(&format!("no {head} row"), names(&is_missing));
        }
    }
    if !reasons.is_empty() {
        notes.push(format!("-: {}", reasons.join("; ")));
    }
    let statuses: BTreeSet<String> = slice
        .failed
        .iter()
        .filter(|row| is_in_table(row))
        .map(|row| format!("{} {}", row.label, row.status.replace('_', " ")))
        .collect();
    if !statuses.is_empty() {
        let statuses: Vec<String> = statuses.into_iter().collect();
        notes.push(format!("failed: {}", statuses.join(", ")));
    }
    notes
}

fn stars(tables: &[Table]) -> Option<String> {
    let rows = tables.iter().flat_map(|table| &table.rows);
    let is_weak = rows.flat_map(|row| &row.cells).any(|cell| cell.is_weak);
    is_weak.then(|| "* the trust of this row or of MHA's is not clean".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviations_have_a_sign_and_few_digits() {
        let of = |paper: f64, measured: f64| percent(deviation(paper, measured)).replace('\u{a0}', " ");
        assert_eq!(of(4.0, 5.0), "+25 %");
        assert_eq!(of(5.34, 5.0), "−6.4 %");
        assert_eq!(of(2.0, 2.0), "+0.0 %");
        assert_eq!(of(1.0, 1.0996), "+10 %");
    }
}
