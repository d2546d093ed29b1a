//! What each setting of a variant is worth: its quality against that of the usual one.

use super::FigureSpec;
use super::quality::{Tasks, Trained, quality};
use crate::axis::Axis;
use crate::frame::Row;
use crate::sheet::{Bar, Block, BlockPanel, Body, Sheet};
use crate::slice::{Slice, TRAINED};
use crate::style::series_key;
use std::collections::BTreeMap;

pub(super) const SPEC: FigureSpec = FigureSpec {
    name: "ablation-bars",
    summary: "Quality of trained models with one setting changed, against the usual one",
    needs: "quality",
    uses: Row::is_quality,
    dimensions: TRAINED,
    sheet,
};

/// A setting that may differ within a family of rows.
struct Setting {
    /// Before its value in a label.
    name: &'static str,
    /// The usual value, the base where a row has it; without one the most common value is.
    usual: Option<&'static str>,
    value: fn(&Row) -> String,
    /// The order of its values where it is not that of the alphabet.
    order: &'static [&'static str],
}

fn or(value: &Option<String>, usual: &str) -> String {
    value.clone().unwrap_or_else(|| usual.to_owned())
}

const SETTINGS: [Setting; 5] = [
    Setting {
        name: "merge ",
        usual: Some("hyper"),
        value: |row| or(&row.merge, "hyper"),
        order: &["hyper", "constant", "mean", "sum", "last"],
    },
    Setting {
        name: "rope key ",
        usual: Some("newest"),
        value: |row| or(&row.rope_key, "newest"),
        order: &["newest", "first", "mean"],
    },
    Setting {
        name: "training mask ",
        usual: Some("strided"),
        value: |row| or(&row.train_mask, "strided"),
        order: &["strided", "causal"],
    },
    Setting {
        name: "rank ",
        usual: None,
        value: |row| row.kv_rank.map(|n| n.to_string()).unwrap_or_default(),
        order: &[],
    },
    Setting {
        name: "encoder ÷",
        usual: Some("1"),
        value: |row| row.downsample.unwrap_or(1).max(1).to_string(),
        order: &[],
    },
];

/// One value a setting.
type Values = [String; SETTINGS.len()];

fn values(row: &Row) -> Values {
    std::array::from_fn(|at| (SETTINGS[at].value)(row))
}

/// Rows that differ in their settings alone.
type Family = (String, Option<u64>, Option<u64>, Option<u64>);

fn family(row: &Row) -> Family {
    (row.variant.clone(), row.stride, row.n_kv_heads, row.rope_dim)
}

fn sheet(slice: &Slice<'_>) -> Result<Sheet, String> {
    let mut tasks = Tasks::of(slice)?;
    tasks.retain(|trained| !families(slice, trained).is_empty());
    if tasks.all.is_empty() {
        return Err(
            "no variant was trained with two settings of merge, rope_key, train_mask, kv_rank or downsample"
                .to_owned(),
        );
    }
    let panels = tasks.all.iter().map(|trained| panel(slice, trained)).collect();
    let mut notes = vec!["mean over seeds, whiskers: 95\u{a0}% Student interval".to_owned()];
    let shares = tasks
        .all
        .iter()
        .any(|trained| trained.measure().unit == crate::units::Unit::Share);
    if shares {
        notes.push("differences of shares in percentage points".to_owned());
    }
    notes.extend(tasks.notes());
    Ok(Sheet {
        title: "What each setting is worth".to_owned(),
        subtitle: format!(
            "Quality on the test; bars begin at the base of their block and end at the setting that differs from it; in \
             brackets: the difference{}",
            tasks.updates()
        ),
        notes,
        reservations: tasks.reservations(slice),
        body: Body::Blocks(panels),
    })
}

/// Rows that failed and are of the family and of settings that no row of it has.
fn failed<'a>(slice: &Slice<'a>, trained: &Trained<'_>, rows: &[&Row]) -> Vec<&'a Row> {
    let is_one = |row: &&Row| {
        let is_new = rows.iter().all(|other| values(other) != values(row));
        let is_related = rows.iter().all(|other| family(other) == family(row));
        is_new && is_related && trained.task.may_be_of(row)
    };
    slice.failed.iter().copied().filter(is_one).collect()
}

/// The families of a task that were to be trained with two settings, each with its base.
fn families<'a>(slice: &Slice<'_>, trained: &Trained<'a>) -> Vec<(&'a Row, Vec<&'a Row>)> {
    let mut all: BTreeMap<Family, Vec<&Row>> = BTreeMap::new();
    let mut order: Vec<Family> = Vec::new();
    for row in &trained.rows {
        let family = family(row);
        if !order.contains(&family) {
            order.push(family.clone());
        }
        let rows = all.entry(family).or_default();
        if rows.iter().all(|other| values(other) != values(row)) {
            rows.push(row);
        }
    }
    let of = |family: &Family| {
        let rows = all.remove(family)?;
        if rows.len() < 2 && failed(slice, trained, &rows).is_empty() {
            return None;
        }
        let base = base(&rows)?;
        Some((base, rows))
    };
    order.iter().filter_map(of).collect()
}

/// The row with most usual values; of several, the first.
fn base<'a>(rows: &[&'a Row]) -> Option<&'a Row> {
    let usual: Values = std::array::from_fn(|at| usual_value(&SETTINGS[at], rows));
    rows.iter()
        .copied()
        .min_by_key(|row| n_differences(&values(row), &usual))
}

