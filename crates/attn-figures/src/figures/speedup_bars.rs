//! How many times faster than MHA each variant is, at the largest point of each workload.

use super::FigureSpec;
use super::points::{INTERVAL, is_baseline, latest, quotient, replaced_note, time};
use super::ways::is_end;
use crate::frame::Row;
use crate::sheet::{Bar, BarPanel, Body, Measured, Sheet};
use crate::slice::{Slice, TIMED};
use crate::style::series_key;
use crate::units::Unit;

pub(crate) const SPEC: FigureSpec = FigureSpec {
    name: "speedup-bars",
    summary: "Time of MHA divided by the time of each variant, at the same workload",
    needs: "measured",
    uses: |row| workload_rank(row).is_some() && is_end(row),
    dimensions: TIMED,
    sheet,
};

/// The workloads of this figure, in its order.
pub(crate) const WORKLOADS: [(&str, &str); 5] = [
    ("decode", "decode"),
    ("prefill", "prefill"),
    ("train_step", "training"),
    ("generate", "generate"),
    ("beam", "beam"),
];

pub(crate) fn workload_rank(row: &Row) -> Option<usize> {
    WORKLOADS
        .iter()
        .position(|(workload, _)| *workload == row.workload)
}

/// A point at which variants are compared: workload, length, batch, tokens generated, hypotheses.
pub(crate) type Place = (usize, u64, u64, u64, u64);

pub(crate) fn place(row: &Row) -> Option<Place> {
    let length = row.context.or(row.tokens)?;
    Some((
        workload_rank(row)?,
        length,
        row.batch.unwrap_or(1),
        row.new_tokens.unwrap_or(0),
        row.beam.unwrap_or(0),
    ))
}

fn sheet(slice: &Slice<'_>) -> Result<Sheet, String> {
    let timed: Vec<&Row> = slice
        .rows
        .iter()
        .copied()
        .filter(|row| time(row).is_some() && place(row).is_some())
        .collect();
    let (rows, n_replaced) = latest(&timed, place, time);
    let places = largest_places(&rows);
    if places.is_empty() {
        return Err("MHA and another variant at the same workload are needed".to_owned());
    }
    let mut notes = vec![format!("{INTERVAL}, ends of the intervals divided")];
    notes.push("the largest points at which MHA ran".to_owned());
    notes.extend(replaced_note(n_replaced));
    Ok(Sheet {
        title: "Speed relative to MHA".to_owned(),
        subtitle: "Time of MHA divided by the time of the variant, same workload: above 1 is faster than MHA"
            .to_owned(),
        notes,
        reservations: slice
            .narrowed(|row| place(row).is_none_or(|p| places.contains(&p)))
            .reservations(),
        body: Body::Bars(
            places
                .iter()
                .map(|place| panel(slice, &rows, &places, *place))
                .collect(),
        ),
    })
}

/// The largest point of each workload at which MHA has a rival; decode at its smallest batch as well.
fn largest_places(rows: &[&Row]) -> Vec<Place> {
    let at = |wanted: Place| rows.iter().filter(move |row| place(row) == Some(wanted));
    let compares =
        |wanted: Place| at(wanted).any(|row| is_baseline(row)) && at(wanted).any(|row| !is_baseline(row));
    let mut all: Vec<Place> = rows
        .iter()
        .filter_map(|row| place(row))
        .filter(|p| compares(*p))
        .collect();
    all.sort_unstable();
    all.dedup();
    let mut places = Vec::new();
    for workload in 0..WORKLOADS.len() {
        let own = || all.iter().copied().filter(move |place| place.0 == workload);
        let Some(largest) = own().max_by_key(|place| (place.1, place.2, place.3, place.4)) else {
            continue;
        };
        if workload == 0 {
            let small = own()
                .filter(|place| place.1 == largest.1)
                .min_by_key(|place| place.2);
            places.extend(small.filter(|small| *small != largest));
        }
        places.push(largest);
    }
    places.truncate(4);
    places
}

fn panel(slice: &Slice<'_>, rows: &[&Row], shown: &[Place], wanted: Place) -> BarPanel {
    // The same bars in every panel, also where a case failed.
    let is_shown = |row: &&Row| place(row).is_some_and(|place| shown.contains(&place));
    let compared: Vec<&Row> = rows
        .iter()
        .chain(&slice.failed)
        .copied()
        .filter(is_shown)
        .collect();
    let base = rows
        .iter()
        .find(|row| is_baseline(row) && place(row) == Some(wanted));
    let base = base.and_then(|row| time(row));
    let bar = |(key, look)| {
        let own = |row: &&&Row| series_key(row) == key && place(row) == Some(wanted);
        let value = rows.iter().find(own).and_then(|row| ratio(row, base));
        let failed = slice
            .failed
            .iter()
            .find(own)
            .map(|row| row.status.replace('_', " "));
        let text = match value {
            Some(ratio) => Unit::Ratio.format(ratio.value, 3, false),
            None => failed.unwrap_or_else(|| "not measured".to_owned()),
        };
        Bar {
            label: key.1,
            look,
            value,
            text,
        }
    };
    BarPanel {
        title: place_title(wanted),
        axis_title: "Times as fast as MHA".to_owned(),
        unit: Unit::Ratio,
        divide: Some(1.0),
        bars: slice.series(&compared).into_iter().map(bar).collect(),
    }
}

/// `decode, context 8k, batch 4`.
pub(crate) fn place_title((workload, length, batch, new_tokens, beam): Place) -> String {
    let tokens = Unit::Tokens.format(length as f64, 15, true);
    let name = WORKLOADS[workload].1;
    match WORKLOADS[workload].0 {
        "decode" => format!("{name}, context {tokens}, batch {batch}"),
        "beam" => format!("{name} of {beam}, {tokens} + {new_tokens} tokens, batch {batch}"),
        "generate" if new_tokens > 0 => format!("{name}, {tokens} + {new_tokens} tokens, batch {batch}"),
        _ => format!("{name}, {tokens} tokens, batch {batch}"),
    }
}

/// MHA's own bar is 1 by definition and has no interval.
fn ratio(row: &Row, base: Option<Measured>) -> Option<Measured> {
    let ratio = quotient(base?, time(row)?);
    Some(if is_baseline(row) {
        Measured {
            interval: None,
            ..ratio
        }
    } else {
        ratio
    })
}
