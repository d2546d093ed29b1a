//! Size of the KV cache against the context.

use super::FigureSpec;
use super::curves::{self, BATCH, CONTEXT, Curves};
use super::points::{cache, is_decode, larger_than_rivals, values};
use crate::frame::Row;
use crate::sheet::Sheet;
use crate::slice::{SIZED, Slice};
use crate::units::Unit;

pub(super) const SPEC: FigureSpec = FigureSpec {
    name: "cache-vs-context",
    summary: "Size of the KV cache against the context",
    needs: "decode",
    uses: is_decode,
    dimensions: SIZED,
    sheet,
};

const CURVES: Curves = Curves {
    title: "Size of the KV cache",
    subtitle: "KV cache of one layer against the context it holds, in closed form",
    x: CONTEXT,
    x_title: "Context (tokens)",
    y: cache,
    y_title: "KV cache (bytes)",
    y_unit: Unit::Bytes,
    panels: BATCH,
    notes: &["bytes grow in proportion to the batch"],
};

/// One batch says it all: the smallest that gives a curve.
fn sheet(slice: &Slice<'_>) -> Result<Sheet, String> {
    let of_batch = |batch: u64| -> Vec<&Row> {
        slice
            .rows
            .iter()
            .copied()
            .filter(|row| row.batch == Some(batch))
            .collect()
    };
    let has_curve = |batch: &u64| {
        let with_bytes: Vec<&Row> = of_batch(*batch)
            .into_iter()
            .filter(|row| cache(row).is_some())
            .collect();
        values(&with_bytes, |row| row.context).len() > 1
    };
    let batches = values(&slice.rows, |row| row.batch);
    let batch = batches
        .iter()
        .copied()
        .find(has_curve)
        .ok_or("a curve needs kv_bytes at two contexts")?;
    let one = slice.narrowed(|row| row.batch == Some(batch));
    let mut sheet = curves::sheet(&one, &CURVES)?;
    sheet.notes.extend(larger_than_rivals(&one.rows));
    Ok(sheet)
}
