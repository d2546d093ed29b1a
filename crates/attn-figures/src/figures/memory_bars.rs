//! How many times smaller than MHA's each variant's cache is.

use super::FigureSpec;
use super::points::{cache, is_baseline, is_decode, larger_than_rivals, latest, quotient, replaced_note};
use super::ways::is_end;
use crate::frame::Row;
use crate::sheet::{Bar, BarPanel, Body, Sheet};
use crate::slice::{SIZED, Slice, sizes};
use crate::style::series_key;
use crate::units::Unit;

pub(super) const SPEC: FigureSpec = FigureSpec {
    name: "memory-bars",
    summary: "KV cache of MHA divided by that of each variant",
    needs: "decode or beam",
    uses: |row| is_decode(row) || (row.workload == "beam" && is_end(row)),
    dimensions: SIZED,
    sheet,
};

/// A point at which caches are compared: tokens they hold, batch, hypotheses, and those of the tokens that were
/// generated.
type Place = (u64, std::cmp::Reverse<u64>, u64, u64);

fn place(row: &Row) -> Option<Place> {
    let new_tokens = if row.workload == "beam" {
        row.new_tokens?
    } else {
        0
    };
    let tokens = row.context.or(row.tokens)? + new_tokens;
    let beam = row.beam.unwrap_or(1);
    Some((tokens, std::cmp::Reverse(row.batch?), beam, new_tokens))
}

/// At the longest context MHA was measured at, for its smallest batch.
fn sheet(slice: &Slice<'_>) -> Result<Sheet, String> {
    let known: Vec<&Row> = slice
        .rows
        .iter()
        .copied()
        .filter(|row| cache(row).is_some() && place(row).is_some())
        .collect();
    let (rows, n_replaced) = latest(&known, place, cache);
    let of_mha = rows.iter().filter(|row| is_baseline(row));
    let base = of_mha
        .max_by_key(|row| place(row))
        .ok_or("no MHA row with kv_bytes to divide by")?;
    let here: Vec<&Row> = rows
        .iter()
        .copied()
        .filter(|row| place(row) == place(base))
        .collect();
    if here.len() < 2 {
        return Err("another variant at MHA's longest context is needed".to_owned());
    }

    let bar = |(key, look)| {
        let row = here.iter().find(|row| series_key(row) == key)?;
        let value = quotient(cache(base)?, cache(row)?);
        let bytes = Unit::Bytes.format(cache(row)?.value, 3, true);
        let text = format!("{}   {bytes}", Unit::Ratio.format(value.value, 3, false));
        Some(Bar {
            label: key.1,
            look,
            value: Some(value),
            text: text.replace(' ', "\u{a0}"),
        })
    };
    let bars: Vec<Bar> = slice.series(&here).into_iter().filter_map(bar).collect();
    let mut notes = vec!["cache in closed form, the factor does not depend on the batch".to_owned()];
    notes.extend(larger_than_rivals(&here));
    notes.extend(replaced_note(n_replaced));
    let title = match base.context {
        Some(context) if !base.is_model() => {
            let context = Unit::Tokens.format(context as f64, 15, true);
            format!("context {context}, batch {}", base.batch.unwrap_or(1))
        }
        _ => sizes(base),
    };
    let whole = if base.is_model() {
        "of all layers"
    } else {
        "in one layer"
    };
    Ok(Sheet {
        title: "Size of the KV cache relative to MHA".to_owned(),
        subtitle: format!("KV cache of MHA divided by that of the variant, and its bytes {whole}"),
        notes,
        reservations: slice.narrowed(|row| place(row) == place(base)).reservations(),
        body: Body::Bars(vec![BarPanel {
            title,
            axis_title: "Times smaller than MHA's cache".to_owned(),
            unit: Unit::Ratio,
            divide: Some(1.0),
            bars,
        }]),
    })
}
