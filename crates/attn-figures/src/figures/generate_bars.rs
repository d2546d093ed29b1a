//! Time of a whole generation: prefill, then token by token.

use super::FigureSpec;
use super::points::{INTERVAL, is_baseline, latest, quotient, replaced_note, time};
use super::ways::is_end;
use crate::frame::Row;
use crate::sheet::{Bar, BarPanel, Body, Sheet};
use crate::slice::{Slice, TIMED};
use crate::style::series_key;
use crate::units::Unit;

pub(super) const SPEC: FigureSpec = FigureSpec {
    name: "generate-bars",
    summary: "Time of a whole generation, prefill and every token after it",
    needs: "generate",
    uses: |row| row.workload == "generate" && is_end(row),
    dimensions: TIMED,
    sheet,
};

/// Prompt, tokens generated, batch.
type Place = (u64, u64, u64);

fn place(row: &Row) -> Option<Place> {
    Some((
        row.context.or(row.tokens)?,
        row.new_tokens.unwrap_or(0),
        row.batch.unwrap_or(1),
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
    let mut places: Vec<Place> = rows.iter().filter_map(|row| place(row)).collect();
    places.sort_unstable();
    places.dedup();
    let n_places = places.len();
    if n_places == 0 {
        return Err("no generate row has a time and a prompt length".to_owned());
    }
    // The largest ones: that is where generation costs.
    let shown = places.split_off(n_places.saturating_sub(4));
    let mut notes = vec![INTERVAL.to_owned()];
    if shown.len() < n_places {
        notes.push(format!("the {} largest of {n_places} points", shown.len()));
    }
    notes.extend(replaced_note(n_replaced));
    let has_base = rows.iter().any(|row| is_baseline(row));
    Ok(Sheet {
        title: "Time of a whole generation".to_owned(),
        subtitle: format!(
            "Generate, prefill and every token after it{}",
            if has_base {
                "; in brackets: times as fast as MHA"
            } else {
                ""
            }
        ),
        notes,
        reservations: slice
            .narrowed(|row| place(row).is_none_or(|p| shown.contains(&p)))
            .reservations(),
        body: Body::Bars(
            shown
                .iter()
                .map(|place| panel(slice, &rows, &shown, *place))
                .collect(),
        ),
    })
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
        let value = rows.iter().find(own).and_then(|row| time(row));
        let failed = slice
            .failed
            .iter()
            .find(own)
            .map(|row| row.status.replace('_', " "));
        let text = match (value, base) {
            (Some(value), Some(base)) => {
                let ratio = Unit::Ratio.format(quotient(base, value).value, 3, false);
                format!("{}\u{a0}({ratio})", Unit::Seconds.format(value.value, 3, false))
            }
            (Some(value), None) => Unit::Seconds.format(value.value, 3, false),
            (None, _) => failed.unwrap_or_else(|| "not measured".to_owned()),
        };
        Bar {
            label: key.1,
            look,
            value,
            text,
        }
    };
    let (prompt, new_tokens, batch) = wanted;
    let prompt = Unit::Tokens.format(prompt as f64, 15, true);
    BarPanel {
        title: format!("prompt {prompt}, {new_tokens} new tokens, batch {batch}"),
        axis_title: "Time".to_owned(),
        unit: Unit::Seconds,
        divide: None,
        bars: slice.series(&compared).into_iter().map(bar).collect(),
    }
}