fn usual_value(setting: &Setting, rows: &[&Row]) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for row in rows {
        *counts.entry((setting.value)(row)).or_default() += 1;
    }
    if let Some(usual) = setting.usual.filter(|usual| counts.contains_key(*usual)) {
        return usual.to_owned();
    }
    let size = |value: &str| value.parse::<u64>().unwrap_or(0);
    let most = counts.into_iter().max_by_key(|(value, n)| (*n, size(value)));
    most.map(|(value, _)| value).unwrap_or_default()
}

fn n_differences(a: &Values, b: &Values) -> usize {
    a.iter().zip(b).filter(|(a, b)| a != b).count()
}

fn panel(slice: &Slice<'_>, trained: &Trained<'_>) -> BlockPanel {
    let families = families(slice, trained);
    let in_families = |row: &Row| {
        families
            .iter()
            .any(|(_, rows)| rows.iter().any(|other| std::ptr::eq(*other, row)))
    };
    let axis = trained.only(in_families).axis(&[]);
    BlockPanel {
        title: trained.title.clone(),
        blocks: families
            .iter()
            .filter_map(|(base, rows)| block(slice, trained, &axis, base, rows))
            .collect(),
        axis,
    }
}

/// The base and under it what differs from it: first in one setting, in their order, then in several.
fn block(slice: &Slice<'_>, trained: &Trained<'_>, axis: &Axis, base: &Row, rows: &[&Row]) -> Option<Block> {
    let usual = values(base);
    let name = series_key(base).1;
    let look = slice.frame.palette().look(&series_key(base));
    let start = quality(base)?.value;
    let measure = trained.measure();
    let [low, high] = axis.reach();
    let range = high - low;

    let failed = failed(slice, trained, rows);
    let mut others: Vec<&Row> = rows
        .iter()
        .copied()
        .chain(failed)
        .filter(|row| values(row) != usual)
        .collect();
    others.sort_by_cached_key(|row| place(&values(row), &usual));
    others.dedup_by_key(|row| values(row));
    let mut bars = vec![Bar {
        label: "base".to_owned(),
        look,
        value: trained.drawn(base, axis),
        text: measure.value(start, range),
    }];
    bars.extend(others.iter().map(|row| {
        let value = quality(row).filter(|_| row.is_ok());
        let text = value.map(|measured| {
            let difference = measure.difference(measured.value - start, range);
            format!("{} ({difference})", measure.value(measured.value, range))
        });
        Bar {
            label: label(&values(row), &usual),
            look,
            value: trained.drawn(row, axis).filter(|_| row.is_ok()),
            text: text.unwrap_or_else(|| row.status.replace('_', " ")),
        }
    }));
    Some(Block {
        title: name,
        detail: described(base, &others),
        base: start,
        bars,
    })
}

/// Where a row stands in its block.
fn place(own: &Values, usual: &Values) -> (usize, Vec<(usize, usize, u64, String)>) {
    let differing = (0..SETTINGS.len()).filter(|at| own[*at] != usual[*at]);
    let each = differing.map(|at| {
        let known = SETTINGS[at].order.iter().position(|value| *value == own[at]);
        let number = own[at].parse::<u64>().unwrap_or(0);
        // Ranks from the largest, like everything that makes a cache smaller.
        let number = if SETTINGS[at].name == "rank " {
            u64::MAX - number
        } else {
            number
        };
        (at, known.unwrap_or(usize::MAX), number, own[at].clone())
    });
    (n_differences(own, usual), each.collect())
}

/// `merge mean, rank 64`.
fn label(own: &Values, usual: &Values) -> String {
    let differing = (0..SETTINGS.len()).filter(|at| own[*at] != usual[*at]);
    let parts = differing.map(|at| format!("{}{}", SETTINGS[at].name, own[at]));
    parts.collect::<Vec<_>>().join(", ")
}

/// What the base is of all that differs somewhere.
fn described(base: &Row, others: &[&Row]) -> String {
    let usual = values(base);
    let differs = |at: &usize| others.iter().any(|row| values(row)[*at] != usual[*at]);
    let parts = (0..SETTINGS.len())
        .filter(differs)
        .map(|at| match SETTINGS[at].name {
            "encoder ÷" if usual[at] == "1" => "every state of the encoder".to_owned(),
            name => format!("{name}{}", usual[at]),
        });
    format!("base: {}", parts.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(merge: &str, rank: u64, downsample: u64) -> Row {
        Row {
            merge: Some(merge.into()),
            kv_rank: Some(rank),
            downsample: Some(downsample),
            ..Row::default()
        }
    }

    #[test]
    fn the_base_is_usual_or_else_common() {
        let rows = [
            row("mean", 64, 1),
            row("hyper", 32, 1),
            row("hyper", 64, 2),
            row("hyper", 64, 1),
        ];
        let refs: Vec<&Row> = rows.iter().collect();
        assert_eq!(base(&refs), Some(&rows[3]));
        // Without the usual one: the row nearest to it.
        assert_eq!(base(&refs[..2]), Some(&rows[0]));
        assert_eq!(
            described(&rows[3], &refs[..3]),
            "base: merge hyper, rank 64, every state of the encoder"
        );
    }

    #[test]
    fn settings_are_named_and_ordered_by_what_differs() {
        let usual = values(&row("hyper", 64, 1));
        let mut all = [
            row("mean", 32, 1),
            row("hyper", 64, 2),
            row("hyper", 16, 1),
            row("hyper", 32, 1),
            row("sum", 64, 1),
            row("constant", 64, 1),
        ]
        .map(|row| values(&row));
        all.sort_by_key(|own| place(own, &usual));
        let labels: Vec<String> = all.iter().map(|own| label(own, &usual)).collect();
        assert_eq!(
            labels,
            [
                "merge constant",
                "merge sum",
                "rank 32",
                "rank 16",
                "encoder ÷2",
                "merge mean, rank 32"
            ]
        );
    }
}
